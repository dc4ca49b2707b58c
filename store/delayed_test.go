package store_test

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edged-io/edged/store"
)

// wantData compares what a stream holds, and has parked.
func (b *box) wantData(delayed int64, want ...string) {
	b.t.Helper()
	synctest.Wait()
	got := []string{}
	for _, m := range b.messages("a") {
		got = append(got, string(m.Data))
	}
	info, err := b.db.Stream("a")
	if err != nil || info.Delayed != delayed || strings.Join(got, " ") != strings.Join(want, " ") {
		b.t.Fatalf("holds %v and %d delayed, %v; want %v and %d", got, info.Delayed, err, want, delayed)
	}
}

func data(s string) store.Message { return store.Message{Data: []byte(s)} }

func after(d time.Duration, s string) store.Message {
	return store.Message{Data: []byte(s), Delay: d}
}

func notBefore(t time.Time, s string) store.Message {
	return store.Message{Data: []byte(s), NotBefore: t}
}

func TestMessage_Delay(t *testing.T) {
	inBox(t, func(t *testing.T, b *box) {
		ensure(t, b.db, store.StreamConfig{Name: "a"}, "sub")
		wake, stop, err := b.db.Watch("a")
		if err != nil {
			t.Fatal(err)
		}
		defer stop()
		<-wake
		r := b.publish("a", after(time.Minute, "later"))
		if r.Seq != 0 || r.Duplicate || r.Due.Sub(b.wall().Add(time.Minute)).Abs() > time.Second {
			t.Fatalf("receipt of a parked message: %+v", r)
		}
		b.publish("a", after(90*time.Second, "last"))
		select {
		case <-wake:
			t.Fatal("woken for what is parked")
		default:
		}
		if r := b.publish("a", data("now")); r.Seq != 1 || !r.Due.IsZero() {
			t.Fatalf("receipt: %+v", r)
		}
		<-wake
		b.wantData(2, "now")
		b.pass(59 * time.Second)
		b.wantData(2, "now")
		b.setWall(at(1e6)) // jumps change nothing
		began := time.Now()
		<-wake
		if d := time.Since(began); d < 900*time.Millisecond || d > 1100*time.Millisecond {
			t.Fatalf("released %v later, want a second", d)
		}
		b.wantData(1, "now", "later")
		if m := b.messages("a")[1]; m.Seq != 2 || m.Time.Sub(b.wall()).Abs() > time.Second || m.Delay != 0 {
			t.Fatalf("read back: %+v", m)
		}
		b.pass(time.Minute)
		b.wantData(0, "now", "later", "last")
		if info, _ := b.db.Stream("a"); info.Bytes != b.db.Stats().Bytes {
			t.Fatalf("%+v, and the store counts %d bytes", info, b.db.Stats().Bytes)
		}
	})
}

func TestMessage_Delay_overRestarts(t *testing.T) {
	inBox(t, func(t *testing.T, b *box) {
		ensure(t, b.db, store.StreamConfig{Name: "a"}, "sub")
		b.sync(at(0))
		b.publish("a", after(time.Hour, "1h"))
		b.publish("a", after(3*time.Hour, "3h"))
		b.publish("a", after(5*time.Hour, "5h"))
		b.off(30*time.Minute, true, true)
		b.wantData(3)
		b.off(31*time.Minute, true, true) // due while it was off
		b.wantData(2, "1h")
		b.off(90*time.Minute, true, false) // for how long is not known yet
		b.pass(10 * time.Minute)
		b.wantData(2, "1h")
		b.pass(25 * time.Minute)
		b.wantData(2, "1h")
		b.synced.Store(true) // now it is: it is three hours
		b.pass(2 * time.Second)
		b.wantData(1, "1h", "3h")
		b.off(0, true, false)
		b.wantData(1, "1h", "3h")
		b.pass(3 * time.Hour)
		b.wantData(0, "1h", "3h", "5h")
	})
}

