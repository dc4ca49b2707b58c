package event_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/edged-io/edged/internal/event"
)

func TestHeader_Get(t *testing.T) {
	h := block("A: 1", "b-c:2", "A: 3", "no colon", "  D :  four  ")
	for name, want := range map[string]string{"a": "1", "B-C": "2", "d": "four"} {
		if got, ok := h.Get(name); !ok || got != want {
			t.Errorf("Get(%s): got %q, %v", name, got, ok)
		}
	}
	for _, h := range []event.Header{nil, event.Header("x"), event.Header("A: 1\r\n\r\n"), event.Header("NATS/1.0"), event.Header("NATS/1.0\r\n"), block("B: 1")} {
		if got, ok := h.Get("A"); ok {
			t.Errorf("%q: got %q", h, got)
		}
	}
	if got, ok := event.Header("NATS/1.0 100 Idle\nA: 1").Get("a"); !ok || got != "1" {
		t.Errorf("unfinished block: got %q, %v", got, ok)
	}
}

func TestHeader_Append(t *testing.T) {
	h, err := event.Header(nil).Append("A", "1")
	if err != nil || string(h) != "NATS/1.0\r\nA: 1\r\n\r\n" {
		t.Fatalf("got %q, %v", h, err)
	}
	h2, err := h.Append("B", "ü 2")
	if err != nil || string(h2) != "NATS/1.0\r\nA: 1\r\nB: ü 2\r\n\r\n" || h2.Check() != nil {
		t.Fatalf("got %q, %v", h2, err)
	}
	for _, bad := range [][2]string{{"", "x"}, {"a b", "x"}, {"a:", "x"}, {"ä", "x"}, {"a", "x\r\nNats-Msg-Id: 1"}, {"a", strings.Repeat("x", event.MaxHeaderBytes)}} {
		if _, err := h.Append(bad[0], bad[1]); !errors.Is(err, event.ErrHeader) {
			t.Errorf("Append(%q, %.20q): got %v", bad[0], bad[1], err)
		}
	}
	for _, bad := range []string{"x", "NATS/1.0", "NATS/1.0\r\n", "A: 1\r\n\r\n"} {
		if _, err := event.Header(bad).Append("a", "b"); !errors.Is(err, event.ErrHeader) {
			t.Errorf("%q: got %v", bad, err)
		}
	}
}

func TestHeader_Remove(t *testing.T) {
	h := block("A: 1", "AB: 2", "a: 3", "C: 4")
	if got := h.Remove("A"); string(got) != string(block("AB: 2", "C: 4")) {
		t.Errorf("got %q", got)
	}
	if got := h.Remove("X"); &got[0] != &h[0] {
		t.Error("a block without the name was copied")
	}
	if got := event.Header(nil).Remove("A"); got != nil {
		t.Errorf("got %q", got)
	}
}

func TestHeader_RenamePrefix(t *testing.T) {
	h := block("A: Nats-x", "Nats-Msg-Id: 1", "nats-expected-stream: 2", "Nat: 3", " Nats-Rollup: all")
	before := string(h)
	got := h.RenamePrefix("Nats-", "Edged-")
	if want := string(block("A: Nats-x", "Edged-Nats-Msg-Id: 1", "Edged-nats-expected-stream: 2", "Nat: 3", " Edged-Nats-Rollup: all")); string(got) != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if string(h) != before {
		t.Error("the block given was changed")
	}
}

func TestHeader_Check(t *testing.T) {
	for _, good := range []event.Header{nil, event.Header("NATS/1.0\r\n\r\n"), event.Header("NATS/1.0 503\r\n\r\n"), block("A: 1", "B:")} {
		if err := good.Check(); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []event.Header{event.Header("x"), event.Header("NATS/1.0\r\n"), event.Header("HTTP/1.0\r\n\r\n"), block("no colon"), block("a b: c"), block("a: b\x00"), block("A: " + strings.Repeat("x", event.MaxHeaderBytes))} {
		if err := bad.Check(); !errors.Is(err, event.ErrHeader) {
			t.Errorf("%.40q: got %v", bad, err)
		}
	}
}

func FuzzHeader(f *testing.F) {
	f.Add([]byte("NATS/1.0\r\nNats-Msg-Id: 1\r\nA:2\r\n\r\n"), "A", "x")
	f.Add([]byte("NATS/1.0\nnats-:\n:\n"), "nats-", "")
	f.Add([]byte("NATS/1.0 408 x\r\n\r\n"), "b", "ü")
	f.Fuzz(func(t *testing.T, raw []byte, name, value string) {
		h, before := event.Header(raw), string(raw)
		renamed := h.RenamePrefix("Nats-", "Edged-")
		renamed.Each(func(n, _ []byte) bool {
			if bytes.HasPrefix(bytes.ToLower(n), []byte("nats-")) {
				t.Fatalf("%q still has %q", renamed, n)
			}
			return true
		})
		if len(renamed) < event.MaxHeaderBytes && name == strings.TrimSpace(name) {
			if _, ok := h.Remove(name).Get(name); ok {
				t.Fatalf("%q still has %q", h.Remove(name), name)
			}
		}
		longer, err := h.Append(name, value)
		if err == nil {
			if len(longer) > event.MaxHeaderBytes {
				t.Fatalf("%d bytes", len(longer))
			}
			if h.Check() == nil && longer.Check() != nil {
				t.Fatalf("%q: %v", longer, longer.Check())
			}
			if got, ok := longer.Get(name); !ok {
				t.Fatalf("%q: got %q", longer, got)
			}
		}
		if string(raw) != before {
			t.Fatal("the block given was changed")
		}
	})
}
