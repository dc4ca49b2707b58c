package topic_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/edged-io/edged/internal/topic"
)

func TestSubject_Topic(t *testing.T) {
	for _, c := range []struct{ topic, subject string }{
		{"a", "a"},
		{"a/b/c", "a.b.c"},
		{"/", "%00.%00"},
		{"/a//b/", "%00.a.%00.b.%00"},
		{"plant 1/v1.5", "plant%201.v1%2E5"},
		{"a*b/>/50%", "a%2Ab.%3E.50%25"},
		{"*", "%2A"},
		{"%00/x", "%2500.x"},
		{"tab\there\x7f", "tab%09here%7F"},
		{"größe/温度", "größe.温度"},
		{"$SYS/x", "$SYS.x"},
	} {
		s, err := topic.Subject(c.topic)
		if err != nil || s != c.subject {
			t.Errorf("Subject(%q): got %q, %v, want %q", c.topic, s, err, c.subject)
		}
		back, err := topic.Topic(c.subject)
		if err != nil || back != c.topic {
			t.Errorf("Topic(%q): got %q, %v, want %q", c.subject, back, err, c.topic)
		}
	}
}

func TestSubject_refused(t *testing.T) {
	for _, bad := range []string{"", "a/+", "#", "a+b", "a\x00", "\xff", strings.Repeat("x", topic.MaxBytes+1)} {
		if _, err := topic.Subject(bad); !errors.Is(err, topic.ErrTopic) {
			t.Errorf("Subject(%.20q): got %v, want ErrTopic", bad, err)
		}
	}
}

func TestSubject_longest(t *testing.T) {
	long := strings.Repeat("/", topic.MaxBytes)
	s, err := topic.Subject(long)
	if err != nil {
		t.Fatal(err)
	}
	if back, err := topic.Topic(s); err != nil || back != long {
		t.Fatalf("Topic: got %d bytes, %v", len(back), err)
	}
}

func TestTopic_refused(t *testing.T) {
	for _, bad := range []string{"a/b", "a.b+", "#", "a*b", "a>", "50%", "%2", "%2e", "%41", "%0", "a%00", "%00%00", "%00", "\xff", "%GG"} {
		if got, err := topic.Topic(bad); !errors.Is(err, topic.ErrNoTopic) {
			t.Errorf("Topic(%q): got %q, %v, want ErrNoTopic", bad, got, err)
		}
	}
	for _, bad := range []string{"", ".", "a.", ".a", "a..b", "a b", "a.*", ">", "a\r\n", strings.Repeat("x", 5*topic.MaxBytes)} {
		if _, err := topic.Topic(bad); !errors.Is(err, topic.ErrSubject) {
			t.Errorf("Topic(%.20q): got %v, want ErrSubject", bad, err)
		}
	}
	if _, err := topic.Topic(strings.Repeat("x", topic.MaxBytes+1)); !errors.Is(err, topic.ErrNoTopic) {
		t.Errorf("Topic(65536 bytes): got %v, want ErrNoTopic", err)
	}
}

func TestFilters(t *testing.T) {
	for _, c := range []struct {
		filter string
		want   []string
	}{
		{"a/b", []string{"a.b"}},
		{"+", []string{"*"}},
		{"#", []string{">"}},
		{"+/#", []string{"*.>", "*"}},
		{"greenhouse/+/temperature", []string{"greenhouse.*.temperature"}},
		{"a/#", []string{"a.>", "a"}},
		{"/#", []string{"%00.>"}},
		{"//#", []string{"%00.%00.>", "%00.%00"}},
		{"/+", []string{"%00.*"}},
		{"a b/+", []string{"a%20b.*"}},
	} {
		got, err := topic.Filters(c.filter)
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("Filters(%q): got %q, %v, want %q", c.filter, got, err, c.want)
		}
	}
	for _, bad := range []string{"", "a/#/b", "a#", "a/b+", "++", "#/", "\x00", "\xc3", strings.Repeat("x", topic.MaxBytes+1)} {
		if _, err := topic.Filters(bad); !errors.Is(err, topic.ErrFilter) {
			t.Errorf("Filters(%.20q): got %v, want ErrFilter", bad, err)
		}
	}
}

