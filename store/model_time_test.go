package store_test

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/edged-io/edged/store"
)

// world is a box over months, as it should be: its clocks, a stream "work" with
// subscriptions, a stream "free" without, and dead letters.
//
// Time passes in tens of minutes, and everything is due five minutes off those, so
// that the seconds the store takes to notice make no difference.
type world struct {
	o       store.Options
	db      *store.DB
	trouble atomic.Bool // the disk fails

	wall   atomic.Int64 // of the wall clock, from the bubble's
	synced atomic.Bool
	real   time.Duration // of real time, from the bubble's
	base   time.Duration // own clock at Open
	opened time.Time
	starts []start

	messages map[uint64]*sent
	last     uint64
	parked   map[string]*sent
	ids      map[string]*sent
	marks    map[string]uint64
	free     []*sent
	freeLast uint64
	expired  uint64
	subs     map[string]*reader
	dead     map[uint64]*givenUp
	made     int // data published
}

// start is one of the box.
type start struct {
	offset time.Duration // real time minus own
	known  bool
}

// sent is a message.
type sent struct {
	data       string
	seq        uint64 // 0 while it is parked
	start      int    // in which it was published
	own        time.Duration
	in         int // start in which it entered its stream
	inOwn      time.Duration
	synced     bool // then
	ttl, delay time.Duration
	notBefore  time.Time
	given      time.Time
}

type reader struct {
	floor     uint64
	acked     map[uint64]bool
	ephemeral bool
}

type givenUp struct {
	seq              uint64
	from, to, reason string
}

func (w *world) own() time.Duration { return w.base + time.Since(w.opened) }

func (w *world) now() int { return len(w.starts) - 1 }

func (w *world) realNow() time.Time { return time.Now().Add(w.real) }

// age is how old something is, as far as can be known.
func (w *world) age(start int, own time.Duration) time.Duration {
	age := w.own() - own
	from, to := start, w.now()
	for from < to && !w.starts[from].known {
		from++
	}
	for to > from && !w.starts[to].known {
		to--
	}
	if from < to {
		age += w.starts[to].offset - w.starts[from].offset
	}
	return age
}

// lower is what real time is known to be no earlier than.
func (w *world) lower(start int, own time.Duration) (t time.Time, known bool) {
	for i := start; i >= 0; i-- {
		if s := w.starts[i]; s.known {
			return time.Unix(0, int64(s.offset+own)), true
		}
	}
	return t, false
}

func (w *world) upper(start int, own time.Duration) (t time.Time, known bool) {
	for _, s := range w.starts[start:] {
		if s.known {
			return time.Unix(0, int64(s.offset+own)), true
		}
	}
	return t, false
}

// estimate is what the box should take for the time.
func (w *world) estimate() (time.Time, store.TimeTrust) {
	low, ok := w.lower(w.now(), w.own())
	switch wall := w.o.Now(); {
	case w.starts[w.now()].known && w.synced.Load():
		return low, store.TimeSynced
	case w.starts[w.now()].known:
		return low, store.TimeCorrected
	case ok && wall.Before(low):
		return low, store.TimeUnknown
	default:
		return wall, store.TimeUnknown
	}
}

func (w *world) open(t *rapid.T) {
	var err error
	if w.db, err = store.Open(w.o); err != nil {
		t.Fatalf("open: %v", err)
	}
	w.opened = time.Now()
	w.starts = append(w.starts, start{offset: time.Duration(w.realNow().UnixNano()) - w.own(), known: w.synced.Load()})
}

func (w *world) ensure(t *rapid.T) {
	err := errors.Join(
		w.db.EnsureStream(store.StreamConfig{Name: "work"}), w.db.EnsureStream(store.StreamConfig{Name: "free"}),
		w.db.EnsureSubscription(store.SubscriptionConfig{Name: "one", Stream: "work"}))
	if err != nil {
		t.Fatal(err)
	}
	if w.subs["one"] == nil {
		w.subs["one"] = &reader{floor: w.first() - 1, acked: map[uint64]bool{}}
	}
}

func (w *world) first() uint64 {
	if len(w.messages) == 0 {
		return w.last + 1
	}
	return slices.Min(slices.Collect(maps.Keys(w.messages)))
}

