package runtime

import "encoding/binary"

// startExport is the name by which a module's start function is called.
const startExport = "edged:start"

// exportStart turns the start function of a rewritten module into an export, to
// be called like the other initialisers, as the first of them: the engine would
// run it on a call stack that nobody can look at.
func exportStart(wasm []byte) []byte {
	const exportSection, startSection = 7, 8
	start := section(wasm, startSection)
	if start.buf == nil {
		return wasm
	}
	entry := append(binary.AppendUvarint(nil, uint64(len(startExport))), startExport...)
	entry = binary.AppendUvarint(append(entry, 0), start.uint())
	out := append(make([]byte, 0, len(wasm)+len(entry)+16), wasm[:8]...)
	in := wasmReader{wasm[8:]}
	for len(in.buf) > 0 {
		id := in.byte()
		body := wasmReader{in.bytes(in.uint())}
		switch id {
		case startSection:
			continue
		case exportSection: // there is one: the counter of steps is exported
			more := binary.AppendUvarint(nil, body.uint()+1)
			body.buf = append(append(more, body.buf...), entry...)
		}
		out = binary.AppendUvarint(append(out, id), uint64(len(body.buf)))
		out = append(out, body.buf...)
	}
	return out
}
