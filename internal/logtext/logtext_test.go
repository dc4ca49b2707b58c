package logtext_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/edged-io/edged/internal/logtext"
)

type traced struct{ trace string }

func (t traced) Error() string { return "trap: unreachable" }
func (t traced) Trace() string { return t.trace }

type told struct{ error }

func (told) LogTrace() string { return "" }

// noTime leaves the time out, as under systemd.
var noTime = &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
	if a.Key == slog.TimeKey {
		return slog.Attr{}
	}
	return a
}}

func TestHandler(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(logtext.NewHandler(&out, noTime)).With("part", "runtime")
	err := fmt.Errorf("actor a: %w", traced{"panicked at 'x'\nin main.handle\n\t\x1b[2Jmain.go:7\xff"})
	log.Warn("actor failed", "err", err, "seq", 7)
	log.Info("fine", "err", errors.New("two\nlines"))
	log.WithGroup("g").Info("again", "err", told{err})
	want := `level=WARN msg="actor failed" part=runtime err="actor a: trap: unreachable" seq=7
    panicked at 'x'
    in main.handle
     [2Jmain.go:7` + "\uFFFD" + `
level=INFO msg=fine part=runtime err="two\nlines"
level=INFO msg=again part=runtime g.err="actor a: trap: unreachable"
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
	out.Reset()
	log.Error("long", "err", traced{strings.Repeat("x\n", 1000)})
	if n := strings.Count(out.String(), "\n"); n != 66 {
		t.Errorf("%d lines, want 66", n)
	}
}

// What belongs together stays together.
func TestHandler_inOnePiece(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(logtext.NewHandler(&out, noTime))
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			log := log.With("from", i)
			for range 100 {
				log.Warn("x", "err", traced{fmt.Sprint("trace ", i)})
			}
		})
	}
	wg.Wait()
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	for i := 0; i < len(lines); i += 2 {
		if from := strings.Fields(lines[i])[2]; lines[i+1] != "    trace "+strings.TrimPrefix(from, "from=") {
			t.Fatalf("%q is followed by %q", lines[i], lines[i+1])
		}
	}
	if len(lines) != 1600 {
		t.Errorf("%d lines", len(lines))
	}
}