func TestMessage_NotBefore(t *testing.T) {
	inBox(t, func(t *testing.T, b *box) {
		ensure(t, b.db, store.StreamConfig{Name: "a"}, "sub")
		if r := b.publish("a", notBefore(b.wall().Add(-time.Hour), "past")); r.Seq != 1 || !r.Due.IsZero() {
			t.Fatalf("a time that is past: %+v", r)
		}
		if r := b.publish("a", notBefore(at(10), "at 10")); r.Seq != 0 || !r.Due.Equal(at(10)) {
			t.Fatalf("a time to come: %+v", r)
		}
		b.publish("a", notBefore(at(20), "at 20"))
		b.publish("a", notBefore(at(40), "at 40"))
		b.publish("a", notBefore(at(60), "at 60"))
		b.pass(time.Hour)
		b.wantData(4, "past") // it is 1970
		b.sync(at(11))        // it never was
		b.wantData(3, "past", "at 10")
		b.pass(9 * time.Minute)
		b.wantData(2, "past", "at 10", "at 20")
		b.setWall(at(50)) // nobody says that this is right
		b.synced.Store(false)
		b.pass(5 * time.Minute)
		b.wantData(2, "past", "at 10", "at 20")
		b.setWall(at(30))
		b.off(11*time.Minute, true, false) // the clock is not known to be right, but is all there is
		b.wantData(1, "past", "at 10", "at 20", "at 40")
		b.setWall(time.Unix(0, 0)) // before what is known to be past
		b.pass(30 * time.Minute)
		b.wantData(1, "past", "at 10", "at 20", "at 40")
		b.pass(10 * time.Minute)
		b.wantData(0, "past", "at 10", "at 20", "at 40", "at 60")
	})
}

func TestMessage_Delay_repeats(t *testing.T) {
	inBox(t, func(t *testing.T, b *box) {
		ensure(t, b.db, store.StreamConfig{Name: "a"}, "sub")
		m := after(time.Minute, "x")
		m.ID = "id"
		first := b.publish("a", m)
		want := func(seq uint64) {
			t.Helper()
			for _, m := range []store.Message{m, {ID: "id", Data: []byte("again")}} {
				r := b.publish("a", m)
				if !r.Duplicate || r.Seq != seq || (seq == 0) != (!r.Due.IsZero() && r.Due.Sub(first.Due).Abs() < time.Second) {
					t.Fatalf("repeat: %+v, want the message with sequence %d", r, seq)
				}
			}
		}
		want(0)
		b.off(0, true, false)
		want(0)
		b.pass(2 * time.Minute)
		want(1)
		b.off(0, true, false)
		want(1)
		b.wantData(0, "x")
	})
}

// A delay is part of how long a message has been of use.
func TestMessage_Delay_withTTL(t *testing.T) {
	inBox(t, func(t *testing.T, b *box) {
		ensure(t, b.db, store.StreamConfig{Name: "a"}, "sub")
		b.sync(at(0))
		m := after(time.Hour, "x")
		m.TTL = 3 * time.Hour
		b.publish("a", m)
		b.off(90*time.Minute, true, true)
		b.wantData(0, "x")
		if left := b.messages("a")[0].TTL; (left - 90*time.Minute).Abs() > 5*time.Second {
			t.Fatalf("%v left, want 90m", left)
		}
	})
}

func TestMessage_Delay_limits(t *testing.T) {
	inBox(t, func(t *testing.T, b *box) {
		full := func(m store.Message) {
			t.Helper()
			turn := b.db.Begin()
			turn.Publish("a", m)
			if err := turn.Commit(); !errors.Is(err, store.ErrFull) {
				t.Fatalf("got %v, want ErrFull", err)
			}
		}
		ensure(t, b.db, store.StreamConfig{Name: "a", MaxMsgs: 3}, "sub")
		b.publish("a", after(time.Minute, "1"))
		b.publish("a", after(time.Minute, "2"))
		b.publish("a", data("3"))
		full(data("4"))
		full(after(time.Second, "4"))
		b.off(0, true, false)
		full(data("4"))
		commit(t, b.db, func(turn *store.Turn) { turn.Ack("sub", 1) })
		b.publish("a", data("4"))
		full(data("5"))
		b.pass(2 * time.Minute)
		b.wantData(0, "4", "1", "2")
		full(data("5"))
		commit(t, b.db, func(turn *store.Turn) { turn.AckUpTo("sub", 4) })
		for i := range 3 {
			b.publish("a", data(fmt.Sprint(i)))
		}

		// A stream that drops its oldest does not drop what is parked.
		ensure(t, b.db, store.StreamConfig{Name: "a", MaxMsgs: 4, OnFull: store.DropOldest})
		b.publish("a", after(time.Minute, "p1"))
		b.publish("a", after(time.Minute, "p2"))
		b.wantData(2, "1", "2")
		full(after(time.Minute, "p3"))
		b.publish("a", data("3"))
		b.wantData(2, "2", "3")
		b.pass(2 * time.Minute)
		b.wantData(0, "2", "3", "p1", "p2")
	})
}

