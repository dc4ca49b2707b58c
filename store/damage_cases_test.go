package store_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/edged-io/edged/store"
)

// A specimen is a small store with every kind of page: both roots, branches,
// leaves, pages that go on in others, buckets inside their parent's page, and
// pages that were given up.
type specimen struct {
	file  []byte
	held  map[string]uint64 // stream → first sequence it holds
	last  map[string]uint64
	state map[string]string
	floor map[string]uint64
	dead  int
}

const specimenStreams = 2

func body(stream string, seq uint64) []byte {
	text := fmt.Sprintf("%s %d ", stream, seq)
	if seq%17 == 0 { // goes on over several pages
		return bytes.Repeat([]byte(text), 700)
	}
	return bytes.Repeat([]byte(text), 12)
}

func newSpecimen(t *testing.T) *specimen {
	t.Helper()
	dir, err := os.MkdirTemp(fastDir(), "specimen")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	s := &specimen{held: map[string]uint64{}, last: map[string]uint64{}, state: map[string]string{}, floor: map[string]uint64{}}
	db := open(t, dir)
	for i := range specimenStreams {
		name := string(rune('a' + i))
		ensure(t, db, store.StreamConfig{Name: name}, name+"-sub")
		for part := range uint64(8) {
			commit(t, db, func(turn *store.Turn) {
				for n := range uint64(15) {
					seq := part*15 + n + 1
					if _, err := turn.Publish(name, store.Message{Subject: "s." + name, Data: body(name, seq), ID: fmt.Sprint(seq)}); err != nil {
						t.Fatal(err)
					}
					if n%2 == 0 {
						k, v := fmt.Sprintf("%s-%03d", name, seq), strings.Repeat(fmt.Sprintf("value %d ", seq), 1+int(seq%8)*4)
						turn.Put("space", k, []byte(v))
						s.state[k] = v
					}
				}
				if part > 1 {
					turn.DeadLetter(store.DeadLetter{Stream: name, Seq: part, Reason: "rejected", Data: body(name, part)})
					s.dead++
				}
			})
			commit(t, db, func(turn *store.Turn) { turn.AckUpTo(name+"-sub", part*2+1) })
		}
		info, err := db.Stream(name)
		if err != nil {
			t.Fatal(err)
		}
		s.held[name], s.last[name] = info.First, info.Last
		s.floor[name+"-sub"] = info.First - 1
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "store.db"))
	if err != nil {
		t.Fatal(err)
	}
	s.file = b[:binary.LittleEndian.Uint64(b[max0(b):])*4096]
	return s
}

// max0 returns where the newer root says how many pages are in use.
// noContext does not end.
var noContext = context.Background()

func max0(b []byte) int {
	at := 16 + 40
	if binary.LittleEndian.Uint64(b[4096+16+48:]) > binary.LittleEndian.Uint64(b[16+48:]) {
		at += 4096
	}
	return at
}

// damageCase is a file that something has happened to.
type damageCase struct {
	name string
	file []byte
}

