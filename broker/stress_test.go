package broker_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/edged-io/edged/broker"
	"github.com/edged-io/edged/store"
)

// stress is a box whose handlers fail, whose clients come and go, and which is
// restarted, again and again. What it was given is numbered for each key.
type stress struct {
	t    *testing.T
	seed uint64
	keys int
	each int

	mu    sync.Mutex          // guards the fields below
	acked map[string]int      // by receiver and key: how far clients have acknowledged
	had   map[string]struct{} // by receiver, key and number: what clients were given

	published atomic.Int64
}

func (s *stress) total() int { return s.keys * s.each }

// configuration returns what the box is configured with. "turns" notes in each
// turn which number of a key was handled: commits must count up without a gap or
// a repeat. "letters" gives messages up, which are handled once more until all
// are done.
func (s *stress) configuration(b *box, rnd *rand.Rand) ([]broker.Stream, []broker.Subscription) {
	var mu sync.Mutex // guards rnd
	fails := func() bool {
		mu.Lock()
		defer mu.Unlock()
		return rnd.IntN(5) == 0
	}
	sub := broker.Subscription{Stream: "telemetry", OrderedBy: "key", Backoff: fast, AckWait: 150 * time.Millisecond, MaxInFlight: 16}
	turns, pull, push := sub, sub, sub
	turns.Name, pull.Name, push.Name = "turns", "pull", "push"
	pull.Pull, push.PushTo = true, "work"
	turns.Deliver = func(ctx context.Context, m broker.Message, _ int) error {
		key, n, _ := strings.Cut(string(m.Data), " ")
		turn := store.TurnFrom(ctx)
		before, _, err := turn.Get("handled", key)
		if err != nil {
			return err
		}
		last, _ := strconv.Atoi(string(before)) // 0 when there is nothing
		if now, err := strconv.Atoi(n); err != nil || now != last+1 {
			s.t.Errorf("key %s: %s is handled after %d", key, n, last)
		}
		if fails() {
			return errors.New("no")
		}
		if err := turn.Put("handled", key, []byte(n)); err != nil {
			return err
		}
		if fails() {
			return broker.RetryAfter(time.Millisecond)
		}
		return nil
	}
	letters := sub
	letters.Name, letters.MaxDeliver = "letters", 2
	letters.Deliver = func(ctx context.Context, m broker.Message, _ int) error {
		turn := store.TurnFrom(ctx)
		_, twice, err := turn.Get("done", string(m.Data))
		if err != nil {
			return err
		}
		if twice {
			s.t.Errorf("%s is handled twice", m.Data)
		}
		if err := turn.Put("done", string(m.Data), nil); err != nil {
			return err
		}
		for range 3 { // often enough for dead letters
			if fails() {
				return errors.New("no")
			}
		}
		return nil
	}
	return []broker.Stream{telemetry}, []broker.Subscription{turns, pull, push, letters}
}

// replay has the dead letters that do not wait for it handled once more, and says
// how many there are.
func (s *stress) replay(b *box) int {
	var again []uint64
	all := deadLetters(s.t, b.db)
	for _, d := range all {
		if d.ReplayTo == "" {
			again = append(again, d.ID)
		}
	}
	// One may have gone meanwhile; the next time it is not asked for.
	if err := b.ReplayDeadLetters(s.t.Context(), again, ""); err != nil && !errors.Is(err, store.ErrNoDeadLetter) {
		s.t.Error(err)
	}
	return len(all)
}

// publish sends what was not acknowledged yet, in the order of each key, until ctx
// ends.
func (s *stress) publish(ctx context.Context, nc *nats.Conn, key int, next *int) {
	for *next <= s.each && ctx.Err() == nil {
		m := natsMsg("sensors.x", "Edged-Key", fmt.Sprint("k", key), nats.MsgIdHdr, fmt.Sprint(key, ".", *next))
		m.Data = fmt.Appendf(nil, "k%d %d", key, *next)
		answer, err := nc.RequestMsgWithContext(ctx, m)
		if err == nil && strings.HasPrefix(string(answer.Data), `{"stream"`) {
			*next++
			s.published.Add(1)
		}
	}
}

