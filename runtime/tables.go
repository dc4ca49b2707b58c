package runtime

import "encoding/binary"

const (
	maxTables       = 16
	maxTableEntries = 1 << 17 // of one table; the largest language runtimes have some 30,000
)

const tableSection = 4

// limitTables gives every table of a module a maximum. The engine has tables on
// its own heap, outside of an actor's memory limit, and lets one grow to a
// gigabyte. Bytes that it cannot read it returns as they are: the engine will
// not be able to read them either.
func limitTables(wasm []byte) ([]byte, error) {
	const header = 8
	at := header
	for at < len(wasm) {
		id := wasm[at]
		size, n := uleb32(wasm[at+1:])
		body := at + 1 + n
		if n == 0 || size > len(wasm)-body {
			return wasm, nil
		}
		if id != tableSection {
			at = body + size
			continue
		}
		limited, err := limitSection(wasm[body : body+size])
		if err != nil || limited == nil {
			return wasm, err
		}
		out := append([]byte{}, wasm[:at+1]...)
		out = binary.AppendUvarint(out, uint64(len(limited)))
		out = append(out, limited...)
		return append(out, wasm[body+size:]...), nil // there is one such section
	}
	return wasm, nil
}

// limitSection rewrites the body of a table section; nil if it makes no sense.
func limitSection(body []byte) ([]byte, error) {
	count, n := uleb32(body)
	if n == 0 {
		return nil, nil
	}
	if count > maxTables {
		return nil, faultf("the module has %d tables, the limit is %d", count, maxTables)
	}
	out := binary.AppendUvarint(nil, uint64(count))
	body = body[n:]
	for range count {
		if len(body) < 3 || body[1] > 1 { // type, and whether there is a maximum
			return nil, nil
		}
		kind, bounded := body[0], body[1] == 1
		body = body[2:]
		least, n := uleb32(body)
		if n == 0 {
			return nil, nil
		}
		body = body[n:]
		most := maxTableEntries
		if bounded {
			declared, n := uleb32(body)
			if n == 0 || declared < least {
				return nil, nil
			}
			most = min(most, declared)
			body = body[n:]
		}
		if least > maxTableEntries {
			return nil, faultf("the module has a table of %d entries, the limit is %d", least, maxTableEntries)
		}
		out = binary.AppendUvarint(append(out, kind, 1), uint64(least))
		out = binary.AppendUvarint(out, uint64(most))
	}
	if len(body) > 0 {
		return nil, nil
	}
	return out, nil
}

// uleb32 reads an unsigned LEB128 number of 32 bits; n is 0 if there is none.
func uleb32(b []byte) (v, n int) {
	u, n := binary.Uvarint(b[:min(len(b), 5)])
	if n <= 0 || u > 1<<32-1 || uint64(int(u)) != u || int(u) < 0 {
		return 0, 0
	}
	return int(u), n
}
