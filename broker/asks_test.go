package broker

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func headerOf(lines ...string) []byte {
	return []byte("NATS/1.0\r\n" + strings.Join(lines, "\r\n") + "\r\n\r\n")
}

func TestReadAsks(t *testing.T) {
	noon := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct{ m, want Message }{
		"nothing":           {Message{Header: headerOf("a: b")}, Message{}},
		"seconds":           {Message{Header: headerOf("Nats-TTL: 90")}, Message{TTL: 90 * time.Second}},
		"duration":          {Message{Header: headerOf("nats-ttl: 1m30s")}, Message{TTL: 90 * time.Second}},
		"never":             {Message{Header: headerOf("Nats-TTL: never")}, Message{}},
		"delay":             {Message{Header: headerOf("Edged-Not-Before: +250ms")}, Message{Delay: 250 * time.Millisecond}},
		"delay in seconds":  {Message{Header: headerOf("Edged-Not-Before: +3600")}, Message{Delay: time.Hour}},
		"time":              {Message{Header: headerOf("Edged-Not-Before: 2026-03-01T13:00:00+01:00")}, Message{NotBefore: noon}},
		"producer":          {Message{Header: headerOf("Edged-Producer-Seq: 7", "Edged-Source: kiln", "ce-source: x")}, Message{Producer: "kiln", ProducerSeq: 7}},
		"producer of event": {Message{Header: headerOf("ce-source: kiln", "ce-source: y", "Edged-Producer-Seq: 7")}, Message{Producer: "kiln", ProducerSeq: 7}},
		"what it has stays": {
			Message{Header: headerOf("Nats-TTL: 90", "Edged-Not-Before: +1s", "Edged-Producer-Seq: no"), TTL: time.Minute, NotBefore: noon, Producer: "p", ProducerSeq: 3},
			Message{TTL: time.Minute, NotBefore: noon, Producer: "p", ProducerSeq: 3},
		},
	} {
		got := c.m
		if err := readAsks(&got); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		w := c.want
		if got.TTL != w.TTL || got.Delay != w.Delay || !got.NotBefore.Equal(w.NotBefore) || got.Producer != w.Producer || got.ProducerSeq != w.ProducerSeq {
			t.Errorf("%s: got %+v, want %+v", name, got, w)
		}
	}
	for line, code := range map[string]uint16{
		"Nats-TTL: soon":                           10165,
		"Nats-TTL: 0":                              10165,
		"Nats-TTL: -5":                             10165,
		"Nats-TTL: 9223372036854775807":            10165,
		"Nats-TTL: 1\r\nNats-TTL: 2":               10003,
		"Edged-Not-Before: tomorrow":               10003,
		"Edged-Not-Before: +":                      10003,
		"Edged-Not-Before: 0001-01-01T00:00:00Z":   10003,
		"Edged-Not-Before: 9999-01-01T00:00:00Z":   10003,
		"Edged-Producer-Seq: 7":                    10003,
		"Edged-Producer-Seq: 0\r\nEdged-Source: s": 10003,
		"Edged-Producer-Seq: x\r\nEdged-Source: s": 10003,
		"Edged-Producer-Seq: 1\r\nEdged-Source: ":  10003,
		"Edged-Producer-Seq: 1\r\nEdged-Source: " + strings.Repeat("s", maxProducer+1): 10003,
	} {
		m := Message{Header: headerOf(line)}
		var r *refusal
		if err := readAsks(&m); !errors.As(err, &r) || r.ErrCode != code {
			t.Errorf("%.60q: got %v, want code %d", line, err, code)
		}
	}
}

// FuzzReadAsks: whatever stands in headers, what is taken from them is in bounds.
func FuzzReadAsks(f *testing.F) {
	f.Add([]byte("NATS/1.0\r\nNats-TTL: 1h\r\nEdged-Not-Before: +9s\r\n\r\n"))
	f.Add([]byte("NATS/1.0\r\nEdged-Not-Before: 2026-01-02T03:04:05Z\r\nEdged-Producer-Seq: 1\r\nEdged-Source: s\r\n\r\n"))
	f.Fuzz(func(t *testing.T, header []byte) {
		m := Message{Header: header}
		if readAsks(&m) != nil {
			return
		}
		if m.TTL < 0 || m.TTL > maxDelay || m.Delay < 0 || m.Delay > maxDelay || m.NotBefore.Year() > 2200 || len(m.Producer) > maxProducer {
			t.Errorf("got %+v", m)
		}
		if (m.ProducerSeq == 0) != (m.Producer == "") || m.Delay != 0 && !m.NotBefore.IsZero() {
			t.Errorf("got %+v", m)
		}
	})
}
