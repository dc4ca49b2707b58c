package powercut

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// began handles the beginning of a call. What it writes may reach the disk from
// now on.
func (t *tracer) began(tid int, c *inCall) {
	fd := int(int32(c.args[0]))
	open, ours := t.files[fd]
	file := open.file
	switch c.kind {
	case callOpen, callDup, callDupTo:
		t.hold(c)
	case callClose:
		delete(t.files, fd)
	case callWrite, callPwrite, callWritev, callPwritev:
		if fd == markFile {
			t.begun = true
			t.rec.Ops = append(t.rec.Ops, Op{Kind: Mark, Data: t.written(tid, c)})
			t.rec.Moments = append(t.rec.Moments, Moment{Op: len(t.rec.Ops) - 1})
		} else if ours {
			t.op(c, Op{Kind: Write, File: file, Off: t.offset(tid, fd, c), Data: t.written(tid, c)})
		}
	case callFtruncate:
		if ours {
			t.op(c, Op{Kind: Truncate, File: file, Size: truncateSize(&c.args)})
		}
	case callFallocate:
		if !ours {
			break
		}
		switch mode := c.args[1]; mode {
		case 0:
			t.op(c, Op{Kind: Truncate, File: file, Size: max(t.sizeOf(tid, fd), fallocateEnd(&c.args))})
		case unix.FALLOC_FL_KEEP_SIZE:
		default:
			t.fail("fallocate of mode %d is not followed", mode)
		}
	case callSync:
		if ours {
			t.op(c, Op{Kind: Sync, File: file})
		}
	case callTruncate:
		if file, ok := t.names[t.path(tid, unix.AT_FDCWD, c.args[0])]; ok {
			t.op(c, Op{Kind: Truncate, File: file, Size: truncateSize(&c.args)})
		}
	case callRename, callLink, callUnlink, callMkdir:
		t.nameCall(tid, c)
	case callFcntl:
		if cmd := c.args[1]; ours && (cmd == unix.F_DUPFD || cmd == unix.F_DUPFD_CLOEXEC) {
			t.hold(c)
		}
	case callMmap:
		prot, flags, fd := c.args[2], c.args[3], int(int32(c.args[4]))
		if _, ours := t.files[fd]; ours && prot&unix.PROT_WRITE != 0 && flags&unix.MAP_SHARED != 0 {
			t.fail("a file of the store is written through a memory map, which is not followed")
		}
	case callUnknown:
		for _, a := range c.args[:3] {
			if _, ours := t.files[int(int32(a))]; ours && a > markFile {
				t.fail("a file of the store is written by a call that is not followed (pwritev2, copy_file_range, sendfile or splice)")
			}
		}
	case callForeign:
		if t.begun {
			t.fail("the workload opens or names files by a call that is not followed")
		}
	}
}

// nameCall handles calls that change names. They count only if they succeed.
func (t *tracer) nameCall(tid int, c *inCall) {
	a := c.args
	var o Op
	var from, to string
	switch c.kind {
	case callRename, callLink:
		o.Kind = Rename
		if c.kind == callLink {
			o.Kind = Link
		}
		from, to = t.path(tid, int(int32(a[0])), a[1]), t.path(tid, int(int32(a[2])), a[3])
	case callUnlink:
		o.Kind = Unlink
		from = t.path(tid, int(int32(a[0])), a[1])
	case callMkdir:
		o.Kind = Mkdir
		from = t.path(tid, int(int32(a[0])), a[1])
	}
	if from == "" && to == "" {
		return
	}
	if to != "" || o.Kind == Rename || o.Kind == Link {
		if from == "" || to == "" {
			t.fail("a file was moved into or out of the store's folder, which is not followed")
			return
		}
		o.ToDir, o.To = t.split(to)
	}
	o.Dir, o.Name = t.split(from)
	o.File = t.names[from] // not for Mkdir
	if o.Kind == Rename && t.dirs[o.File] {
		t.fail("a folder was renamed, which is not followed")
		return
	}
	t.op(c, o)
}