func TestResolve(t *testing.T) {
	for _, c := range []struct{ in, want string }{{"a/b", "a.b"}, {"a.b", "a.b"}, {"a.b/c", "a%2Eb.c"}, {"greenhouse", "greenhouse"}} {
		if got, err := topic.Resolve(c.in); err != nil || got != c.want {
			t.Errorf("Resolve(%q): got %q, %v, want %q", c.in, got, err, c.want)
		}
	}
	for _, bad := range []string{"", "a.*", "a/+", "a b"} {
		if _, err := topic.Resolve(bad); err == nil {
			t.Errorf("Resolve(%q): no error", bad)
		}
	}
	if got, err := topic.ResolveFilter("a/#"); err != nil || !slices.Equal(got, []string{"a.>", "a"}) {
		t.Errorf("ResolveFilter(a/#): got %q, %v", got, err)
	}
	if got, err := topic.ResolveFilter("a.*.>"); err != nil || !slices.Equal(got, []string{"a.*.>"}) {
		t.Errorf("ResolveFilter(a.*.>): got %q, %v", got, err)
	}
	if _, err := topic.ResolveFilter("a.>.b"); !errors.Is(err, topic.ErrFilter) {
		t.Errorf("ResolveFilter(a.>.b): got %v", err)
	}
}

func TestValidFilter(t *testing.T) {
	for s, want := range map[string]bool{"a": true, "*": true, ">": true, "a.*.c": true, "a.>": true, "a*": true, "a.>.b": false, "": false, "a..b": false, "a.": false, "a\tb": false} {
		if got := topic.ValidFilter(s); got != want {
			t.Errorf("ValidFilter(%q): got %v", s, got)
		}
	}
}

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		filter, subject string
		want            bool
	}{
		{"a", "a", true}, {"a", "b", false}, {"a", "a.b", false}, {"a.b", "a", false},
		{"*", "a", true}, {"*", "a.b", false}, {"a.*.c", "a.b.c", true}, {"a.*", "a", false},
		{">", "a", true}, {">", "a.b.c", true}, {"a.>", "a", false}, {"a.>", "a.b", true}, {"a.>", "a.b.c", true},
		{"a.*.>", "a.b", false}, {"a.*.>", "a.b.c.d", true}, {"a*", "ab", false},
	} {
		if got := topic.Match(c.filter, c.subject); got != c.want {
			t.Errorf("Match(%q, %q): got %v", c.filter, c.subject, got)
		}
	}
}

func TestMatch_allocatesNothing(t *testing.T) {
	n := testing.AllocsPerRun(100, func() {
		topic.Match("a.*.c.>", "a.b.c.d.e")
		topic.Overlap("a.*.c.>", "*.b.c.d.e")
	})
	if n != 0 {
		t.Errorf("got %v allocations", n)
	}
}

func TestOverlap(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"a", "a", true}, {"a", "b", false}, {"a.>", "a", false}, {"a.>", "a.b", true}, {"a.>", ">", true}, {"*", ">", true},
		{"a.*", "*.b", true}, {"a.*.c", "*.b.d", false}, {"a.*", "a.b.c", false}, {"a.>", "b.>", false}, {"*.b.>", "a.>", true}, {"*.>", "a", false},
	} {
		if got := topic.Overlap(c.a, c.b); got != c.want {
			t.Errorf("Overlap(%q, %q): got %v", c.a, c.b, got)
		}
		if got := topic.Overlap(c.b, c.a); got != c.want {
			t.Errorf("Overlap(%q, %q): got %v", c.b, c.a, got)
		}
	}
}

// TestOverlap_agreesWithMatch tries all short filters against all short subjects.
func TestOverlap_agreesWithMatch(t *testing.T) {
	subjects := words([]string{"a", "b"}, 4)
	filters := slices.DeleteFunc(words([]string{"a", "b", "*", ">"}, 3), func(s string) bool { return !topic.ValidFilter(s) })
	for _, a := range filters {
		for _, b := range filters {
			want := slices.ContainsFunc(subjects, func(s string) bool { return topic.Match(a, s) && topic.Match(b, s) })
			if got := topic.Overlap(a, b); got != want {
				t.Errorf("Overlap(%q, %q): got %v, want %v", a, b, got, want)
			}
		}
	}
}

