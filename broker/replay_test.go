package broker_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/edged-io/edged/broker"
	"github.com/edged-io/edged/store"
)

// sick is a handler that fails while it is sick, and a journal of what it was
// given.
type sick struct {
	journal
	ill atomic.Bool
}

func (s *sick) handle(_ context.Context, m broker.Message, attempt int) error {
	s.add("%s=%s.%d", m.Subject, m.Data, attempt)
	if s.ill.Load() {
		return blamed{fmt.Errorf("ill in attempt %d", attempt)}
	}
	return nil
}

func ids(t testing.TB, db *store.DB) (all []uint64) {
	t.Helper()
	for _, d := range deadLetters(t, db) {
		all = append(all, d.ID)
	}
	return all
}

// Dead letters of a subject come in their order, and before newer messages that
// wait; one that fails again stays, with its attempts added up.
func TestReplay(t *testing.T) {
	dir := t.TempDir()
	h := new(sick)
	h.ill.Store(true)
	start := func() *box {
		b := newBox(t, broker.Options{Store: openStore(t, dir)})
		b.configure(t, []broker.Stream{telemetry},
			broker.Subscription{Name: "s", Stream: "telemetry", MaxDeliver: 2, Backoff: fast, Deliver: h.handle})
		return b.run(t)
	}
	b := start()
	for range 3 {
		b.put(t, "sensors.a")
	}
	eventually(t, "all are given up", func() bool { return b.db.DeadLetterCount() == 3 })
	all := ids(t, b.db)
	slices.Reverse(all) // which way round they are named does not matter

	if err := b.ReplayDeadLetters(t.Context(), all[:1], ""); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it has failed again", func() bool {
		d := deadLetters(t, b.db)[2]
		return d.Attempts == 4 && d.ReplayTo == "" && d.Actor == "app/thermostat" && strings.Contains(d.Error, "attempt 2")
	})

	// What is marked while the subscription pauses waits for it, over a restart,
	// and so do newer messages.
	must(t, b.Pause(t.Context(), "s"))
	if err := b.ReplayDeadLetters(t.Context(), all, "s"); err != nil {
		t.Fatal(err)
	}
	b.stop()
	must(t, b.db.Close())
	h.ill.Store(false)
	h.lines = nil
	b = start()
	b.put(t, "sensors.a")
	eventually(t, "all are handled", func() bool { return len(h.all()) == 4 && b.db.DeadLetterCount() == 0 })
	if got, want := h.all(), []string{"sensors.a=0.1", "sensors.a=0.1", "sensors.a=0.1", "sensors.a=0.1"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	eventually(t, "the counters tell", func() bool {
		st := b.Stats().Subscriptions[0]
		return st.Replayed == 3 && st.Replays == 0 && st.Delivered == 1
	})
	if err := b.ReplayDeadLetters(t.Context(), []uint64{99}, ""); !errors.Is(err, store.ErrNoDeadLetter) {
		t.Errorf("got %v, want ErrNoDeadLetter", err)
	}
	if err := b.ReplayDeadLetters(t.Context(), []uint64{99}, "nobody"); err == nil || !strings.Contains(err.Error(), "nobody") {
		t.Errorf("got %v, want an error that names the subscription", err)
	}
}

