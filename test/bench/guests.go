package main

import (
	"encoding/binary"
	"slices"
)

// The guests are put together here, byte by byte, so that nobody needs a compiler for WebAssembly, and so that all hosts get the
// same bytes.

// echoModule answers every operation with its payload, by the waPC ABI that edged, wapc-go and wasmCloud share.
func echoModule() []byte { return wapcModule(0, 2, 0) }

// actorModule is an echo of about 100 KB, nearly all of it code, as a stripped actor in Rust is. As such an actor it asks for 17
// pages of memory, of which it uses the last, below which is its stack, and one more when it starts.
func actorModule() []byte { return wapcModule(1<<20, 17, 290) }

// wapcModule imports from "wapc", the one namespace that all hosts know. It has its buffers at base of so many pages, and that
// many functions of about 350 bytes each, one of which a call runs.
func wapcModule(base int32, pages, functions int) []byte {
	const i32 = 0x7f
	request := slices.Concat(number32(base+16), number32(base+4096))
	echo := slices.Concat(request, []byte{0x10, 0}, // __guest_request(base+16, base+4096)
		number32(base+4096), []byte{0x20, 1, 0x10, 1}) // __guest_response(base+4096, length of the payload)
	exports := [][]byte{append(name("memory"), 0x02, 0), append(name("__guest_call"), 0x00, 2)}
	decls := [][]byte{{0}}
	var code [][]byte
	if functions > 0 {
		echo = append(echo, 0x20, 0, 0x10, 4, 0x1a) // drop(the first of them (param 0))
	}
	code = append(code, body(append(echo, 0x41, 1)...))
	if functions > 0 {
		decls = append(decls, []byte{3})
		exports = append(exports, append(name("wapc_init"), 0x00, 3))
		code = append(code, body(0x41, 1, 0x40, 0, 0x1a)) // drop(memory.grow(1))
	}
	for i := range functions {
		var ops []byte
		for j := range 10 {
			// if x & bit == 0 { x = (x * constant) ^ (x >> 7); word at base + (x & 0xff8) = x }
			ops = append(ops, 0x02, 0x40, 0x20, 0, 0x41, 1<<(j%6), 0x71, 0x0d, 0, 0x20, 0)
			ops = append(ops, number32(int32(64+(i*24+j)%8000))...)
			ops = append(ops, 0x6c, 0x20, 0, 0x41, 7, 0x76, 0x73, 0x22, 0)
			ops = append(append(append(ops, number32(0xff8)...), 0x71, 0x20, 0, 0x36, 2), unsigned(int(base))...)
			ops = append(ops, 0x0b)
		}
		decls, code = append(decls, []byte{2}), append(code, body(append(ops, 0x20, 0)...))
	}
	return slices.Concat([]byte("\x00asm\x01\x00\x00\x00"),
		section(1, funcType([]byte{i32, i32}, []byte{i32}), funcType([]byte{i32, i32}, nil), funcType([]byte{i32}, []byte{i32}), funcType(nil, nil)),
		section(2, slices.Concat(name("wapc"), name("__guest_request"), []byte{0, 1}),
			slices.Concat(name("wapc"), name("__guest_response"), []byte{0, 1})),
		section(3, decls...),
		section(5, append([]byte{0x00}, unsigned(pages)...)),
		section(7, exports...),
		section(10, code...))
}

// extismModule is the echo for Extism's own ABI: its answer is the input where it lies, which is the cheapest echo there is.
func extismModule() []byte {
	const i32, i64 = 0x7f, 0x7e
	env := name("extism:host/env")
	return slices.Concat([]byte("\x00asm\x01\x00\x00\x00"),
		section(1, funcType(nil, []byte{i64}), funcType([]byte{i64, i64}, nil), funcType(nil, []byte{i32})),
		section(2, slices.Concat(env, name("input_offset"), []byte{0, 0}),
			slices.Concat(env, name("input_length"), []byte{0, 0}),
			slices.Concat(env, name("output_set"), []byte{0, 1})),
		section(3, []byte{2}),
		section(5, []byte{0, 2}),
		section(7, append(name("memory"), 0x02, 0), append(name("echo"), 0x00, 3)),
		section(10, body(0x10, 0, 0x10, 1, 0x10, 2, 0x41, 0)))
}

func funcType(params, results []byte) []byte {
	return slices.Concat([]byte{0x60}, unsigned(len(params)), params, unsigned(len(results)), results)
}

// section encodes a vector of items as section id.
func section(id byte, items ...[]byte) []byte {
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

// number32 pushes a constant.
func number32(n int32) []byte { return append([]byte{0x41}, signed(n)...) }

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
