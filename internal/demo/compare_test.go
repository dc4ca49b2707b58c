package demo

import (
	"strings"
	"testing"
)

func ids(s string) []string { return strings.Fields(s) }

func TestCompare(t *testing.T) {
	for name, c := range map[string]struct {
		sent string
		due  int
		held string
		want Comparison
	}{
		"nothing":              {"", 0, "", Comparison{}},
		"same":                 {"a b c", 3, "a b c", Comparison{Due: 3, Held: 3}},
		"not acknowledged":     {"a b c", 2, "a b", Comparison{Due: 2, Held: 2}},
		"arrived all the same": {"a b c", 2, "a b c", Comparison{Due: 2, Held: 3}},
		"first missing":        {"a b c", 3, "b c", Comparison{Due: 3, Held: 2, Missing: 1}},
		"last missing":         {"a b c", 3, "a b", Comparison{Due: 3, Held: 2, Missing: 1}},
		"all missing":          {"a b c", 3, "", Comparison{Due: 3, Missing: 3}},
		"repeated":             {"a b c", 3, "a b b c a", Comparison{Due: 3, Held: 5, Repeated: 2}},
		"one early":            {"a b c d", 4, "d a b c", Comparison{Due: 4, Held: 4, OutOfOrder: 3}},
		"two swapped":          {"a b c d", 4, "a c b d", Comparison{Due: 4, Held: 4, OutOfOrder: 1}},
		"unknown":              {"a b", 2, "a x b ", Comparison{Due: 2, Held: 3, Unknown: 1}},
		"unknown hides none":   {"a b", 2, "a x", Comparison{Due: 2, Held: 2, Missing: 1, Unknown: 1}},
		"all at once":          {"a b c d", 4, "c a a x", Comparison{Due: 4, Held: 4, Missing: 2, Repeated: 1, OutOfOrder: 1, Unknown: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			c.want.Sensor = "roof"
			got := compare("roof", ids(c.sent), c.due, ids(c.held))
			if got != c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
			if same := c.want.Missing+c.want.Repeated+c.want.OutOfOrder+c.want.Unknown == 0; got.Same() != same {
				t.Errorf("Same says %t", got.Same())
			}
		})
	}
}