// settle lets the store notice what happened, and does what is to happen then.
func (w *world) settle(t *rapid.T, d time.Duration) {
	began := w.own()
	<-time.After(d + 2*time.Second)
	synctest.Wait()
	if w.synced.Load() {
		w.starts[w.now()].known = true
	}
	due := map[string]*sent{}
	estimate, trust := w.estimate()
	for data, m := range w.parked {
		if m.delay > 0 && w.age(m.start, m.own) >= m.delay || m.delay == 0 && !m.notBefore.After(estimate) {
			due[data] = m
		}
	}
	err := w.db.Read("work", w.last+1, 1000, 1<<20, func(got store.Message) error {
		m := due[string(got.Data)]
		if m == nil || got.Seq != w.last+1 {
			return fmt.Errorf("message %d (%s) is not due, or not next after %d", got.Seq, got.Data, w.last)
		}
		delete(due, m.data)
		delete(w.parked, m.data)
		late := w.age(m.start, m.own) - m.delay
		if m.delay == 0 {
			late = estimate.Sub(m.notBefore)
		}
		w.enter(m, max(began, w.own()-late), trust)
		return nil
	})
	if err != nil || len(due) > 0 {
		t.Fatalf("%v; %d messages are due and not there", err, len(due))
	}
	w.trim()
}

func (w *world) enter(m *sent, own time.Duration, trust store.TimeTrust) {
	w.last++
	m.seq, m.in, m.inOwn, m.synced = w.last, w.now(), own, trust == store.TimeSynced
	w.messages[m.seq] = m
}

func (w *world) trim() {
	low := w.last
	for _, s := range w.subs {
		low = min(low, s.floor)
	}
	for seq := range w.messages {
		if seq <= low {
			delete(w.messages, seq)
		}
	}
	for len(w.free) > 0 && w.free[0].ttl > 0 && w.age(w.free[0].start, w.free[0].own) >= w.free[0].ttl {
		w.free = w.free[1:]
		w.expired++
	}
}

// publish publishes something, and returns whether it was told the right thing.
func (w *world) publish(t *rapid.T) {
	w.made++
	m := &sent{data: fmt.Sprint("m", w.made), start: w.now(), own: w.own()}
	msg := store.Message{Subject: "s", Data: []byte(m.data), ID: rapid.SampledFrom([]string{"", "", "", "a", "b"}).Draw(t, "id")}
	if n := rapid.IntRange(0, 8).Draw(t, "number"); n > 0 {
		msg.Producer, msg.ProducerSeq = rapid.SampledFrom([]string{"p", "q"}).Draw(t, "producer"), uint64(n)
	}
	estimate, trust := w.estimate()
	parks := false
	minutes := time.Duration(10*rapid.IntRange(-3, 30).Draw(t, "due"))*time.Minute + 5*time.Minute
	if n := rapid.IntRange(-20, 20).Draw(t, "ttl"); n >= 0 {
		msg.TTL = time.Duration(10*n)*time.Minute + 5*time.Minute
	}
	switch rapid.IntRange(0, 3).Draw(t, "when") {
	case 0:
		msg.Delay = minutes
	case 1:
		msg.NotBefore = estimate.Add(minutes)
	case 2:
		if rapid.Bool().Draw(t, "given") {
			msg.Time = at(int(minutes / time.Minute))
		}
	}
	m.ttl, m.delay, m.notBefore, m.given = msg.TTL, msg.Delay, msg.NotBefore, msg.Time
	parks = (msg.Delay > 0 || !msg.NotBefore.IsZero()) && minutes > 0

	pair := fmt.Sprint(msg.Producer, "/", msg.ProducerSeq)
	var first *sent
	if msg.ID != "" {
		first = w.ids[msg.ID]
	}
	if first == nil && msg.ProducerSeq > 0 {
		first = w.ids[pair]
	}
	late := msg.ProducerSeq > 0 && msg.ProducerSeq <= w.marks[msg.Producer]

	turn := w.db.Begin()
	r, err := turn.Publish("work", msg)
	if err == nil {
		err = turn.Commit()
	}
	if err != nil {
		t.Fatalf("publish: %v", err)
	}
	if first != nil || late {
		if !r.Duplicate || first != nil && (r.Seq != first.seq || (first.seq == 0) == r.Due.IsZero()) {
			t.Fatalf("a repeat of %+v (late %t): %+v", first, late, r)
		}
		return
	}
	if r.Duplicate || parks != !r.Due.IsZero() || !parks && r.Seq != w.last+1 || parks && r.Seq != 0 {
		t.Fatalf("published %+v after %d: %+v", msg, w.last, r)
	}
	if msg.ID != "" {
		w.ids[msg.ID] = m
	}
	if msg.ProducerSeq > 0 {
		w.ids[pair], w.marks[msg.Producer] = m, msg.ProducerSeq
	}
	if parks {
		w.parked[m.data] = m
	} else {
		w.enter(m, w.own(), trust)
	}
}

