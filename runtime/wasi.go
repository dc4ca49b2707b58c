package runtime

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"math"
	goruntime "runtime"
	"time"

	"github.com/tetratelabs/wazero/api"
)

// WASI preview 1 with nothing granted: two output streams that go to the log, an
// empty input, clocks, random bytes and sleep; no files, no environment, no
// sockets. It is ours and not the engine's so that whatever a guest asks for,
// and however much of it, stays within the guest's limits.
const wasiModule = "wasi_snapshot_preview1"

// Numbers of errors in WASI.
const (
	wasiOK     = 0
	wasiBadf   = 8
	wasiFault  = 21
	wasiInval  = 28
	wasiNosys  = 52
	wasiNotsup = 58
	wasiSpipe  = 70
)

// A wasiFunc is one function: its parameters, i for i32 and I for i64, and what
// it does. Without code it is one for files, of which there are none.
type wasiFunc struct {
	name   string
	params string
	code   func(in *instance, m api.Memory, p []uint64) uint64
}

var wasiFuncs = []wasiFunc{
	{"args_get", "ii", argsGet},
	{"args_sizes_get", "ii", argsSizesGet},
	{"clock_res_get", "ii", clockResGet},
	{"clock_time_get", "iIi", clockTimeGet},
	{"environ_get", "ii", func(*instance, api.Memory, []uint64) uint64 { return wasiOK }},
	{"environ_sizes_get", "ii", func(_ *instance, m api.Memory, p []uint64) uint64 { return store32(m, p[0], 0, p[1], 0) }},
	{"fd_advise", "iIIi", nil},
	{"fd_allocate", "iII", nil},
	{"fd_close", "i", ofStdio},
	{"fd_datasync", "i", nil},
	{"fd_fdstat_get", "ii", fdstatGet},
	{"fd_fdstat_set_flags", "ii", ofStdio},
	{"fd_fdstat_set_rights", "iII", nil},
	{"fd_filestat_get", "ii", filestatGet},
	{"fd_filestat_set_size", "iI", nil},
	{"fd_filestat_set_times", "iIIi", nil},
	{"fd_pread", "iiiIi", nil},
	{"fd_prestat_dir_name", "iii", nil},
	{"fd_prestat_get", "ii", nil},
	{"fd_pwrite", "iiiIi", nil},
	{"fd_read", "iiii", fdRead},
	{"fd_readdir", "iiiIi", nil},
	{"fd_renumber", "ii", nil},
	{"fd_seek", "iIii", fdSeek},
	{"fd_sync", "i", nil},
	{"fd_tell", "ii", fdSeek},
	{"fd_write", "iiii", fdWrite},
	{"path_create_directory", "iii", nil},
	{"path_filestat_get", "iiiii", nil},
	{"path_filestat_set_times", "iiiiIIi", nil},
	{"path_link", "iiiiiii", nil},
	{"path_open", "iiiiiIIii", nil},
	{"path_readlink", "iiiiii", nil},
	{"path_remove_directory", "iii", nil},
	{"path_rename", "iiiiii", nil},
	{"path_symlink", "iiiii", nil},
	{"path_unlink_file", "iii", nil},
	{"poll_oneoff", "iiii", pollOneoff},
	{"proc_raise", "i", func(*instance, api.Memory, []uint64) uint64 { return wasiNosys }},
	{"random_get", "ii", randomGet},
	{"sched_yield", "", schedYield},
	{"sock_accept", "iii", nil},
	{"sock_recv", "iiiiii", nil},
	{"sock_send", "iiiii", nil},
	{"sock_shutdown", "ii", nil},
}

func wasiHostFuncs() []hostFunc {
	funcs := []hostFunc{{"proc_exit", i32s(1), nil, procExit}}
	for _, f := range wasiFuncs {
		params := i32s(len(f.params))
		for i, p := range f.params {
			if p == 'I' {
				params[i] = api.ValueTypeI64
			}
		}
		funcs = append(funcs, hostFunc{f.name, params, i32s(1), func(ctx context.Context, m api.Module, stack []uint64) {
			in := instanceOf(ctx)
			in.work(0)
			if f.code == nil {
				stack[0] = wasiBadf
			} else {
				stack[0] = f.code(in, m.Memory(), stack)
			}
		}})
	}
	return funcs
}

