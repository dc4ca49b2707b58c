package main

import (
	"fmt"
	"io"
	"math"
)

// goal is a figure of one table, set beside what it should reach.
type goal struct {
	Figure   string  `json:"figure"`
	Against  string  `json:"against"`
	Measured float64 `json:"measured"`
	Good     float64 `json:"good"`
	Best     float64 `json:"best"`    // what the best of its kind would reach
	AtMost   bool    `json:"at_most"` // both are upper bounds; else lower ones
	Result   string  `json:"result"`  // "best", "good" or "missed"
}

// target is a goal before it is measured: column of a case in a table over that of another case, or over 1.
type target struct {
	table, column string
	figure        string
	of, over      string // cases; over "" for the figure itself
	overColumn    string // "" for the same
	bound         bound
	good, best    float64
}

type bound bool

const (
	atLeast bound = false
	atMost  bound = true
)

const (
	rate     = "msg/s"
	actual   = "edged, all parts, 100 KB actor"
	limited  = "edged, under a context with a deadline"
	ours     = "edged, instances of the 100 KB actor"
	wapcGo   = "wapc-go, instances of the 100 KB actor"
	compiled = "100 KB actor, compiled"
)

var targets = []target{
	{"store", rate, "put+deliver+ack, 1 publisher", "edged, 1", "js-always, 1", "", atLeast, 1.3, 2.3},
	{"store", rate, "put+deliver+ack, 16 publishers", "edged, 16", "js-always, 16", "", atLeast, 15, 30},
	{"store", rate, "put+deliver+ack, 256 publishers", "edged, 256", "js-always, 256", "", atLeast, 80, 180},
	{"store", rate, "put+deliver+ack, 16 publishers", "edged, 16", "js-default, 16", "", atLeast, 1, 1.7},
	{"store", rate, "put+deliver+ack, 256 publishers", "edged, 256", "js-default, 256", "", atLeast, 3.5, 7},
	{"store", "put p50 µs", "put p50, 16 publishers", "edged, 16", "disk, 1", "", atMost, 2.5, 1.4},
	{"store", "put p99 µs", "put p99, 16 publishers", "edged, 16", "edged, 16", "put p50 µs", atMost, 3, 2.2},
	{"wire", rate, "publish by nats.go, 1 publisher", "edged, 1", "js-always, 1", "", atLeast, 1.2, 1.5},
	{"wire", rate, "publish by nats.go, 16 publishers", "edged, 16", "js-always, 16", "", atLeast, 4, 8},
	{"wire", rate, "publish by nats.go, 256 publishers", "edged, 256", "js-always, 256", "", atLeast, 10, 25},
	{"syncs", "syncs/msg", "syncs per message, 1 publisher", "edged, 1", "", "", atMost, 2.1, 1.01},
	{"syncs", "syncs/msg", "syncs per message, 64 publishers", "edged, 64", "", "", atMost, 0.05, 0.025},
	{"syncs", "syncs", "syncs for 2000 messages, 256 publishers", "edged, 256", "", "", atMost, 100, 100},
	{"idle", "RSS MiB", "idle RSS", actual, "mosquitto", "", atMost, 2.5, 2.1},
	{"idle", "RSS MiB", "idle RSS", actual, "nats-server", "", atMost, 1.5, 1.3},
	{"idle", "anonymous MiB", "idle anonymous memory", actual, "mosquitto", "", atMost, 5, 3.2},
	{"idle", "ready ms", "exec to ready, cached actor", actual, "nats-server", "", atMost, 2, 1.4},
	{"idle", "program MiB", "size of the program", actual, "nats-server", "", atMost, 1.4, 1.2},
	{"actors", callTime, "actor call, from its pool", "edged", "wapc-go instance", "", atMost, 0.8, 0.6},
	{"actors", rateTwo, "actor calls of two goroutines", "edged", "wapc-go pool", "", atLeast, 3, 6},
	{"actors", rateOne, "actor calls", "edged", "Extism, not copying", "", atLeast, 50, 100},
	{"actors", callAllocs, "allocations of a call with a deadline", limited, "", "", atMost, 2, 0},
	{"actors", callTime, "actor call with a deadline", limited, "bare host, metered, with deadlines", "", atMost, 2, 1.5},
	{"actors", callTime, "actor call with a deadline, against none", limited, "bare host", "", atMost, 4.2, 1.5},
	{"modules", freshUS, "instance for one call", ours, wapcGo, "", atMost, 0.5, 0.1},
	{"modules", instanceKB, "memory of an instance that waits", ours, wapcGo, "", atMost, 0.5, 0.05},
	{"modules", readyMS, "100 KB actor from cache", "100 KB actor, from cache", compiled, "", atMost, 0.1, 0.05},
	{"modules", readyMS, "Go actor from cache", "Go actor, from cache", "Go actor, compiled", "", atMost, 0.1, 0.05},
	{"lattice", callTime, "call in the process, ns", inProcess, "", "", atMost, 1000, 200},
	{"lattice", rateOne, "call of a child process", inSession, natsProcess, "", atLeast, 0.6, 0.9},
	{"lattice", rateSixteen, "calls of a child process, 16", inSession, natsProcess, "", atLeast, 0.6, 0.9},
	{"push", "put p99 µs", "put p99 while an actor compiles", "edged, while an actor compiles", "edged", "", atMost, 4, 2},
}

// goals measures the targets of the tables there are.
func goals(tables []*table) (out []goal) {
	for _, t := range tables {
		for _, g := range targets {
			if g.table != t.Name {
				continue
			}
			v, against := t.median(g.of, g.column), "itself"
			if g.over != "" {
				column := g.column
				if g.overColumn != "" {
					column = g.overColumn
				}
				v /= t.median(g.over, column)
				against = g.over
				if g.overColumn != "" {
					against = column
				}
			}
			if math.IsNaN(v) {
				continue // the other side is not on this machine
			}
			out = append(out, goal{g.figure, against, v, g.good, g.best, bool(g.bound), g.bound.result(v, g.good, g.best)})
		}
	}
	return out
}

func (b bound) result(v, good, best float64) string {
	if b == atMost {
		v, good, best = -v, -good, -best
	}
	switch {
	case v >= best:
		return "best"
	case v >= good:
		return "good"
	}
	return "missed"
}

func printGoals(w io.Writer, all []goal) {
	if len(all) == 0 {
		return
	}
	lines := [][]string{{"", "against", "measured", "good", "best", ""}}
	for _, g := range all {
		sign, unit := "≥ ", "×"
		if g.AtMost {
			sign = "≤ "
		}
		if g.Against == "itself" {
			g.Against, unit = "", ""
		}
		lines = append(lines, []string{g.Figure, g.Against, number(g.Measured) + unit,
			sign + number(g.Good) + unit, sign + number(g.Best) + unit, g.Result})
	}
	fmt.Fprint(w, "\nBeside the goals\n\n")
	printColumns(w, lines)
}
