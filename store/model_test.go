package store_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/edged-io/edged/store"
)

// model is the store as it should be: one stream with two subscriptions, a
// space, and dead letters.
type model struct {
	messages map[uint64]string
	last     uint64
	ids      map[string]uint64
	acked    map[string]map[uint64]bool
	floor    map[string]uint64
	state    map[string]string
	dead     int
	maxMsgs  int
	drops    bool // the oldest, beyond maxMsgs
	dropped  uint64
}

var modelSubs = []string{"one", "two"}

func newModel(maxMsgs int) *model {
	m := &model{
		messages: map[uint64]string{}, ids: map[string]uint64{}, acked: map[string]map[uint64]bool{},
		floor: map[string]uint64{}, state: map[string]string{}, maxMsgs: maxMsgs,
	}
	for _, s := range modelSubs {
		m.acked[s] = map[uint64]bool{}
	}
	return m
}

func (m *model) ack(sub string, seq uint64) {
	if seq > m.floor[sub] {
		m.acked[sub][seq] = true
	}
	for m.acked[sub][m.floor[sub]+1] {
		m.floor[sub]++
	}
	m.trim()
}

func (m *model) ackUpTo(sub string, seq uint64) {
	for s := m.floor[sub] + 1; s <= seq; s++ {
		m.acked[sub][s] = true
	}
	m.ack(sub, seq)
}

func (m *model) trim() {
	low := min(m.floor[modelSubs[0]], m.floor[modelSubs[1]])
	for seq := range m.messages {
		if seq <= low {
			delete(m.messages, seq)
		}
	}
}

// modelTurn is one random turn, applied to both.
type modelTurn struct {
	publish []publication
	acks    []modelAck
	puts    map[string]string
	dead    int
}

type publication struct{ data, id string }

type modelAck struct {
	sub  string
	seq  uint64
	upTo bool
}

func drawTurn(t *rapid.T, last uint64) modelTurn {
	var turn modelTurn
	for i := range rapid.IntRange(0, 3).Draw(t, "messages") {
		turn.publish = append(turn.publish, publication{
			data: rapid.StringN(0, 40, 200).Draw(t, fmt.Sprint("data", i)),
			id:   rapid.SampledFrom([]string{"", "", "a", "b", "c", "d", "e", "f"}).Draw(t, fmt.Sprint("id", i)),
		})
	}
	if last > 0 {
		for i := range rapid.IntRange(0, 3).Draw(t, "acks") {
			turn.acks = append(turn.acks, modelAck{
				sub:  rapid.SampledFrom(modelSubs).Draw(t, fmt.Sprint("sub", i)),
				seq:  rapid.Uint64Range(1, last).Draw(t, fmt.Sprint("seq", i)),
				upTo: rapid.IntRange(0, 3).Draw(t, fmt.Sprint("upTo", i)) == 0,
			})
		}
	}
	turn.puts = rapid.MapOfN(rapid.SampledFrom([]string{"k1", "k2", "k3"}), rapid.StringN(0, 10, 20), 0, 2).Draw(t, "puts")
	turn.dead = rapid.IntRange(0, 1).Draw(t, "dead")
	return turn
}

// empty says whether there is nothing to write for the turn.
func (turn modelTurn) empty() bool {
	return len(turn.publish)+len(turn.acks)+len(turn.puts)+turn.dead == 0
}

func (turn modelTurn) stage(t *rapid.T, db *store.DB) *store.Turn {
	s := db.Begin()
	for _, p := range turn.publish {
		if _, err := s.Publish("stream", store.Message{Subject: "s", Data: []byte(p.data), ID: p.id}); err != nil {
			t.Fatalf("publish: %v", err)
		}
	}
	for _, a := range turn.acks {
		if a.upTo {
			s.AckUpTo(a.sub, a.seq)
		} else {
			s.Ack(a.sub, a.seq)
		}
	}
	for k, v := range turn.puts {
		if v == "" {
			s.Delete("space", k)
		} else {
			s.Put("space", k, []byte(v))
		}
	}
	for range turn.dead {
		s.DeadLetter(store.DeadLetter{Reason: "rejected"})
	}
	return s
}

// apply returns whether the turn fits; if it does not, nothing changes.
func (m *model) apply(turn modelTurn) bool {
	added := 0
	seen := maps.Clone(m.ids)
	for _, p := range turn.publish {
		if _, repeat := seen[p.id]; p.id == "" || !repeat {
			added++
			seen[p.id] = 0
		}
	}
	if added > 0 && len(m.messages)+added > m.maxMsgs && !m.drops {
		return false
	}
	for _, p := range turn.publish {
		if _, repeat := m.ids[p.id]; p.id != "" && repeat {
			continue
		}
		m.last++
		m.messages[m.last] = p.data
		if p.id != "" {
			m.ids[p.id] = m.last
		}
	}
	for _, a := range turn.acks {
		if a.upTo {
			m.ackUpTo(a.sub, a.seq)
		} else {
			m.ack(a.sub, a.seq)
		}
	}
	for k, v := range turn.puts {
		if v == "" {
			delete(m.state, k)
		} else {
			m.state[k] = v
		}
	}
	m.dead += turn.dead
	m.trim()
	for m.drops && len(m.messages) > m.maxMsgs {
		delete(m.messages, slices.Min(slices.Collect(maps.Keys(m.messages))))
		m.dropped++
	}
	return true
}