func words(tokens []string, depth int) []string {
	all := slices.Clone(tokens)
	for last := tokens; depth > 1; depth-- {
		var next []string
		for _, w := range last {
			for _, t := range tokens {
				next = append(next, w+"."+t)
			}
		}
		all, last = append(all, next...), next
	}
	return all
}

// mqttMatch is MQTT's own matching, level by level, without its rule for "$".
func mqttMatch(filter, name []string) bool {
	if len(filter) == 1 && filter[0] == "#" {
		return true
	}
	if len(filter) == 0 || len(name) == 0 {
		return len(filter) == len(name)
	}
	return (filter[0] == "+" || filter[0] == name[0]) && mqttMatch(filter[1:], name[1:])
}

func FuzzSubject(f *testing.F) {
	for _, s := range []string{"a/b", "/", "//x.y *", "%00", "50%/>", "a\tb", "ü/+"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		s, err := topic.Subject(name)
		if err != nil {
			return
		}
		if !topic.ValidSubject(s) {
			t.Fatalf("Subject(%q) = %q is not valid", name, s)
		}
		if back, err := topic.Topic(s); err != nil || back != name {
			t.Fatalf("Topic(%q): got %q, %v, want %q", s, back, err, name)
		}
	})
}

func FuzzTopic(f *testing.F) {
	for _, s := range []string{"a.b", "%00", "%2E.x", "a/b", "50%", "a*b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, subject string) {
		name, err := topic.Topic(subject)
		if err != nil {
			if name != "" || !errors.Is(err, topic.ErrNoTopic) && !errors.Is(err, topic.ErrSubject) {
				t.Fatalf("Topic(%q): got %q, %v", subject, name, err)
			}
			return
		}
		if back, err := topic.Subject(name); err != nil || back != subject {
			t.Fatalf("Subject(%q): got %q, %v, want %q", name, back, err, subject)
		}
	})
}

func FuzzFilters(f *testing.F) {
	f.Add("a/+", "a/b")
	f.Add("a/#", "a")
	f.Add("/#", "/")
	f.Add("+/+", "/x")
	f.Add("#", "//")
	f.Fuzz(func(t *testing.T, filter, name string) {
		filters, err := topic.Filters(filter)
		if err != nil {
			return
		}
		subject, err := topic.Subject(name)
		if err != nil {
			return
		}
		hits := 0
		for _, fl := range filters {
			if !topic.ValidFilter(fl) {
				t.Fatalf("Filters(%q): %q is not valid", filter, fl)
			}
			if topic.Match(fl, subject) {
				hits++
			}
		}
		want := 0
		if mqttMatch(strings.Split(filter, "/"), strings.Split(name, "/")) {
			want = 1
		}
		if hits != want {
			t.Fatalf("%d of %q match %q, MQTT says %d", hits, filters, subject, want)
		}
	})
}

func BenchmarkMatch(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		topic.Match("greenhouse.*.temperature.>", "greenhouse.bench-7.temperature.raw")
	}
}

// TestCovers_agreesWithMatch tries all short filters against each other by the subjects they match.
func TestCovers_agreesWithMatch(t *testing.T) {
	subjects := words([]string{"a", "b"}, 5)
	filters := slices.DeleteFunc(words([]string{"a", "*", ">"}, 3), func(s string) bool { return !topic.ValidFilter(s) })
	for _, wide := range filters {
		for _, narrow := range filters {
			want := !slices.ContainsFunc(subjects, func(s string) bool { return topic.Match(narrow, s) && !topic.Match(wide, s) })
			if got := topic.Covers(wide, narrow); got != want {
				t.Errorf("Covers(%q, %q): got %v, want %v", wide, narrow, got, want)
			}
		}
	}
}

func TestReserved(t *testing.T) {
	for s, want := range map[string]bool{
		"$JS.API": true, "$x": true, "_INBOX.a": true, "_INBOX_b.c": true, "wasmbus.rpc.x": true, "edge.up.x": true, "edge.>": true, "edge.*.x": true, ">": true, "*.>": true,
		"edge.down.x": false, "edge": false, "edged.x": false, "sensors.>": false, "*.temperature": false, "a.$x": false, "wasmbuses.x": false,
	} {
		if got := topic.Reserved(s); got != want {
			t.Errorf("Reserved(%q): got %v", s, got)
		}
	}
}
