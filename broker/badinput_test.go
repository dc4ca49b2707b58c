package broker_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/edged-io/edged/broker"
	"github.com/edged-io/edged/store"
)

// What is too large, or malformed, is refused by whoever sees it first, and the
// box goes on.
func TestBadInput_messages(t *testing.T) {
	b := startBox(t, broker.Options{Listen: anyPort}, telemetry)
	refused := func(what string, m broker.Message, want error) {
		t.Helper()
		done := make(chan error, 1)
		b.Publish(m, func(_ broker.Ack, err error) { done <- err })
		if err := <-done; err == nil || want != nil && !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", what, err, want)
		}
	}
	huge := make([]byte, 64<<20)
	refused("64 MiB", broker.Message{Subject: "sensors.a", Data: huge}, store.ErrTooLarge)
	refused("a header bomb", broker.Message{Subject: "sensors.a", Header: []byte("NATS/1.0\r\n" + strings.Repeat("a: b\r\n", 1<<17) + "\r\n")}, nil)
	refused("half a header", broker.Message{Subject: "sensors.a", Header: []byte("NATS/1.0\r\na")}, nil)
	for _, subject := range []string{"", "sensors.", ".sensors", "sensors..a", "sensors.*", "sensors.>", "sensors.a b", "sensors.a\r\nPUB x 0", "sensors.\x00", strings.Repeat("s", 1<<16)} {
		refused("subject", broker.Message{Subject: subject}, nil)
	}

	nc := b.client(t)
	if err := nc.Publish("sensors.a", huge); !errors.Is(err, nats.ErrMaxPayload) {
		t.Errorf("64 MiB of a client: got %v", err)
	}
	bomb := nats.NewMsg("sensors.a")
	for i := range 5000 {
		bomb.Header.Set(fmt.Sprintf("H-%d", i), "0123456789")
	}
	if answer, err := nc.RequestMsg(bomb, patience); err != nil || !bytes.Contains(answer.Data, []byte(`"err_code":10003`)) {
		t.Errorf("a header bomb of a client: got %s, %v", answer.Data, err)
	}
	for _, header := range []string{"NATS/1.0\r\nab", "NATS/1.0\r\nab\r\n\r\n", "NATS/1.0\r\na: b\x01\r\n\r\n"} {
		if answer := requestRaw(t, b.Addr(), "sensors.a", header); !strings.Contains(answer, `"err_code":10003`) {
			t.Errorf("header %q of a client: got %s", header, answer)
		}
	}
	if got := stored(t, b.db, "telemetry"); len(got) != 0 {
		t.Errorf("%d messages were stored", len(got))
	}
	if _, err := nc.Request("sensors.a", nil, patience); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// requestRaw sends a request with a header that no client library would send, and
// returns the answer.
func requestRaw(t *testing.T, addr, subject, header string) string {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	must(t, err)
	defer conn.Close()
	must(t, conn.SetDeadline(time.Now().Add(patience)))
	_, err = fmt.Fprintf(conn, "CONNECT {\"verbose\":false,\"headers\":true}\r\nSUB answer 1\r\nHPUB %s answer %d %d\r\n%s\r\n", subject, len(header), len(header), header)
	must(t, err)
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		if strings.HasPrefix(lines.Text(), "MSG ") && lines.Scan() {
			return lines.Text()
		}
	}
	return ""
}

// A filter may match nothing, and may change under way.
func TestBadInput_filters(t *testing.T) {
	var j journal
	b := newBox(t, broker.Options{})
	filter := func(filter string) {
		t.Helper()
		b.configure(t, []broker.Stream{telemetry}, broker.Subscription{
			Name: "s", Stream: "telemetry", Filter: filter,
			Deliver: func(_ context.Context, m broker.Message, _ int) error { j.add("%d", m.Seq); return nil },
		})
	}
	filter("nothing.of.the.kind")
	b.run(t)
	b.put(t, "sensors.a", "sensors.b")
	eventually(t, "the position moves on", func() bool { return b.floor(t, "s") == 2 })
	filter("sensors.a")
	b.put(t, "sensors.a")
	b.put(t, "sensors.b")
	eventually(t, "the new filter counts", func() bool { return b.floor(t, "s") == 4 })
	if got := j.all(); !slices.Equal(got, []string{"3"}) {
		t.Errorf("got %v, want the message behind the position only", got)
	}
}