func (w *world) publishFree(t *rapid.T) {
	m := &sent{start: w.now(), own: w.own()}
	if rapid.IntRange(0, 5).Draw(t, "for ever") > 0 {
		m.ttl = time.Duration(10*rapid.IntRange(0, 20).Draw(t, "ttl"))*time.Minute + 5*time.Minute
	}
	w.commit(t, func(turn *store.Turn) { turn.Publish("free", store.Message{TTL: m.ttl}) })
	w.freeLast++
	m.seq = w.freeLast
	w.free = append(w.free, m)
}

func (w *world) commit(t *rapid.T, fn func(*store.Turn)) {
	turn := w.db.Begin()
	fn(turn)
	if err := turn.Commit(); err != nil {
		t.Fatalf("commit: %v", err)
	}
}

// restart is one with the box off for a while, with a clean end or a crash.
func (w *world) restart(t *rapid.T) {
	// What is not saved with a commit, a crash takes from the own clock.
	w.commit(t, func(turn *store.Turn) { turn.Put("s", "k", nil) })
	if rapid.Bool().Draw(t, "crash") {
		w.trouble.Store(true)
		turn := w.db.Begin()
		turn.Publish("work", store.Message{ID: "a", Producer: "p", ProducerSeq: 99, Delay: time.Minute})
		turn.Publish("free", store.Message{})
		for id := range w.dead {
			turn.DropDeadLetter(id)
		}
		if err := turn.Commit(); !errors.Is(err, store.ErrFailed) {
			t.Fatalf("commit on a broken disk: %v", err)
		}
	}
	w.base = w.own()
	w.db.Close()
	w.trouble.Store(false)
	off := time.Duration(rapid.IntRange(0, 100).Draw(t, "off")) * 10 * time.Minute
	w.real += off
	if rapid.Bool().Draw(t, "synced") {
		w.setClock(true, 0)
	} else {
		w.setClock(false, rapid.SampledFrom([]int{0, 0, -100, 100, -1e7}).Draw(t, "wrong by"))
	}
	w.open(t)
	for name, s := range w.subs {
		if s.ephemeral {
			delete(w.subs, name)
		}
	}
	w.ensure(t)
}

// setClock sets the wall clock, off by minutes.
func (w *world) setClock(synced bool, minutes int) {
	w.synced.Store(synced)
	w.wall.Store(int64(w.real + time.Duration(minutes)*time.Minute))
}

func (w *world) subscribe(t *rapid.T) {
	name := rapid.SampledFrom([]string{"two", "three"}).Draw(t, "name")
	if w.subs[name] != nil {
		if err := w.db.DeleteSubscription(name); err != nil {
			t.Fatal(err)
		}
		delete(w.subs, name)
		return
	}
	c := store.SubscriptionConfig{Name: name, Stream: "work", Ephemeral: rapid.Bool().Draw(t, "ephemeral")}
	c.Start.At = store.StartAt(rapid.IntRange(0, 4).Draw(t, "at"))
	c.Start.Seq = uint64(rapid.IntRange(0, int(w.last)+3).Draw(t, "seq"))
	c.Start.Time = w.realNow().Add(-time.Duration(rapid.IntRange(0, 300).Draw(t, "ago")) * time.Minute)
	want := w.first() - 1
	switch c.Start.At {
	case store.StartNew:
		want = w.last
	case store.StartLast:
		want = w.last
		if len(w.messages) > 0 {
			want--
		}
	case store.StartSeq:
		want = min(max(want, max(c.Start.Seq, 1)-1), w.last)
	case store.StartTime:
		want = w.last
		w.db.Read("work", 0, 1000, 1<<20, func(m store.Message) error {
			if !m.Time.Before(c.Start.Time) {
				want = min(want, m.Seq-1)
			}
			return nil
		})
	}
	if err := w.db.EnsureSubscription(c); err != nil {
		t.Fatal(err)
	}
	w.subs[name] = &reader{floor: want, acked: map[uint64]bool{}, ephemeral: c.Ephemeral}
}

func (w *world) acknowledge(t *rapid.T) {
	if w.last == 0 {
		return
	}
	name := rapid.SampledFrom(slices.Sorted(maps.Keys(w.subs))).Draw(t, "sub")
	seq := rapid.Uint64Range(1, w.last).Draw(t, "seq")
	w.commit(t, func(turn *store.Turn) { turn.Ack(name, seq) })
	s := w.subs[name]
	for s.acked[seq] = true; s.acked[s.floor+1]; s.floor++ {
	}
}

