package store_test

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"pgregory.net/rapid"

	"github.com/edged-io/edged/store"
)

func (m *model) clone() *model {
	c := *m
	c.messages, c.ids, c.floor, c.state = maps.Clone(m.messages), maps.Clone(m.ids), maps.Clone(m.floor), maps.Clone(m.state)
	c.acked = make(map[string]map[uint64]bool)
	for s, a := range m.acked {
		c.acked[s] = maps.Clone(a)
	}
	return &c
}

// looseModel is a store with one stream that is not synced: now is what turns
// were told, disk what a crash would leave of it.
type looseModel struct {
	t       *rapid.T
	o       store.Options
	c       store.StreamConfig
	db      *store.DB
	now     *model
	disk    *model
	commits uint64
	trouble error
	lost    uint64 // messages that ended with the process
	recount bool   // what the disk counts as dropped is of before the model counted
}

func (l *looseModel) open() {
	l.t.Helper()
	db, err := store.Open(l.o)
	if err != nil {
		l.t.Fatalf("open: %v", err)
	}
	l.db = db
	if err := db.EnsureStream(l.c); err != nil {
		l.t.Fatal(err)
	}
	for _, s := range modelSubs {
		if err := db.EnsureSubscription(store.SubscriptionConfig{Name: s, Stream: "stream"}); err != nil {
			l.t.Fatal(err)
		}
	}
	l.commits = db.Stats().Commits
}

// written notes what is on disk if the store has written since.
func (l *looseModel) written() {
	if n := l.db.Stats().Commits; n != l.commits {
		l.commits, l.disk, l.recount = n, l.now.clone(), false
	}
}

// restarted takes over what the store says after its end, clean or not, as far
// as it may.
func (l *looseModel) restarted(m *model) {
	t := l.t
	told := l.now.last
	l.now = m
	if l.c.Durability == store.Memory {
		l.lost += uint64(len(m.messages))
		clear(m.messages)
		clear(m.ids)
	}
	l.open()
	info, err := l.db.Stream("stream")
	if err != nil {
		t.Fatal(err)
	}
	if l.recount {
		l.recount, l.now.dropped = false, info.Dropped["full"]
	}
	if info.Last < told {
		t.Fatalf("the stream goes on at %d, and %d was told", info.Last, told)
	}
	m.last = info.Last
	for _, s := range modelSubs {
		p, err := l.db.Position(s)
		if err != nil || p.Floor < m.floor[s] {
			t.Fatalf("position of %s: %+v, %v; it was at %d", s, p, err, m.floor[s])
		}
		if p.Floor > m.floor[s] { // over a gap: of what is held it has all
			for seq := range m.messages {
				if seq <= p.Floor && seq > m.floor[s] && !m.acked[s][seq] {
					t.Fatalf("%s goes on at %d, and has not had %d", s, p.Floor, seq)
				}
			}
			m.ackUpTo(s, p.Floor)
		}
	}
	l.disk, l.commits = m.clone(), l.db.Stats().Commits
}

// leaveMemory makes the stream one in batches, or a synced one, which it stays:
// from then on what readers had, and what they have not, outlives restarts.
func (l *looseModel) leaveMemory() {
	t := l.t
	c := l.c
	counted := c.Durability == store.Batch
	c.Durability, c.BatchFor = store.Synced, 0
	if rapid.Bool().Draw(t, "to batches") {
		c.Durability, c.BatchFor = store.Batch, never
	}
	if err := l.db.EnsureStream(c); err != nil {
		t.Fatal(err)
	}
	if err := l.db.Begin().Commit(); err != nil {
		t.Fatal(err)
	}
	info, err := l.db.Stream("stream")
	if err != nil {
		t.Fatal(err)
	}
	if l.c = c; c.Durability == store.Batch && !counted {
		l.now.dropped, l.recount = info.Dropped["full"], true // of one in memory, the model does not count them
	}
	l.written()
}

// turn commits a random turn and says whether it was.
func (l *looseModel) turn() error {
	t := l.t
	turn := drawTurn(t, l.now.last)
	for i := range turn.acks { // not too far ahead of what it has
		if a := &turn.acks[i]; a.seq > l.now.floor[a.sub]+1<<15 {
			a.upTo = true
		}
	}
	if rapid.Bool().Draw(t, "loose") {
		turn.puts, turn.dead = nil, 0
	}
	err := turn.stage(t, l.db).Commit()
	if err == nil {
		if !l.now.apply(turn) {
			t.Fatal("committed, and it does not fit")
		}
		l.written()
		return nil
	}
	if !noRoom(err) && !errors.Is(err, store.ErrFailed) {
		t.Fatalf("commit: %v", err)
	}
	if noRoom(err) && l.trouble == nil && l.c.Durability == store.Memory && l.now.clone().apply(turn) {
		t.Fatalf("commit: %v, and it fits", err)
	}
	return err
}