// A stream whose limits shrink below what it holds keeps to them from the next
// message on, counted; one that is left out, or overlaps another, loses nothing.
func TestBadInput_streams(t *testing.T) {
	b := startBox(t, broker.Options{Listen: anyPort}, telemetry)
	for range 5 {
		b.put(t, "sensors.a")
	}
	small := telemetry
	small.MaxMsgs, small.OnFull = 2, store.DropOldest
	b.configure(t, nil)
	if n := len(stored(t, b.db, "telemetry")); n != 5 {
		t.Errorf("left out: holds %d, want 5", n)
	}
	overlap := broker.Stream{Name: "other", Subjects: []string{"*.a"}}
	err := b.Configure(t.Context(), []broker.Stream{small, overlap, telemetry}, nil)
	for _, want := range []string{`stream other: subject "*.a" overlaps "sensors.>" of stream telemetry`, "stream telemetry: declared twice"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want it to tell %q", err, want)
		}
	}
	if n := len(stored(t, b.db, "telemetry")); n != 5 {
		t.Errorf("after a faulty configuration: holds %d, want 5", n)
	}
	b.configure(t, []broker.Stream{small})
	b.put(t, "sensors.a")
	info, err := b.db.Stream("telemetry")
	if err != nil || info.First != 5 || info.Last != 6 || info.Msgs != 2 {
		t.Errorf("shrunk: got %+v, %v, want 5 to 6", info, err)
	}
}

// An ephemeral subscription that is left out keeps nothing for nobody.
func TestSubscription_Ephemeral(t *testing.T) {
	b := newBox(t, broker.Options{})
	sub := broker.Subscription{Name: "s", Stream: "telemetry", Pull: true, Ephemeral: true, Start: store.Start{At: store.StartNew}}
	b.configure(t, []broker.Stream{telemetry})
	b.run(t)
	b.put(t, "sensors.a")
	b.configure(t, []broker.Stream{telemetry}, sub)
	b.put(t, "sensors.b")
	if got := b.receive(t, 9, nil); !slices.Equal(got, []string{"2.1"}) {
		t.Errorf("got %v, want what is new", got)
	}
	b.configure(t, []broker.Stream{telemetry})
	if _, err := b.db.Position("s"); !errors.Is(err, store.ErrNoSubscription) {
		t.Errorf("got %v, want ErrNoSubscription", err)
	}
	sub.Start = store.Start{At: store.StartSeq, Seq: 2}
	b.configure(t, []broker.Stream{telemetry}, sub)
	if got := b.receive(t, 9, nil); !slices.Equal(got, []string{"2.1"}) {
		t.Errorf("got %v, want from 2 on", got)
	}
}

// All who acknowledge one message as a request hear that it is done, and it is
// done once.
func TestBadInput_ackOfMany(t *testing.T) {
	b := newBox(t, broker.Options{Listen: anyPort})
	b.configure(t, []broker.Stream{telemetry}, broker.Subscription{Name: "s", Stream: "telemetry", PushTo: "jobs"})
	b.run(t)
	nc := b.client(t)
	listeners := []*puller{newPuller(t, nc), newPuller(t, nc), newPuller(t, nc)}
	for _, p := range listeners {
		var err error
		p.sub, err = nc.SubscribeSync("jobs")
		must(t, err)
	}
	must(t, nc.Flush())
	b.put(t, "sensors.a")
	var answers []*puller
	for _, p := range listeners { // none waits for its answer before the next one acknowledges
		answer := newPuller(t, nc)
		must(t, nc.PublishRequest(p.want("sensors.a", "0", 1).Reply, answer.sub.Subject, nil))
		answers = append(answers, answer)
	}
	for _, answer := range answers {
		if got := string(answer.next().Data); got != `{"stream":"telemetry","seq":1}` {
			t.Errorf("got %s", got)
		}
	}
	if got := b.floor(t, "s"); got != 1 {
		t.Errorf("position: got %d, want 1", got)
	}
}