func TestMessage_Delay_boundedNumber(t *testing.T) {
	db := open(t, t.TempDir())
	ensure(t, db, store.StreamConfig{Name: "a"})
	park := func(n int) error {
		turn := db.Begin()
		for range n {
			turn.Publish("a", store.Message{Delay: time.Hour})
		}
		return turn.Commit()
	}
	if err := park(1<<16 + 1); !errors.Is(err, store.ErrFull) {
		t.Fatalf("one too many: got %v, want ErrFull", err)
	}
	if err := park(1 << 16); err != nil {
		t.Fatal(err)
	}
	if err := park(1); !errors.Is(err, store.ErrFull) {
		t.Fatalf("one more: got %v, want ErrFull", err)
	}
	publish(t, db, "a", "x", "")
	if info, _ := db.Stream("a"); info.Delayed != 1<<16 || info.Msgs != 1 {
		t.Fatalf("%+v", info)
	}
	if err := db.DeleteStream("a"); err != nil {
		t.Fatal(err)
	}
	ensure(t, db, store.StreamConfig{Name: "a"})
	if err := park(1); err != nil {
		t.Fatalf("after its stream was deleted: %v", err)
	}
	if info, _ := db.Stream("a"); info.Delayed != 1 || info.Msgs != 0 {
		t.Fatalf("%+v", info)
	}
}

// A crash anywhere leaves a message parked or in its stream, once.
func TestMessage_Delay_crash(t *testing.T) {
	for _, point := range []string{store.FailpointBeforeSync, store.FailpointAfterSync} {
		t.Run(point, func(t *testing.T) {
			inBox(t, func(t *testing.T, b *box) {
				b.db.Close()
				var crash atomic.Bool
				b.o.Failpoint = func(p string) error {
					if crash.Load() && p == point {
						return errors.New("power cut")
					}
					return nil
				}
				b.open()
				ensure(t, b.db, store.StreamConfig{Name: "a"}, "sub")
				m := after(time.Minute, "x")
				m.ID = "id"
				b.publish("a", m)
				crash.Store(true)
				b.pass(2 * time.Minute)
				if b.db.Err() == nil {
					t.Fatal("it did not crash")
				}
				crash.Store(false)
				b.off(0, true, false)
				b.pass(2 * time.Minute)
				b.wantData(0, "x")
				if m := b.messages("a")[0]; m.Seq != 1 {
					t.Fatalf("sequence %d, want 1", m.Seq)
				}
				if r := b.publish("a", m); !r.Duplicate || r.Seq != 1 {
					t.Fatalf("repeat: %+v", r)
				}
			})
		})
	}
}

// Without room, what is parked stays so, and what was to be parked is not.
func TestMessage_Delay_noRoom(t *testing.T) {
	inBox(t, func(t *testing.T, b *box) {
		b.db.Close()
		var trouble atomic.Bool
		b.o.Failpoint = func(p string) error {
			if p == store.FailpointBeforeSync && trouble.Load() {
				return store.ErrFull
			}
			return nil
		}
		b.open()
		ensure(t, b.db, store.StreamConfig{Name: "a", MaxMsgs: 2}, "sub")
		b.publish("a", after(time.Minute, "x"))
		trouble.Store(true)
		turn := b.db.Begin()
		turn.Publish("a", store.Message{Delay: time.Minute, ID: "id"})
		if err := turn.Commit(); !errors.Is(err, store.ErrFull) {
			t.Fatal(err)
		}
		b.pass(3 * time.Minute)
		b.wantData(1)
		trouble.Store(false)
		b.pass(3 * time.Second)
		b.wantData(0, "x")
		if r := b.publish("a", store.Message{Data: []byte("y"), ID: "id"}); r.Duplicate || r.Seq != 2 {
			t.Fatalf("an identity was remembered of what was refused: %+v", r)
		}
	})
}

func TestTurn_Publish_badDelay(t *testing.T) {
	db := open(t, t.TempDir())
	ensure(t, db, store.StreamConfig{Name: "a"})
	for _, m := range []store.Message{
		{Delay: time.Hour, NotBefore: at(0)},
		{NotBefore: time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)},
		{Delay: 1<<63 - 1},
	} {
		turn := db.Begin()
		if _, err := turn.Publish("a", m); err == nil {
			t.Errorf("accepted: %+v", m)
		}
		turn.Discard()
	}
	for _, m := range []store.Message{{Delay: -1}, {NotBefore: time.Date(1, 2, 3, 0, 0, 0, 0, time.UTC)}} {
		commit(t, db, func(turn *store.Turn) { turn.Publish("a", m) })
	}
	if info, _ := db.Stream("a"); info.Msgs != 2 {
		t.Errorf("a time that is past: %+v", info)
	}
}
