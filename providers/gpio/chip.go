package gpio

import (
	"context"
	"time"
)

// chip is a set of lines, numbered from 0: a chip of the kernel or a Sim.
type chip interface {
	// size is the number of lines.
	size() int
	// open takes hold of a line until it is closed. An output is at r.level
	// when open returns. The error says who holds the line, if it is known.
	open(offset int, r request) (line, error)
}

// request is how a line is to be set up.
type request struct {
	output bool
	level  bool // of an output, from the start
	edge   edge // of an input: what waitEdge reports
	pull   pull // of an input
}

// line is a line that is held. level and drive may be called from any
// goroutine, waitEdge from one at a time, and close after that one is gone.
type line interface {
	// level is the level on the line now, of an output as well.
	level() (bool, error)
	// drive sets the level of an output.
	drive(level bool) error
	// waitEdge waits for the next edge and takes it. It returns edgeNone when
	// the timeout is over (0 is none) or the context has ended.
	waitEdge(ctx context.Context, timeout time.Duration) (edge, error)
	// close gives the line back. What level an output keeps is up to the chip.
	close() error
}

// edge is one edge of an input, or which edges are meant.
type edge string

const (
	edgeNone    edge = "none"
	edgeRising  edge = "rising"
	edgeFalling edge = "falling"
	edgeBoth    edge = "both"
)

// edgeTo is the edge that leads to level.
func edgeTo(level bool) edge {
	if level {
		return edgeRising
	}
	return edgeFalling
}

// has says whether the one edge e is among those that w means.
func (w edge) has(e edge) bool { return w == edgeBoth || w == e }

// pull is the resistor of an input.
type pull string

const (
	pullAsIs pull = "" // whatever it was
	pullUp   pull = "up"
	pullDown pull = "down"
)

// word is a level as values, the store and people write it.
func word(level bool) string {
	if level {
		return "high"
	}
	return "low"
}
