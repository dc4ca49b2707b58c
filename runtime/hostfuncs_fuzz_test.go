package runtime_test

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/edged-io/edged/runtime"
)

// FuzzHostFunctions: a guest that calls what it may import, in any order, with
// any arguments, is served or stopped; nothing in the host breaks.
func FuzzHostFunctions(f *testing.F) {
	functions := runtime.HostFunctions()
	for i := range functions {
		f.Add([]byte{byte(i), 0, 0, 0, 0, 0, 0, 0, 0, 0})
		f.Add([]byte{byte(i), 9, 8, 7, 6, 5, 4, 3, 2, 1, byte(i), 3, 9, 3, 9, 3, 9, 3, 9, 3, 9})
	}
	numbers := []int{0, 1, 8, 64, 1024, 4096, 8192, 65528, 65536, -1, -8, 0x05555556, 1 << 30, 1<<31 - 1}
	f.Fuzz(func(t *testing.T, script []byte) {
		if len(script) > 1<<10 {
			return
		}
		h := newHost(t, runtime.Options{CacheDir: none, Call: func(_ context.Context, _, _, _, operation string, payload []byte) ([]byte, error) {
			if len(operation)%2 == 1 {
				return nil, errors.New(operation)
			}
			return payload, nil
		}})
		var code []byte
		for len(script) > 0 {
			i := int(script[0]) % len(functions)
			script = script[1:]
			for _, p := range functions[i].Params {
				n := 0
				if len(script) > 0 {
					n = numbers[int(script[0])%len(numbers)]
					script = script[1:]
				}
				if p == 'I' {
					code = append(code, 0x42, byte(n)&0x3f)
				} else {
					code = append(code, num(n)...)
				}
			}
			code = append(append(code, 0x10), uleb(i)...)
			if functions[i].Results > 0 {
				code = append(code, drop...)
			}
		}
		a := &assembler{}
		for _, f := range functions {
			params := strings.NewReplacer("i", "\x7f", "I", "\x7e").Replace(f.Params)
			a.imports = append(a.imports, asmImport{f.Module, f.Name, append([]byte{0}, uleb(a.typeOf(params, strings.Repeat("\x7f", f.Results)))...)})
		}
		a.mem(1)
		// Something to find where pointers point to.
		a.data = []asmData{{1024, slices.Repeat(binary.LittleEndian.AppendUint32(nil, 4096), 64)}, {8192, []byte("some bytes")}}
		a.fn("", 2, 1, append(code, num(1)...)...)
		a.exports = append(a.exports, asmExport{"__guest_call", 0, len(functions)})
		actor := load(t, h, a.bytes(), runtime.Limits{MemoryBytes: 1 << 20, Time: 200 * time.Millisecond})
		_, err := actor.Call(t.Context(), "Fuzz.Op", []byte("payload"))
		if err != nil && (strings.Contains(err.Error(), "runtime error") || strings.Contains(err.Error(), "goroutine")) {
			t.Error(err)
		}
	})
}