// given notes what a client was given, and says how it answers.
func (s *stress) given(receiver string, m *nats.Msg, rnd *rand.Rand) {
	key, n, _ := strings.Cut(string(m.Data), " ")
	now, err := strconv.Atoi(n)
	s.mu.Lock()
	defer s.mu.Unlock()
	at := receiver + " " + key
	if err != nil || now > s.acked[at]+1 {
		s.t.Errorf("%s was given %s of key %s, and has acknowledged %d", receiver, n, key, s.acked[at])
	}
	s.had[at+" "+n] = struct{}{}
	switch rnd.IntN(6) {
	case 0:
		err = m.Nak()
	case 1: // swallowed
		err = m.InProgress()
	default:
		s.acked[at] = max(s.acked[at], now)
		err = m.Ack()
	}
	if err != nil && !errors.Is(err, nats.ErrConnectionClosed) {
		s.t.Error(err)
	}
}

// life runs the box for a while, or until all is done.
func (s *stress) life(dir string, n uint64, next []int, last bool) {
	t := s.t
	db := openStore(t, dir)
	b := newBox(t, broker.Options{Store: db, Listen: anyPort, Grace: time.Millisecond})
	streams, subs := s.configuration(b, rand.New(rand.NewPCG(s.seed, n)))
	b.configure(t, streams, subs...)
	b.run(t)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for key := range s.keys {
		nc := b.client(t)
		wg.Go(func() { s.publish(ctx, nc, key, &next[key]) })
	}
	for i := range uint64(3) {
		rnd := rand.New(rand.NewPCG(s.seed, 100*n+i))
		nc := b.client(t)
		pushed, err := nc.QueueSubscribe("work", "workers", func(m *nats.Msg) { s.given("push", m, rnd) })
		must(t, err)
		pulled, err := nc.SubscribeSync(nc.NewRespInbox())
		must(t, err)
		mine := rand.New(rand.NewPCG(s.seed, 1000*n+i))
		wg.Go(func() {
			for ctx.Err() == nil {
				if nc.PublishRequest(nextOf+"pull", pulled.Subject, []byte(`{"batch":4,"expires":50000000}`)) != nil {
					return
				}
				for range 4 {
					m, err := pulled.NextMsgWithContext(ctx)
					if err != nil || m.Header.Get("Status") != "" {
						break
					}
					s.given("pull", m, mine)
				}
			}
			_ = pushed.Unsubscribe() // the connection may be closed
		})
	}
	goal := int64(s.total())
	if !last {
		goal = s.published.Load() + goal/5
	}
	eventually(t, "it goes on", func() bool {
		letters := s.replay(b)
		if !last {
			return s.published.Load() >= min(goal, int64(s.total()))
		}
		return letters == 0 && b.floor(t, "letters") >= uint64(goal) && b.floor(t, "turns") >= uint64(goal) && b.floor(t, "pull") >= uint64(goal) && b.floor(t, "push") >= uint64(goal)
	})
	cancel()
	wg.Wait()
	b.stop()
	must(t, db.Close())
}

// TestStress_delivery: over restarts, failing handlers, clients that refuse,
// swallow and go, what was acknowledged to its publisher is handled at least
// once by each subscription, in the order of its key, and the effects of turns
// are there once, be it after a replay.
func TestStress_delivery(t *testing.T) {
	s := &stress{
		t: t, seed: uint64(time.Now().UnixNano()), keys: 6, each: 40,
		acked: make(map[string]int), had: make(map[string]struct{}),
	}
	if v, err := strconv.ParseUint(os.Getenv("EDGED_SEED"), 10, 64); err == nil {
		s.seed = v
	}
	t.Logf("EDGED_SEED=%d", s.seed)
	dir := t.TempDir()
	next := make([]int, s.keys)
	for i := range next {
		next[i] = 1
	}
	const lives = 4
	for n := range uint64(lives) {
		s.life(dir, n, next, n == lives-1)
	}
	db := openStore(t, dir)
	for key := range s.keys {
		turn := db.Begin()
		got, _, err := turn.Get("handled", fmt.Sprint("k", key))
		turn.Discard()
		if err != nil || string(got) != fmt.Sprint(s.each) {
			t.Errorf("key %d: %s of %d handled, %v", key, got, s.each, err)
		}
		for n := 1; n <= s.each; n++ {
			turn := db.Begin()
			_, done, err := turn.Get("done", fmt.Sprintf("k%d %d", key, n))
			turn.Discard()
			if err != nil || !done {
				t.Errorf("%d of key %d was given up and is not handled: %v", n, key, err)
			}
		}
		for _, receiver := range []string{"pull", "push"} {
			for n := 1; n <= s.each; n++ {
				if _, ok := s.had[fmt.Sprintf("%s k%d %d", receiver, key, n)]; !ok {
					t.Errorf("%s never had %d of key %d", receiver, n, key)
				}
			}
		}
	}
}
