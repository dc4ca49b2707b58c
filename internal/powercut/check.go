package powercut

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"

	"github.com/edged-io/edged/store"
)

// checker holds states against what the workload was told. It is used by one
// goroutine.
type checker struct {
	acts []*act // its own
	byN  map[int]*act
	dir  string // where states are laid out, in stateDir
	old  []byte // what is there, page by page; for lay
	// onlyOpen asks no more than that the store opens, with what can be read:
	// the disk has lied.
	onlyOpen bool
}

func newChecker(r *Record, dir string) (*checker, error) {
	acts, err := history(r)
	if err != nil {
		return nil, err
	}
	c := &checker{acts: acts, byN: make(map[int]*act, len(acts)), dir: dir}
	for _, a := range acts {
		c.byN[a.N] = a
	}
	return c, os.MkdirAll(filepath.Join(dir, stateDir), 0o700)
}

// broken is a promise that a state breaks.
type broken struct{ error }

func (b broken) Unwrap() error { return b.error }

// check lays the state out, opens the store in it, twice if again, and returns
// what is wrong with what it holds: a broken, or why the check could not be made.
func (c *checker) check(s *state, again bool) error {
	dir := filepath.Join(c.dir, stateDir)
	if err := s.lay(dir, &c.old); err != nil {
		return err
	}
	if c.onlyOpen {
		if err := c.opens(dir); err != nil {
			return broken{err}
		}
		return nil
	}
	r := rand.New(rand.NewPCG(uint64(s.cut), uint64(len(s.choice.Picks))))
	if err := c.checkDir(dir, s.cut, again, r); err != nil {
		return broken{err}
	}
	return nil
}

func (c *checker) checkDir(dir string, cut int, again bool, r *rand.Rand) error {
	var first *view
	if again {
		err := c.opened(dir, cut, func(v *view) error {
			first = v
			return nil
		})
		if err != nil {
			return err
		}
	}
	return c.opened(dir, cut, func(v *view) error {
		if again {
			if err := first.same(v); err != nil {
				return err
			}
		}
		return v.probe(r)
	})
}

// opened opens the store in dir and checks it, calls fn, and closes it.
func (c *checker) opened(dir string, cut int, fn func(*view) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the store panics: %v\n%s", p, debug.Stack())
		}
	}()
	var alarms alarms
	o := storeOptions(dir)
	o.Logger = slog.New(&alarms)
	db, err := store.Open(o)
	if err != nil {
		return fmt.Errorf("the store does not open: %w", err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if len(alarms.said) > 0 {
		return fmt.Errorf("a power cut is taken for damage: %s", strings.Join(alarms.said, "; "))
	}
	if files, err := store.Quarantined(dir); err != nil || len(files) > 0 {
		return errors.Join(fmt.Errorf("a power cut is taken for damage: %d files are in quarantine", len(files)), err)
	}
	if err := due(db); err != nil {
		return err
	}
	v, err := c.look(db, cut)
	if err != nil {
		return err
	}
	if err := v.check(); err != nil {
		return err
	}
	return fn(v)
}

// opens opens the store in dir twice. It may set it aside and carry over what it
// can the first time, but not the second.
func (c *checker) opens(dir string) error {
	for again := range 2 {
		var alarms alarms
		o := storeOptions(dir)
		o.Logger = slog.New(&alarms)
		db, err := store.Open(o)
		if err != nil {
			return fmt.Errorf("open number %d: %w", again+1, err)
		}
		if err := db.Close(); err != nil {
			return fmt.Errorf("close number %d: %w", again+1, err)
		}
		if again > 0 && len(alarms.said) > 0 {
			return fmt.Errorf("what was carried over is damaged, too: %s", strings.Join(alarms.said, "; "))
		}
	}
	return nil
}

// alarms keeps what a store says that somebody has to act on: damage.
type alarms struct{ said []string }

func (a *alarms) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelError }
func (a *alarms) WithAttrs([]slog.Attr) slog.Handler           { return a }
func (a *alarms) WithGroup(string) slog.Handler                { return a }

func (a *alarms) Handle(_ context.Context, r slog.Record) error {
	s := r.Message
	r.Attrs(func(at slog.Attr) bool {
		s += " " + at.String()
		return true
	})
	a.said = append(a.said, s)
	return nil
}

// view is what a store holds.
type view struct {
	c         *checker
	db        *store.DB
	cut       int
	streams   map[string]*streamView
	positions map[string]store.Position
	state     map[string]string
	letters   map[int][]store.DeadLetter // act → its dead letters
	act       *act                       // whose evidence is looked at
	missing   []string                   // parts of it
}

type streamView struct {
	store.StreamInfo
	messages map[uint64]item
	seqs     map[item]uint64
}

// item is message i of act n.
type item struct{ n, i int }

