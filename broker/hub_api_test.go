package broker

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/edged-io/edged/internal/event"
	"github.com/edged-io/edged/store"
)

// FuzzHubAnswers gives the hub's answers any bytes: none may end the box, and what
// is taken from them must make sense.
func FuzzHubAnswers(f *testing.F) {
	f.Add([]byte(`{"config":{"max_msg_size":-1,"allow_atomic":true},"created":"2026-01-02T03:04:05Z","state":{"first_seq":1,"last_seq":2}}`), "7", "")
	f.Add([]byte(`{"error":{"code":404,"err_code":10059,"description":"stream not found"}}`), "", "404")
	f.Add([]byte(`{"message":{"seq":3,"hdrs":"TkFUUy8xLjANCg0K","data":"AA=="}}`), "18446744073709551616", "")
	f.Add([]byte(`{"stream":"EDGE_UP","seq":8,"batch":"b","count":5}`), "-1", "503")
	f.Add([]byte(`{"message":{"hdrs":"AAAA"}}`), "1", "200")
	f.Fuzz(func(t *testing.T, data []byte, seq, status string) {
		if s, err := parseStreamInfo(data); err == nil && (s.created.IsZero() || s.maxMsg < 0) {
			t.Errorf("stream: got %+v and no error", s)
		}
		if last, ok, err := parseStored(data); !ok && err == nil && last.hubSeq != 0 {
			t.Errorf("stored message: got %+v, not there, and no error", last)
		}
		m := &nats.Msg{Data: data, Header: nats.Header{"Nats-Sequence": {seq}, headerSeq: {seq}, headerEpoch: {status}}}
		if status != "" {
			m.Header.Set("Status", status)
		}
		if last, ok, err := parseDirect(m); ok && (err != nil || status != "") {
			t.Errorf("direct get with status %q: got %+v, %v", status, last, err)
		}
		if ack, begun, err := parsePubAck(m); begun && (err != nil || ack.Count != 0) {
			t.Errorf("ack: got %+v, begun, %v", ack, err)
		}
	})
}

// FuzzUplink_Headers lets any header block go up: what the hub obeys is ours alone,
// and the block that goes on the wire is a legal one.
func FuzzUplink_Headers(f *testing.F) {
	f.Add([]byte("NATS/1.0\r\nNats-Msg-Id: 1\r\nnats-rollup: all\r\nA: b\r\n\r\n"))
	f.Add([]byte("NATS/1.0\r\nEdged-Epoch: forged\r\nedged-seq: 9\r\n\r\n"))
	f.Add([]byte("NATS/1.0 503\r\n\r\n"))
	f.Add([]byte("NATS/1.0\r\nA B: c\r\n: d\r\nE\r\nF:\r\n\r\n"))
	f.Add([]byte("\x00\r\n"))
	l := &uplinkLane{epoch: "E", prefix: "edge.up.a.s.", filter: "edge.up.a.s.>", maxMsg: 1 << 20}
	f.Fuzz(func(t *testing.T, block []byte) {
		out, refused := l.lift(store.Message{Seq: 7, Subject: "x", Header: block, Data: []byte("body"), Time: time.Unix(1, 2)})
		if refused != "" {
			return
		}
		for name := range out.msg.Header {
			if strings.HasPrefix(strings.ToLower(name), "nats-") {
				t.Errorf("header %q would be obeyed", name)
			}
		}
		sealBatch([]outMsg{out}, "id", l.filter, 3, "reply")
		wire := headerBlock(out.msg.Header)
		if err := event.Header(wire).Check(); err != nil {
			t.Errorf("from %q: %v", block, err)
		}
		h, err := nats.DecodeHeadersMsg(wire)
		if err != nil || h.Get(headerEpoch) != "E" || h.Get(headerSeq) != "7" || len(h[headerSeq]) != 1 {
			t.Errorf("from %q: got %v, %v", block, h, err)
		}
		if len(wire) > out.size-len(out.msg.Data) {
			t.Errorf("from %q: %d bytes of headers, reckoned with %d", block, len(wire), out.size-len(out.msg.Data))
		}
	})
}

func TestUplink_Headers(t *testing.T) {
	l := &uplinkLane{epoch: "E", prefix: "edge.up.a.s.", filter: "edge.up.a.s.>", maxMsg: 1 << 20}
	block := "NATS/1.0\r\nNats-Msg-Id: 1\r\nTraceparent: 00\r\nnats-ttl: 5s\r\nTwice: a\r\nTwice: b\r\nEdged-Seq: 99\r\n\r\n"
	out, refused := l.lift(store.Message{Seq: 7, Subject: "x.y", Header: []byte(block), Data: []byte("body"), Time: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)})
	want := "NATS/1.0\r\nEdged-Epoch: E\r\nEdged-Nats-Msg-Id: 1\r\nEdged-Seq: 7\r\nEdged-Time: 2026-01-02T03:04:05.000000006Z\r\n" +
		"Edged-nats-ttl: 5s\r\nTraceparent: 00\r\nTwice: a\r\nTwice: b\r\n\r\n"
	if got := string(headerBlock(out.msg.Header)); got != want || refused != "" {
		t.Errorf("got %q, refused %q\nwant %q", got, refused, want)
	}
	if out.msg.Subject != "edge.up.a.s.x.y" || string(out.msg.Data) != "body" {
		t.Errorf("got subject %q, body %q", out.msg.Subject, out.msg.Data)
	}
}

func TestPace_Next_bounds(t *testing.T) {
	p := pace{least: time.Second, most: 10 * time.Second}
	for range 3 {
		for i, most := range []time.Duration{1, 2, 4, 8, 10, 10, 10} {
			if d := p.next(); d < most*time.Second/2 || d > most*time.Second {
				t.Errorf("pause %d: got %s, want %ds to %ds", i+1, d, most/2, most)
			}
		}
		p.reset()
	}
	p = pace{least: time.Millisecond, most: time.Hour}
	for range 1000 {
		if d := p.next(); d <= 0 || d > time.Hour {
			t.Fatalf("got %s", d)
		}
	}
}

// lines is a log that keeps its messages.
type lines struct{ bytes.Buffer }

func (l *lines) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == "msg" || a.Key == "err" {
			return a
		}
		return slog.Attr{}
	}}))
}

func TestCondition_Log_onceAndAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out lines
		c := condition{log: out.logger(), now: time.Now}
		c.begin("waits", errors.New("short"))
		c.end("goes on")
		for range 100 {
			c.begin("waits", errors.New("long"))
			<-time.After(time.Second)
		}
		c.begin("waits", errors.New("another"))
		c.end("goes on")
		c.end("goes on")
		for i := range 3 * maxSaid {
			c.begin("waits", fmt.Errorf("kind %d", i))
			<-time.After(time.Minute)
		}
		got := strings.Split(strings.TrimSpace(out.String()), "\n")
		want := []string{"msg=waits err=long", "msg=waits err=another", `msg="goes on"`}
		if len(got) != len(want)+maxSaid || !slices.Equal(got[:3], want) {
			t.Errorf("got %q, want %q and %d kinds", got, want, maxSaid)
		}
	})
}