// A letter goes before messages of its key that wait, whoever receives it, and
// to a subscription of another stream as well.
func TestReplay_pull(t *testing.T) {
	b := newBox(t, broker.Options{Listen: anyPort})
	h := new(sick)
	h.ill.Store(true)
	b.configure(t, []broker.Stream{telemetry, {Name: "jobs", Subjects: []string{"jobs.>"}}},
		broker.Subscription{Name: "sick", Stream: "telemetry", MaxDeliver: 1, Deliver: h.handle},
		broker.Subscription{Name: "s", Stream: "jobs", Pull: true, MaxDeliver: 2, Backoff: fast},
		broker.Subscription{Name: "push", Stream: "jobs", PushTo: "work", AckWait: patience},
	)
	b.run(t)
	b.put(t, "sensors.a", "sensors.b")
	eventually(t, "both are given up", func() bool { return b.db.DeadLetterCount() == 2 })
	b.put(t, "jobs.x")
	all := ids(t, b.db)
	must(t, b.ReplayDeadLetters(t.Context(), all, "s"))
	eventually(t, "they wait", func() bool {
		st := b.Stats().Subscriptions
		return st[slices.IndexFunc(st, func(s broker.SubscriptionStats) bool { return s.Name == "s" })].Replays == 2
	})
	var got []string
	receive := func(end error) {
		t.Helper()
		got = nil
		err := b.db.Do(t.Context(), func(ctx context.Context, _ *store.Turn) error {
			for len(got) < 3 {
				all, err := b.Receive(ctx, "s", 9, patience)
				if err != nil || len(all) == 0 {
					return fmt.Errorf("got %v, %w", all, err)
				}
				for _, d := range all {
					got = append(got, fmt.Sprintf("%s %s.%d", d.Stream, d.Subject, d.Attempt))
				}
			}
			return end
		})
		if !errors.Is(err, end) {
			t.Fatal(err)
		}
		slices.Sort(got)
	}
	receive(errors.New("no"))
	receive(nil)
	if want := []string{"jobs jobs.x.2", "telemetry sensors.a.2", "telemetry sensors.b.2"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if n := b.db.DeadLetterCount(); n != 0 {
		t.Errorf("got %d dead letters", n)
	}

	// A NATS client acknowledges a letter as it does a message.
	b.put(t, "sensors.c")
	eventually(t, "it is given up", func() bool { return b.db.DeadLetterCount() == 1 })
	must(t, b.ReplayDeadLetters(t.Context(), ids(t, b.db), "push"))
	nc := b.client(t)
	p := &puller{Conn: nc, t: t}
	var err error
	p.sub, err = nc.SubscribeSync("work")
	must(t, err)
	for b.db.DeadLetterCount() > 0 {
		m := p.next()
		must(t, m.AckSync())
	}
}

// An acknowledgement of a letter that comes late counts as one of a message does.
func TestReplay_ackLate(t *testing.T) {
	b := newBox(t, broker.Options{Listen: anyPort})
	b.configure(t, []broker.Stream{telemetry}, broker.Subscription{
		Name: "s", Stream: "telemetry", Pull: true, MaxDeliver: 2, AckWait: 20 * time.Millisecond, Backoff: fast,
	})
	b.run(t)
	b.put(t, "sensors.a")
	p := newPuller(t, b.client(t))
	p.ask("s", "2")
	p.want("sensors.a", "0", 1)
	p.want("sensors.a", "0", 2)
	eventually(t, "it is given up", func() bool { return b.db.DeadLetterCount() == 1 })
	must(t, b.ReplayDeadLetters(t.Context(), ids(t, b.db), ""))
	p.ask("s", "1")
	m := p.want("sensors.a", "0", 1)
	eventually(t, "its time is over", func() bool {
		st := b.Stats().Subscriptions[0]
		return st.InFlight == 0 && st.Replays == 1
	})
	must(t, m.AckSync())
	if n := b.db.DeadLetterCount(); n != 0 {
		t.Errorf("got %d dead letters, want the one that was acknowledged to be gone", n)
	}
}

// A letter that somebody drops, or gives to another, is not handled.
func TestReplay_withdrawn(t *testing.T) {
	b := newBox(t, broker.Options{})
	h := new(sick)
	h.ill.Store(true)
	b.configure(t, []broker.Stream{telemetry},
		broker.Subscription{Name: "sick", Stream: "telemetry", MaxDeliver: 1, Deliver: h.handle},
		broker.Subscription{Name: "s", Stream: "telemetry", Pull: true, Start: store.Start{At: store.StartNew}},
	)
	b.run(t)
	b.put(t, "sensors.a", "sensors.b")
	eventually(t, "both are given up", func() bool { return b.db.DeadLetterCount() == 2 })
	all := ids(t, b.db)
	must(t, b.ReplayDeadLetters(t.Context(), all, "s"))
	turn := b.db.Begin()
	turn.DropDeadLetter(all[0])
	must(t, turn.Commit())
	h.ill.Store(false)
	must(t, b.ReplayDeadLetters(t.Context(), all[1:], "sick"))
	eventually(t, "the other one is handled", func() bool { return b.db.DeadLetterCount() == 0 })
	// s gets the messages themselves, and no letter.
	if got := b.receive(t, 9, nil); len(got) != 2 {
		t.Errorf("got %v", got)
	}
	eventually(t, "nothing waits", func() bool {
		for _, st := range b.Stats().Subscriptions {
			if st.Replays != 0 || st.InFlight != 0 {
				return false
			}
		}
		return true
	})
}

// What is published with a time to live, a delay, or a number of its producer.
func TestIngest_asks(t *testing.T) {
	b := newBox(t, broker.Options{Listen: anyPort})
	var j journal
	b.configure(t, []broker.Stream{telemetry}, broker.Subscription{
		Name: "s", Stream: "telemetry", Filter: "sensors.later", Deliver: func(_ context.Context, m broker.Message, _ int) error {
			j.add("%s", m.Data)
			return nil
		},
	}, broker.Subscription{Name: "pull", Stream: "telemetry", Filter: "sensors.short", Pull: true})
	b.run(t)
	nc := b.client(t)
	for _, c := range []struct{ subject, header, value, want string }{
		{"sensors.short", "Nats-TTL", "10ms", `{"stream":"telemetry","seq":1}`},
		{"sensors.later", "Edged-Not-Before", "2199-01-01T00:00:00Z", `{"stream":"telemetry","seq":0,"due":"2199-01-01T00:00:00Z"}`},
		{"sensors.later", "Edged-Not-Before", "2001-01-01T00:00:00Z", `{"stream":"telemetry","seq":2}`},
		{"sensors.number", "Edged-Producer-Seq", "5", `{"stream":"telemetry","seq":3}`},
		{"sensors.number", "Edged-Producer-Seq", "5", `{"stream":"telemetry","seq":3,"duplicate":true}`},
		{"sensors.later", "Nats-TTL", "soon", `"err_code":10165`},
	} {
		m := natsMsg(c.subject, c.header, c.value, "Edged-Source", "kiln 7")
		m.Data = []byte(c.value)
		answer, err := nc.RequestMsg(m, patience)
		if err != nil || !strings.Contains(string(answer.Data), c.want) {
			t.Errorf("%s: %s: got %s, %v, want %s", c.header, c.value, answer.Data, err, c.want)
		}
	}
	m := natsMsg("sensors.later", "Edged-Not-Before", "+20ms")
	m.Data = []byte("a little later")
	if answer, err := nc.RequestMsg(m, patience); err != nil || !strings.Contains(string(answer.Data), `"due":"`) {
		t.Errorf("got %s, %v", answer.Data, err)
	}
	eventually(t, "what was due is handled", func() bool {
		return slices.Equal(j.all(), []string{"2001-01-01T00:00:00Z", "a little later"})
	})
	eventually(t, "what nobody fetched in time is a dead letter", func() bool { return b.db.DeadLetterCount() == 1 })
	if d := deadLetters(t, b.db)[0]; d.Reason != "expired" || d.Subscription != "pull" || d.Attempts != 0 || d.Subject != "sensors.short" {
		t.Errorf("got %+v", d)
	}
	eventually(t, "the counters tell", func() bool {
		info, err := b.db.Stream("telemetry")
		return err == nil && info.Delayed == 1 && b.Stats().Subscriptions[0].Expired == 1
	})
}