// check holds what readers see against what was told.
func (l *looseModel) check() {
	t := l.t
	consumed := min(l.now.floor[modelSubs[0]], l.now.floor[modelSubs[1]])
	seen := make(map[uint64]bool)
	err := l.db.Read("stream", 0, 1<<20, 1<<30, func(m store.Message) error {
		want, there := l.now.messages[m.Seq]
		if there && string(m.Data) != want || !there && (m.Seq > consumed || l.c.Durability == store.Memory) {
			return fmt.Errorf("message %d is %q, want %q, %v", m.Seq, m.Data, want, there)
		}
		seen[m.Seq] = true
		return nil
	})
	if err != nil {
		t.Fatalf("read: %v", err)
	}
	atRisk := int64(0)
	for seq := range l.now.messages {
		if !seen[seq] {
			t.Fatalf("message %d was told and is not read", seq)
		}
		if _, ok := l.disk.messages[seq]; !ok || l.c.Durability == store.Memory {
			atRisk++
		}
	}
	info, _ := l.db.Stream("stream")
	if info.Msgs != int64(len(seen)) || info.Last != l.now.last || info.Risk.Msgs != atRisk || info.Dropped["restart"] < l.lost && l.c.Durability != store.Memory {
		t.Fatalf("%+v; want %d messages up to %d, %d at risk", info, len(seen), l.now.last, atRisk)
	}
	if n := info.Dropped["full"]; l.c.Durability == store.Batch && n != l.now.dropped {
		t.Fatalf("%d messages dropped, want %d", n, l.now.dropped)
	}
	if info.Msgs > int64(l.now.maxMsgs) {
		t.Fatalf("%d messages, at most %d allowed", info.Msgs, l.now.maxMsgs)
	}
	for _, s := range modelSubs {
		if p, err := l.db.Position(s); err != nil || p.Floor != l.now.floor[s] {
			t.Fatalf("position of %s: %+v, %v; want %d", s, p, err, l.now.floor[s])
		}
	}
}

// TestDB_looseModel runs random turns against a stream that is told before the
// fsync, or stays in memory, with restarts, power cuts, full and broken disks. A
// power cut takes what Risk says, and no sequence is told twice.
func TestDB_looseModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp(fastDir(), "model")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		m := newModel(rapid.IntRange(1, 12).Draw(t, "max_msgs"))
		l := &looseModel{t: t, now: m, disk: m.clone()}
		l.c = store.StreamConfig{Name: "stream", MaxMsgs: int64(m.maxMsgs), Durability: store.Memory}
		if rapid.Bool().Draw(t, "batch") {
			l.c.Durability, l.c.BatchFor = store.Batch, never
		}
		if rapid.Bool().Draw(t, "drops") {
			l.c.OnFull, m.drops, l.disk.drops = store.DropOldest, true, true
		}
		lives := 0
		home := func() string {
			lives++
			to := filepath.Join(dir, fmt.Sprint(lives))
			if err := os.Mkdir(to, 0o700); err != nil {
				t.Fatal(err)
			}
			return to
		}
		l.o = store.Options{Dir: home(), Failpoint: func(point string) error {
			if point == store.FailpointBeforeSync {
				return l.trouble
			}
			return nil
		}}
		l.open()
		defer func() { l.db.Close() }()
		t.Repeat(map[string]func(*rapid.T){
			"turn":       func(t *rapid.T) { l.t = t; l.turn() },
			"other turn": func(t *rapid.T) { l.t = t; l.turn() },
			"flush": func(t *rapid.T) {
				l.t = t
				if err := l.db.Begin().Commit(); err != nil {
					t.Fatal(err)
				}
				l.written()
			},
			"another durability": func(t *rapid.T) { l.t = t; l.leaveMemory() },
			"full disk": func(t *rapid.T) {
				l.t, l.trouble = t, store.ErrFull
				l.turn()
				l.trouble = nil
			},
			"broken disk": func(t *rapid.T) {
				l.t, l.trouble = t, errors.New("i/o error")
				err := l.turn()
				l.trouble = nil
				l.db.Close()
				if errors.Is(err, store.ErrFailed) {
					l.restarted(l.disk)
				} else {
					l.restarted(l.now)
				}
			},
			"power cut": func(t *rapid.T) {
				l.t = t
				from, to := l.o.Dir, home()
				b, err := os.ReadFile(filepath.Join(from, "store.db"))
				if err == nil {
					err = os.WriteFile(filepath.Join(to, "store.db"), b, 0o600)
				}
				if err != nil {
					t.Fatal(err)
				}
				l.db.Close()
				l.o.Dir = to
				l.restarted(l.disk)
			},
			"reopen": func(t *rapid.T) {
				l.t = t
				l.db.Close()
				l.restarted(l.now)
			},
			"": func(t *rapid.T) { l.t = t; l.check() },
		})
	})
}
