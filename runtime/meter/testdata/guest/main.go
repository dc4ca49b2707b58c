// Guest is what the benchmarks run with and without a step counter: loops,
// calls and allocations as a compiler makes them. They build it with
// GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared.
package main

import (
	"crypto/sha256"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
)

func main() {}

type reading struct {
	ID     int
	Name   string
	Values []float64
	Tags   map[string]string
}

//go:wasmexport sha256
func sum(n int32) (result int32) {
	data := make([]byte, 64<<10)
	for range n {
		s := sha256.Sum256(data)
		data[0] = s[0]
		result += int32(s[1])
	}
	return result
}

//go:wasmexport sort
func sort(n int32) (result int32) {
	values := make([]uint32, 10_000)
	for i := range n {
		x := uint32(i)
		for j := range values {
			x = x*1664525 + 1013904223
			values[j] = x
		}
		slices.Sort(values)
		result += int32(values[len(values)/2])
	}
	return result
}

//go:wasmexport json
func text(n int32) (result int32) {
	for range n {
		r := reading{7, "hello", []float64{1, 2.5, 3}, map[string]string{"a": "b", "c": "d"}}
		b, err := json.Marshal(r)
		if err == nil {
			err = json.Unmarshal(b, &r)
		}
		if err != nil {
			panic(err)
		}
		result += int32(len(b))
	}
	return result
}

//go:wasmexport map
func keys(n int32) int32 {
	m := map[string]int{}
	for i := range n {
		m["key"+strconv.Itoa(int(i)%1000)]++
	}
	return int32(len(m))
}

//go:wasmexport words
func words(n int32) (result int32) {
	s := strings.Repeat("the quick brown fox ", 1000)
	for range n {
		result += int32(len(strings.Fields(s)) + strings.Count(s, "fox"))
	}
	return result
}

//go:wasmexport sieve
func sieve(n int32) (result int32) {
	for range n {
		composite := make([]bool, 100_000)
		for i := 2; i < len(composite); i++ {
			if composite[i] {
				continue
			}
			result++
			for j := 2 * i; j < len(composite); j += i {
				composite[j] = true
			}
		}
	}
	return result
}

//go:wasmexport fib
func fib(n int32) int32 {
	if n < 2 {
		return n
	}
	return fib(n-1) + fib(n-2)
}
