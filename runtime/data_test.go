package runtime

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"
)

// memoryOf is what the data section of a module makes of a memory, nil if it does
// not fit into it, and how many segments it has.
func memoryOf(t *testing.T, wasm []byte, size int) (memory []byte, n int) {
	t.Helper()
	segments, ok := constantData(section(wasm, 11))
	if !ok {
		t.Fatalf("segments are not constant: %x", wasm)
	}
	memory = make([]byte, size)
	for _, s := range segments {
		if s.end() > uint64(size) {
			return nil, len(segments)
		}
		copy(memory[s.at:], s.data)
	}
	return memory, len(segments)
}

func withData(segments ...dataSegment) []byte {
	body := binary.AppendUvarint(nil, uint64(len(segments)))
	for _, s := range segments {
		body = append(appendI32Const(append(body, 0), uint32(s.at)), 0x0b)
		body = append(binary.AppendUvarint(body, uint64(len(s.data))), s.data...)
	}
	wasm := append(bytes.Clone(wasmMagic), 1, 0, 0, 0, 11)
	return append(binary.AppendUvarint(wasm, uint64(len(body))), body...)
}

func TestMergeData(t *testing.T) {
	const high = 1<<32 - 4
	for name, c := range map[string]struct {
		segments []dataSegment
		want     int
	}{
		"none":                    {nil, 0},
		"one":                     {[]dataSegment{{7, []byte("a")}}, 1},
		"close":                   {[]dataSegment{{7, []byte("a")}, {16, []byte("b")}, {16 + 1 + dataGap, []byte("c")}}, 1},
		"far":                     {[]dataSegment{{7, []byte("a")}, {8 + dataGap + 1, []byte("b")}}, 2},
		"in another order":        {[]dataSegment{{90, []byte("c")}, {1, []byte("a")}, {40, []byte("b")}}, 1},
		"nothing, in another":     {[]dataSegment{{90, nil}, {1, []byte("a")}, {1, nil}}, 3},
		"overlapping":             {[]dataSegment{{1, []byte("abc")}, {3, []byte("d")}}, 2},
		"the same":                {[]dataSegment{{1, []byte("a")}, {1, []byte("b")}}, 2},
		"beyond, and overlapping": {[]dataSegment{{high, []byte("ab")}, {high + 1, []byte("c")}}, 2},
		"beyond":                  {[]dataSegment{{high, []byte("a")}, {high + 2, []byte("b")}, {5, nil}}, 2},
	} {
		before := withData(c.segments...)
		after := mergeData(before)
		want, _ := memoryOf(t, before, 1<<10)
		got, n := memoryOf(t, after, 1<<10)
		if n != c.want || !bytes.Equal(got, want) || (got == nil) != (want == nil) {
			t.Errorf("%s: %d segments, want %d; the same memory: %v", name, n, c.want, bytes.Equal(got, want))
		}
	}
}

// Segments that code may name, or whose place is not known, are left alone.
func TestMergeData_leaves(t *testing.T) {
	two := withData(dataSegment{1, []byte("a")}, dataSegment{3, []byte("b")})
	named := append(append(bytes.Clone(two[:8]), 12, 1, 2), two[8:]...)
	for name, wasm := range map[string][]byte{
		"named":         named,
		"passive":       bytes.Replace(two, []byte("\x00\x41\x03\x0b"), []byte("\x01\x80\x80\x80\x00")[:1], 1),
		"at a global":   bytes.Replace(two, []byte("\x41\x03"), []byte("\x23\x03"), 1),
		"at a sum":      bytes.Replace(two, []byte("\x41\x03\x0b\x01b"), []byte("\x41\x03\x41\x00\x6a"), 1),
		"with a memory": bytes.Replace(two, []byte("\x00\x41\x03\x0b"), []byte("\x02\x00\x41\x03"), 1),
	} {
		if !bytes.Equal(mergeData(bytes.Clone(wasm)), wasm) {
			t.Errorf("%s: changed", name)
		}
	}
}

func TestMergeData_random(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	merged := 0
	for range 2000 {
		var segments []dataSegment
		for range r.IntN(6) {
			data := make([]byte, r.IntN(20))
			for i := range data {
				data[i] = byte(1 + r.IntN(255))
			}
			segments = append(segments, dataSegment{uint64(r.IntN(700)), data})
		}
		before := withData(segments...)
		after := mergeData(before)
		want, _ := memoryOf(t, before, 700)
		got, n := memoryOf(t, after, 700)
		if !bytes.Equal(got, want) || (got == nil) != (want == nil) {
			t.Fatalf("another memory of %v", segments)
		}
		if n < len(segments) {
			merged++
		}
	}
	if merged == 0 {
		t.Error("nothing was merged")
	}
}
