package main

import "encoding/binary"

// actorModule returns a WebAssembly module of about 100 KB, nearly all of it code, as a stripped actor in Rust or C is. It keeps
// the guest ABI: __guest_call takes whatever comes, works a little, and answers with nothing.
func actorModule() []byte {
	const functions = 300 // of about 340 bytes each
	i32, void := []byte{0x7f}, []byte{}
	funcType := func(params int, results []byte) []byte {
		t := []byte{0x60, byte(params)}
		for range params {
			t = append(t, i32...)
		}
		return append(append(t, byte(len(results))), results...)
	}
	types := [][]byte{funcType(2, i32), funcType(2, void), funcType(1, i32)}
	imports := [][]byte{append(append(name("wasmbus"), name("__guest_response")...), 0x00, 1)}
	decls := [][]byte{{0}}                              // __guest_call
	code := [][]byte{body(0x41, 0, 0x41, 0, 0x10, 0x00, // __guest_response(0, 0)
		0x20, 0, 0x10, 0x02, 0x1a, 0x41, 1)} // drop(work(param 0)); return 1
	for i := range functions {
		decls = append(decls, []byte{2})
		var ops []byte
		for j := range 24 {
			// x = (x * constant) ^ (x >> 7)
			ops = append(ops, 0x20, 0, 0x41)
			ops = append(ops, signed(int32(64+(i*24+j)%8000))...)
			ops = append(ops, 0x6c, 0x20, 0, 0x41, 7, 0x76, 0x73, 0x21, 0)
		}
		code = append(code, body(append(ops, 0x20, 0)...))
	}
	m := []byte("\x00asm\x01\x00\x00\x00")
	m = append(m, section(1, types)...)
	m = append(m, section(2, imports)...)
	m = append(m, section(3, decls)...)
	m = append(m, section(5, [][]byte{{0x00, 17}})...) // 17 pages of memory, what Rust asks for
	m = append(m, section(7, [][]byte{
		append(name("memory"), 0x02, 0),
		append(name("__guest_call"), 0x00, 1),
	})...)
	return append(m, section(10, code)...)
}

// section encodes a vector of items as section id.
func section(id byte, items [][]byte) []byte {
	b := unsigned(len(items))
	for _, item := range items {
		b = append(b, item...)
	}
	return append(append([]byte{id}, unsigned(len(b))...), b...)
}

// body encodes a function without locals of its own.
func body(ops ...byte) []byte {
	b := append(append([]byte{0}, ops...), 0x0b)
	return append(unsigned(len(b)), b...)
}

func name(s string) []byte { return append(unsigned(len(s)), s...) }

func unsigned(n int) []byte { return binary.AppendUvarint(nil, uint64(n)) }

// signed is LEB128 with a sign, which encoding/binary does not have.
func signed(n int32) (b []byte) {
	for {
		c := byte(n & 0x7f)
		n >>= 7
		if n == 0 && c&0x40 == 0 || n == -1 && c&0x40 != 0 {
			return append(b, c)
		}
		b = append(b, c|0x80)
	}
}
