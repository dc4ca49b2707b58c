package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"runtime"
	"slices"
	"strings"
)

// sample is what one run of a case measured, by column.
type sample map[string]float64

// testCase is one row of a table. Its run is called once a round.
type testCase struct {
	name string
	run  func(context.Context) (sample, error)
}

// table is a finished comparison.
type table struct {
	Name    string   `json:"name"`
	Title   string   `json:"title"`
	Columns []string `json:"columns"`
	Rows    []row    `json:"rows"`
}

// row holds a case's figures over all rounds, by column.
type row struct {
	Case   string            `json:"case"`
	Values map[string]spread `json:"values"`
}

// spread is the median of the rounds, between the least and the most.
type spread struct {
	Median float64 `json:"median"`
	Least  float64 `json:"least"`
	Most   float64 `json:"most"`
}

// interleave runs all cases once a round and fills the rows of t.
func (t *table) interleave(ctx context.Context, rounds int, cases []testCase) error {
	got := make([]map[string][]float64, len(cases))
	for round := range rounds {
		for i := range cases {
			n := (i + round) % len(cases)
			if err := ctx.Err(); err != nil {
				return err
			}
			runtime.GC() // what the case before left behind is not this one's
			s, err := cases[n].run(ctx)
			if err != nil {
				return fmt.Errorf("%s: %w", cases[n].name, err)
			}
			if got[n] == nil {
				got[n] = map[string][]float64{}
			}
			for k, v := range s {
				got[n][k] = append(got[n][k], v)
			}
		}
	}
	for i, c := range cases {
		r := row{c.name, map[string]spread{}}
		for k, v := range got[i] {
			r.Values[k] = spread{quantile(v, 0.5), slices.Min(v), slices.Max(v)}
		}
		t.Rows = append(t.Rows, r)
	}
	return nil
}

// quantile by nearest rank; the median of an even count is the mean of the middle two. v gets sorted.
func quantile(v []float64, q float64) float64 {
	if len(v) == 0 {
		return math.NaN()
	}
	slices.Sort(v)
	if q == 0.5 && len(v)%2 == 0 {
		return (v[len(v)/2-1] + v[len(v)/2]) / 2
	}
	return v[max(int(math.Ceil(q*float64(len(v))))-1, 0)]
}

// median of a case's column, NaN where there is none.
func (t *table) median(name, column string) float64 {
	for _, r := range t.Rows {
		if v, ok := r.Values[column]; ok && r.Case == name {
			return v.Median
		}
	}
	return math.NaN()
}

func (t *table) print(w io.Writer) {
	lines := [][]string{append([]string{""}, t.Columns...)}
	for _, r := range t.Rows {
		line := []string{r.Case}
		for _, c := range t.Columns {
			v, ok := r.Values[c]
			switch {
			case !ok:
				line = append(line, "")
			case v.Least == v.Most:
				line = append(line, number(v.Median))
			default:
				line = append(line, fmt.Sprintf("%s (%s – %s)", number(v.Median), number(v.Least), number(v.Most)))
			}
		}
		lines = append(lines, line)
	}
	fmt.Fprintf(w, "\n%s\n\n", t.Title)
	printColumns(w, lines)
}

// printColumns prints lines with the first column to the left and the others to the right.
func printColumns(w io.Writer, lines [][]string) {
	width := make([]int, len(lines[0]))
	for _, line := range lines {
		for i, s := range line {
			width[i] = max(width[i], len([]rune(s)))
		}
	}
	for _, line := range lines {
		for i, s := range line {
			pad := strings.Repeat(" ", width[i]-len([]rune(s)))
			if i == 0 {
				fmt.Fprint(w, "  ", s, pad)
			} else {
				fmt.Fprint(w, "   ", pad, s)
			}
		}
		fmt.Fprintln(w)
	}
}

// number with three digits that matter, or all digits before the point.
func number(v float64) string {
	switch a := math.Abs(v); {
	case math.IsNaN(v):
		return "–"
	case a == 0:
		return "0"
	case a >= 100:
		return fmt.Sprintf("%.0f", v)
	case a >= 10:
		return fmt.Sprintf("%.1f", v)
	case a >= 1:
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.3f", v)
}