// procExit ends what is running, with the guest's stack; what that means is
// decided by who called: guests of TinyGo leave _start by proc_exit(0) and are
// called afterwards.
func procExit(_ context.Context, _ api.Module, stack []uint64) {
	panic(&exitError{uint32(stack[0])})
}

type exitError struct{ code uint32 }

func (e *exitError) Error() string { return fmt.Sprintf("the guest exited with code %d", e.code) }

// store32 writes two numbers.
func store32(m api.Memory, at1 uint64, v1 uint32, at2 uint64, v2 uint32) uint64 {
	if !m.WriteUint32Le(uint32(at1), v1) || !m.WriteUint32Le(uint32(at2), v2) {
		return wasiFault
	}
	return wasiOK
}

func store64(m api.Memory, at, v uint64) uint64 {
	if !m.WriteUint64Le(uint32(at), v) {
		return wasiFault
	}
	return wasiOK
}

const programName = "main.wasm\x00"

func argsSizesGet(_ *instance, m api.Memory, p []uint64) uint64 {
	return store32(m, p[0], 1, p[1], uint32(len(programName)))
}

func argsGet(_ *instance, m api.Memory, p []uint64) uint64 {
	if !m.WriteUint32Le(uint32(p[0]), uint32(p[1])) || !m.WriteString(uint32(p[1]), programName) {
		return wasiFault
	}
	return wasiOK
}

// Clocks: 0 is the wall's, 1 one that does not go back. Those of the process
// and of the thread are not given.
func clockResGet(_ *instance, m api.Memory, p []uint64) uint64 {
	switch uint32(p[0]) {
	case 0:
		return store64(m, p[1], uint64(time.Microsecond))
	case 1:
		return store64(m, p[1], 1)
	}
	return wasiInval
}

func clockTimeGet(_ *instance, m api.Memory, p []uint64) uint64 {
	switch uint32(p[0]) {
	case 0:
		return store64(m, p[2], uint64(time.Now().UnixNano()))
	case 1:
		return store64(m, p[2], uint64(clock()))
	}
	return wasiInval
}

// ofStdio succeeds for the three streams, on which it has no effect.
func ofStdio(_ *instance, _ api.Memory, p []uint64) uint64 {
	if uint32(p[0]) > 2 {
		return wasiBadf
	}
	return wasiOK
}

// characterDevice is what the streams are: C libraries then write line by line.
const characterDevice = 2

func fdstatGet(in *instance, m api.Memory, p []uint64) uint64 {
	stat, ok := m.Read(uint32(p[1]), 24)
	if code := ofStdio(in, m, p); code != wasiOK {
		return code
	}
	if !ok {
		return wasiFault
	}
	clear(stat)
	stat[0] = characterDevice
	const read, write = 1 << 1, 1 << 6
	rights := uint64(write)
	if uint32(p[0]) == 0 {
		rights = read
	}
	binary.LittleEndian.PutUint64(stat[8:], rights)
	return wasiOK
}

func filestatGet(in *instance, m api.Memory, p []uint64) uint64 {
	stat, ok := m.Read(uint32(p[1]), 64)
	if code := ofStdio(in, m, p); code != wasiOK {
		return code
	}
	if !ok {
		return wasiFault
	}
	clear(stat)
	stat[16] = characterDevice
	return wasiOK
}

func fdSeek(_ *instance, _ api.Memory, p []uint64) uint64 {
	if uint32(p[0]) > 2 {
		return wasiBadf
	}
	return wasiSpipe
}

// fdRead finds the end of the input.
func fdRead(_ *instance, m api.Memory, p []uint64) uint64 {
	if uint32(p[0]) != 0 {
		return wasiBadf
	}
	if !m.WriteUint32Le(uint32(p[3]), 0) {
		return wasiFault
	}
	return wasiOK
}

