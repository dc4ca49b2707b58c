package broker

import (
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/edged-io/edged/internal/event"
	"github.com/edged-io/edged/internal/topic"
)

func TestParseAnswer(t *testing.T) {
	const subject = "$JS.ACK.telemetry.a%2Fb.2.17.40.1700000000000000000.3"
	for _, c := range []struct {
		data string
		want answer
	}{
		{"", answer{kind: answerAck}},
		{"+ACK", answer{kind: answerAck}},
		{"+WPI", answer{kind: answerProgress}},
		{"+NXT 5", answer{kind: answerNext, next: []byte("5")}},
		{"+TERM no such pump", answer{kind: answerTerm, reason: "no such pump"}},
		{"-NAK", answer{kind: answerNak, delay: -1}},
		{`-NAK {"delay": 1500000000}`, answer{kind: answerNak, delay: 1500 * time.Millisecond}},
		{`-NAK {}`, answer{kind: answerNak, delay: -1}},
		{`-NAK {"delay": -5}`, answer{kind: answerNak}},
		{`-NAK {"delay": 9223372036854775807}`, answer{kind: answerNak, delay: maxDelay}},
	} {
		c.want.stream, c.want.subscription, c.want.seq, c.want.consumerSeq = "telemetry", "a/b", 17, 40
		got, err := parseAnswer(subject, []byte(c.data))
		if err != nil || fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("%q: got %+v, %v; want %+v", c.data, got, err, c.want)
		}
	}
	for _, c := range [][2]string{
		{subject, "+ACKED"}, {subject, "-NAK 5"}, {subject, "hello"},
		{subject + ".9", ""}, {"$JS.ACK.telemetry", ""}, {"$JS.ACK.t.s.1.x.1.1.1", ""}, {"$JS.ACK.t.s%.1.1.1.1.1", ""}, {"other", ""},
		{"$JS.ACK.t..1.1.1.1.1", ""}, {"$JS.ACK.t.s.1.-1.1.1.1", ""},
	} {
		if got, err := parseAnswer(c[0], []byte(c[1])); err == nil {
			t.Errorf("%q %q: got %+v, want an error", c[0], c[1], got)
		}
	}
}

func TestParsePullRequest(t *testing.T) {
	for in, want := range map[string]pullRequest{
		"":   {Batch: 1},
		"7":  {Batch: 7},
		"{}": {Batch: 1},
		`{"batch":3,"expires":1000000000,"no_wait":true,"max_bytes":512,"idle_heartbeat":5}`: {3, time.Second, true, 512},
		`{"expires":9223372036854775807}`: {Batch: 1, Expires: maxDelay},
	} {
		if got, err := parsePullRequest([]byte(in)); err != nil || got != want {
			t.Errorf("%q: got %+v, %v; want %+v", in, got, err, want)
		}
	}
	for _, in := range []string{"x", "{", `{"batch":-1}`, `{"expires":"1s"}`, `{"max_bytes":-1}`, "-4", "99999999999999999999", "{" + strings.Repeat(" ", maxRequest)} {
		if got, err := parsePullRequest([]byte(in)); err == nil {
			t.Errorf("%.40q: got %+v, want an error", in, got)
		}
	}
}

func FuzzParseAnswer(f *testing.F) {
	f.Add("$JS.ACK.telemetry.s.1.17.40.1700000000000000000.3", []byte(`-NAK {"delay":5}`))
	f.Add("$JS.ACK.t.%41.1.1.1.1.1", []byte("+TERM \xff"))
	f.Add("$JS.ACK.......", []byte("+NXT {"))
	f.Fuzz(func(t *testing.T, subject string, data []byte) {
		a, err := parseAnswer(subject, data)
		if err == nil && (a.kind == 0 || a.delay > maxDelay || len(a.reason) > maxReason || a.subscription == "") {
			t.Errorf("got %+v", a)
		}
		if r, err := parsePullRequest(data); err == nil && (r.Batch < 1 || r.Expires < 0 || r.Expires > maxDelay || r.MaxBytes < 0) {
			t.Errorf("got %+v", r)
		}
	})
}

// FuzzSubjectToken: any name becomes one token, which is read back.
func FuzzSubjectToken(f *testing.F) {
	f.Add("greenhouse/pump.local 1*>%")
	f.Add("\x00\r\n")
	f.Add("é")
	f.Fuzz(func(t *testing.T, name string) {
		token := subjectToken(name)
		if name == "" {
			return
		}
		if !topic.ValidSubject(token) || strings.ContainsAny(token, ".*>") {
			t.Errorf("%q is not a token", token)
		}
		if got, err := url.PathUnescape(token); err != nil || got != name {
			t.Errorf("got %q, %v, want %q", got, err, name)
		}
	})
}

// FuzzWithSubject: the subject comes first, and all that was stored is there.
func FuzzWithSubject(f *testing.F) {
	f.Add([]byte("NATS/1.0\r\nNats-Subject: forged\r\na: b\r\n\r\n"))
	f.Add([]byte(nil))
	f.Add([]byte("NATS/1.0"))
	f.Fuzz(func(t *testing.T, header []byte) {
		if event.Header(header).Check() != nil {
			return // is never stored
		}
		got := event.Header(withSubject(header, "a.b"))
		if s, ok := got.Get(headerNatsSubject); !ok || s != "a.b" {
			t.Errorf("subject: got %q", s)
		}
		if len(header) > 0 && strings.Replace(string(got), "Nats-Subject: a.b\r\n", "", 1) != string(header) {
			t.Errorf("got %q from %q", got, header)
		}
	})
}

func TestMessageKey(t *testing.T) {
	long := strings.Repeat("k", maxKey+1)
	h := func(lines ...string) []byte { return []byte("NATS/1.0\r\n" + strings.Join(lines, "\r\n") + "\r\n\r\n") }
	sub := Subscription{OrderedBy: orderedByKey}
	for name, c := range map[string]struct {
		m    Message
		want string
	}{
		"header":            {Message{Header: h("Edged-Key: pump 7", "ce-partitionkey: x")}, "kpump 7"},
		"binary event":      {Message{Header: h("ce-partitionkey: pump%207")}, "kpump 7"},
		"structured event":  {Message{Data: []byte(`{"specversion":"1.0","id":"1","source":"s","type":"t","partitionkey":"pump 7"}`)}, "kpump 7"},
		"subject":           {Message{Subject: "a.b", Data: []byte(`{"partitionkey":"no event"}`)}, "sa.b"},
		"empty":             {Message{Subject: "a.b", Header: h("Edged-Key: ")}, "sa.b"},
		"any bytes":         {Message{Header: h("Edged-Key: \xff\x01")}, "k\xff\x01"},
		"not quite escaped": {Message{Header: h("ce-partitionkey: 50%")}, "k50%"},
	} {
		if got := sub.key(c.m); got != c.want {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
	if got := sub.key(Message{Header: h("Edged-Key: " + long)}); len(got) > maxKey {
		t.Errorf("a long key takes %d bytes", len(got))
	}
	if a, b := sub.key(Message{Header: h("Edged-Key: " + long)}), sub.key(Message{Header: h("Edged-Key: " + long + "2")}); a == b {
		t.Error("two long keys are the same")
	}
}
