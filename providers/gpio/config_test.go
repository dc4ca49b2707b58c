package gpio

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestParseValues(t *testing.T) {
	for _, c := range []struct{ values, want string }{
		{"chip=gpiochip0 line=3 direction=in edge=both debounce=20ms topic=greenhouse.door",
			"gpiochip0/3 in both 20ms greenhouse.door greenhouse.door  false false"},
		{"chip=sim0 line=0 direction=in", "sim0/0 in none 0s    false false"},
		{"chip=sim0 line=0 direction=in topic=a/b pull=up", "sim0/0 in both 0s a/b a.b up false false"},
		{"chip=sim0 line=0 direction=in edge=none pull=none", "sim0/0 in none 0s    false false"},
		{"chip=sim0 line=31 direction=out", "sim0/31 out  0s    false false"},
		{"chip=sim0 line=31 direction=out safe=high", "sim0/31 out  0s    true true"},
		{"chip=sim0 line=31 direction=out safe=high initial=low", "sim0/31 out  0s    false true"},
	} {
		got, err := parseValues(values(c.values))
		if err != nil {
			t.Errorf("%s: %v", c.values, err)
			continue
		}
		s := fmt.Sprintf("%s %s %s %s %s %s %s %v %v", got.address, got.direction, got.edge, got.debounce, got.topic, got.subject, got.pull, got.initial, got.safe)
		if s != c.want {
			t.Errorf("%s: got %q, want %q", c.values, s, c.want)
		}
	}
}

func TestParseValues_faults(t *testing.T) {
	for _, c := range []struct {
		values string
		want   []string // keys, all of which are named
	}{
		{"", []string{"chip", "line", "direction"}},
		{"chip=/dev/gpiochip0 line=x direction=in edge=up debounce=20 topic=a.* pull=yes", []string{"chip", "line", "edge", "debounce", "topic", "pull"}},
		{"chip=.. line=-1 direction=out safe=on initial=off", []string{"chip", "line", "safe", "initial"}},
		{"chip=sim0 line=1 direction=out topic=a edge=both", []string{"topic", "edge"}},
		{"chip=sim0 line=1 direction=in topic=a safe=low colour=red", []string{"safe", "colour"}},
		{"chip=sim0 line=1 direction=in edge=both", []string{"topic"}},
		{"chip=sim0 line=1 direction=in edge=none topic=a", []string{"edge"}},
		{"chip=sim0 line=1 direction=in debounce=20ms", []string{"debounce"}},
		{"chip=sim0 line=1 direction=in topic=a debounce=-1s", []string{"debounce"}},
		{"chip=sim0 line=1 direction=in topic=a debounce=11s", []string{"debounce"}},
		{"chip=sim0 line=65536 direction=in", []string{"line"}},
		{"chip=" + strings.Repeat("x", 32) + " line=1 direction=in", []string{"chip"}},
	} {
		_, err := parseValues(values(c.values))
		if err == nil {
			t.Errorf("%s: no error", c.values)
			continue
		}
		lines := strings.Split(err.Error(), "\n")
		if len(lines) != len(c.want) {
			t.Errorf("%s: got %q, want faults of %v", c.values, lines, c.want)
		}
		for _, key := range c.want {
			if !strings.Contains("\n"+err.Error(), "\n"+key+": ") {
				t.Errorf("%s: %q does not name %s", c.values, err, key)
			}
		}
	}
}

// values reads "key=value key=value".
func values(s string) map[string]string {
	m := make(map[string]string)
	for _, f := range strings.Fields(s) {
		key, value, _ := strings.Cut(f, "=")
		m[key] = value
	}
	return m
}

func FuzzParseValues(f *testing.F) {
	f.Add("gpiochip0", "3", "in", "both", "20ms", "greenhouse.door", "up", "low", "high")
	f.Add("sim0", "31", "out", "", "", "", "", "high", "low")
	f.Fuzz(func(t *testing.T, chip, line, direction, edge, debounce, topic, pull, safe, initial string) {
		m := map[string]string{"chip": chip, "line": line, "direction": direction, "edge": edge, "debounce": debounce,
			"topic": topic, "pull": pull, "safe": safe, "initial": initial}
		for key, value := range m {
			if value == "" {
				delete(m, key)
			}
		}
		c, err := parseValues(m)
		if err != nil {
			return
		}
		if c.debounce < 0 || c.debounce > 10*time.Second || strings.Contains(c.chip, "/") || (c.edge != edgeNone) != (c.subject != "") && c.direction == in {
			t.Errorf("%v became %+v", m, c)
		}
	})
}

func FuzzParseArguments(f *testing.F) {
	f.Add(payload("chip", "sim0", "line", 3, "level", true, "ms", 500))
	f.Add(payload("chip", "sim0", "line", 3, "level", 1, "more", "x"))
	f.Add([]byte{0xdf, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, p []byte) {
		a, err := parseArguments(p, hasChip|hasLine|hasLevel|hasMs)
		if err != nil {
			return
		}
		if a.ms < 1 || a.ms > 10_000 || a.line < 0 || a.line > 1<<16-1 || len(a.chip) > len(p) {
			t.Errorf("%x became %+v", p, a)
		}
	})
}
