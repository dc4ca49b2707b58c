package powercut

import (
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"iter"
	"math/rand/v2"
	"slices"
)

// options is what a power cut can make of one moment: how many of the changes
// of names are there, for each file which size, and for each page which of its
// versions. They are independent of each other: the disk writes in any order
// between two syncs.
type options struct {
	d     *disk
	names int // changes of names pending: 0 to names of them are there
	files []*fileOptions
	free  []dimension // what there is to choose
}

// fileOptions are the options of one file.
type fileOptions struct {
	number int
	f      *file
	sizes  []int64 // that it may have, the newest last
	pages  []pageOptions
}

// pageOptions are the versions of one page, the newest last.
type pageOptions struct {
	number   int64
	versions []page
}

// dimension is one thing to choose, of n.
type dimension struct{ n int }

// Choice is one state of a cut. Picks has a number for each thing there is to
// choose; Torn, for pages of which some sectors are of another version.
type Choice struct {
	Picks []int
	Torn  []Tear
}

// Tear is a page, by its place among the Picks, of which the sectors in Mask
// are of version Other.
type Tear struct {
	Pick, Other int
	Mask        uint8
}

func (d *disk) options() *options {
	o := &options{d: d, names: len(d.names)}
	if o.names > 0 {
		o.free = append(o.free, dimension{o.names + 1})
	}
	for n, f := range d.files {
		if len(f.changes) > 0 {
			o.files = append(o.files, d.fileOptions(n, f))
		}
	}
	slices.SortFunc(o.files, func(a, b *fileOptions) int { return a.number - b.number })
	for _, f := range o.files {
		if len(f.sizes) > 1 {
			o.free = append(o.free, dimension{len(f.sizes)})
		}
		for _, p := range f.pages {
			o.free = append(o.free, dimension{len(p.versions)})
		}
	}
	return o
}

func (d *disk) fileOptions(n int, f *file) *fileOptions {
	fo := &fileOptions{number: n, f: f, sizes: []int64{f.size}}
	index := make(map[int64]int)
	add := func(p int64, next func(old page) page) {
		i, ok := index[p]
		if !ok {
			i = len(fo.pages)
			index[p] = i
			var old page
			if p < int64(len(f.pages)) {
				old = f.pages[p]
			}
			fo.pages = append(fo.pages, pageOptions{p, []page{old}})
		}
		v := fo.pages[i].versions
		fo.pages[i].versions = append(v, next(v[len(v)-1]))
	}
	size := f.size
	for _, c := range f.changes {
		o := &d.rec.Ops[c.op]
		switch o.Kind {
		case Truncate:
			for p := o.Size / pageSize; o.Size < size && p*pageSize < size; p++ {
				add(p, func(old page) page {
					b := make(page, pageSize)
					copy(b[:max(0, min(pageSize, o.Size-p*pageSize))], old)
					return b
				})
			}
			size = o.Size
		case Write:
			for p := o.Off / pageSize; p*pageSize < o.end(); p++ {
				add(p, func(old page) page { return o.ontoPage(p, old) })
			}
			size = max(size, o.end())
		}
		if size != fo.sizes[len(fo.sizes)-1] {
			fo.sizes = append(fo.sizes, size)
		}
	}
	slices.SortFunc(fo.pages, func(a, b pageOptions) int { return int(a.number - b.number) })
	return fo
}

// most bounds how many states of one cut are counted.
const most = 1 << 40

// whole counts the states without torn pages.
func (o *options) whole() int64 {
	n := int64(1)
	for _, d := range o.free {
		if n *= int64(d.n); n > most {
			return most
		}
	}
	return n
}

// count counts all states, roughly: a page has 254 ways to be torn.
func (o *options) count() int64 {
	n := o.whole()
	for _, f := range o.files {
		n += int64(len(f.pages)) * 254
	}
	return min(n, most)
}

// newest is the state in which everything asked for is there.
func (o *options) newest() Choice {
	c := Choice{Picks: make([]int, len(o.free))}
	for i, d := range o.free {
		c.Picks[i] = d.n - 1
	}
	return c
}

