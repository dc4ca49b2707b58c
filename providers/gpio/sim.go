package gpio

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// SimName is the name of the simulated chip, SimLines the number of its lines.
const (
	SimName  = "sim0"
	SimLines = 32
)

// simEdges is how many edges of a line wait to be taken before the oldest are
// dropped, as the kernel does at 16.
const simEdges = 256

// Sim is a simulated chip. It behaves as a real one for whoever holds its
// lines, and has the outside world as methods: Set is the button, Level and
// Watch are the meter. All methods may be called from any goroutine.
type Sim struct {
	mu      sync.Mutex // guards what follows
	lines   [SimLines]simLine
	watches map[int]func(SimChange)
	next    int // key of the next watch
}

// SimChange is a level that changed, from inside or outside.
type SimChange struct {
	Line  int
	Level bool
	Time  time.Time
}

// simLine is what the chip knows of a line.
type simLine struct {
	level   bool
	touched bool     // the level was set by somebody: a pull resistor has no say
	holder  *simHeld // nil while nobody holds the line
}

// simHeld is a line that is held.
type simHeld struct {
	sim     *Sim
	offset  int
	request request
	edges   chan edge
}

func newSim() *Sim { return &Sim{watches: make(map[int]func(SimChange))} }

// Set sets the level of a line from outside, as a contact would. It may be an
// input or a line that nobody holds; an output is refused.
func (s *Sim) Set(line int, level bool) error {
	if err := s.check(line); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	l := &s.lines[line]
	if l.holder != nil && l.holder.request.output {
		return fmt.Errorf("set line %d of %s: it is an output, and its level is set by its owner", line, SimName)
	}
	l.touched = true
	s.change(line, level)
	return nil
}

// Level is the level on a line.
func (s *Sim) Level(line int) (bool, error) {
	if err := s.check(line); err != nil {
		return false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lines[line].level, nil
}

// Watch calls fn for every change of a level, in order, until stop is called.
// fn must not block, and must not call methods of the Sim.
func (s *Sim) Watch(fn func(SimChange)) (stop func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := s.next
	s.next++
	s.watches[key] = fn
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.watches, key)
	}
}

func (s *Sim) check(line int) error {
	if line < 0 || line >= SimLines {
		return fmt.Errorf("%s has lines 0 to %d, not %d", SimName, SimLines-1, line)
	}
	return nil
}

// change puts a level on a line. The caller holds s.mu.
func (s *Sim) change(line int, level bool) {
	l := &s.lines[line]
	if l.level == level {
		return
	}
	l.level = level
	if h := l.holder; h != nil && !h.request.output && h.request.edge.has(edgeTo(level)) {
		h.push(edgeTo(level))
	}
	c := SimChange{Line: line, Level: level, Time: time.Now()}
	for _, fn := range s.watches {
		fn(c)
	}
}

// push makes room for e by dropping the oldest edge. The caller holds sim.mu,
// so nobody else pushes.
func (h *simHeld) push(e edge) {
	for {
		select {
		case h.edges <- e:
			return
		default:
		}
		select {
		case <-h.edges:
		default:
		}
	}
}

func (s *Sim) size() int { return SimLines }

func (s *Sim) open(offset int, r request) (line, error) {
	if err := s.check(offset); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	l := &s.lines[offset]
	if l.holder != nil {
		return nil, errors.New("it is held already")
	}
	l.holder = &simHeld{sim: s, offset: offset, request: r, edges: make(chan edge, simEdges)}
	switch {
	case r.output:
		l.touched = true
		s.change(offset, r.level)
	case !l.touched && r.pull != pullAsIs:
		s.change(offset, r.pull == pullUp)
		l.holder.edges = make(chan edge, simEdges) // the resistor's own edge came before the line was watched
	}
	return l.holder, nil
}

func (h *simHeld) level() (bool, error) {
	h.sim.mu.Lock()
	defer h.sim.mu.Unlock()
	if h.sim.lines[h.offset].holder != h {
		return false, errReleased
	}
	return h.sim.lines[h.offset].level, nil
}

func (h *simHeld) drive(level bool) error {
	h.sim.mu.Lock()
	defer h.sim.mu.Unlock()
	if h.sim.lines[h.offset].holder != h {
		return errReleased
	}
	h.sim.change(h.offset, level)
	return nil
}

func (h *simHeld) waitEdge(ctx context.Context, timeout time.Duration) (edge, error) {
	var over <-chan time.Time
	if timeout > 0 {
		t := time.NewTimer(timeout)
		defer t.Stop()
		over = t.C
	}
	select {
	case e := <-h.edges:
		return e, nil
	case <-over:
	case <-ctx.Done():
	}
	return edgeNone, nil
}

// close leaves the level on the line, as most chips do.
func (h *simHeld) close() error {
	h.sim.mu.Lock()
	defer h.sim.mu.Unlock()
	if h.sim.lines[h.offset].holder != h {
		return errReleased
	}
	h.sim.lines[h.offset].holder = nil
	return nil
}