func (m *model) compare(t *rapid.T, db *store.DB) {
	var got []uint64
	err := db.Read("stream", 0, 1<<20, 1<<30, func(msg store.Message) error {
		got = append(got, msg.Seq)
		if want := m.messages[msg.Seq]; string(msg.Data) != want {
			return fmt.Errorf("message %d is %q, want %q", msg.Seq, msg.Data, want)
		}
		return nil
	})
	if err != nil {
		t.Fatalf("read: %v", err)
	}
	if want := slices.Sorted(maps.Keys(m.messages)); !slices.Equal(got, want) {
		t.Fatalf("messages %v, want %v", got, want)
	}
	info, _ := db.Stream("stream")
	if info.Msgs != int64(len(m.messages)) || info.Last != m.last {
		t.Fatalf("%d messages, last %d; want %d and %d", info.Msgs, info.Last, len(m.messages), m.last)
	}
	for _, s := range modelSubs {
		if p, err := db.Position(s); err != nil || p.Floor != m.floor[s] {
			t.Fatalf("position of %s: %+v, %v; want %d", s, p, err, m.floor[s])
		}
	}
	state := map[string]string{}
	db.List("space", "", func(k string, v []byte) error { state[k] = string(v); return nil })
	if !maps.Equal(state, m.state) {
		t.Fatalf("state %v, want %v", state, m.state)
	}
	wantSpace(t, db, "space", 0)
	if n := db.DeadLetterCount(); n != m.dead {
		t.Fatalf("%d dead letters, want %d", n, m.dead)
	}
}

// noRoom says whether a turn found no room: now, or in a stream that could never
// hold so much.
func noRoom(err error) bool {
	return errors.Is(err, store.ErrFull) || errors.Is(err, store.ErrTooLarge)
}

// TestDB_model runs random turns against the store and a model in memory, with
// restarts, disks that fill up and disks that fail in between. A turn that was
// refused, or whose group did not reach the disk, left nothing.
func TestDB_model(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp(fastDir(), "model")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		m := newModel(rapid.IntRange(1, 12).Draw(t, "max_msgs"))
		var trouble error
		o := store.Options{Dir: dir, Failpoint: func(point string) error {
			if point == store.FailpointBeforeSync {
				return trouble
			}
			return nil
		}}
		db := openModel(t, o, m)
		defer func() { db.Close() }()
		t.Repeat(map[string]func(*rapid.T){
			"turn": func(t *rapid.T) {
				turn := drawTurn(t, m.last)
				err := turn.stage(t, db).Commit()
				if fits := m.apply(turn); fits != (err == nil) || err != nil && !noRoom(err) {
					t.Fatalf("commit: %v, and the model says %v", err, fits)
				}
			},
			"full disk": func(t *rapid.T) {
				trouble = store.ErrFull
				turn := drawTurn(t, m.last)
				err := turn.stage(t, db).Commit()
				trouble = nil
				if !noRoom(err) && (err != nil || !turn.empty()) {
					t.Fatalf("commit on a full disk: %v", err)
				}
			},
			"broken disk": func(t *rapid.T) {
				trouble = errors.New("i/o error")
				turn := drawTurn(t, m.last)
				err := turn.stage(t, db).Commit()
				trouble = nil
				if !errors.Is(err, store.ErrFailed) && !noRoom(err) && (err != nil || !turn.empty()) {
					t.Fatalf("commit on a broken disk: %v", err)
				}
				db.Close()
				db = openModel(t, o, m)
			},
			"compact": func(t *rapid.T) {
				if _, err := db.Compact(context.Background()); err != nil {
					t.Fatalf("compact: %v", err)
				}
			},
			"reopen": func(t *rapid.T) {
				db.Close()
				db = openModel(t, o, m)
			},
			"": func(t *rapid.T) { m.compare(t, db) },
		})
	})
}

func openModel(t *rapid.T, o store.Options, m *model) *store.DB {
	db, err := store.Open(o)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	if err := db.EnsureStream(store.StreamConfig{Name: "stream", MaxMsgs: int64(m.maxMsgs)}); err != nil {
		t.Fatal(err)
	}
	for _, s := range modelSubs {
		if err := db.EnsureSubscription(store.SubscriptionConfig{Name: s, Stream: "stream"}); err != nil {
			t.Fatal(err)
		}
	}
	return db
}

// fastDir is a folder in memory where there is one: what is tested here is what
// the store does, and not the disk.
func fastDir() string {
	if info, err := os.Stat("/dev/shm"); err == nil && info.IsDir() {
		return "/dev/shm"
	}
	return ""
}