// nth is the state number n of those without torn pages.
func (o *options) nth(n int64) Choice {
	c := Choice{Picks: make([]int, len(o.free))}
	for i, d := range o.free {
		c.Picks[i] = int(n % int64(d.n))
		n /= int64(d.n)
	}
	return c
}

// random is any state. A few things missing, or only a few there, is what breaks
// a promise most often, so half of the states are like that.
func (o *options) random(r *rand.Rand) Choice {
	c := o.newest()
	if len(c.Picks) == 0 {
		return c
	}
	few := 1 + r.IntN(2)
	switch r.IntN(4) {
	case 0: // few are missing
		for range few {
			i := r.IntN(len(c.Picks))
			c.Picks[i] = r.IntN(o.free[i].n)
		}
	case 1: // few are there
		clear(c.Picks)
		for range few {
			i := r.IntN(len(c.Picks))
			c.Picks[i] = r.IntN(o.free[i].n)
		}
	default:
		for i, d := range o.free {
			c.Picks[i] = r.IntN(d.n)
		}
	}
	if r.IntN(2) == 0 {
		for range few {
			o.tear(r, &c)
		}
	}
	return c
}

// tear tears one page.
func (o *options) tear(r *rand.Rand, c *Choice) {
	var pages []int
	o.each(func(pick int, _ *fileOptions, p *pageOptions) {
		if p != nil {
			pages = append(pages, pick)
		}
	})
	if len(pages) == 0 {
		return
	}
	pick := pages[r.IntN(len(pages))]
	other := r.IntN(o.free[pick].n)
	if other == c.Picks[pick] {
		other = (other + 1) % o.free[pick].n
	}
	c.Torn = append(c.Torn, Tear{pick, other, uint8(1 + r.IntN(254))})
}

// each calls fn for each file's size, if it has several (with p nil), and for
// each page, with their place among the picks.
func (o *options) each(fn func(pick int, f *fileOptions, p *pageOptions)) {
	pick := 0
	if o.names > 0 {
		pick++
	}
	for _, f := range o.files {
		if len(f.sizes) > 1 {
			fn(pick, f, nil)
			pick++
		}
		for i := range f.pages {
			fn(pick, f, &f.pages[i])
			pick++
		}
	}
}

// state is a folder that a power cut may leave.
type state struct {
	cut    int
	choice Choice
	dirs   map[int]map[string]int
	files  map[int]image
}

// image is a file of a state. over replaces pages of base.
type image struct {
	size int64
	base []page
	over map[int64]page
}

func (i *image) page(n int64) page {
	if p, ok := i.over[n]; ok {
		return p
	}
	if n < int64(len(i.base)) {
		return i.base[n]
	}
	return nil
}

// pages is how many pages may hold something.
func (i *image) pages() int64 {
	n := int64(len(i.base))
	for p := range i.over {
		n = max(n, p+1)
	}
	return min(n, (i.size+pageSize-1)/pageSize)
}

// state makes the state that c has chosen.
func (o *options) state(cut int, c Choice) *state {
	s := &state{cut: cut, choice: c, dirs: o.d.dirs, files: make(map[int]image)}
	s.dirs = cloneDirs(o.d.dirs)
	if o.names > 0 {
		for _, ch := range o.d.names[:c.Picks[0]] {
			apply(s.dirs, &o.d.rec.Ops[ch.op])
		}
	}
	for n, f := range o.d.files {
		s.files[n] = image{size: f.size, base: f.pages}
	}
	for _, f := range o.files {
		s.files[f.number] = image{size: f.sizes[len(f.sizes)-1], base: f.f.pages, over: make(map[int64]page, len(f.pages))}
	}
	o.each(func(pick int, f *fileOptions, p *pageOptions) {
		img := s.files[f.number]
		if p == nil {
			img.size = f.sizes[c.Picks[pick]]
			s.files[f.number] = img
			return
		}
		content := p.versions[c.Picks[pick]]
		for _, t := range c.Torn {
			if t.Pick == pick {
				content = torn(content, p.versions[t.Other], t.Mask)
			}
		}
		img.over[p.number] = content
	})
	return s
}

