package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edged-io/edged/internal/config"
	"github.com/edged-io/edged/internal/logbuffer"
	"github.com/edged-io/edged/lattice"
	"github.com/edged-io/edged/providers/httpserver"
	"github.com/edged-io/edged/store"
)

func TestBucket(t *testing.T) {
	start := time.Unix(1000, 0)
	var b bucket
	b.set(10, 20)
	if d := b.debt(start); d != 0 {
		t.Errorf("one that was never used owes %s", d)
	}
	for i := range 20 {
		if !b.take(start, 1) {
			t.Fatalf("take %d of a full one fails", i)
		}
	}
	if b.take(start, 1) {
		t.Error("take of an empty one succeeds")
	}
	if !b.take(start.Add(100*time.Millisecond), 1) || b.take(start.Add(100*time.Millisecond), 1) {
		t.Error("a tenth of a second is not one token")
	}
	b.charge(start.Add(100*time.Millisecond), 5)
	if d := b.debt(start.Add(100 * time.Millisecond)); d < 500*time.Millisecond || d > 501*time.Millisecond {
		t.Errorf("five tokens take %s", d)
	}
	if d := b.debt(start.Add(601 * time.Millisecond)); d != 0 {
		t.Errorf("what is paid owes %s", d)
	}
	if b.take(start.Add(time.Second), 4.5) { // 601 ms were nothing, 399 ms are four
		t.Error("more was there than came")
	}
	if !b.take(start.Add(time.Hour), 20) || b.take(start.Add(time.Hour), 1) {
		t.Error("an hour is not just the burst")
	}
	if !b.take(start.Add(time.Hour+time.Second), 10) || b.take(start, 1) {
		t.Error("a clock that runs backwards brings tokens")
	}
}

func TestMeter_calls(t *testing.T) {
	n := &Node{log: slog.New(slog.DiscardHandler)}
	m := n.meterOf("a")
	l := config.DefaultLimits()
	l.Calls = 2
	m.set(l)
	for range 2 {
		if err := m.admit(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	// A message that is refused so is not tried, and does not count as an attempt.
	if err := m.admit(t.Context()); !errors.Is(err, store.ErrFull) || !strings.Contains(err.Error(), "2 calls in flight") {
		t.Errorf("got %v", err)
	}
	m.done()
	if err := m.admit(t.Context()); err != nil {
		t.Error(err)
	}
	if _, met := m.stats(); met[limitCalls] != 1 {
		t.Errorf("met %v", met)
	}
}

// An HTTP client is asked to come again, and not told that the box is full.
func TestMeter_calls_overHTTP(t *testing.T) {
	n := &Node{log: slog.New(slog.DiscardHandler), bus: lattice.NewBus()}
	m := n.meterOf("a")
	l := config.DefaultLimits()
	l.Calls = 0
	m.set(l)
	n.bus.Replace(lattice.Entity{Key: "a"}, func(ctx context.Context, _ lattice.Invocation) ([]byte, error) {
		return nil, m.admit(ctx)
	})
	if _, err := n.callHTTP(t.Context(), lattice.Invocation{Target: lattice.Entity{Key: "a"}}); !errors.Is(err, httpserver.ErrBusy) {
		t.Errorf("got %v", err)
	}
}

func TestMeter_publishRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &Node{log: slog.New(slog.DiscardHandler)}
		m := n.meterOf("a")
		l := config.DefaultLimits()
		l.PublishRate = 10
		m.set(l)
		publish := func(k int) {
			for range k {
				m.published()
			}
		}
		publish(10)
		begun := time.Now()
		if err := m.admit(t.Context()); err != nil || time.Since(begun) != 0 {
			t.Fatalf("a second's worth waits %s, %v", time.Since(begun), err)
		}
		publish(25)
		if err := m.admit(t.Context()); err != nil || time.Since(begun) < 2500*time.Millisecond || time.Since(begun) > 2600*time.Millisecond {
			t.Fatalf("25 messages were paid after %s, %v", time.Since(begun), err)
		}
		publish(10)
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		if err := m.admit(ctx); !errors.Is(err, store.ErrFull) {
			t.Errorf("the caller gives up: %v", err)
		}
		if got := m.calls.Load(); got != 2 {
			t.Errorf("%d calls in flight, want the 2 that were let in", got)
		}
		if _, met := m.stats(); met[limitPublishRate] != 2 {
			t.Errorf("met %v", met)
		}
	})
}