// ended handles the end of a call.
func (t *tracer) ended(tid int, c *inCall, result int64) {
	switch {
	case c.kind == callOpen:
		if result >= 0 {
			t.opened(tid, c, int(result))
		}
		return
	case c.kind == callDup || c.kind == callDupTo || c.kind == callFcntl:
		if file, ours := t.files[int(int32(c.args[0]))]; ours && result >= 0 {
			t.files[int(result)] = file
		} else if result >= 0 && c.kind != callFcntl {
			delete(t.files, int(result))
		}
		return
	case c.op == none:
		return
	}
	o := &t.rec.Ops[c.op]
	switch {
	case o.Kind == Write:
		if result != int64(len(o.Data)) {
			t.fail("a write of %d bytes returned %d: the disk is full, or failed", len(o.Data), result)
		}
	case result < 0: // it never was
		t.rec.Moments[c.moment].Op = none
		return
	default:
		t.named(o)
	}
	t.rec.Moments = append(t.rec.Moments, Moment{c.op, true})
}

// named follows the names that a call has changed.
func (t *tracer) named(o *Op) {
	from, to := t.join(o.Dir, o.Name), t.join(o.ToDir, o.To)
	switch o.Kind {
	case Rename:
		if t.names[to] == t.names[from] {
			break // two names of one file: rename(2) leaves both
		}
		t.names[to] = t.names[from]
		delete(t.names, from)
	case Link:
		t.names[to] = t.names[from]
	case Unlink:
		delete(t.names, from)
	case Mkdir:
		o.File = t.next
		t.next++
		t.names[from], t.dirs[o.File] = o.File, true
	}
}

// opened learns what file an open returned.
func (t *tracer) opened(tid int, c *inCall, fd int) {
	delete(t.files, fd)
	full, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", tid, fd))
	if err != nil {
		t.fail("file %d of the workload: %w", fd, err)
		return
	}
	path := t.below(full)
	if path == "" {
		return
	}
	flags := c.args[2]
	if flags&unix.O_ACCMODE != unix.O_RDONLY && flags&unix.O_DSYNC != 0 {
		t.fail("%s is opened with O_SYNC or O_DSYNC, which is not followed", path)
	}
	file, known := t.names[path]
	switch {
	case known && flags&unix.O_TRUNC != 0:
		t.opHeld(c, Op{Kind: Truncate, File: file})
	case !known && flags&unix.O_CREAT != 0:
		file = t.next
		t.next++
		dir, name := t.split(path)
		t.names[path] = file
		t.opHeld(c, Op{Kind: Create, File: file, Dir: dir, Name: name})
	case !known:
		t.fail("%s was there before the workload", path)
	}
	t.files[fd] = handle{file, flags&unix.O_APPEND != 0}
}

// op writes down a call that begins now.
func (t *tracer) op(c *inCall, o Op) {
	t.hold(c)
	c.op = len(t.rec.Ops)
	t.rec.Ops = append(t.rec.Ops, o)
	t.rec.Moments[c.moment].Op = c.op
}

// hold keeps the place of a call that may turn out to be an op.
func (t *tracer) hold(c *inCall) {
	c.moment = len(t.rec.Moments)
	t.rec.Moments = append(t.rec.Moments, Moment{Op: none})
}

// opHeld writes down a call that ends now.
func (t *tracer) opHeld(c *inCall, o Op) {
	t.rec.Moments[c.moment].Op = len(t.rec.Ops)
	t.rec.Moments = append(t.rec.Moments, Moment{len(t.rec.Ops), true})
	t.rec.Ops = append(t.rec.Ops, o)
}

// below returns path relative to the store's folder, "" if it is elsewhere.
func (t *tracer) below(path string) string {
	if path == t.root {
		return "."
	}
	rest, ok := strings.CutPrefix(path, t.root+"/")
	if !ok {
		return ""
	}
	return rest
}

func (t *tracer) split(path string) (dir int, name string) {
	folder, ok := t.names[filepath.Dir(path)]
	if !ok {
		t.fail("%s was there before the workload", filepath.Dir(path))
	}
	return folder, filepath.Base(path)
}

