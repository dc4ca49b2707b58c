package node

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edged-io/edged/internal/config"
	"github.com/edged-io/edged/internal/logbuffer"
	"github.com/edged-io/edged/runtime"
)

// The first failure of a kind is told whole, those after it are counted, and it is
// told whole again after a while without.
func TestFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out logbuffer.Buffer
		n := &Node{log: slog.New(slog.NewTextHandler(&out, nil)), o: Options{Now: time.Now}}
		n.failures.log = n.log
		a := &actor{config: config.Actor{Name: "cart"}, app: "shop", version: "1.0.0", key: "MKEY"}
		fail := func(i int, text string) {
			err := n.blame(a, "Cart.Load", &runtime.GuestError{Actor: "MKEY", Operation: "Cart.Load", Text: text})
			n.failures.went(fmt.Sprint("orders/", i), "dead letter "+fmt.Sprint(i), err, "attempt", 1)
		}
		lines := func() []string {
			synctest.Wait()
			return strings.Split(strings.TrimSpace(out.Take()), "\n")
		}
		for i := range 1000 {
			fail(i, fmt.Sprintf("order %d is unknown", i))
		}
		if got := lines(); len(got) != 1 {
			t.Fatalf("%d lines at first: %q", len(got), got)
		} else {
			contains(t, got[0], `msg="actor failed" actor=shop/cart version=1.0.0 operation=Cart.Load attempt=1 message=orders/0 outcome="dead letter 0"`,
				`err="actor shop/cart 1.0.0: Cart.Load: order 0 is unknown"`)
		}
		if s := a.failing.Load(); s.InARow != 1000 || s.Message != "orders/999" || s.Outcome != "dead letter 999" {
			t.Errorf("status %+v", s)
		}
		time.Sleep(failuresAgain)
		contains(t, lines()[0], `msg="actor keeps failing" actor=shop/cart version=1.0.0 operation=Cart.Load more=999 last_message=orders/999 last_outcome="dead letter 999"`)
		fail(1, "out of paper") // another kind
		contains(t, lines()[0], `msg="actor failed"`, "out of paper")
		a.succeeded()
		if a.failing.Load() != nil || a.failed.Load() == nil {
			t.Error("a success has to end the row, and not the memory of it")
		}
		time.Sleep(failuresForgotten)
		fail(7, "order 7 is unknown")
		contains(t, lines()[0], `msg="actor failed"`, "order 7")
		fail(8, "order 8 is unknown")
		n.failures.close()
		contains(t, lines()[0], `msg="actor keeps failing"`, "more=1 ")
		fail(9, "order 9 is unknown")
		if got := lines(); got[0] != "" {
			t.Errorf("after the end: %q", got)
		}
	})
}

// What is no actor's fault is no flood either: callers of one that is busy are
// counted.
func TestFailures_nobodys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out logbuffer.Buffer
		f := &failures{log: slog.New(slog.NewTextHandler(&out, nil))}
		for i := range 100 {
			f.went("", "told to who called", fmt.Errorf("actor shop/cart: Cart.Load: the actor has %d calls in flight, which is its limit: %w", 4+i%2, errBusy))
		}
		f.went("orders/7", "tried again in 1s", errors.New("no room"))
		if got := strings.TrimSpace(out.String()); strings.Count(got, "\n") != 1 || strings.Contains(got, `message=""`) {
			t.Fatalf("told %q, want two lines", got)
		}
		contains(t, out.String(), `msg="call not handled" outcome="told to who called" err="actor shop/cart: Cart.Load`, `msg="message not handled" message=orders/7`)
		time.Sleep(failuresAgain)
		synctest.Wait()
		contains(t, out.String(), `msg="call not handled" more=99 last_outcome="told to who called"`)
	})
}

// An actor that passes on what another one said fails in one way, however long
// the way was.
func TestFailures_nested(t *testing.T) {
	deep := errors.New("Self: actor shop/cart 1.0.0: Self: Self: actor shop/cart 1.0.0: Self: all instances wait")
	deeper := fmt.Errorf("Self: actor shop/cart 1.0.0: Self: %w", deep)
	if way(deep) != way(deeper) || way(deep) == way(errors.New("all instances wait")) {
		t.Errorf("ways %q and %q", way(deep), way(deeper))
	}
}

// A caller that went away is not the actor's fault, and there is an end to what is
// kept apart.
func TestFailures_bounds(t *testing.T) {
	var out logbuffer.Buffer
	n := &Node{log: slog.New(slog.NewTextHandler(&out, nil)), o: Options{Now: time.Now}}
	n.failures.log = n.log
	a := &actor{config: config.Actor{Name: "cart"}, app: "shop", version: "1.0.0"}
	if err := n.blame(a, "Op", fmt.Errorf("x: %w", runtime.ErrClosed)); isBlamed(err) || a.failing.Load() != nil {
		t.Errorf("closed: %v is told", err)
	}
	for i := range 2 * maxFailures {
		_ = n.blame(a, "Op", errors.New(strings.Repeat("x", i)))
	}
	if got := len(n.failures.kinds); got > maxFailures {
		t.Errorf("%d kinds are kept", got)
	}
}
