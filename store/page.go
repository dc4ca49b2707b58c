package store

import (
	"encoding/binary"
	"errors"
	"hash/fnv"
	"os"
)

// The parts of bbolt's file format that are needed to look at a file which
// bbolt itself must not touch: https://pkg.go.dev/go.etcd.io/bbolt reads pages
// through a memory map and trusts them. Numbers are in the byte order of the
// machine, which is little endian wherever edged runs.
const (
	pageHeaderLen = 16 // id u64, flags u16, count u16, overflow u32
	elementLen    = 16 // branch: pos u32, ksize u32, pgid u64; leaf: flags, pos, ksize, vsize u32
	metaLen       = 64
	metaMagic     = 0xED0CDAED

	pageBranch = 0x01
	pageLeaf   = 0x02

	leafBucket = 0x01 // flag of a leaf element whose value is a bucket
)

// metaPage is one of the two roots of a file; the valid one with the highest
// txid counts.
type metaPage struct {
	pageSize uint32
	root     uint64 // page of the bucket of buckets
	pages    uint64 // pages in use end here
	txid     uint64
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
		pageSize: binary.LittleEndian.Uint32(b[8:]),
		root:     binary.LittleEndian.Uint64(b[16:]),
		pages:    binary.LittleEndian.Uint64(b[40:]),
		txid:     binary.LittleEndian.Uint64(b[48:]),
	}
	return m, m.pageSize >= 512 && m.pageSize <= 1<<16
}

// readMetas returns the valid roots of the file, the one that counts first.
// The page size is the one this package creates files with.
func readMetas(f *os.File) []metaPage {
	var metas []metaPage
	for i := range int64(2) {
		b := make([]byte, pageHeaderLen+metaLen)
		if _, err := f.ReadAt(b, i*4096); err != nil {
			continue
		}
		if m, ok := parseMeta(b); ok {
			metas = append(metas, m)
		}
	}
	if len(metas) == 2 && metas[1].txid > metas[0].txid {
		metas[0], metas[1] = metas[1], metas[0]
	}
	return metas
}

// walker reads the tree of a file that may be damaged anywhere. It never
// panics and always ends; what it can not read is counted.
type walker struct {
	f       *os.File
	meta    metaPage
	visited map[uint64]bool
	lost    int // pages that could not be read
}

var errPage = errors.New("page makes no sense")

// maxPageBytes bounds a page with its overflow pages.
const maxPageBytes = 64 << 20

func (w *walker) page(id uint64) ([]byte, error) {
	if id < 2 || id >= w.meta.pages || w.visited[id] {
		return nil, errPage
	}
	w.visited[id] = true
	b := make([]byte, w.meta.pageSize)
	off := int64(id) * int64(w.meta.pageSize)
	if _, err := w.f.ReadAt(b, off); err != nil {
		return nil, err
	}
	if binary.LittleEndian.Uint64(b) != id {
		return nil, errPage
	}
	if overflow := uint64(binary.LittleEndian.Uint32(b[12:])); overflow > 0 {
		size := (overflow + 1) * uint64(w.meta.pageSize)
		if size > maxPageBytes {
			return nil, errPage
		}
		b = make([]byte, size)
		if n, err := w.f.ReadAt(b, off); err != nil {
			b = b[:n] // the elements that are whole can still be read
		}
	}
	return b, nil
}

// tree calls fn for each leaf element below page id.
func (w *walker) tree(id uint64, depth int, fn func(flags uint32, key, value []byte)) {
	b, err := w.page(id)
	if err != nil || depth > 32 {
		w.lost++
		return
	}
	w.elements(b, depth, fn)
}

func (w *walker) elements(b []byte, depth int, fn func(flags uint32, key, value []byte)) {
	flags, count := binary.LittleEndian.Uint16(b[8:]), int(binary.LittleEndian.Uint16(b[10:]))
	if flags&(pageBranch|pageLeaf) == 0 {
		w.lost++
		return
	}
	for i := range count {
		at := uint64(pageHeaderLen + i*elementLen)
		if at+elementLen > uint64(len(b)) {
			w.lost++
			return
		}
		e := b[at:]
		if flags&pageBranch != 0 {
			w.tree(binary.LittleEndian.Uint64(e[8:]), depth+1, fn)
			continue
		}
		key, value, ok := element(b, i, flags)
		if !ok {
			w.lost++
			continue
		}
		fn(binary.LittleEndian.Uint32(e), key, value)
	}
}

// bucket calls fn for each key of a bucket, given the bucket's own value.
func (w *walker) bucket(value []byte, fn func(key, value []byte)) {
	if len(value) < 16 {
		w.lost++
		return
	}
	each := func(flags uint32, k, v []byte) {
		if flags&leafBucket == 0 {
			fn(k, v)
		}
	}
	if root := binary.LittleEndian.Uint64(value); root != 0 {
		w.tree(root, 0, each)
	} else if inline := value[16:]; len(inline) >= pageHeaderLen {
		w.elements(inline, 0, each)
	}
}
