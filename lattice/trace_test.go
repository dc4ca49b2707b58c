package lattice_test

import (
	"strings"
	"testing"

	"github.com/edged-io/edged/lattice"
)

func TestWithTrace(t *testing.T) {
	const good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	for _, c := range []struct {
		name, parent, state string
		want                int // entries
	}{
		{"parent alone", good, "", 1},
		{"with state", good, "vendor=x,other=y", 2},
		{"a later version", "cc" + good[2:] + "-what-comes", "", 1},
		{"state too long", good, strings.Repeat("x", 513), 1},
		{"state with a line feed", good, "a=b\nc: d", 1},
		{"nothing", "", "a=b", 0},
		{"short", good[:54], "", 0},
		{"long", good + "-01", "", 0},
		{"version ff", "ff" + good[2:], "", 0},
		{"upper case", strings.ToUpper(good), "", 0},
		{"no trace", "00-00000000000000000000000000000000-00f067aa0ba902b7-01", "", 0},
		{"no parent", "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", "", 0},
		{"dashes elsewhere", strings.ReplaceAll(good, "-", "a"), "", 0},
		{"a line feed", "cc" + good[2:] + "-a\r\nb: c", "", 0},
	} {
		got := lattice.Trace(lattice.WithTrace(t.Context(), c.parent, c.state))
		if len(got) != c.want || c.want > 0 && got[lattice.TraceParent] != c.parent || c.want > 1 && got[lattice.TraceState] != c.state {
			t.Errorf("%s: got %v", c.name, got)
		}
	}
	before := lattice.WithTrace(t.Context(), good, "")
	if got := lattice.Trace(lattice.WithTrace(before, "nonsense", "")); got[lattice.TraceParent] != good {
		t.Errorf("nonsense has replaced it: %v", got)
	}
}
