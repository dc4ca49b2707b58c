package runtime_test

import (
	"encoding/binary"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/edged-io/edged/runtime"
)

// wasiCall is a module that has function 4, of WASI, called by code, with what
// pushes args, i32 and int64. It has 1 MiB of memory.
func wasiCall(name string, args []any, code func(call []byte) []byte) []byte {
	params, push := "", []byte{}
	for _, v := range args {
		switch v := v.(type) {
		case int:
			params, push = params+"\x7f", append(push, num(v)...)
		case int64:
			params, push = params+"\x7e", append(push, 0x42, byte(v)) // less than 64
		}
	}
	return callModule(code(append(push, call(4)...)), func(a *assembler) {
		a.imports = append(a.imports, asmImport{"wasi_snapshot_preview1", name, []byte{0, byte(a.typeOf(params, "\x7f"))}})
		a.mem(16)
		// A vector for all but the last page, and a subscription to a clock in an hour.
		a.data = []asmData{{1024, []byte{0, 0, 0, 0, 0, 0, 15, 0}}, {4096 + 24, binary.LittleEndian.AppendUint64(nil, uint64(time.Hour))}}
	})
}

func TestWASI(t *testing.T) {
	h := newHost(t, runtime.Options{})
	const page, far = 64 << 10, -8
	for _, c := range []struct {
		name string
		args []any
		want uint32
	}{
		{"args_sizes_get", []any{8, 12}, 0},
		{"args_sizes_get", []any{far + 6, 12}, 21},
		{"args_get", []any{8, 16}, 0},
		{"args_get", []any{8, far}, 21},
		{"environ_sizes_get", []any{8, 12}, 0},
		{"environ_get", []any{far, far}, 0},
		{"clock_res_get", []any{1, 8}, 0},
		{"clock_res_get", []any{9, 8}, 28},
		{"clock_time_get", []any{0, int64(0), 8}, 0},
		{"clock_time_get", []any{1, int64(0), far + 4}, 21},
		{"clock_time_get", []any{2, int64(0), 8}, 28},
		{"fd_write", []any{1, 1024, 1, 8}, 0},
		{"fd_write", []any{1, 1024, 1, far + 6}, 21},
		{"fd_write", []any{0, 1024, 1, 8}, 8},
		{"fd_write", []any{3, 1024, 1, 8}, 8},
		{"fd_write", []any{-1, 1024, 1, 8}, 8},
		{"fd_write", []any{1, far, 1, 8}, 21},
		{"fd_write", []any{1, 0, -1, 8}, 0}, // 4 billion vectors, those of them that are looked at empty
		{"fd_read", []any{0, 1024, 1, 8}, 0},
		{"fd_read", []any{1, 1024, 1, 8}, 8},
		{"fd_fdstat_get", []any{1, 8}, 0},
		{"fd_fdstat_get", []any{3, 8}, 8},
		{"fd_fdstat_get", []any{1, far}, 21},
		{"fd_filestat_get", []any{2, 8}, 0},
		{"fd_prestat_get", []any{3, 8}, 8},
		{"fd_seek", []any{1, int64(0), 0, 8}, 70},
		{"fd_close", []any{1}, 0},
		{"fd_close", []any{7}, 8},
		{"path_open", []any{3, 0, 1024, 8, 0, int64(0), int64(0), 0, 8}, 8},
		{"path_open", []any{3, 0, 0, -1, 0, int64(0), int64(0), 0, 8}, 8},
		{"random_get", []any{8, 16}, 0},
		{"random_get", []any{8, 15 * page}, 0},
		{"random_get", []any{0, -1}, 21},
		{"poll_oneoff", []any{4096, 8192, 0, 8}, 28},
		{"poll_oneoff", []any{4096, 8192, 0x05555556, 8}, 28},
		{"poll_oneoff", []any{far, 8192, 1, 8}, 21},
		{"poll_oneoff", []any{65536, 8192, 1, 8}, 0}, // a wait of no time
		{"poll_oneoff", []any{65536, 8192, 1, far + 6}, 21},
		{"sched_yield", nil, 0},
		{"sock_accept", []any{3, 0, 8}, 8},
		{"proc_raise", []any{9}, 52},
	} {
		// The result is stored at 0, and is the answer.
		a := load(t, h, wasiCall(c.name, c.args, func(it []byte) []byte {
			return slices.Concat(num(0), it, []byte{0x36, 2, 0}, num(0), num(4), call(1), num(1))
		}), runtime.Limits{})
		out, err := a.Call(t.Context(), "Op", nil)
		if err != nil || binary.LittleEndian.Uint32(out) != c.want {
			t.Errorf("%s %v: got %x, %v, want error %d", c.name, c.args, out[:min(len(out), 4)], err, c.want)
		}
	}
}

// Each function of preview 1 is there, with its signature.
func TestWASI_isComplete(t *testing.T) {
	r := wazero.NewRuntime(t.Context())
	defer r.Close(t.Context())
	m, err := wasi_snapshot_preview1.Instantiate(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	for name, f := range m.(api.Module).ExportedFunctionDefinitions() {
		params, results := runtime.WASIFunction(name)
		if !slices.Equal(params, f.ParamTypes()) || !slices.Equal(results, f.ResultTypes()) {
			t.Errorf("%s: got %x → %x, want %x → %x", name, params, results, f.ParamTypes(), f.ResultTypes())
		}
	}
}

// Whatever a guest asks WASI for again and again, it ends at its deadline.
func TestWASI_endsAtTheDeadline(t *testing.T) {
	h := newHost(t, runtime.Options{})
	for _, c := range []struct {
		name string
		args []any
	}{
		{"random_get", []any{0, 15 << 16}},
		{"fd_write", []any{1, 1024, 1, 8}},
		{"fd_write", []any{2, 0, -1, 8}},
		{"poll_oneoff", []any{4096, 8192, 1, 8}},
		{"poll_oneoff", []any{65536, 8192, 1000, 8}},
		{"sched_yield", nil},
	} {
		a := load(t, h, wasiCall(c.name, c.args, func(it []byte) []byte {
			return slices.Concat([]byte{0x03, 0x40}, it, drop, []byte{0x0c, 0, 0x0b}, num(1))
		}), runtime.Limits{Time: 50 * time.Millisecond})
		if _, err := a.Call(t.Context(), "Op", nil); !errors.Is(err, runtime.ErrTimeLimit) {
			t.Errorf("%s %v: got %v, want ErrTimeLimit", c.name, c.args, err)
		}
	}
}
