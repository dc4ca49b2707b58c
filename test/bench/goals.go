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
	Least    float64 `json:"at_least,omitempty"` // one of the two
	Most     float64 `json:"at_most,omitempty"`
	Met      bool    `json:"met"`
}

// target is a goal before it is measured: column of a case in a table over that of another case, or over 1.
type target struct {
	table, column string
	figure        string
	of, over      string // cases; over "" for the figure itself
	overColumn    string // "" for the same
	least, most   float64
}

const (
	rate   = "msg/s"
	actual = "edged, all parts, 100 KB actor"
)

var targets = []target{
	{"store", rate, "put+deliver+ack, 1 publisher", "edged, 1", "js-always, 1", "", 1.3, 0},
	{"store", rate, "put+deliver+ack, 16 publishers", "edged, 16", "js-always, 16", "", 15, 0},
	{"store", rate, "put+deliver+ack, 256 publishers", "edged, 256", "js-always, 256", "", 80, 0},
	{"store", rate, "put+deliver+ack, 16 publishers", "edged, 16", "js-default, 16", "", 1, 0},
	{"store", rate, "put+deliver+ack, 256 publishers", "edged, 256", "js-default, 256", "", 3.5, 0},
	{"store", "put p50 µs", "put p50, 16 publishers", "edged, 16", "disk, 1", "", 0, 2.5},
	{"store", "put p99 µs", "put p99, 16 publishers", "edged, 16", "edged, 16", "put p50 µs", 0, 3},
	{"wire", rate, "publish by nats.go, 1 publisher", "edged, 1", "js-always, 1", "", 1.2, 0},
	{"wire", rate, "publish by nats.go, 16 publishers", "edged, 16", "js-always, 16", "", 4, 0},
	{"wire", rate, "publish by nats.go, 256 publishers", "edged, 256", "js-always, 256", "", 10, 0},
	{"syncs", "syncs/msg", "syncs per message, 1 publisher", "edged, 1", "", "", 0, 2.1},
	{"syncs", "syncs/msg", "syncs per message, 64 publishers", "edged, 64", "", "", 0, 0.05},
	{"syncs", "syncs", "syncs for 2000 messages, 256 publishers", "edged, 256", "", "", 0, 100},
	{"idle", "RSS MiB", "idle RSS", actual, "mosquitto", "", 0, 2.5},
	{"idle", "RSS MiB", "idle RSS", actual, "nats-server", "", 0, 1.5},
	{"idle", "anonymous MiB", "idle anonymous memory", actual, "mosquitto", "", 0, 5},
	{"idle", "ready ms", "exec to ready, cached actor", actual, "nats-server", "", 0, 2},
	{"idle", "program MiB", "size of the program", actual, "nats-server", "", 0, 1.4},
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
			out = append(out, goal{g.figure, against, v, g.least, g.most, v >= g.least && (g.most == 0 || v <= g.most)})
		}
	}
	return out
}

func printGoals(w io.Writer, all []goal) {
	if len(all) == 0 {
		return
	}
	lines := [][]string{{"", "against", "measured", "goal", ""}}
	for _, g := range all {
		want := "≥ " + number(g.Least)
		if g.Most > 0 {
			want = "≤ " + number(g.Most)
		}
		met := "met"
		if !g.Met {
			met = "missed"
		}
		unit := "×"
		if g.Against == "itself" {
			unit = ""
			g.Against = ""
		}
		lines = append(lines, []string{g.Figure, g.Against, number(g.Measured) + unit, want + unit, met})
	}
	fmt.Fprint(w, "\nBeside the goals\n\n")
	printColumns(w, lines)
}