// A turn that others wait for does not wait for the rate of an actor.
func TestMeter_publishRate_turnThatOthersWaitFor(t *testing.T) {
	db, err := store.Open(store.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	n := &Node{log: slog.New(slog.DiscardHandler)}
	m := n.meterOf("a")
	for range 1_000_000 {
		m.published()
	}
	err = db.Do(t.Context(), func(ctx context.Context, turn *store.Turn) error {
		if err := turn.Irrevocable(ctx); err != nil {
			return err
		}
		return m.admit(ctx)
	})
	if err != nil {
		t.Error(err)
	}
}

// An actor that asks for more than its turn may hold again and again has only so
// much of the machine for it.
func TestNode_hostCall_refusalTakesTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &Node{log: slog.New(slog.DiscardHandler), bus: lattice.NewBus()}
		n.bus.SetGrant("a", lattice.Grant{})
		n.bus.Builtin("edged:full", lattice.Entity{Key: "p", Link: "default"})
		_, err := n.bus.Handle(lattice.Entity{Key: "p", Link: "default"}, func(context.Context, lattice.Invocation) ([]byte, error) {
			return nil, fmt.Errorf("write: %w", store.ErrBound)
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		asked := uint64(0)
		for ; ctx.Err() == nil; asked++ {
			if _, err := n.hostCall(ctx, "a", "default", "edged:full", "Put", nil); !errors.Is(err, store.ErrBound) {
				t.Fatal(err)
			}
		}
		// The last pause ends with the time, and either may be first.
		if _, met := n.meterOf("a").stats(); asked < 500 || asked > 501 || met[limitTurn] != asked {
			t.Errorf("asked %d times in 500 ms, met %v", asked, met)
		}
	})
}

func TestActorLog_dropsAndTells(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out logbuffer.Buffer
		n := &Node{log: slog.New(slog.NewTextHandler(&out, nil))}
		m := n.meterOf("lab/guest")
		count := func(s string) int { return strings.Count(out.String(), s) }
		for range 1000 {
			m.log.line(t.Context(), slog.LevelInfo, "stdout", "hello")
		}
		if got := count("text=hello"); got != 100 {
			t.Errorf("%d lines of 1000 at once", got)
		}
		m.log.line(t.Context(), slog.LevelDebug, "", "not for this log")
		time.Sleep(1500 * time.Millisecond)
		contains(t, out.String(), "actor logs more than its log_rate", "dropped=900", "actor=lab/guest")
		time.Sleep(12 * time.Second)
		contains(t, out.String(), "actor keeps its log_rate again", "dropped=900")
		before := strings.Count(out.String(), "\n")
		for range 3 { // of forty units each
			m.log.line(t.Context(), slog.LevelInfo, "", strings.Repeat("x", 40*logUnit))
		}
		if got := strings.Count(out.String(), "\n") - before; got != 2 {
			t.Errorf("%d long lines of 3", got)
		}
		time.Sleep(time.Minute)
		if _, met := m.stats(); met[limitLogRate] != 901 || count("keeps its log_rate again") != 2 {
			t.Errorf("met %v\n%s", met, out.String())
		}
	})
}

func TestActorLog_saysWhichMessage(t *testing.T) {
	var out logbuffer.Buffer
	n := &Node{log: slog.New(slog.NewTextHandler(&out, nil))}
	ctx := withHandled(t.Context(), store.Message{Stream: "in", Seq: 7})
	n.meterOf("a").log.line(ctx, slog.LevelWarn, "", "odd\n\x1b[2J\xff")
	contains(t, out.String(), "level=WARN", `text="odd\n\x1b[2J`, "\uFFFD", "message=in/7", "part=actor")
}

// TestDocs_limits holds docs/limits.md against what is counted.
func TestDocs_limits(t *testing.T) {
	text, err := os.ReadFile("../../docs/limits.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(text), "\n## Of an actor\n")
	table, after, _ := strings.Cut(table, "\n## ")
	var rows []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\|").FindAllStringSubmatch(table, -1) {
		rows = append(rows, m[1])
		if !strings.Contains(after, "`"+m[1]+"`") {
			t.Errorf("what the counter of %s counts is not told", m[1])
		}
	}
	if want := limitNames[:]; !slices.Equal(rows, want) {
		t.Errorf("documented %q, counted %q", rows, want)
	}
	for _, row := range strings.Split(strings.TrimSpace(table), "\n") {
		if strings.HasPrefix(row, "| `") && strings.Count(row, "**") != 2 {
			t.Errorf("not one outcome: %s", row)
		}
	}
	if !strings.Contains(table, "| `depth` | `16`,") || lattice.MaxDepth != 16 {
		t.Error("depth is not what is documented")
	}
}