func (t *tracer) join(dir int, name string) string {
	for path, n := range t.names {
		if n == dir && t.dirs[n] {
			return filepath.Join(path, name)
		}
	}
	return name
}

// path returns the path of a call's argument, relative to the store's folder,
// or "" if it is elsewhere.
func (t *tracer) path(tid, dir int, address uint64) string {
	var b [unix.PathMax]byte
	n := t.peek(tid, address, b[:])
	if i := bytes.IndexByte(b[:n], 0); i >= 0 {
		n = i
	}
	path := string(b[:n])
	if !filepath.IsAbs(path) {
		base := fmt.Sprintf("/proc/%d/cwd", tid)
		if dir != unix.AT_FDCWD {
			base = fmt.Sprintf("/proc/%d/fd/%d", tid, dir)
		}
		folder, err := os.Readlink(base)
		if err != nil {
			t.fail("path %s of the workload: %w", path, err)
		}
		path = filepath.Join(folder, path)
	}
	if folder, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil {
		path = filepath.Join(folder, filepath.Base(path))
	}
	return t.below(path)
}

// written returns the bytes that a call writes.
func (t *tracer) written(tid int, c *inCall) []byte {
	if c.kind == callWrite || c.kind == callPwrite {
		return t.read(tid, c.args[1], c.args[2])
	}
	var all []byte
	const word = unsafe.Sizeof(uintptr(0))
	vector := t.read(tid, c.args[1], c.args[2]*2*uint64(word))
	for ; len(vector) >= 2*int(word); vector = vector[2*word:] {
		all = append(all, t.read(tid, number(vector), number(vector[word:]))...)
	}
	return all
}

func number(b []byte) uint64 {
	if unsafe.Sizeof(uintptr(0)) == 4 {
		return uint64(binary.NativeEndian.Uint32(b))
	}
	return binary.NativeEndian.Uint64(b)
}

func (t *tracer) read(tid int, address, n uint64) []byte {
	if n > 1<<30 {
		t.fail("the workload writes %d bytes in one call", n)
		return nil
	}
	b := make([]byte, n)
	if got := t.peek(tid, address, b); got != len(b) {
		t.fail("read %d bytes of the workload's memory, got %d", n, got)
	}
	return b
}

// peek reads the memory of the workload, as far as there is any.
func (t *tracer) peek(tid int, address uint64, b []byte) int {
	done := 0
	for done < len(b) {
		// A read stops before a page that is not there, and fails if it is the first.
		n := min(len(b)-done, 1<<20)
		local := unix.Iovec{Base: &b[done]}
		local.SetLen(n)
		remote := unix.RemoteIovec{Base: uintptr(address) + uintptr(done), Len: n}
		got, err := unix.ProcessVMReadv(tid, []unix.Iovec{local}, []unix.RemoteIovec{remote}, 0)
		if err != nil && n > 1 && len(b) == unix.PathMax {
			// A path may end with its page.
			toEnd := 4096 - int((address+uint64(done))%4096)
			if toEnd < n {
				return done + t.peek(tid, address+uint64(done), b[done:done+toEnd])
			}
		}
		if err != nil || got <= 0 {
			return done
		}
		done += got
	}
	return done
}

// offset is where a call writes.
func (t *tracer) offset(tid, fd int, c *inCall) int64 {
	switch {
	case t.files[fd].append:
		return t.sizeOf(tid, fd)
	case c.kind == callPwrite:
		return pwriteOff(&c.args)
	case c.kind == callPwritev:
		return pwritevOff(&c.args)
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%d", tid, fd))
	var pos int64
	if err == nil {
		_, err = fmt.Sscanf(string(b), "pos: %d", &pos)
	}
	if err != nil {
		t.fail("where file %d of the workload is: %w", fd, err)
	}
	return pos
}

func (t *tracer) sizeOf(tid, fd int) int64 {
	info, err := os.Stat(fmt.Sprintf("/proc/%d/fd/%d", tid, fd))
	if err != nil {
		t.fail("size of file %d of the workload: %w", fd, err)
		return 0
	}
	return info.Size()
}
