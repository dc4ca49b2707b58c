package store

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"io"
)

// The parts of bbolt's file format that are needed to look at a file which
// bbolt itself must not touch: https://pkg.go.dev/go.etcd.io/bbolt reads pages
// through a memory map and trusts them. Numbers are in the byte order of the
// machine, which is little endian wherever edged runs.
const (
	pageSize      = 4096
	pageHeaderLen = 16 // id u64, flags u16, count u16, overflow u32
	elementLen    = 16 // branch: pos u32, ksize u32, pgid u64; leaf: flags, pos, ksize, vsize u32
	bucketLen     = 16 // root u64, sequence u64
	metaLen       = 64
	metaMagic     = 0xED0CDAED

	pageBranch = 0x01
	pageLeaf   = 0x02

	leafBucket = 0x01 // flag of a leaf element whose value is a bucket
)

// metaPage is one of the two roots of a file; the valid one with the highest
// txid counts.
type metaPage struct {
	root  uint64 // page of the bucket of buckets
	pages uint64 // pages in use end here
	txid  uint64
	// astray is one in the place of the other: the next commit would overwrite
	// the root that it must not.
	astray bool
}

func parseMeta(b []byte) (m metaPage, ok bool) {
	if len(b) < pageHeaderLen+metaLen {
		return m, false
	}
	b = b[pageHeaderLen : pageHeaderLen+metaLen]
	h := fnv.New64a()
	h.Write(b[:56])
	if binary.LittleEndian.Uint32(b) != metaMagic || binary.LittleEndian.Uint64(b[56:]) != h.Sum64() {
		return m, false
	}
	m = metaPage{
		root:  binary.LittleEndian.Uint64(b[16:]),
		pages: binary.LittleEndian.Uint64(b[40:]),
		txid:  binary.LittleEndian.Uint64(b[48:]),
	}
	return m, binary.LittleEndian.Uint32(b[8:]) == pageSize
}

// readMetas returns the valid roots of the file, the one that counts first.
func readMetas(f io.ReaderAt) []metaPage {
	var metas []metaPage
	for i := range int64(2) {
		b := make([]byte, pageHeaderLen+metaLen)
		if _, err := f.ReadAt(b, i*pageSize); err != nil {
			continue
		}
		if m, ok := parseMeta(b); ok {
			m.astray = m.txid%2 != uint64(i)
			metas = append(metas, m)
		}
	}
	if len(metas) == 2 && metas[1].txid > metas[0].txid {
		metas[0], metas[1] = metas[1], metas[0]
	}
	return metas
}

// hole is what can not be read of a tree: a page, or a part of one, whose keys
// would lie in [low, high). nil is open.
type hole struct {
	page      uint64
	low, high []byte
	why       string
}

// walker reads the trees of a file that may be damaged anywhere, with plain
// reads. It never panics and always ends. What it hands out is good for the
// duration of the call.
type walker struct {
	f     io.ReaderAt
	pages uint64             // in use end here
	seen  bitmap             // pages that were read
	parts bitmap             // pages that others go on in
	hole  func(h hole) error // told of each; an error ends the walk
	bufs  [maxDepth + 2][]byte
}

// bitmap has a bit for each page.
type bitmap []uint64

func (m bitmap) has(id uint64) bool { return m[id/64]&(1<<(id%64)) != 0 }
func (m bitmap) set(id uint64)      { m[id/64] |= 1 << (id % 64) }

// leafFunc takes an element of a leaf.
type leafFunc func(flags uint32, key, value []byte) error

const (
	// maxPageBytes bounds a page with its overflow pages.
	maxPageBytes = 64 << 20
	// maxDepth bounds a tree; a hundred keys a page make 10¹² of them at six.
	maxDepth = 16
)

func newWalker(f io.ReaderAt, pages uint64, hole func(hole) error) *walker {
	return &walker{f: f, pages: pages, seen: make(bitmap, pages/64+1), parts: make(bitmap, pages/64+1), hole: hole}
}

// page reads a page and those it goes on in. What is wrong comes beside what can
// be read all the same: a page that claims others by mistake must not hide them.
func (w *walker) page(id uint64, depth int) (b []byte, why string) {
	switch {
	case depth > maxDepth:
		return nil, "the tree is too deep"
	case id < 2 || id >= w.pages:
		return nil, "it is outside the file"
	case w.seen.has(id):
		return nil, "it is in use twice"
	case w.parts.has(id):
		why = "another page goes on in it"
	}
	w.seen.set(id)
	b = w.buffer(depth, pageSize)
	off := int64(id) * pageSize
	if _, err := w.f.ReadAt(b, off); err != nil {
		return nil, err.Error()
	}
	if got := binary.LittleEndian.Uint64(b); got != id {
		return nil, fmt.Sprintf("it calls itself page %d", got)
	}
	overflow := uint64(binary.LittleEndian.Uint32(b[12:]))
	if overflow == 0 {
		return b, why
	}
	if overflow > w.pages-id-1 || (overflow+1)*pageSize > maxPageBytes {
		return b, fmt.Sprintf("it should go on for %d pages", overflow)
	}
	for next := id + 1; next <= id+overflow; next++ {
		if w.seen.has(next) || w.parts.has(next) {
			why = fmt.Sprintf("page %d, where it goes on, is in use twice", next)
		}
		w.parts.set(next)
	}
	b = w.buffer(depth, int(overflow+1)*pageSize)
	n, err := w.f.ReadAt(b, off)
	if err != nil {
		return b[:n], err.Error() // what is whole can still be read
	}
	return b, why
}

