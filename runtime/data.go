package runtime

import (
	"cmp"
	"encoding/binary"
	"slices"
)

// dataGap is how many zeros, at most, are written into a module to make one data
// segment of two. The engine takes 90 bytes for a segment and five objects for
// each instance.
const dataGap = 64

// A dataSegment is put to an address when an instance is made.
type dataSegment struct {
	at   uint64
	data []byte
}

func (s dataSegment) end() uint64 { return s.at + uint64(len(s.data)) }

// mergeData makes few data segments of many in a rewritten module: a program in
// Go has 30,000, since its linker leaves out each run of eight zeros. An instance
// begins with the same memory as before. A module whose code may name segments,
// or whose segments overlap or depend on anything, stays as it is.
func mergeData(wasm []byte) []byte {
	const dataSection, dataCountSection = 11, 12
	segments, ok := constantData(section(wasm, dataSection))
	if !ok || len(segments) < 2 || section(wasm, dataCountSection).buf != nil {
		return wasm
	}
	slices.SortStableFunc(segments, func(a, b dataSegment) int { return cmp.Compare(a.at, b.at) })
	var body []byte
	count := uint64(0)
	for i := 0; i < len(segments); count++ {
		first, last := i, i
		for i++; i < len(segments) && segments[i].at <= segments[last].end()+dataGap; i++ {
			if segments[i].at < segments[last].end() {
				return wasm
			}
			last = i
		}
		body = appendI32Const(append(body, 0), uint32(segments[first].at))
		body = binary.AppendUvarint(append(body, 0x0b), segments[last].end()-segments[first].at)
		for j := first; j <= last; j++ {
			if j > first {
				body = append(body, make([]byte, segments[j].at-segments[j-1].end())...)
			}
			body = append(body, segments[j].data...)
		}
	}
	return replaceSection(wasm, dataSection, append(binary.AppendUvarint(nil, count), body...))
}

// constantData reads a data section of which each segment has its place from the
// beginning, and says whether it is one.
func constantData(in wasmReader) (segments []dataSegment, ok bool) {
	for range in.uint() {
		if in.uint() != 0 || in.byte() != 0x41 { // in memory 0, i32.const
			return nil, false
		}
		at := uint32(in.int())
		if in.byte() != 0x0b { // end
			return nil, false
		}
		segments = append(segments, dataSegment{uint64(at), in.bytes(in.uint())})
	}
	return segments, true
}

// replaceSection gives a section that a rewritten module has another body.
func replaceSection(wasm []byte, id byte, body []byte) []byte {
	out := append(make([]byte, 0, len(wasm)+len(body)), wasm[:8]...)
	in := wasmReader{wasm[8:]}
	for len(in.buf) > 0 {
		this := in.byte()
		is := in.bytes(in.uint())
		if this == id {
			is = body
		}
		out = binary.AppendUvarint(append(out, this), uint64(len(is)))
		out = append(out, is...)
	}
	return out
}

// appendI32Const appends the instruction.
func appendI32Const(b []byte, v uint32) []byte {
	n := int32(v)
	b = append(b, 0x41)
	for n < -0x40 || n > 0x3f {
		b = append(b, byte(n)&0x7f|0x80)
		n >>= 7
	}
	return append(b, byte(n)&0x7f)
}
