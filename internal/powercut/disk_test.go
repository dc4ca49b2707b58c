package powercut

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// script makes a record of lines such as "begin write 1 0 a", of a file, an
// offset and bytes; "write …" alone begins and ends.
type script struct {
	Record
	ops map[string]int
}

func record1(t *testing.T, lines ...string) *Record {
	t.Helper()
	s := script{ops: make(map[string]int)}
	for _, l := range lines {
		f := strings.Fields(l)
		if f[0] == "end" {
			s.Moments = append(s.Moments, Moment{s.ops[strings.Join(f[1:], " ")], true})
			continue
		}
		both := f[0] != "begin"
		if !both {
			f = f[1:]
		}
		s.ops[strings.Join(f, " ")] = len(s.Ops)
		s.Moments = append(s.Moments, Moment{Op: len(s.Ops)})
		if both && f[0] != "mark" {
			s.Moments = append(s.Moments, Moment{len(s.Ops), true})
		}
		s.Ops = append(s.Ops, parseOp(t, f))
	}
	return &s.Record
}

func parseOp(t *testing.T, f []string) (o Op) {
	t.Helper()
	number := func(i int) (n int) {
		if _, err := fmt.Sscan(f[i], &n); err != nil {
			t.Fatalf("%v: %v", f, err)
		}
		return n
	}
	o.Kind = Kind(slices.Index(kindNames[:], f[0]))
	switch o.Kind {
	case Write:
		o.File, o.Off, o.Data = number(1), int64(number(2)), []byte(f[3])
	case Truncate:
		o.File, o.Size = number(1), int64(number(2))
	case Create, Mkdir:
		o.File, o.Name = number(1), f[2]
	case Rename, Link:
		o.Name, o.To = f[1], f[2]
		o.File = 1
	case Unlink:
		o.Name = f[1]
	case Sync:
		o.File = number(1)
	case Mark:
		o.Data = []byte(f[1])
	}
	return o
}

