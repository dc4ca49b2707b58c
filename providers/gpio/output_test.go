package gpio

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// flaky is an output whose bus can be broken.
type flaky struct {
	mu     sync.Mutex
	broken bool
	levels []bool // driven
	closed bool
}

func (f *flaky) level() (bool, error) { return false, nil }
func (f *flaky) waitEdge(context.Context, time.Duration) (edge, error) {
	return edgeNone, errors.New("an output has no edges")
}

func (f *flaky) drive(level bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.broken {
		return errors.New("remote I/O error")
	}
	f.levels = append(f.levels, level)
	return nil
}

func (f *flaky) close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	return nil
}

func (f *flaky) setBroken(broken bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.broken = broken
}

// withFlaky starts a box in which alice owns line 5 of sim0, which is flaky.
func withFlaky(t *testing.T) (*box, *flaky) {
	b := startBox(t, openStore(t, t.TempDir()))
	dev := new(flaky)
	conf, err := parseValues(output(alice, 5).Values)
	if err != nil {
		t.Fatal(err)
	}
	b.swap(linkID{alice, "x"}, nil, &held{address: conf.address, actor: alice, link: "x", direction: out, conf: conf, dev: dev})
	synctest.Wait()
	return b, dev
}

func TestProvider_Set_lineFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, dev := withFlaky(t)
		dev.setBroken(true)
		b.set(5, true)
		time.Sleep(10 * time.Second)
		if got := b.Lines()[0].Error; !strings.Contains(got, "remote I/O error") {
			t.Errorf("Lines shows the error %q", got)
		}
		dev.setBroken(false)
		time.Sleep(2 * time.Second)
		if got := b.Lines()[0].Error; got != "" {
			t.Errorf("Lines shows the error %q after the line works again", got)
		}
		b.stop()
		if want := []bool{true, false}; len(dev.levels) < 2 || !slices.Equal(dev.levels[len(dev.levels)-2:], want) {
			t.Errorf("driven %v, want %v at the end", dev.levels, want)
		}
		if !dev.closed {
			t.Error("the line is not closed")
		}
		if got := b.logs.String(); strings.Count(got, "line fails") != 1 || strings.Count(got, "line works again") != 1 {
			t.Errorf("logs: %s", got)
		}
	})
}

func TestProvider_Pulse_lineFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, dev := withFlaky(t)
		if _, err := b.call(t.Context(), alice, "Gpio.Pulse", "chip", SimName, "line", 5, "level", true, "ms", 100); err != nil {
			t.Fatal(err)
		}
		dev.setBroken(true)
		time.Sleep(10 * time.Second)
		dev.setBroken(false)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		dev.mu.Lock()
		if got := dev.levels[len(dev.levels)-2:]; !slices.Equal(got, []bool{true, false}) {
			t.Errorf("driven %v at the end: the pulse has no end", got)
		}
		dev.mu.Unlock()
		dev.setBroken(true)
		if _, err := b.call(t.Context(), alice, "Gpio.Pulse", "chip", SimName, "line", 5, "level", true, "ms", 100); err == nil {
			t.Error("a pulse that cannot begin: no error")
		}
		b.stop()
		if !dev.closed || !strings.Contains(b.logs.String(), "not released well") {
			t.Errorf("closed %v, logs: %s", dev.closed, b.logs)
		}
	})
}

func TestQueue_bounded(t *testing.T) {
	q := newQueue()
	for i := range 3 * maxQueued {
		q.add(step{address: address{SimName, i % 2}, level: i%3 == 0})
	}
	steps := q.take()
	if len(steps) != maxQueued {
		t.Errorf("%d steps wait, want %d", len(steps), maxQueued)
	}
	last := 3*maxQueued - 1
	if got := steps[len(steps)-1]; got.line != last%2 || got.level != (last%3 == 0) {
		t.Errorf("the last step is %+v", got)
	}
	q.finish(len(steps))
	if err := q.wait(t.Context(), nil); err != nil {
		t.Error(err)
	}
	q.add(step{address: address{SimName, 1}})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := q.wait(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	gone := make(chan struct{})
	close(gone)
	if err := q.wait(t.Context(), gone); !errors.Is(err, ErrClosed) {
		t.Errorf("got %v, want ErrClosed", err)
	}
}