// fdWrite may write less than it is asked to, as any write: so much that it is
// soon done.
func fdWrite(in *instance, m api.Memory, p []uint64) uint64 {
	const most = 64 // vectors at once
	w := &in.stdout
	switch uint32(p[0]) {
	case 1:
	case 2:
		w = &in.stderr
	default:
		return wasiBadf
	}
	written := uint32(0)
	for i := range min(uint32(p[2]), most) {
		vector, ok := m.Read(uint32(p[1])+8*i, 8)
		if !ok {
			return wasiFault
		}
		b, ok := m.Read(binary.LittleEndian.Uint32(vector), binary.LittleEndian.Uint32(vector[4:]))
		if !ok || uint64(written)+uint64(len(b)) > math.MaxInt32 {
			return wasiFault
		}
		w.write(b)
		written += uint32(len(b))
	}
	if !m.WriteUint32Le(uint32(p[3]), written) {
		return wasiFault
	}
	return wasiOK
}

func randomGet(in *instance, m api.Memory, p []uint64) uint64 {
	b, ok := m.Read(uint32(p[0]), uint32(p[1]))
	if !ok {
		return wasiFault
	}
	for len(b) > 0 {
		n := min(len(b), 64<<10)
		in.work(uint64(n))
		rand.Read(b[:n]) // never fails
		b = b[n:]
	}
	return wasiOK
}

func schedYield(in *instance, _ api.Memory, _ []uint64) uint64 {
	in.slice.began = 0
	goruntime.Gosched()
	return wasiOK
}

// pollOneoff waits for the first of several clocks. Streams are always ready.
func pollOneoff(in *instance, m api.Memory, p []uint64) uint64 {
	const most, subscription, event = 1024, 48, 32
	n := uint32(p[2])
	if n == 0 || n > most {
		return wasiInval
	}
	asked, ok1 := m.Read(uint32(p[0]), n*subscription)
	events, ok2 := m.Read(uint32(p[1]), n*event)
	if !ok1 || !ok2 {
		return wasiFault
	}
	in.work(uint64(n) * subscription)
	const fdClock, fdRead, fdWrite = 0, 1, 2
	answered := uint32(0)
	answer := func(sub []byte, errno uint16) {
		// The two may overlap: the guest's own affair, but not beyond its memory.
		var e [event]byte
		copy(e[:8], sub[:8])
		binary.LittleEndian.PutUint16(e[8:], errno)
		e[10] = sub[8]
		copy(events[answered*event:], e[:])
		answered++
	}
	first := time.Duration(math.MaxInt64)
	for i := range n {
		switch sub := asked[i*subscription:][:subscription]; sub[8] {
		case fdClock:
			wait, errno := in.untilClock(sub)
			if errno != wasiOK {
				return errno
			}
			first = min(first, wait)
		case fdRead, fdWrite:
			errno := uint16(wasiOK)
			if binary.LittleEndian.Uint32(sub[16:]) > 2 {
				errno = wasiBadf
			}
			answer(sub, errno)
		default:
			return wasiInval
		}
	}
	if answered == 0 {
		in.sleep(first)
		for i := range n {
			sub := asked[i*subscription:][:subscription]
			if wait, errno := in.untilClock(sub); errno == wasiOK && wait <= first {
				answer(sub, wasiOK)
			}
		}
	}
	if !m.WriteUint32Le(uint32(p[3]), answered) {
		return wasiFault
	}
	return wasiOK
}

// untilClock is how long it is until the clock of a subscription.
func (in *instance) untilClock(sub []byte) (time.Duration, uint64) {
	id, at := binary.LittleEndian.Uint32(sub[16:]), binary.LittleEndian.Uint64(sub[24:])
	absolute := binary.LittleEndian.Uint16(sub[40:])&1 != 0
	var now uint64
	switch id {
	case 0:
		now = uint64(time.Now().UnixNano())
	case 1:
		now = uint64(clock())
	default:
		return 0, wasiNotsup
	}
	if absolute {
		at -= min(at, now)
	}
	return time.Duration(min(at, math.MaxInt64)), wasiOK
}