// left returns every state, without torn pages, that a cut at the end of the
// record leaves, as "name=content" of each file.
func left(r *Record) []string {
	o := r.optionsAt(len(r.Moments))
	var all []string
	for i := range o.whole() {
		all = append(all, text(o.state(len(r.Moments), o.nth(i))))
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func text(s *state) string {
	var files []string
	for name, n := range s.dirs[0] {
		img := s.files[n]
		var b []byte
		for p := int64(0); p*pageSize < img.size; p++ {
			want := zeros
			if c := img.page(p); c != nil {
				want = c
			}
			b = append(b, want[:min(pageSize, img.size-p*pageSize)]...)
		}
		files = append(files, name+"="+string(bytes.ReplaceAll(b, []byte{0}, []byte("."))))
	}
	slices.Sort(files)
	return strings.Join(files, " ")
}

func TestOptions(t *testing.T) {
	for _, c := range []struct {
		name   string
		record []string
		want   []string
	}{
		{"what is synced is there", []string{"create 1 f", "write 1 0 ab", "sync 1", "sync 0"}, []string{"f=ab"}},
		{"a file without its folder's sync", []string{"create 1 f", "write 1 0 ab", "sync 1"}, []string{"", "f=ab"}},
		{"a name without its file's sync", []string{"create 1 f", "sync 0", "write 1 0 ab"}, []string{"f=", "f=..", "f=ab"}},
		{"a write under way when the sync begins is not covered",
			[]string{"create 1 f", "sync 0", "write 1 0 ab", "begin write 1 0 cd", "begin sync 1", "end write 1 0 cd", "end sync 1"}, []string{"f=ab", "f=cd"}},
		{"a sync under way covers nothing",
			[]string{"create 1 f", "sync 0", "write 1 0 ab", "begin sync 1"}, []string{"f=", "f=..", "f=ab"}},
		{"versions of a page", []string{"create 1 f", "sync 0", "write 1 0 ab", "sync 1", "write 1 0 cd", "write 1 1 e"},
			[]string{"f=ab", "f=cd", "f=ce"}},
		{"rename", []string{"create 1 n", "write 1 0 a", "sync 1", "sync 0", "rename n f"}, []string{"f=a", "n=a"}},
		{"rename over another", []string{"create 1 n", "create 2 f", "write 1 0 a", "write 2 0 b", "sync 1", "sync 2", "sync 0", "rename n f"},
			[]string{"f=a", "f=b n=a"}},
		{"names in order", []string{"create 1 a", "create 2 b", "unlink a"}, []string{"", "a=", "a= b=", "b="}},
		{"link", []string{"create 1 a", "write 1 0 x", "sync 1", "sync 0", "link a b"}, []string{"a=x", "a=x b=x"}},
		{"shorter", []string{"create 1 f", "sync 0", "write 1 0 abc", "sync 1", "truncate 1 1"}, []string{"f=a", "f=a..", "f=abc"}},
		{"longer", []string{"create 1 f", "sync 0", "write 1 0 a", "sync 1", "truncate 1 3"}, []string{"f=a", "f=a.."}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := left(record1(t, c.record...)); !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// Two pages are written in any order, and torn at sectors.
func TestOptions_pages(t *testing.T) {
	old, changed := strings.Repeat("a", pageSize), strings.Repeat("b", pageSize)
	r := record1(t, "create 1 f", "write 1 0 "+old, fmt.Sprintf("write 1 %d %s", pageSize, old), "sync 1", "sync 0",
		"write 1 0 "+changed, fmt.Sprintf("write 1 %d %s", pageSize, changed))
	want := []string{"f=" + old + old, "f=" + old + changed, "f=" + changed + old, "f=" + changed + changed}
	if got := left(r); !slices.Equal(got, want) {
		t.Errorf("got %d states, want %d", len(got), len(want))
	}
	o := r.optionsAt(len(r.Moments))
	s := o.state(0, Choice{Picks: []int{1, 0}, Torn: []Tear{{Pick: 0, Other: 0, Mask: 0b10}}})
	if got, want := text(s), "f="+changed[:sectorSize]+old[:sectorSize]+changed[2*sectorSize:]+old; got != want {
		t.Errorf("torn: got %q, want %q", got, want)
	}
}

// A state that is laid out where another one was is the same as in an empty
// folder.
func TestState_lay(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	rec := &Record{}
	add := func(o Op) {
		rec.Ops = append(rec.Ops, o)
		rec.Moments = append(rec.Moments, Moment{len(rec.Ops) - 1, false}, Moment{len(rec.Ops) - 1, true})
	}
	add(Op{Kind: Mkdir, File: 9, Name: "folder"})
	for n := 1; n <= 4; n++ {
		add(Op{Kind: Create, File: n, Dir: r.IntN(2) * 9, Name: fmt.Sprint("f", n)})
	}
	for range 60 {
		file := 1 + r.IntN(4)
		switch r.IntN(8) {
		case 0:
			add(Op{Kind: Truncate, File: file, Size: r.Int64N(6 * pageSize)})
		case 1:
			add(Op{Kind: Sync, File: file})
		case 2:
			add(Op{Kind: Link, Name: "f1", ToDir: 9, To: fmt.Sprint("l", r.IntN(3)), File: 1})
		default:
			add(Op{Kind: Write, File: file, Off: r.Int64N(5 * pageSize), Data: bytes.Repeat([]byte{byte(r.IntN(256))}, 1+r.IntN(2*pageSize))})
		}
	}
	// Link looks its file up by number here.
	dir, old := t.TempDir(), []byte(nil)
	for range 300 {
		cut := r.IntN(len(rec.Moments) + 1)
		o := rec.optionsAt(cut)
		s := o.state(cut, o.random(r))
		if err := s.lay(dir, &old); err != nil {
			t.Fatal(err)
		}
		if err := s.compare(0, dir); err != nil {
			t.Fatalf("cut %d, %+v: %v", cut, s.choice, err)
		}
	}
}

func TestLoad_badRecord(t *testing.T) {
	if _, err := Load(strings.NewReader("nonsense")); err == nil {
		t.Error("got no error for nonsense")
	}
	var b bytes.Buffer
	bad := &Record{Ops: []Op{{}}, Moments: []Moment{{Op: 1}}}
	if err := bad.Save(&b); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(&b); err == nil {
		t.Error("got no error for a moment of no call")
	}
}