// deadLetters does something to dead letters, all in one turn.
func (w *world) deadLetters(t *rapid.T) {
	turn := w.db.Begin()
	var want error
	before := append(slices.Sorted(maps.Keys(w.dead)), 1<<40)
	after := maps.Clone(w.dead)
	for range rapid.IntRange(0, 2).Draw(t, "verbs") {
		id := rapid.SampledFrom(before).Draw(t, "dead letter")
		d, to := after[id], rapid.SampledFrom([]string{"", "one", "two", "three", "none"}).Draw(t, "to")
		verb := rapid.IntRange(0, 2).Draw(t, "verb")
		if d == nil {
			want = cmp.Or(want, store.ErrNoDeadLetter)
		}
		switch verb {
		case 0:
			turn.DropDeadLetter(id)
			delete(after, id)
		case 1:
			turn.ReplayDeadLetter(id, to)
			if d != nil && to == "" {
				to = d.from
			}
			if d != nil && w.subs[to] == nil {
				want = cmp.Or(want, store.ErrNoSubscription)
			}
		case 2:
			to = ""
			turn.UpdateDeadLetter(store.DeadLetter{ID: id, Stream: "work", Subscription: "two", Seq: id, Reason: "rejected"})
		}
		if d != nil && verb > 0 {
			changed := *d
			if changed.to = to; verb == 2 {
				changed = givenUp{seq: id, from: "two", reason: "rejected"}
			}
			after[id] = &changed
		}
	}
	seq := rapid.Uint64Range(1, 9).Draw(t, "seq")
	turn.DeadLetter(store.DeadLetter{Stream: "work", Subscription: "one", Seq: seq, Reason: "expired"})
	if err := turn.Commit(); !errors.Is(err, want) {
		t.Fatalf("got %v, want %v", err, want)
	}
	if want != nil {
		return
	}
	w.dead = after
	w.db.DeadLetters(func(d store.DeadLetter) error {
		if w.dead[d.ID] == nil && !slices.Contains(before, d.ID) {
			w.dead[d.ID] = &givenUp{seq: seq, from: "one", reason: "expired"}
		}
		return nil
	})
}

func (w *world) compare(t *rapid.T) {
	w.compareMessages(t)
	info, err := w.db.Stream("free")
	if err != nil || info.Msgs != int64(len(w.free)) || info.Dropped["expired"] != w.expired {
		t.Fatalf("%+v, %v; want %d messages, %d expired", info, err, len(w.free), w.expired)
	}
	for name, s := range w.subs {
		if p, err := w.db.Position(name); err != nil || p.Floor != s.floor {
			t.Fatalf("position of %s: %+v, %v; want %d", name, p, err, s.floor)
		}
	}
	if got := w.db.Subscriptions(); len(got) != len(w.subs) {
		t.Fatalf("subscriptions %v, want %v", got, slices.Sorted(maps.Keys(w.subs)))
	}
	w.compareDead(t)
	now, trust := w.db.Now()
	if want, wantTrust := w.estimate(); trust != wantTrust || now.Sub(want).Abs() > time.Minute {
		t.Fatalf("now is %v (%v), want %v (%v)", now, trust, want, wantTrust)
	}
}

func (w *world) compareMessages(t *rapid.T) {
	seen := 0
	err := w.db.Read("work", 0, 1000, 1<<20, func(got store.Message) error {
		m := w.messages[got.Seq]
		if seen++; m == nil || m.data != string(got.Data) {
			return fmt.Errorf("message %d (%s), want %+v", got.Seq, got.Data, m)
		}
		if left := m.ttl - w.age(m.start, m.own); m.ttl == 0 && got.TTL != 0 || m.ttl > 0 && (got.TTL-left).Abs() > time.Minute {
			return fmt.Errorf("message %d has %v left, want %v of %v", got.Seq, got.TTL, left, m.ttl)
		}
		return w.compareStamp(m, got)
	})
	info, infoErr := w.db.Stream("work")
	if err := errors.Join(err, infoErr); err != nil || seen != len(w.messages) || info.Last != w.last || info.Delayed != int64(len(w.parked)) {
		t.Fatalf("%v; %d messages, want %d; %+v, want %d to be last, and %d parked", err, seen, len(w.messages), info, w.last, len(w.parked))
	}
}