// torn returns page a with the sectors in mask from b.
func torn(a, b page, mask uint8) page {
	p := make(page, pageSize)
	copy(p, a)
	for i := range sectors {
		if mask&(1<<i) == 0 {
			continue
		}
		s := p[i*sectorSize : (i+1)*sectorSize]
		clear(s)
		if b != nil {
			copy(s, b[i*sectorSize:])
		}
	}
	return p
}

var hashSeed = maphash.MakeSeed()

// key tells the states of one cut apart.
func (s *state) key() uint64 {
	var h maphash.Hash
	h.SetSeed(hashSeed)
	var b [8]byte
	number := func(n int) {
		binary.LittleEndian.PutUint64(b[:], uint64(n))
		h.Write(b[:])
	}
	for _, p := range s.choice.Picks {
		number(p)
	}
	files := make([]int, 0, len(s.files))
	for n := range s.files {
		files = append(files, n)
	}
	slices.Sort(files)
	if len(s.choice.Torn) > 0 {
		for _, n := range files {
			img := s.files[n]
			for p := range img.pages() {
				if c, ok := img.over[p]; ok {
					number(n)
					number(int(p))
					h.Write(c)
				}
			}
		}
	}
	return h.Sum64()
}

// some yields about n states of the cut, all different: what was asked for in
// order, nothing of it, then all if they are few, else at random.
func (o *options) some(cut, n int, r *rand.Rand) iter.Seq[*state] {
	return func(yield func(*state) bool) {
		seen := make(map[uint64]bool, n)
		next := func(c Choice) bool {
			s := o.state(cut, c)
			k := s.key()
			if seen[k] {
				return true
			}
			seen[k] = true
			return yield(s)
		}
		if !next(o.newest()) || len(seen) >= n || !next(o.nth(0)) {
			return
		}
		if whole := o.whole(); whole <= int64(n) {
			for i := range whole {
				if len(seen) >= n || !next(o.nth(i)) {
					return
				}
			}
		}
		for tries := 4*n + 16; len(seen) < n && tries > 0; tries-- {
			if !next(o.random(r)) {
				return
			}
		}
	}
}

// valid says whether c is a choice of these options.
func (o *options) valid(c Choice) error {
	if len(c.Picks) != len(o.free) {
		return fmt.Errorf("a choice of %d things, where there are %d", len(c.Picks), len(o.free))
	}
	for i, p := range c.Picks {
		if p < 0 || p >= o.free[i].n {
			return fmt.Errorf("choice %d of %d, of %d", p, i, o.free[i].n)
		}
	}
	for _, t := range c.Torn {
		if t.Pick < 0 || t.Pick >= len(o.free) || t.Other < 0 || t.Other >= o.free[t.Pick].n {
			return fmt.Errorf("a page is torn that is not there")
		}
	}
	return nil
}

// describe says what of the changes pending is there.
func (o *options) describe(c Choice) (lines []string) {
	if o.names > 0 {
		lines = append(lines, fmt.Sprintf("%d of %d changes of names", c.Picks[0], o.names))
	}
	o.each(func(pick int, f *fileOptions, p *pageOptions) {
		if p == nil {
			lines = append(lines, fmt.Sprintf("file %d: %d bytes, of %v", f.number, f.sizes[c.Picks[pick]], f.sizes))
			return
		}
		s := fmt.Sprintf("file %d, page %d: version %d of 0 to %d", f.number, p.number, c.Picks[pick], len(p.versions)-1)
		for _, t := range c.Torn {
			if t.Pick == pick {
				s += fmt.Sprintf(", sectors %08b of version %d", t.Mask, t.Other)
			}
		}
		lines = append(lines, s)
	})
	return lines
}