func (s *specimen) cases(rnd *rand.Rand) (all []damageCase) {
	pages := len(s.file) / 4096
	add := func(name string, change func(b []byte) []byte) {
		all = append(all, damageCase{name, change(bytes.Clone(s.file))})
	}
	for p := range pages {
		at := p * 4096
		// Each field of a page's header, and of its first elements.
		for _, field := range []int{0, 1, 8, 10, 11, 12, 14, 16, 17, 20, 22, 24, 28, 29, 32, 36, 40, 44} {
			bit := rnd.IntN(8)
			add(fmt.Sprintf("page %d, byte %d, bit %d", p, field, bit), func(b []byte) []byte {
				b[at+field] ^= 1 << bit
				return b
			})
		}
		for range 6 {
			off, bit := rnd.IntN(4096), rnd.IntN(8)
			add(fmt.Sprintf("page %d, byte %d, bit %d", p, off, bit), func(b []byte) []byte {
				b[at+off] ^= 1 << bit
				return b
			})
		}
		add(fmt.Sprintf("page %d zeroed", p), func(b []byte) []byte { clear(b[at : at+4096]); return b })
		add(fmt.Sprintf("page %d ones", p), func(b []byte) []byte {
			for i := range b[at : at+4096] {
				b[at+i] = 0xff
			}
			return b
		})
		sector := at + 512*rnd.IntN(8)
		add(fmt.Sprintf("sector at %d zeroed", sector), func(b []byte) []byte { clear(b[sector : sector+512]); return b })
		other := rnd.IntN(pages) * 4096
		add(fmt.Sprintf("pages %d and %d swapped", p, other/4096), func(b []byte) []byte {
			page := bytes.Clone(b[at : at+4096])
			copy(b[at:], b[other:other+4096])
			copy(b[other:], page)
			return b
		})
		add(fmt.Sprintf("page %d is a copy of %d", p, other/4096), func(b []byte) []byte {
			copy(b[at:at+4096], s.file[other:])
			return b
		})
		add(fmt.Sprintf("cut to %d pages", p), func(b []byte) []byte { return b[:at] })
		add(fmt.Sprintf("cut within page %d", p), func(b []byte) []byte { return b[:at+rnd.IntN(4096)] })
	}
	for n := 1; n < pages; n *= 2 {
		add(fmt.Sprintf("the last %d pages twice", n), func(b []byte) []byte { return append(b, b[len(b)-n*4096:]...) })
		add(fmt.Sprintf("the first %d pages again at the end", n), func(b []byte) []byte { return append(b, b[:n*4096]...) })
		add(fmt.Sprintf("zeros behind %d pages", n), func(b []byte) []byte { clear(b[n*4096:]); return b })
		add(fmt.Sprintf("zeros before page %d", n), func(b []byte) []byte { clear(b[:n*4096]); return b })
	}
	for n := range 200 {
		add(fmt.Sprintf("many flips %d", n), func(b []byte) []byte {
			for range 1 + n {
				b[rnd.IntN(len(b))] ^= 1 << rnd.IntN(8)
			}
			return b
		})
	}
	return all
}

// Whatever happens to the file: the store opens, nothing it hands out is other
// than what was written, it takes more, and what is missing has been named.
func TestOpen_damageOfEveryKind(t *testing.T) {
	s := newSpecimen(t)
	seed := uint64(1)
	if text := os.Getenv("EDGED_SEED"); text != "" {
		seed, _ = strconv.ParseUint(text, 10, 64)
	}
	t.Logf("%d pages, seed %d (EDGED_SEED)", len(s.file)/4096, seed)
	cases := s.cases(rand.New(rand.NewPCG(seed, 4)))
	if len(cases) < 2000 {
		t.Errorf("only %d cases", len(cases))
	}
	var mu sync.Mutex // guards the sums
	damaged, rootless, kept := 0, 0, 0
	var wg sync.WaitGroup
	todo := make(chan damageCase)
	for range 2 {
		wg.Go(func() {
			for c := range todo {
				r, n, err := s.try(c.file)
				if err != nil {
					t.Errorf("%s: %v", c.name, err)
				}
				mu.Lock()
				if r != nil && r.Damaged {
					damaged++
				}
				if r != nil && r.Rootless {
					rootless++
				}
				kept += n
				mu.Unlock()
			}
		})
	}
	for _, c := range cases {
		todo <- c
	}
	close(todo)
	wg.Wait()
	all := 0
	for name := range s.held {
		all += int(s.last[name] - s.held[name] + 1)
	}
	t.Logf("%d cases: %d damaged, %d without a root, %.1f of %d messages kept on average", len(cases), damaged, rootless, float64(kept)/float64(len(cases)), all)
}