// look reads all that a store holds.
func (c *checker) look(db *store.DB, cut int) (*view, error) {
	v := &view{
		c: c, db: db, cut: cut,
		streams: make(map[string]*streamView), positions: make(map[string]store.Position),
		state: make(map[string]string), letters: make(map[int][]store.DeadLetter),
	}
	for _, info := range db.Streams() {
		s, err := c.lookStream(db, info, cut)
		if err != nil {
			return nil, err
		}
		v.streams[info.Name] = s
	}
	for name, stream := range db.Subscriptions() {
		p, err := db.Position(name)
		if err != nil {
			return nil, err
		}
		if s := v.streams[stream]; s == nil || p.Floor > s.Last || len(p.Above) > 0 && p.Above[len(p.Above)-1] > s.Last {
			return nil, fmt.Errorf("subscription %s is beyond the end of stream %s: %+v", name, stream, p)
		}
		v.positions[name] = p
	}
	bytes := int64(0)
	err := db.List(space, "", func(key string, value []byte) error {
		v.state[key] = string(value)
		bytes += int64(len(key)+len(value)) + 32
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, s := range db.Spaces(space) {
		if s.Name == space && (s.Bytes != bytes || s.Keys != int64(len(v.state)) || s.Reserved != 0) {
			return nil, fmt.Errorf("the state is counted as %+v, and is %d bytes under %d keys", s, bytes, len(v.state))
		}
	}
	return v, db.DeadLetters(func(d store.DeadLetter) error {
		it, err := c.item(d.Data, cut)
		v.letters[it.n] = append(v.letters[it.n], d)
		return err
	})
}

func (c *checker) lookStream(db *store.DB, info store.StreamInfo, cut int) (*streamView, error) {
	s := &streamView{StreamInfo: info, messages: make(map[uint64]item, info.Msgs), seqs: make(map[item]uint64, info.Msgs)}
	next := info.First
	if relaxedStreams[info.Name] != nil && info.Name != raw {
		next = 1 // nothing of these is consumed
	}
	err := db.Read(info.Name, 0, 1<<20, 1<<30, func(m store.Message) error {
		it, err := c.item(m.Data, cut)
		if err != nil {
			return fmt.Errorf("message %d: %w", m.Seq, err)
		}
		if m.Seq != next {
			return fmt.Errorf("message %d follows after %d", m.Seq, next-1)
		}
		if first, twice := s.seqs[it]; twice {
			return fmt.Errorf("messages %d and %d are the same one, of %s", first, m.Seq, c.byN[it.n])
		}
		next++
		s.messages[m.Seq], s.seqs[it] = it, m.Seq
		return nil
	})
	switch {
	case err != nil:
		err = fmt.Errorf("stream %s: %w", info.Name, err)
	case relaxedStreams[info.Name] == nil && next != info.Last+1 || next > info.Last+1 || int64(len(s.messages)) != info.Msgs:
		err = fmt.Errorf("stream %s has %d messages up to %d, and says it has %d up to %d", info.Name, len(s.messages), next-1, info.Msgs, info.Last)
	}
	return s, err
}

// item reads which message it is, and checks that it is as it was written.
func (c *checker) item(data []byte, cut int) (it item, err error) {
	it.n, it.i = split(data)
	a := c.byN[it.n]
	if a == nil || !a.begun(cut) || it.i < 0 || it.i > a.K || !bytes.Equal(data, a.body(it.i)) {
		return it, fmt.Errorf("nobody has written %.40q", data)
	}
	return it, nil
}

// split reads what the body of a message begins with.
func split(data []byte) (n, i int) {
	a, rest, _ := bytes.Cut(data, []byte(" "))
	b, _, _ := bytes.Cut(rest, []byte(" "))
	n, _ = strconv.Atoi(string(a))
	i, _ = strconv.Atoi(string(b))
	return n, i
}

// told says whether somebody was told before the cut that a is done.
func (v *view) told(a *act) bool { return a.told(v.cut) }

// part says that a part of the act that is looked at is there or not.
func (v *view) part(there bool, what string) {
	v.act.parts++
	if there {
		v.act.present++
	} else {
		v.missing = append(v.missing, what)
	}
}

// messages is the evidence of an act that published to a stream. Those up to
// gone, and known to be there before, may have left it.
func (v *view) messages(stream string, a *act, gone uint64) {
	s := v.streams[stream]
	for i := range a.K {
		seq, told := a.seq(i, v.cut)
		there := false
		if s != nil {
			found, ok := s.seqs[item{a.N, i}]
			there = ok && (!told || seq == 0 || found == seq) // 0: it was parked first
		}
		v.part(there || told && seq > 0 && seq <= gone, "message "+strconv.Itoa(i)+" in stream "+stream)
	}
}

// floor is up to where a subscription has acknowledged everything.
func (v *view) floor(subscription string) uint64 { return v.positions[subscription].Floor }

// before is the last sequence that a stream does not hold any more.
func (v *view) before(stream string) uint64 {
	if s := v.streams[stream]; s != nil {
		return s.First - 1
	}
	return 0
}

func (v *view) acked(subscription string, seq uint64) bool {
	p := v.positions[subscription]
	if seq <= p.Floor {
		return true
	}
	_, found := slices.BinarySearch(p.Above, seq)
	return found
}

// check holds the view against what was begun and told before the cut.
func (v *view) check() error {
	for _, a := range v.c.acts {
		if !a.begun(v.cut) {
			break // they are in order
		}
		if err := v.checkAct(a); err != nil {
			return fmt.Errorf("%s: %w", a, err)
		}
	}
	return v.checkAll()
}

func (v *view) checkAct(a *act) error {
	if n := a.next; n != nil && v.told(n) {
		return nil // undone, or may be
	}
	a.parts, a.present, v.act, v.missing = 0, 0, a, v.missing[:0]
	a.op.evidence(v, a)
	next := a.next
	pending := next != nil && next.begun(v.cut)
	switch {
	case pending && a.safe(v.cut):
		// Either of them: its evidence is looked at when its turn comes.
		if a.present == a.parts {
			return nil
		}
		next.parts, next.present, v.act = 0, 0, next
		next.op.evidence(v, next)
		if next.present == next.parts {
			return nil
		}
		return fmt.Errorf("it was told to be done, and neither it nor %s is there: no %s", next, strings.Join(v.missing, ", no "))
	case a.present > 0 && a.present < a.parts:
		return fmt.Errorf("it is there in part: no %s", strings.Join(v.missing, ", no "))
	case a.present < a.parts && a.safe(v.cut):
		return fmt.Errorf("it was told to be done, and is not there: no %s", strings.Join(v.missing, ", no "))
	}
	if before := v.c.byN[a.After]; before != nil && a.present > 0 && before.present == 0 {
		return fmt.Errorf("it is there, and %s, which it follows, is not", before)
	}
	return nil
}

// checkAll holds against each other what no single act can tell.
func (v *view) checkAll() error {
	sum, _ := strconv.Atoi(v.state[sumKey])
	if s := v.streams[ledger]; sum > 0 && (s == nil || s.Last != uint64(sum)) || sum == 0 && s != nil && s.Last > 0 {
		return fmt.Errorf("the sum is %d, and the ledger %+v", sum, s)
	}
	for n, letters := range v.letters {
		if len(letters) > 1 {
			return fmt.Errorf("%s left %d dead letters", v.c.byN[n], len(letters))
		}
	}
	if err := v.checkParked(); err != nil {
		return err
	}
	for name, most := range map[string]int64{ring: ringMsgs, chain: chainMsgs, numbered: numberedMsgs} {
		s := v.streams[name]
		if s == nil {
			continue
		}
		if s.Msgs > most || s.Dropped["full"] != s.First-1 {
			return fmt.Errorf("stream %s holds %d messages from %d on, of at most %d, and says it dropped %v", name, s.Msgs, s.First, most, s.Dropped)
		}
	}
	return v.checkPositions()
}

// checkPositions finds acknowledgements that nobody has made.
func (v *view) checkPositions() error {
	done := make(map[uint64]bool)
	audited := uint64(0)
	for _, a := range v.c.acts {
		switch {
		case !a.begun(v.cut):
		case a.op == opWork:
			done[a.Seq] = true
		case a.op == opAudit:
			audited = max(audited, a.Seq)
		}
	}
	p := v.positions[crew]
	for seq := uint64(1); seq <= p.Floor; seq++ {
		if !done[seq] {
			return fmt.Errorf("job %d is acknowledged, and nobody has worked on it", seq)
		}
	}
	for _, seq := range p.Above {
		if !done[seq] {
			return fmt.Errorf("job %d is acknowledged, and nobody has worked on it", seq)
		}
	}
	if f := v.floor(audit); f > audited {
		return fmt.Errorf("the ledger is acknowledged up to %d, and nobody has gone beyond %d", f, audited)
	}
	return nil
}

// same says what another look at the same state found to be different.
func (v *view) same(o *view) error {
	a, b := v.String(), o.String()
	if a != b {
		return fmt.Errorf("the store holds something else when it is opened again:\n%s\n%s", a, b)
	}
	return nil
}

// String is all of a view, with maps in order.
func (v *view) String() string {
	var b strings.Builder
	streams := make([]string, 0, len(v.streams))
	for name, s := range v.streams {
		streams = append(streams, fmt.Sprint(name, s.First, s.Last, s.Msgs, s.Bytes, s.Dropped, s.messages))
	}
	slices.Sort(streams)
	fmt.Fprintln(&b, streams, v.positions, v.state, v.letters)
	return b.String()
}
