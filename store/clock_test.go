package store_test

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edged-io/edged/store"
)

// box is a store on a machine with a clock of its own, in a bubble where time
// passes when everybody waits.
type box struct {
	t      *testing.T
	o      store.Options
	db     *store.DB
	shift  atomic.Int64 // of the wall clock
	synced atomic.Bool  // whether it is known to be right
}

// inBox runs fn with a box whose wall clock shows the beginning of 1970.
func inBox(t *testing.T, fn func(t *testing.T, b *box)) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		b := &box{t: t, o: store.Options{Dir: dir}}
		b.o.Now = func() time.Time { return time.Now().Add(time.Duration(b.shift.Load())) }
		b.o.ClockSynced = b.synced.Load
		b.setWall(time.Unix(10, 0))
		b.open()
		defer func() { b.db.Close() }()
		fn(t, b)
	})
}

func (b *box) open() {
	b.t.Helper()
	var err error
	if b.db, err = store.Open(b.o); err != nil {
		b.t.Fatal(err)
	}
}

// pass lets time pass, and the store notice.
func (b *box) pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func (b *box) wall() time.Time { return b.o.Now() }

func (b *box) setWall(t time.Time) { b.shift.Store(int64(time.Until(t))) }

func (b *box) sync(real time.Time) {
	b.setWall(real)
	b.synced.Store(true)
	b.pass(2 * time.Second)
}

// off is a restart with the box off for so long, by a clock that goes on or not.
func (b *box) off(d time.Duration, clockGoesOn, synced bool) {
	b.t.Helper()
	if err := b.db.Close(); err != nil {
		b.t.Fatal(err)
	}
	if clockGoesOn {
		b.shift.Add(int64(d))
	}
	b.synced.Store(synced)
	b.open()
}

func (b *box) publish(stream string, m store.Message) store.Receipt {
	b.t.Helper()
	turn := b.db.Begin()
	m.Subject = "s"
	r, err := turn.Publish(stream, m)
	if err == nil {
		err = turn.Commit()
	}
	if err != nil {
		b.t.Fatalf("publish: %v", err)
	}
	return *r
}

func (b *box) messages(stream string) (all []store.Message) {
	b.t.Helper()
	if err := b.db.Read(stream, 0, 1000, 1<<20, func(m store.Message) error { all = append(all, m); return nil }); err != nil {
		b.t.Fatal(err)
	}
	return all
}

// wantStamp compares the stamp of the nth message with what it should be.
func (b *box) wantStamp(n int, at time.Time, trust store.TimeTrust) {
	b.t.Helper()
	m := b.messages("a")[n]
	if d := m.Time.Sub(at).Abs(); d > time.Second || m.Trust != trust {
		b.t.Fatalf("message %d: stamp %v (%v), want %v (%v)", m.Seq, m.Time.UTC(), m.Trust, at.UTC(), trust)
	}
}

func (b *box) wantNow(at time.Time, trust store.TimeTrust) {
	b.t.Helper()
	if now, got := b.db.Now(); now.Sub(at).Abs() > time.Second || got != trust {
		b.t.Fatalf("now is %v (%v), want %v (%v)", now.UTC(), got, at.UTC(), trust)
	}
}

func TestDB_Now(t *testing.T) {
	inBox(t, func(t *testing.T, b *box) {
		b.wantNow(time.Unix(10, 0), store.TimeUnknown)
		b.sync(at(0))
		b.wantNow(b.wall(), store.TimeSynced)
		b.setWall(at(7)) // the clock was set, and is right
		b.pass(2 * time.Second)
		b.wantNow(b.wall(), store.TimeSynced)

		real := b.wall()
		b.setWall(time.Unix(0, 0)) // it jumps, and is not
		b.synced.Store(false)
		b.pass(time.Hour)
		real = real.Add(time.Hour)
		b.wantNow(real, store.TimeCorrected)

		b.off(time.Minute, false, false) // nobody knows for how long, but it is not 1970
		b.wantNow(real, store.TimeUnknown)
		b.setWall(real.Add(time.Hour)) // it may well be that late
		b.wantNow(real.Add(time.Hour), store.TimeUnknown)
		b.sync(real.Add(2 * time.Hour))
		b.wantNow(b.wall(), store.TimeSynced)
	})
}

// A clock that is far beyond what can be stored is not taken for right.
func TestDB_Now_absurd(t *testing.T) {
	inBox(t, func(t *testing.T, b *box) {
		b.sync(at(0))
		real := b.wall()
		b.setWall(time.Date(2201, 1, 1, 0, 0, 0, 0, time.UTC))
		b.pass(10 * time.Second)
		b.wantNow(real.Add(10*time.Second), store.TimeCorrected)
	})
}