// try opens a store with that file, and holds what it has against the specimen.
func (s *specimen) try(file []byte) (r *store.Report, kept int, err error) {
	dir, err := os.MkdirTemp(fastDir(), "damage")
	if err != nil {
		return nil, 0, err
	}
	defer os.RemoveAll(dir)
	if err := os.WriteFile(filepath.Join(dir, "store.db"), file, 0o600); err != nil {
		return nil, 0, err
	}
	before, err := store.Check(noContext, dir)
	if err != nil {
		return nil, 0, err
	}
	db, err := store.Open(store.Options{Dir: dir})
	if err != nil {
		return &before, 0, fmt.Errorf("it does not open: %w", err)
	}
	defer db.Close()
	aside, err := store.Quarantined(dir)
	if err != nil || len(aside) > 1 {
		return &before, 0, fmt.Errorf("in quarantine: %v, %w", aside, err)
	}
	if len(aside) == 1 && !before.Damaged {
		return &before, 0, fmt.Errorf("set aside, and Check found nothing")
	}
	named := strings.Join(before.Notes, "; ") // what was lost
	if len(aside) == 1 {
		named += strings.Join(aside[0].Lost, "; ")
		report, err := os.ReadFile(aside[0].File + ".report.json")
		if err != nil {
			return &before, 0, err
		}
		named += "\n" + string(report)
	}
	if strings.Contains(named, "turns committed last") {
		named += ` "position" "state" "dead letter" "subscription"`
	}
	for name := range s.held {
		n, err := s.compareStream(db, name, &before, len(aside) == 1, named)
		if err != nil {
			return &before, kept, err
		}
		kept += n
	}
	if err := s.compareRest(db, named); err != nil {
		return &before, kept, err
	}
	// It takes more, and opens again.
	if err := db.EnsureStream(store.StreamConfig{Name: "a"}); err != nil {
		return &before, kept, err
	}
	rec, err := tryPublish(db, "a", "new", "")
	if err != nil || rec.Duplicate {
		return &before, kept, fmt.Errorf("publish: %+v, %w", rec, err)
	}
	if err := db.Close(); err != nil {
		return &before, kept, err
	}
	after, err := store.Check(noContext, dir)
	if err != nil || len(aside) == 1 && after.Damaged {
		return &before, kept, fmt.Errorf("afterwards: %v, %w", after.Findings, err)
	}
	return &before, kept, nil
}

func (s *specimen) compareStream(db *store.DB, name string, before *store.Report, salvaged bool, named string) (kept int, err error) {
	last := s.held[name] - 1
	missing := []uint64{}
	err = db.Read(name, 0, 1<<20, 1<<30, func(m store.Message) error {
		if !bytes.Equal(m.Data, body(name, m.Seq)) || m.Subject != "s."+name || m.Seq > s.last[name] {
			return fmt.Errorf("message %d of %s reads %s %.40q", m.Seq, name, m.Subject, m.Data)
		}
		if m.Seq < s.held[name] {
			return nil // handled before; it may come back
		}
		kept++
		for last++; last < m.Seq; last++ {
			missing = append(missing, last)
		}
		return nil
	})
	if err != nil && !(salvaged && strings.Contains(named, "stream: ")) {
		return kept, err
	}
	for last++; last <= s.last[name]; last++ {
		missing = append(missing, last)
	}
	if len(missing) == 0 || strings.Contains(named, "stream "+name+":") || strings.Contains(named, "stream: ") || strings.Contains(named, "turns committed last") {
		return kept, nil
	}
	return kept, fmt.Errorf("stream %s misses %v, and what was lost is: %s\nfound: %s", name, missing, named, strings.Join(before.Findings, "\n"))
}

func (s *specimen) compareRest(db *store.DB, named string) error {
	found := 0
	err := db.List("space", "", func(k string, v []byte) error {
		if s.state[k] != string(v) {
			return fmt.Errorf("key %s has %.40q, want %.40q", k, v, s.state[k])
		}
		found++
		return nil
	})
	if err != nil {
		return err
	}
	if found < len(s.state) && !strings.Contains(named, `"state"`) {
		return fmt.Errorf("%d of %d keys, and what was lost is: %s", found, len(s.state), named)
	}
	if n := db.DeadLetterCount(); n < s.dead && !strings.Contains(named, `"dead letter"`) {
		return fmt.Errorf("%d of %d dead letters, and what was lost is: %s", n, s.dead, named)
	}
	for sub, floor := range s.floor {
		p, err := db.Position(sub)
		if err != nil && !strings.Contains(named, `"subscription"`) {
			return fmt.Errorf("%w, and what was lost is: %s", err, named)
		}
		if err == nil && p.Floor != floor && !strings.Contains(named, `"position"`) {
			return fmt.Errorf("subscription %s is at %d, want %d; what was lost is: %s", sub, p.Floor, floor, named)
		}
	}
	return nil
}