// buffer returns the buffer of a depth, with room for n bytes.
func (w *walker) buffer(depth, n int) []byte {
	if cap(w.bufs[depth]) < n {
		w.bufs[depth] = make([]byte, n)
	}
	return w.bufs[depth][:n]
}

// tree calls leaf for each element below page id, whose keys have to lie in
// [low, high).
func (w *walker) tree(id uint64, depth int, low, high []byte, leaf leafFunc) error {
	b, why := w.page(id, depth)
	if why != "" {
		if err := w.hole(hole{id, low, high, why}); err != nil {
			return err
		}
	}
	if len(b) < pageHeaderLen {
		return nil
	}
	return w.elements(b, id, depth, low, high, leaf)
}

// bucket calls leaf for each element of a bucket, given the bucket's own value.
// A small one is a page inside that value.
func (w *walker) bucket(value []byte, depth int, leaf leafFunc) error {
	if len(value) >= bucketLen {
		if root := binary.LittleEndian.Uint64(value); root != 0 {
			return w.tree(root, depth, nil, nil, leaf)
		}
		if inline := value[bucketLen:]; len(inline) >= pageHeaderLen && binary.LittleEndian.Uint16(inline[8:]) == pageLeaf {
			return w.elements(inline, 0, depth, nil, nil, leaf)
		}
	}
	return w.hole(hole{why: "a bucket inside its parent makes no sense"})
}

// elements reads the elements of a page. One that is not as it should be is a
// hole; so is what can not be in its place, which is read all the same, since
// values tell by their checksums whether they belong to their keys.
func (w *walker) elements(b []byte, id uint64, depth int, low, high []byte, leaf leafFunc) error {
	flags, count := binary.LittleEndian.Uint16(b[8:]), int(binary.LittleEndian.Uint16(b[10:]))
	packed := packedCount(b)
	if flags != pageLeaf && (flags != pageBranch || packed == 0) {
		return w.hole(hole{id, low, high, fmt.Sprintf("it has flags %#x and %d elements", flags, count)})
	}
	told := false
	bad := func(from, to []byte, why string) error {
		if told {
			return nil
		}
		told = true
		return w.hole(hole{id, from, to, why})
	}
	if packed != count {
		if err := bad(low, high, fmt.Sprintf("it has %d elements and counts %d", packed, count)); err != nil {
			return err
		}
	}
	var last []byte
	for i := range packed {
		k, v, ok := element(b, i, flags)
		if !ok {
			told = false // it says more than what came before
			from := low
			if i > 0 {
				from = last
			}
			return bad(from, high, "an element reaches beyond it")
		}
		switch {
		case len(k) == 0 && (flags == pageLeaf || i > 0):
			if err := bad(low, high, "a key is empty"); err != nil {
				return err
			}
			continue
		case i > 0 && bytes.Compare(last, k) >= 0, low != nil && bytes.Compare(k, low) < 0, high != nil && bytes.Compare(k, high) >= 0:
			if err := bad(low, high, "a key is out of order"); err != nil {
				return err
			}
		}
		last = k
		e := b[pageHeaderLen+i*elementLen:]
		var err error
		if flags == pageLeaf {
			err = leaf(binary.LittleEndian.Uint32(e), k, v)
		} else {
			err = w.child(b, i, packed, depth, k, high, leaf)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// packedCount returns how many elements a page has by where the bytes of the
// first begin: right behind the last element. A page without any is zero there.
func packedCount(b []byte) int {
	if len(b) < pageHeaderLen+elementLen {
		return 0
	}
	at := 4 // of pos in a leaf element
	if binary.LittleEndian.Uint16(b[8:])&pageBranch != 0 {
		at = 0
	}
	return int(binary.LittleEndian.Uint32(b[pageHeaderLen+at:]) / elementLen)
}

// child reads what is below element i of so many of a branch.
func (w *walker) child(b []byte, i, count, depth int, low, high []byte, leaf leafFunc) error {
	if i+1 < count {
		if next, _, ok := element(b, i+1, pageBranch); ok {
			high = next
		}
	}
	return w.tree(binary.LittleEndian.Uint64(b[pageHeaderLen+i*elementLen+8:]), depth+1, low, high, leaf)
}

// element returns key and value of element i of a page, and false if they
// reach beyond it. Branches have no values.
func element(b []byte, i int, flags uint16) (key, value []byte, ok bool) {
	at := uint64(pageHeaderLen + i*elementLen)
	if at+elementLen > uint64(len(b)) {
		return nil, nil, false
	}
	e := b[at:]
	var pos, ksize, vsize uint64
	if flags&pageBranch != 0 {
		pos, ksize = uint64(binary.LittleEndian.Uint32(e)), uint64(binary.LittleEndian.Uint32(e[4:]))
	} else {
		pos, ksize, vsize = uint64(binary.LittleEndian.Uint32(e[4:])), uint64(binary.LittleEndian.Uint32(e[8:])), uint64(binary.LittleEndian.Uint32(e[12:]))
	}
	if pos+ksize+vsize > uint64(len(e)) {
		return nil, nil, false
	}
	return e[pos : pos+ksize], e[pos+ksize : pos+ksize+vsize], true
}
