package main

import (
	"context"
	"math"
	"strings"
	"testing"
)

func TestInterleave_StartsAtAnotherCase(t *testing.T) {
	var order strings.Builder
	one := func(name string) testCase {
		n := 0.0
		return testCase{name, func(context.Context) (sample, error) {
			order.WriteString(name)
			n++
			return sample{"n": n * n}, nil
		}}
	}
	var got table
	if err := got.interleave(t.Context(), 3, []testCase{one("a"), one("b"), one("c")}); err != nil {
		t.Fatal(err)
	}
	if want := "abcbcacab"; order.String() != want {
		t.Errorf("got order %s, want %s", order.String(), want)
	}
	if v := got.Rows[1].Values["n"]; v != (spread{4, 1, 9}) {
		t.Errorf("got %+v, want median 4 between 1 and 9", v)
	}
}

func TestQuantile(t *testing.T) {
	for _, c := range []struct {
		v       []float64
		q, want float64
	}{
		{[]float64{3, 1, 2}, 0.5, 2},
		{[]float64{4, 1, 2, 3}, 0.5, 2.5},
		{[]float64{4, 1, 2, 3}, 0.99, 4},
		{[]float64{7}, 0.01, 7},
	} {
		if got := quantile(c.v, c.q); got != c.want {
			t.Errorf("quantile(%v, %v): got %v, want %v", c.v, c.q, got, c.want)
		}
	}
	if got := quantile(nil, 0.5); !math.IsNaN(got) {
		t.Errorf("of nothing: got %v, want NaN", got)
	}
}

func TestGoals_results(t *testing.T) {
	value := func(c string, v float64) row {
		return row{c, map[string]spread{rate: {v, v, v}}}
	}
	got := goals([]*table{{Name: "wire", Rows: []row{
		value("edged, 1", 120), value("js-always, 1", 100),
		value("edged, 16", 300), value("js-always, 16", 100),
		value("edged, 256", 1000), // nothing to set it beside
	}}, {Name: "actors", Rows: []row{
		{limited, map[string]spread{callAllocs: {}}},
	}}})
	if len(got) != 3 {
		t.Fatalf("got %+v, want three goals", got)
	}
	if g := got[0]; g.Measured != 1.2 || g.Result != "good" {
		t.Errorf("got %+v, want 1.2 and good", g)
	}
	if g := got[1]; g.Measured != 3 || g.Result != "missed" {
		t.Errorf("got %+v, want 3 and missed", g)
	}
	if g := got[2]; g.Measured != 0 || g.Result != "best" {
		t.Errorf("got %+v, want 0 and best", g)
	}
}