func (w *world) compareStamp(m *sent, got store.Message) error {
	s := w.starts[m.in]
	exact := time.Unix(0, int64(s.offset+m.inOwn))
	want := store.TimeUnknown
	switch {
	case !m.given.IsZero():
		exact = m.given
	case m.synced:
		want = store.TimeSynced
	case s.known:
		want = store.TimeCorrected
	default:
		exact = got.Time
		if low, ok := w.lower(m.in, m.inOwn); ok && got.Time.Before(low.Add(-time.Minute)) {
			exact = low
		}
		if high, ok := w.upper(m.in, m.inOwn); ok && got.Time.After(high.Add(time.Minute)) {
			exact = high
		}
	}
	if got.Trust != want || got.Time.Sub(exact).Abs() > time.Minute {
		return fmt.Errorf("message %d: stamp %v (%v), want %v (%v)", got.Seq, got.Time, got.Trust, exact, want)
	}
	return nil
}

func (w *world) compareDead(t *rapid.T) {
	marked := map[string]int{}
	err := w.db.DeadLetters(func(got store.DeadLetter) error {
		d := w.dead[got.ID]
		if d == nil || got.Seq != d.seq || got.ReplayTo != d.to || got.Reason != d.reason {
			return fmt.Errorf("dead letter %+v, want %+v", got, d)
		}
		if d.to != "" {
			marked[d.to]++
		}
		return nil
	})
	if n := w.db.DeadLetterCount(); err != nil || n != len(w.dead) {
		t.Fatalf("%d dead letters, want %d: %v", n, len(w.dead), err)
	}
	for _, name := range []string{"one", "two", "three"} {
		ids := w.db.Replays(name)
		if len(ids) != marked[name] || !slices.IsSortedFunc(ids, func(a, b uint64) int {
			return cmp.Or(cmp.Compare(w.dead[a].seq, w.dead[b].seq), cmp.Compare(a, b))
		}) {
			t.Fatalf("replays of %s: %v, want %d", name, ids, marked[name])
		}
	}
}

// TestDB_modelOfTime runs boxes through months of restarts and clocks that are
// wrong, with all that has to do with time, producers and dead letters.
func TestDB_modelOfTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// Time flies in here, so that rapid ends each of its runs after some boxes;
		// and it must not ask for the test's deadline, which is of another time.
		for range 20 {
			rapid.Check(struct{ testing.TB }{t}, liveOn)
		}
	})
}

// liveOn is what happens to one box.
func liveOn(t *rapid.T) {
	dir, err := os.MkdirTemp(fastDir(), "model")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	w := newWorld(dir)
	w.open(t)
	defer func() { w.db.Close() }()
	w.ensure(t)
	t.Repeat(map[string]func(*rapid.T){
		"publish":      w.publish,
		"publish more": w.publish,
		"publish free": w.publishFree,
		"time passes": func(t *rapid.T) {
			w.settle(t, time.Duration(rapid.IntRange(1, 20).Draw(t, "tens"))*10*time.Minute)
		},
		"clock is set": func(*rapid.T) { w.setClock(true, 0) },
		"clock jumps": func(t *rapid.T) {
			w.setClock(false, rapid.SampledFrom([]int{0, 30, -30, 300, -1e7, 1e6}).Draw(t, "by"))
		},
		"restart":      w.restart,
		"subscribe":    w.subscribe,
		"acknowledge":  w.acknowledge,
		"dead letters": w.deadLetters,
		"delete stream": func(t *rapid.T) {
			if rapid.IntRange(0, 5).Draw(t, "really") > 0 {
				return
			}
			if err := w.db.DeleteStream("work"); err != nil {
				t.Fatal(err)
			}
			w.forgetWork()
			w.ensure(t)
		},
		"": func(t *rapid.T) { w.settle(t, 0); w.compare(t) },
	})
}

func newWorld(dir string) *world {
	w := &world{dead: map[uint64]*givenUp{}}
	w.forgetWork()
	w.real = time.Until(at(0))
	w.wall.Store(int64(time.Until(time.Unix(10, 0))))
	w.o = store.Options{
		Dir:         dir,
		Now:         func() time.Time { return time.Now().Add(time.Duration(w.wall.Load())) },
		ClockSynced: w.synced.Load,
		Failpoint: func(p string) error {
			if w.trouble.Load() && p == store.FailpointBeforeSync {
				return errors.New("i/o error")
			}
			return nil
		},
	}
	return w
}

func (w *world) forgetWork() {
	w.messages, w.parked, w.ids = map[uint64]*sent{}, map[string]*sent{}, map[string]*sent{}
	w.marks, w.subs, w.last = map[string]uint64{}, map[string]*reader{}, 0
}
