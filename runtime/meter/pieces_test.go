package meter_test

import (
	"fmt"
	"hash/crc32"
	"strings"
	"testing"

	"github.com/edged-io/edged/runtime/meter"
	"github.com/tetratelabs/wazero"
)

// bulkModule has 10 pages of memory, and functions that fill and copy it.
func bulkModule() []byte {
	var m wasmModule
	m.memories = [][]byte{{0, 10}}
	m.export("memory", 2, 0)
	three := types(i32, i32, i32)
	args := cat(op(opLocalGet, 0), op(opLocalGet, 1), op(opLocalGet, 2))
	m.fn("fill", three, nil, 0, args, 0xfc, 11, 0)
	m.fn("copy", three, nil, 0, args, 0xfc, 10, 0, 0)
	return m.bytes()
}

// However long a fill or a copy is: overlapping, at the ends of the memory and
// beyond them, it does what the original does.
func TestRewrite_longBulkOperationsSame(t *testing.T) {
	const size, piece = 10 << 16, 1 << 16
	type call struct {
		name         string
		a, b, length uint64
	}
	calls := []call{{"fill", 3, 0x1ff, size - 3}, {"fill", 4, 9, size - 3}, {"fill", 1<<32 - 1, 9, piece + 1}, {"fill", 0, 9, 1<<32 - 1}, {"fill", 1, 9, 1<<32 - 1}}
	for _, length := range []uint64{piece - 1, piece, piece + 1, 2 * piece, 3*piece + 17, size, size + 1} {
		for _, at := range [][2]uint64{{0, 0}, {0, 1}, {1, 0}, {0, 70_000}, {70_000, 0}, {size - length, 0}, {0, size - length}, {7, size - length + 1}, {size - length + 1, 7}} {
			calls = append(calls, call{"fill", at[0], length + at[1], length}, call{"copy", at[0] & (1<<32 - 1), at[1] & (1<<32 - 1), length})
		}
	}
	metered, err := meter.Rewrite(bulkModule())
	if err != nil {
		t.Fatal(err)
	}
	for engine, config := range engines {
		run := func(wasm []byte) (steps []string) {
			rt := wazero.NewRuntimeWithConfig(t.Context(), config)
			defer closeRuntime(t, rt)
			hostTick(t, rt, 100)
			mod, err := rt.Instantiate(t.Context(), wasm)
			if err != nil {
				t.Fatal(err)
			}
			memory, _ := mod.Memory().Read(0, size)
			for i := range memory {
				memory[i] = byte(i*i>>3 ^ i>>9)
			}
			for _, c := range calls {
				_, err := mod.ExportedFunction(c.name).Call(t.Context(), c.a, c.b, c.length)
				reason := ""
				if err != nil {
					reason, _, _ = strings.Cut(err.Error(), "\n")
				}
				steps = append(steps, fmt.Sprintf("%v: %s, memory %08x", c, reason, crc32.ChecksumIEEE(memory)))
			}
			return steps
		}
		want, got := run(bulkModule()), run(metered)
		for i := range want {
			if got[i] != want[i] {
				t.Errorf("%s: got %s, want %s", engine, got[i], want[i])
			}
		}
	}
}

// Between two ticks there is never more than a piece, and what is counted is
// exact.
func TestRewrite_longBulkOperationsTick(t *testing.T) {
	for _, name := range []string{"fill", "copy"} {
		for _, at := range [][2]uint64{{0, 16}, {16, 0}} {
			mod, k := instantiate(t, bulkModule(), 255)
			left := mod.ExportedGlobal(meter.ExportCounter)
			setCounter(left, 255)
			const pieces = 9
			if _, err := mod.ExportedFunction(name).Call(t.Context(), at[0], at[1], pieces<<16); err != nil {
				t.Fatal(err)
			}
			if k.ticks != pieces {
				t.Errorf("%s: %d ticks for %d pieces", name, k.ticks, pieces)
			}
		}
	}
}
