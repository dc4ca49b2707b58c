package powercut

import (
	"maps"
	"slices"
)

const (
	pageSize   = 4096
	sectorSize = 512 // is old or new, whatever happens
	sectors    = pageSize / sectorSize
)

// page is pageSize bytes that nobody changes; nil is all zeros.
type page = []byte

// disk is what a power cut at one moment can not take, and what has been asked
// for since.
type disk struct {
	rec    *Record
	files  map[int]*file
	dirs   map[int]map[string]int // names that are there to stay
	names  []*change              // calls that change names, in order
	covers map[int][]*change      // sync under way → what it will have made safe
}

// file is a file, or the part of a folder that is not its names.
type file struct {
	size    int64
	pages   []page // up to the last that is not zero; replaced, never changed
	changes []*change
}

// change is a call whose effect may, or may not, be on the disk.
type change struct {
	op   int
	done bool
}

func newDisk(r *Record) *disk {
	return &disk{
		rec: r, files: make(map[int]*file), dirs: map[int]map[string]int{0: {}},
		covers: make(map[int][]*change),
	}
}

// step goes past one moment.
func (d *disk) step(m Moment) {
	o := &d.rec.Ops[m.Op]
	switch o.Kind {
	case Mark:
	case Sync:
		d.sync(m, o)
	case Write, Truncate:
		f := d.file(o.File)
		if !m.End {
			f.changes = append(f.changes, &change{op: m.Op})
		} else {
			finish(f.changes, m.Op)
		}
	default:
		if m.End {
			finish(d.names, m.Op)
			return
		}
		d.names = append(d.names, &change{op: m.Op})
		switch o.Kind {
		case Create:
			d.file(o.File)
		case Mkdir:
			d.dirs[o.File] = make(map[string]int)
		}
	}
}

func (d *disk) file(n int) *file {
	f := d.files[n]
	if f == nil {
		f = &file{}
		d.files[n] = f
	}
	return f
}

func finish(changes []*change, op int) {
	for _, c := range changes {
		if c.op == op {
			c.done = true
		}
	}
}

// sync makes safe, at its end, what was done when it began.
func (d *disk) sync(m Moment, o *Op) {
	_, isDir := d.dirs[o.File]
	if !m.End {
		var covered []*change
		if isDir {
			for _, c := range d.names {
				if c.done && d.rec.Ops[c.op].touches(o.File) {
					covered = append(covered, c)
				}
			}
		} else {
			for _, c := range d.file(o.File).changes {
				if c.done {
					covered = append(covered, c)
				}
			}
		}
		d.covers[m.Op] = covered
		return
	}
	covered := d.covers[m.Op]
	delete(d.covers, m.Op)
	if isDir {
		d.names = d.settle(d.names, covered, func(o *Op) { apply(d.dirs, o) })
		return
	}
	f := d.file(o.File)
	pages := slices.Clone(f.pages)
	f.changes = d.settle(f.changes, covered, func(o *Op) { f.size, pages = o.onto(f.size, pages) })
	f.pages = pages
}

// settle runs fn for each change that is covered and still pending, in order,
// and returns those that are pending after it.
func (d *disk) settle(changes, covered []*change, fn func(*Op)) (rest []*change) {
	for _, c := range changes {
		if slices.Contains(covered, c) {
			fn(&d.rec.Ops[c.op])
		} else {
			rest = append(rest, c)
		}
	}
	return rest
}

// touches says whether the call changes names in folder dir.
func (o *Op) touches(dir int) bool {
	switch o.Kind {
	case Rename:
		return o.Dir == dir || o.ToDir == dir
	case Link:
		return o.ToDir == dir
	}
	return o.Dir == dir
}

// apply does what the call does to names.
func apply(dirs map[int]map[string]int, o *Op) {
	set := func(dir int, name string, file int) {
		if dirs[dir] == nil {
			dirs[dir] = make(map[string]int)
		}
		dirs[dir][name] = file
	}
	switch o.Kind {
	case Create, Mkdir:
		set(o.Dir, o.Name, o.File)
	case Rename:
		if there, ok := dirs[o.ToDir][o.To]; ok && there == o.File {
			break // two names of one file: rename(2) leaves both
		}
		set(o.ToDir, o.To, o.File)
		delete(dirs[o.Dir], o.Name)
	case Link:
		set(o.ToDir, o.To, o.File)
	case Unlink:
		delete(dirs[o.Dir], o.Name)
	}
}

func cloneDirs(dirs map[int]map[string]int) map[int]map[string]int {
	c := make(map[int]map[string]int, len(dirs))
	for n, names := range dirs {
		c[n] = maps.Clone(names)
	}
	return c
}

// onto returns size and pages of a file after the call. It may change the slice
// of pages, and no page.
func (o *Op) onto(size int64, pages []page) (int64, []page) {
	if o.Kind == Truncate {
		if o.Size < size {
			pages = cutPages(pages, o.Size)
		}
		return o.Size, pages
	}
	for p := o.Off / pageSize; p*pageSize < o.end(); p++ {
		for int64(len(pages)) <= p {
			pages = append(pages, nil)
		}
		pages[p] = o.ontoPage(p, pages[p])
	}
	return max(size, o.end()), pages
}

func (o *Op) end() int64 { return o.Off + int64(len(o.Data)) }

// ontoPage returns what page p is after the write, if it was old.
func (o *Op) ontoPage(p int64, old page) page {
	from, to := max(o.Off, p*pageSize), min(o.end(), (p+1)*pageSize)
	if to-from == pageSize {
		return o.Data[from-o.Off : to-o.Off]
	}
	b := make(page, pageSize)
	copy(b, old)
	copy(b[from-p*pageSize:], o.Data[from-o.Off:to-o.Off])
	return b
}

// cutPages returns the pages of a file that has size bytes.
func cutPages(pages []page, size int64) []page {
	if n := (size + pageSize - 1) / pageSize; int64(len(pages)) > n {
		pages = pages[:n]
	}
	if n := size / pageSize; size%pageSize > 0 && int64(len(pages)) > n && pages[n] != nil {
		b := make(page, pageSize)
		copy(b, pages[n][:size%pageSize])
		pages = append(pages[:n:n], b)
	}
	return pages
}
