package store

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
)

// checkFile finds what bbolt must not be given. bbolt trusts the file it maps:
// it walks the whole tree at open, partly in a goroutine of its own, and a page
// that makes no sense, or lies beyond the end of the file, ends the process. So
// the tree is walked here first, with plain reads. What the values hold is
// checked later, by their checksums.
func checkFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnusable, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnusable, err)
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%w: not a regular file", ErrUnusable)
	}
	metas := readMetas(f)
	if len(metas) == 0 {
		return fmt.Errorf("%w: it has no valid root page", ErrDamaged)
	}
	if want := int64(metas[0].pages) * int64(metas[0].pageSize); info.Size() < want {
		return fmt.Errorf("%w: it has %d bytes of %d", ErrDamaged, info.Size(), want)
	}
	c := checker{walker{f: f, meta: metas[0], visited: make(map[uint64]bool)}}
	return c.root()
}

// checker walks a tree and fails at the first page that is not as it should be.
type checker struct{ walker }

// root checks the bucket of buckets, and each bucket in it.
func (c *checker) root() error {
	known := make(map[string]bool)
	for _, name := range allBuckets {
		known[string(name)] = true
	}
	var values [][]byte
	err := c.tree(c.meta.root, nil, nil, func(flags uint32, name, value []byte) error {
		if flags != leafBucket || !known[string(name)] || len(value) < 16 {
			return fmt.Errorf("%w: bucket %q", ErrDamaged, name)
		}
		values = append(values, value)
		return nil
	})
	if err != nil {
		return err
	}
	plain := func(flags uint32, key, _ []byte) error {
		if flags != 0 {
			return fmt.Errorf("%w: key %x has flags %#x", ErrDamaged, key, flags)
		}
		return nil
	}
	for _, v := range values {
		if root := binary.LittleEndian.Uint64(v); root != 0 {
			err = c.tree(root, nil, nil, plain)
		} else {
			err = c.elements(v[16:], 0, true, nil, nil, plain)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// tree checks the pages below id, whose keys lie in [low, high).
func (c *checker) tree(id uint64, low, high []byte, leaf func(flags uint32, key, value []byte) error) error {
	b, err := c.page(id)
	if err != nil {
		return fmt.Errorf("%w: page %d: %w", ErrDamaged, id, err)
	}
	return c.elements(b, id, false, low, high, leaf)
}

func (c *checker) elements(b []byte, id uint64, inline bool, low, high []byte, leaf func(flags uint32, key, value []byte) error) error {
	bad := func(what string) error { return fmt.Errorf("%w: page %d: %s", ErrDamaged, id, what) }
	if len(b) < pageHeaderLen {
		return bad("too short")
	}
	flags, count := binary.LittleEndian.Uint16(b[8:]), int(binary.LittleEndian.Uint16(b[10:]))
	if flags != pageLeaf && (flags != pageBranch || inline || count == 0) {
		return bad(fmt.Sprintf("flags %#x, %d elements", flags, count))
	}
	if uint64(pageHeaderLen+count*elementLen) > uint64(len(b)) {
		return bad("more elements than fit")
	}
	keys := make([][]byte, count)
	for i := range count {
		k, _, ok := element(b, i, flags)
		if !ok {
			return bad("an element reaches beyond it")
		}
		if len(k) == 0 && (flags == pageLeaf || i > 0) || i > 0 && bytes.Compare(keys[i-1], k) >= 0 {
			return bad("keys are out of order")
		}
		if low != nil && bytes.Compare(k, low) < 0 || high != nil && bytes.Compare(k, high) >= 0 {
			return bad("a key belongs elsewhere")
		}
		keys[i] = k
	}
	for i := range count {
		e := b[pageHeaderLen+i*elementLen:]
		if flags == pageLeaf {
			_, v, _ := element(b, i, flags)
			if err := leaf(binary.LittleEndian.Uint32(e), keys[i], v); err != nil {
				return err
			}
			continue
		}
		next := high
		if i+1 < count {
			next = keys[i+1]
		}
		if err := c.tree(binary.LittleEndian.Uint64(e[8:]), keys[i], next, leaf); err != nil {
			return err
		}
	}
	return nil
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
