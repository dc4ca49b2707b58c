package broker_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/edged-io/edged/broker"
	"github.com/edged-io/edged/store"
)

// put stores messages through the server.
func (b *box) put(t testing.TB, subjects ...string) {
	t.Helper()
	var wg sync.WaitGroup
	wg.Add(len(subjects))
	for i, subject := range subjects {
		b.Publish(broker.Message{Subject: subject, Data: fmt.Append(nil, i)}, func(_ broker.Ack, err error) {
			if err != nil {
				t.Error(err)
			}
			wg.Done()
		})
	}
	wg.Wait()
}

// journal notes what a handler was given.
type journal struct {
	mu    sync.Mutex // guards lines
	lines []string
}

func (j *journal) add(format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, fmt.Sprintf(format, args...))
}

func (j *journal) all() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.lines)
}

func (b *box) floor(t testing.TB, sub string) uint64 {
	t.Helper()
	pos, err := b.db.Position(sub)
	if err != nil {
		t.Fatal(err)
	}
	return pos.Floor
}

func deadLetters(t testing.TB, db *store.DB) []store.DeadLetter {
	t.Helper()
	var all []store.DeadLetter
	if err := db.DeadLetters(func(d store.DeadLetter) error {
		all = append(all, d)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return all
}

var fast = []time.Duration{time.Millisecond, 2 * time.Millisecond}

func TestSubscription_Deliver_inTurn(t *testing.T) {
	b := newBox(t, broker.Options{})
	b.configure(t, []broker.Stream{telemetry, {Name: "alarms", Subjects: []string{"alarms.>"}}}, broker.Subscription{
		Name: "s", Stream: "telemetry", Backoff: fast,
		Deliver: func(ctx context.Context, m broker.Message, attempt int) error {
			turn := store.TurnFrom(ctx)
			if err := turn.Put("state", m.Subject, m.Data); err != nil {
				return err
			}
			if err := b.Stage(turn, broker.Message{Subject: "alarms." + m.Subject}); err != nil {
				return err
			}
			if attempt < 3 {
				return errors.New("not yet")
			}
			return nil
		},
	})
	b.run(t)
	b.put(t, "sensors.a", "sensors.b")
	eventually(t, "both are acknowledged", func() bool { return b.floor(t, "s") == 2 })
	if got := len(stored(t, b.db, "alarms")); got != 2 {
		t.Errorf("got %d alarms, want 2: those of failed attempts must not be there", got)
	}
	eventually(t, "consumed messages are removed", func() bool { return len(stored(t, b.db, "telemetry")) == 0 })
	eventually(t, "the counters tell", func() bool {
		st := b.Stats().Subscriptions[0]
		return st.Delivered == 2 && st.Redelivered == 4 && st.Failed == 4 && st.DeadLetters == 0 && st.Pending == 0
	})
}

func TestSubscription_Filter_movesOn(t *testing.T) {
	var j journal
	b := newBox(t, broker.Options{})
	b.configure(t, []broker.Stream{telemetry}, broker.Subscription{
		Name: "s", Stream: "telemetry", Filter: "sensors.*.temp",
		Deliver: func(_ context.Context, m broker.Message, _ int) error { j.add("%s", m.Subject); return nil },
	})
	b.run(t)
	b.put(t, "sensors.a.hum", "sensors.a.temp", "sensors.b.hum", "sensors.b.temp.x", "sensors.b.temp", "sensors.c.hum")
	eventually(t, "position moves over what does not match", func() bool { return b.floor(t, "s") == 6 })
	if got, want := j.all(), []string{"sensors.a.temp", "sensors.b.temp"}; !slices.Equal(slices.Sorted(slices.Values(got)), want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

type blamed struct{ error }

func (blamed) Actor() (name, version string) { return "app/thermostat", "1.4.0" }

func TestSubscription_deadLetters(t *testing.T) {
	b := newBox(t, broker.Options{})
	b.configure(t, []broker.Stream{telemetry, {Name: "out", Subjects: []string{"out"}}}, broker.Subscription{
		Name: "s", Stream: "telemetry", Backoff: fast, MaxDeliver: 3,
		Deliver: func(ctx context.Context, m broker.Message, attempt int) error {
			if err := b.Stage(store.TurnFrom(ctx), broker.Message{Subject: "out"}); err != nil {
				return err
			}
			switch m.Subject {
			case "sensors.bad":
				return broker.Reject("not a number")
			case "sensors.trap":
				return blamed{fmt.Errorf("trap in attempt %d", attempt)}
			}
			return nil
		},
	})
	b.run(t)
	b.put(t, "sensors.bad", "sensors.trap", "sensors.good")
	eventually(t, "all are done with", func() bool { return b.floor(t, "s") == 3 })
	all := deadLetters(t, b.db)
	slices.SortFunc(all, func(a, b store.DeadLetter) int { return int(a.Seq) - int(b.Seq) })
	if len(all) != 2 {
		t.Fatalf("got %d dead letters, want 2", len(all))
	}
	rejected, trapped := all[0], all[1]
	if rejected.Reason != "rejected" || rejected.Error != "not a number" || rejected.Attempts != 1 || rejected.Subscription != "s" || string(rejected.Data) != "0" {
		t.Errorf("got %+v", rejected)
	}
	if trapped.Reason != "max-deliver" || trapped.Error != "trap in attempt 3" || trapped.Attempts != 3 || trapped.Actor != "app/thermostat" || trapped.ActorVersion != "1.4.0" {
		t.Errorf("got %+v", trapped)
	}
	if got := len(stored(t, b.db, "out")); got != 1 {
		t.Errorf("got %d messages of handlers, want that of the good one only", got)
	}
}

// TestSubscription_ordered: a message that fails holds back its subject, and no
// other.
func TestSubscription_ordered(t *testing.T) {
	var j journal
	b := newBox(t, broker.Options{})
	open := make(chan struct{})
	b.configure(t, []broker.Stream{telemetry}, broker.Subscription{
		Name: "s", Stream: "telemetry", Backoff: fast,
		Deliver: func(_ context.Context, m broker.Message, attempt int) error {
			if m.Seq == 1 {
				select {
				case <-open:
				default:
					return errors.New("closed")
				}
			}
			j.add("%s %d", m.Subject, m.Seq)
			return nil
		},
	})
	b.run(t)
	var subjects []string
	for range 50 {
		subjects = append(subjects, "sensors.a", "sensors.b")
	}
	b.put(t, subjects...)
	eventually(t, "b goes on without a", func() bool { return len(j.all()) == 50 })
	for _, line := range j.all() {
		if strings.HasPrefix(line, "sensors.a") {
			t.Fatalf("%s overtook the first of its subject", line)
		}
	}
	close(open)
	eventually(t, "all are acknowledged", func() bool { return b.floor(t, "s") == 100 })
	var got []string
	for _, line := range j.all() {
		if strings.HasPrefix(line, "sensors.a") {
			got = append(got, line)
		}
	}
	for i, line := range got {
		if want := fmt.Sprintf("sensors.a %d", 2*i+1); line != want {
			t.Fatalf("got %s in place %d, want %s", line, i, want)
		}
	}
}

func TestSubscription_unordered_maxInFlight(t *testing.T) {
	b := newBox(t, broker.Options{})
	running, release := make(chan struct{}, 100), make(chan struct{})
	b.configure(t, []broker.Stream{telemetry}, broker.Subscription{
		Name: "s", Stream: "telemetry", OrderedBy: "none", MaxInFlight: 3,
		Deliver: func(context.Context, broker.Message, int) error {
			running <- struct{}{}
			<-release
			return nil
		},
	})
	b.run(t)
	b.put(t, slices.Repeat([]string{"sensors.a"}, 10)...)
	for range 3 {
		<-running
	}
	eventually(t, "3 in flight", func() bool { return b.Stats().Subscriptions[0].InFlight == 3 })
	select {
	case <-running:
		t.Error("a fourth handler runs")
	default:
	}
	close(release)
	eventually(t, "all are acknowledged", func() bool { return b.floor(t, "s") == 10 })
}

// TestSubscription_full: where a handler publishes to a stream that is full its
// message waits, and is not given up.
func TestSubscription_full(t *testing.T) {
	b := newBox(t, broker.Options{})
	b.configure(t, []broker.Stream{telemetry, {Name: "out", Subjects: []string{"out"}, MaxMsgs: 1}}, broker.Subscription{
		Name: "s", Stream: "telemetry", MaxDeliver: 1, Backoff: fast,
		Deliver: func(ctx context.Context, m broker.Message, attempt int) error {
			if attempt != 1 {
				t.Errorf("attempt %d, want 1", attempt)
			}
			return b.Stage(store.TurnFrom(ctx), broker.Message{Subject: "out"})
		},
	})
	b.run(t)
	b.put(t, "sensors.a", "sensors.a")
	eventually(t, "the first is done with", func() bool { return b.floor(t, "s") == 1 })
	b.configure(t, []broker.Stream{telemetry, {Name: "out", Subjects: []string{"out"}, MaxMsgs: 2}}, broker.Subscription{
		Name: "s", Stream: "telemetry", MaxDeliver: 1, Backoff: fast,
		Deliver: func(context.Context, broker.Message, int) error { return nil },
	})
	eventually(t, "the second too", func() bool { return b.floor(t, "s") == 2 })
	if n := len(deadLetters(t, b.db)); n != 0 {
		t.Errorf("got %d dead letters, want none", n)
	}
}

// A subscription may begin paused. Configured again it stays as it is.
func TestServer_Configure_paused(t *testing.T) {
	b := newBox(t, broker.Options{})
	sub := broker.Subscription{Name: "s", Stream: "telemetry", Paused: true, Deliver: func(context.Context, broker.Message, int) error { return nil }}
	b.configure(t, []broker.Stream{telemetry}, sub)
	b.run(t)
	b.put(t, "sensors.1")
	sub.Paused = false
	b.configure(t, []broker.Stream{telemetry}, sub)
	if n := b.Stats().Subscriptions[0]; !n.Paused || b.floor(t, "s") != 0 {
		t.Errorf("got %+v at %d, want it paused", n, b.floor(t, "s"))
	}
	must(t, b.Resume("s", nil))
	sub.Paused = true
	b.configure(t, []broker.Stream{telemetry}, sub)
	eventually(t, "it goes on", func() bool { return b.floor(t, "s") == 1 })
}

// TestServer_Pause_swap changes the handler again and again while messages
// flow: none is lost, repeated, or out of order.
func TestServer_Pause_swap(t *testing.T) {
	var mu sync.Mutex
	got := make(map[string][]uint64)
	versions := make(map[int]int)
	version := func(v int) func(context.Context, broker.Message, int) error {
		return func(ctx context.Context, m broker.Message, attempt int) error {
			if m.Seq%7 == 0 && attempt == 1 {
				return errors.New("try again")
			}
			store.TurnFrom(ctx).AfterCommit(func() {
				mu.Lock()
				defer mu.Unlock()
				got[m.Subject] = append(got[m.Subject], m.Seq)
				versions[v]++
			})
			return nil
		}
	}
	b := newBox(t, broker.Options{})
	sub := broker.Subscription{Name: "s", Stream: "telemetry", Backoff: fast, Deliver: version(0)}
	b.configure(t, []broker.Stream{telemetry}, sub)
	b.run(t)
	const total = 2000
	var feed sync.WaitGroup
	feed.Go(func() {
		for i := 0; i < total; i += 50 {
			subjects := make([]string, 50)
			for k := range subjects {
				subjects[k] = fmt.Sprintf("sensors.%d", k%10)
			}
			b.put(t, subjects...)
		}
	})
	for v := 1; v < 20; v++ {
		if err := b.Pause(t.Context(), "s"); err != nil {
			t.Fatal(err)
		}
		if n := b.Stats().Subscriptions[0]; !n.Paused {
			t.Error("not paused")
		}
		switch v % 3 {
		case 0: // a changed subscription, still paused
			sub.MaxInFlight, sub.Deliver = 10+v, version(v)
			b.configure(t, []broker.Stream{telemetry}, sub)
			if err := b.Resume("s", nil); err != nil {
				t.Fatal(err)
			}
		case 1: // the same with another handler
			sub.Deliver = version(v)
			b.configure(t, []broker.Stream{telemetry}, sub)
			if err := b.Resume("s", nil); err != nil {
				t.Fatal(err)
			}
		default:
			if err := b.Resume("s", version(v)); err != nil {
				t.Fatal(err)
			}
		}
		want := b.floor(t, "s")
		eventually(t, "it goes on", func() bool { f := b.floor(t, "s"); return f > want || f == total })
	}
	feed.Wait()
	count := func() (n int) {
		mu.Lock()
		defer mu.Unlock()
		for _, seqs := range got {
			n += len(seqs)
		}
		return n
	}
	eventually(t, "all are acknowledged, and their turns' ends told", func() bool { return b.floor(t, "s") == total && count() >= total })
	if n := count(); n != total {
		t.Errorf("got %d messages, want %d", n, total)
	}
	mu.Lock()
	defer mu.Unlock()
	for subject, seqs := range got {
		if !slices.IsSorted(seqs) {
			t.Errorf("%s out of order", subject)
		}
		if len(slices.Compact(slices.Clone(seqs))) != len(seqs) {
			t.Errorf("%s has repeats", subject)
		}
	}
	t.Logf("messages by version: %v", versions)
}

// TestServer_Run_again: positions and attempts survive the end of a server, and
// handlers that do not return in time are cancelled.
// A Configure that fails leaves the subscriptions it would have changed as they
// were: at work.
func TestServer_Configure_failsHalfWay(t *testing.T) {
	b := newBox(t, broker.Options{Hub: broker.HubOptions{URL: "nats-leaf://127.0.0.1:1"}})
	handled := make(chan struct{}, 1)
	sub := broker.Subscription{Name: "s", Stream: "telemetry", Deliver: func(context.Context, broker.Message, int) error {
		handled <- struct{}{}
		return nil
	}}
	streams := []broker.Stream{telemetry, {Name: "other", Subjects: []string{"other"}}}
	b.configure(t, streams, sub)
	b.run(t)
	// Something is in the way of the hub's position in the other stream.
	if err := b.db.EnsureSubscription(store.SubscriptionConfig{Name: "$uplink/other", Stream: "telemetry"}); err != nil {
		t.Fatal(err)
	}
	changed := sub
	changed.MaxInFlight = 7
	uplinked := []broker.Stream{telemetry, {Name: "other", Subjects: []string{"other"}, Uplink: true}}
	if err := b.Configure(t.Context(), uplinked, []broker.Subscription{changed}); err == nil {
		t.Fatal("Configure: got nil, want an error")
	}
	b.configure(t, streams, sub)
	b.put(t, "sensors.1")
	select {
	case <-handled:
	case <-time.After(patience):
		t.Fatal("the subscription hands out nothing any more")
	}
}

func TestServer_Run_again(t *testing.T) {
	dir := t.TempDir()
	stuck := make(chan struct{})
	first := func(db *store.DB) *box {
		b := newBox(t, broker.Options{Store: db, Grace: 10 * time.Millisecond})
		b.configure(t, []broker.Stream{telemetry}, broker.Subscription{
			Name: "s", Stream: "telemetry", Backoff: []time.Duration{time.Millisecond, time.Hour},
			Deliver: func(ctx context.Context, m broker.Message, attempt int) error {
				switch m.Seq {
				case 2:
					return errors.New("bad")
				case 4:
					close(stuck)
					<-ctx.Done()
					return ctx.Err()
				}
				return nil
			},
		})
		return b.run(t)
	}
	db, err := store.Open(store.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	b := first(db)
	b.put(t, "sensors.1", "sensors.2", "sensors.3", "sensors.4")
	<-stuck
	eventually(t, "two attempts", func() bool { return b.Stats().Subscriptions[0].Failed == 2 })
	eventually(t, "1 and 3 are acknowledged", func() bool { return b.Stats().Subscriptions[0].Delivered == 2 })
	b.stop()
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}

	var j journal
	b = newBox(t, broker.Options{Store: openStore(t, dir)})
	b.configure(t, []broker.Stream{telemetry}, broker.Subscription{
		Name: "s", Stream: "telemetry",
		Deliver: func(_ context.Context, m broker.Message, attempt int) error {
			j.add("%d attempt %d", m.Seq, attempt)
			return nil
		},
	})
	b.run(t)
	eventually(t, "all are acknowledged", func() bool { return b.floor(t, "s") == 4 })
	got := j.all()
	slices.Sort(got)
	if want := []string{"2 attempt 3", "4 attempt 1"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestServer_Configure_badSubscriptions(t *testing.T) {
	ok := func(context.Context, broker.Message, int) error { return nil }
	b := newBox(t, broker.Options{})
	err := b.Configure(t.Context(), []broker.Stream{telemetry}, []broker.Subscription{
		{Name: "no stream", Stream: "x", Deliver: ok},
		{Name: "key", Stream: "telemetry", OrderedBy: "size", Deliver: ok},
		{Name: "filter", Stream: "telemetry", Filter: "a..b", Deliver: ok},
		{Name: "none", Stream: "telemetry"},
		{Name: "two", Stream: "telemetry", Deliver: ok, Pull: true},
		{Name: "new\nline", Stream: "telemetry", Pull: true},
		{Name: "to", Stream: "telemetry", PushTo: "jobs.*"},
		{Name: "api", Stream: "telemetry", PushTo: "$JS.API.INFO"},
		{Name: "circle", Stream: "telemetry", PushTo: "sensors.done"},
		{Name: "twice", Stream: "telemetry", Deliver: ok}, {Name: "twice", Stream: "telemetry", Deliver: ok},
	})
	if err == nil {
		t.Fatal("got nil")
	}
	for _, want := range []string{`no stream "x"`, "ordered_by", "filter", "\"none\": needs one receiver",
		"\"two\": needs one receiver", "control characters", "\"jobs.*\" is not one to push to", "$JS.API.INFO", "belongs to stream telemetry", "declared twice"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error does not tell %q: %v", want, err)
		}
	}
}

// One message that fails and fails holds back its own subject, however much comes
// on others meanwhile.
func TestSubscription_Deliver_poisonAmongMany(t *testing.T) {
	const n = 6000 // more than a subscription has read and not done with
	b := newBox(t, broker.Options{})
	var handled atomic.Int64
	b.configure(t, []broker.Stream{telemetry}, broker.Subscription{
		Name: "s", Stream: "telemetry", Backoff: []time.Duration{time.Hour},
		Deliver: func(_ context.Context, m broker.Message, _ int) error {
			if m.Subject == "sensors.poison" {
				return errors.New("no")
			}
			handled.Add(1)
			return nil
		},
	})
	b.put(t, "sensors.poison", "sensors.poison")
	subjects := make([]string, n)
	for i := range subjects {
		subjects[i] = fmt.Sprintf("sensors.%d", i%100)
	}
	b.put(t, subjects...)
	b.run(t)
	eventually(t, "all others are handled", func() bool { return handled.Load() == n })
	if got := b.floor(t, "s"); got != 0 {
		t.Errorf("position %d, want 0", got)
	}
}