func TestMessage_Time_isCorrected(t *testing.T) {
	inBox(t, func(t *testing.T, b *box) {
		ensure(t, b.db, store.StreamConfig{Name: "a"})
		b.publish("a", store.Message{}) // at the first start
		b.wantStamp(0, time.Unix(10, 0), store.TimeUnknown)
		b.off(time.Hour, false, false)
		b.publish("a", store.Message{}) // at the second, half an hour before the clock is set
		b.publish("a", store.Message{Time: at(-9999), Trust: store.TimeSynced})
		stored := time.Now()
		b.pass(30 * time.Minute)
		b.wantStamp(1, time.Unix(10, 0), store.TimeUnknown)
		b.sync(at(0))
		b.wantStamp(1, b.wall().Add(-time.Since(stored)), store.TimeCorrected)
		b.wantStamp(2, at(-9999), store.TimeSynced) // its publisher knows
		// Of the first start only this is known: it was before.
		b.wantStamp(0, time.Unix(10, 0), store.TimeUnknown)

		b.publish("a", store.Message{})
		real := b.wall()
		b.wantStamp(3, real, store.TimeSynced)
		b.setWall(time.Unix(0, 0)) // what was right stays right
		b.synced.Store(false)
		b.pass(time.Minute)
		b.wantStamp(3, real, store.TimeSynced)
		b.publish("a", store.Message{})
		b.wantStamp(4, real.Add(time.Minute), store.TimeCorrected)
		b.off(time.Hour, false, false)
		b.wantStamp(1, real.Add(-30*time.Minute-2*time.Second), store.TimeCorrected)
		b.wantStamp(4, real.Add(time.Minute), store.TimeCorrected)
	})
}

// Between two starts with a clock that was right, a stamp is not known, but put
// between them.
func TestMessage_Time_betweenTwoThatAreKnown(t *testing.T) {
	inBox(t, func(t *testing.T, b *box) {
		ensure(t, b.db, store.StreamConfig{Name: "a"})
		b.sync(at(0))
		b.publish("a", store.Message{})
		before := b.wall()
		b.off(24*time.Hour, true, false)
		real := b.wall()
		b.setWall(time.Unix(0, 0))
		b.publish("a", store.Message{})
		b.wantStamp(1, before, store.TimeUnknown) // no earlier than that
		b.setWall(at(1e6))
		b.publish("a", store.Message{})
		b.setWall(real)
		b.off(24*time.Hour, true, true)
		after := b.wall()
		b.wantStamp(2, after, store.TimeUnknown) // no later than that
	})
}

func TestMessage_TTL(t *testing.T) {
	inBox(t, func(t *testing.T, b *box) {
		ensure(t, b.db, store.StreamConfig{Name: "a"}, "sub")
		want := func(n int, left time.Duration) {
			t.Helper()
			if got := b.messages("a")[n].TTL; (got - left).Abs() > 10*time.Second {
				t.Fatalf("message %d has %v left, want %v", n+1, got, left)
			}
		}
		b.publish("a", store.Message{})
		b.publish("a", store.Message{TTL: time.Hour})
		want(0, 0)
		want(1, time.Hour)
		b.pass(20 * time.Minute)
		b.setWall(at(1e6)) // a clock that jumps ages nothing
		want(1, 40*time.Minute)
		b.sync(at(0))
		want(1, 40*time.Minute)
		b.off(10*time.Minute, true, false) // how long is not known yet
		want(1, 40*time.Minute)
		b.synced.Store(true)
		b.pass(2 * time.Second)
		want(1, 30*time.Minute)
		b.off(10*time.Minute, true, true) // known at once
		want(1, 20*time.Minute)
		b.off(10*time.Minute, true, false)
		b.off(10*time.Minute, true, false)
		want(1, 20*time.Minute)
		b.off(10*time.Minute, true, true)
		want(1, -10*time.Minute)
		want(0, 0)
		// There is a subscription: what to do with it is not for the store to say.
		b.pass(time.Hour)
		want(1, -70*time.Minute)
		if info, _ := b.db.Stream("a"); info.Msgs != 2 || len(info.Dropped) != 0 {
			t.Fatalf("%+v", info)
		}
	})
}

