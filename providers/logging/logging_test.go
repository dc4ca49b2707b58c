package logging_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/edged-io/edged/lattice"
	"github.com/edged-io/edged/providers"
	"github.com/edged-io/edged/providers/logging"
	"github.com/edged-io/edged/sdk/go/msgpack"
)

type line struct {
	actor string
	level slog.Level
	text  string
}

func write(t testing.TB, operation string, payload []byte) (got []line, err error) {
	t.Helper()
	p := logging.New(func(_ context.Context, actor string, level slog.Level, text string) {
		got = append(got, line{actor, level, text})
	})
	reply, err := p.Call(t.Context(), lattice.Invocation{
		Origin: lattice.Entity{Key: "lab/guest"}, Contract: logging.Contract, Operation: operation, Payload: payload,
	})
	if len(reply) != 0 {
		t.Errorf("%s replied % x", operation, reply)
	}
	return got, err
}

func request(level, text string) []byte {
	b := msgpack.AppendMapHeader(nil, 2)
	b = msgpack.AppendString(msgpack.AppendString(b, "level"), level)
	return msgpack.AppendString(msgpack.AppendString(b, "text"), text)
}

func TestProvider_levels(t *testing.T) {
	for name, want := range map[string]slog.Level{
		"trace": slog.LevelDebug, "debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError,
		"critical": slog.LevelError, "": slog.LevelDebug, "loud": slog.LevelDebug, "ERROR": slog.LevelError,
	} {
		got, err := write(t, "Logging.WriteLog", request(name, "hello"))
		if err != nil || len(got) != 1 || got[0] != (line{"lab/guest", want, "hello"}) {
			t.Errorf("level %q: got %v, %v; want %v", name, got, err, want)
		}
	}
}

func TestProvider_text(t *testing.T) {
	long := strings.Repeat("ä", logging.MaxTextBytes) // two bytes each
	odd := "x" + long
	for name, test := range map[string]struct{ text, want string }{
		"empty":            {"", ""},
		"at the limit":     {long[:logging.MaxTextBytes], long[:logging.MaxTextBytes]},
		"beyond it":        {long, long[:logging.MaxTextBytes] + "…"},
		"within a letter":  {odd, odd[:logging.MaxTextBytes-1] + "…"},
		"no UTF-8":         {"a\xff\xfeb", "a\uFFFDb"},
		"long, no UTF-8":   {strings.Repeat("\x80", 9000), "\uFFFD…"},
		"control bytes":    {"a\nb\x1b[2J\x00", "a\nb\x1b[2J\x00"}, // whoever shows it quotes them
		"a letter of four": {strings.Repeat("a", logging.MaxTextBytes-1) + "😀", strings.Repeat("a", logging.MaxTextBytes-1) + "…"},
	} {
		got, err := write(t, "Logging.WriteLog", request("info", test.text))
		if err != nil || len(got) != 1 || got[0].text != test.want || !utf8.ValidString(got[0].text) {
			t.Errorf("%s: got %d lines, %v", name, len(got), err)
		}
	}
}

func TestProvider_refuses(t *testing.T) {
	for name, c := range map[string]struct {
		operation string
		payload   []byte
	}{
		"operation": {"Logging.Shout", request("info", "x")},
		"no bytes":  {"Logging.WriteLog", nil},
		"number":    {"Logging.WriteLog", []byte{7}},
		"truncated": {"Logging.WriteLog", request("info", "hello")[:9]},
		"trailing":  {"Logging.WriteLog", append(request("info", "x"), 0xc0)},
	} {
		if got, err := write(t, c.operation, c.payload); !errors.Is(err, providers.ErrFormat) || len(got) > 0 {
			t.Errorf("%s: got %v, %v", name, got, err)
		}
	}
}

func FuzzProvider_Call(f *testing.F) {
	f.Add(request("info", "hello"))
	f.Add([]byte("\x92\xa4info\xa1x"))
	f.Add([]byte("\xc1\x82\xa4text\xc4\x02\xff\xfe\xa5level\xc0"))
	f.Fuzz(func(t *testing.T, payload []byte) {
		got, err := write(t, "Logging.WriteLog", payload)
		if (err == nil) != (len(got) == 1) {
			t.Fatalf("%d lines, %v", len(got), err)
		}
		if err == nil && (!utf8.ValidString(got[0].text) || len(got[0].text) > logging.MaxTextBytes+3*logging.MaxTextBytes) {
			t.Fatalf("text of %d bytes", len(got[0].text))
		}
	})
}