// Where nobody is subscribed, what expired goes by itself, once it is the oldest.
func TestMessage_TTL_ofNobody(t *testing.T) {
	inBox(t, func(t *testing.T, b *box) {
		ensure(t, b.db, store.StreamConfig{Name: "a"})
		for _, ttl := range []time.Duration{10, 20, 15, 0, 5} {
			b.publish("a", store.Message{TTL: ttl * time.Minute})
		}
		want := func(first uint64, expired uint64) {
			t.Helper()
			if info, _ := b.db.Stream("a"); info.First != first || info.Dropped["expired"] != expired {
				t.Fatalf("%+v, want it to begin with %d, and %d expired", info, first, expired)
			}
		}
		b.pass(9 * time.Minute)
		want(1, 0)
		b.pass(2 * time.Minute)
		want(2, 1)
		b.pass(6 * time.Minute)
		want(2, 1) // the third is over, behind one that is not
		b.pass(5 * time.Minute)
		want(4, 3)
		b.pass(time.Hour) // the fifth is behind one that is for ever
		want(4, 3)
		b.off(0, true, true)
		want(4, 3)
		commit(t, b.db, func(turn *store.Turn) { turn.Put("s", "k", nil) })
	})
}

func TestStream_MaxAge(t *testing.T) {
	inBox(t, func(t *testing.T, b *box) {
		ensure(t, b.db, store.StreamConfig{Name: "a", MaxAge: time.Hour}, "sub")
		want := func(msgs int64, aged uint64) {
			t.Helper()
			if info, _ := b.db.Stream("a"); info.Msgs != msgs || info.Dropped["age"] != aged {
				t.Fatalf("%+v, want %d messages, and %d dropped", info, msgs, aged)
			}
		}
		b.publish("a", store.Message{})
		b.off(100*time.Hour, true, false) // time off is not known
		b.pass(50 * time.Minute)
		b.publish("a", store.Message{})
		b.setWall(at(1e6)) // nor do jumps count
		b.pass(5 * time.Minute)
		want(2, 0)
		b.pass(10 * time.Minute)
		want(1, 1)
		b.sync(at(0))
		want(1, 1) // what the clock says now tells nothing of before
		b.off(time.Hour, true, true)
		b.pass(2 * time.Second)
		want(0, 2) // known, and counted
	})
}

// What a stream was, not what a clock says, is what a start in time is found by.
func TestDB_EnsureSubscription_startTimeIsCorrected(t *testing.T) {
	inBox(t, func(t *testing.T, b *box) {
		ensure(t, b.db, store.StreamConfig{Name: "a"})
		for range 5 {
			b.publish("a", store.Message{})
			b.pass(time.Minute)
		}
		b.sync(at(100))
		subscribe(t, b.db, store.SubscriptionConfig{Name: "s", Stream: "a", Start: store.Start{At: store.StartTime, Time: b.wall().Add(-210 * time.Second)}})
		if got := floor(t, b.db, "s") + 1; got != 3 {
			t.Fatalf("begins with %d, want 3", got)
		}
	})
}

func TestTurn_Publish_badTime(t *testing.T) {
	db := open(t, t.TempDir())
	ensure(t, db, store.StreamConfig{Name: "a"})
	for _, m := range []store.Message{
		{Time: time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)},
		{Time: at(0), Trust: 3},
		{Trust: -1},
	} {
		turn := db.Begin()
		if _, err := turn.Publish("a", m); err == nil {
			t.Errorf("accepted: %+v", m)
		}
		turn.Discard()
	}
}

// Messages that are in memory are read back as those on disk are.
func TestMessage_Time_inMemory(t *testing.T) {
	for _, c := range []store.StreamConfig{
		{Name: "a", Durability: store.Batch, BatchFor: time.Hour},
		{Name: "a", Durability: store.Memory},
	} {
		t.Run(c.Durability.String(), func(t *testing.T) {
			inBox(t, func(t *testing.T, b *box) {
				ensure(t, b.db, c)
				b.publish("a", store.Message{TTL: time.Hour}) // reserves sequences
				b.publish("a", store.Message{TTL: 2 * time.Hour})
				b.publish("a", store.Message{TTL: 3 * time.Hour, Delay: time.Hour})
				b.pass(30 * time.Minute)
				b.sync(at(0))
				b.wantStamp(1, at(-30), store.TimeCorrected)
				if m := b.messages("a")[1]; (m.TTL - 90*time.Minute).Abs() > 5*time.Second {
					t.Fatalf("%v left, want 90m", m.TTL)
				}
				b.pass(70 * time.Minute)
				all := b.messages("a")
				if len(all) != 2 || (all[1].TTL-80*time.Minute).Abs() > 10*time.Second {
					t.Fatalf("%+v: want the first to be over, and 80m left of the one that was parked", all)
				}
				if info, _ := b.db.Stream("a"); info.Dropped["expired"] != 1 || info.Delayed != 0 {
					t.Fatalf("%+v", info)
				}
			})
		})
	}
}
