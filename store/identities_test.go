package store

import (
	"testing"

	"pgregory.net/rapid"
)

// Identities are found as in a map, whatever is added, forgotten at either end, or there
// twice, and while they grow.
func TestIdentities(t *testing.T) {
	const hashes = 300
	hash := func(n int) idHash { return idHash{byte(n), byte(n >> 8)} }
	rapid.Check(t, func(t *rapid.T) {
		var d identities
		var order []idEntry
		begins, seq := 0, uint64(0)    // what was forgotten of order, and the last sequence
		newest := make(map[idHash]int) // in order
		forget := func(i int) {
			if newest[order[i].hash] == i {
				delete(newest, order[i].hash)
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				for _, n := range rapid.SliceOfN(rapid.IntRange(0, hashes-1), 1, 100).Draw(t, "hashes") {
					seq += rapid.Uint64Range(0, 1).Draw(t, "step")
					d.add(hash(n), seq)
					newest[hash(n)] = len(order)
					order = append(order, idEntry{seq, hash(n)})
				}
			},
			"forget the oldest": func(t *rapid.T) {
				n := rapid.IntRange(0, len(order)-begins).Draw(t, "n")
				d.forgetOldest(n)
				for ; n > 0; n-- {
					forget(begins)
					begins++
				}
			},
			"forget beyond": func(t *rapid.T) {
				last := rapid.Uint64Range(0, seq).Draw(t, "last")
				d.forgetBeyond(last)
				for len(order) > begins && order[len(order)-1].seq > last {
					forget(len(order) - 1)
					order = order[:len(order)-1]
				}
			},
			"": func(t *rapid.T) {
				if d.len() != len(order)-begins {
					t.Fatalf("there are %d, want %d", d.len(), len(order)-begins)
				}
				for i, e := range d.oldest(d.len()) {
					if e != order[begins+i] {
						t.Fatalf("%d is %v, want %v", i, e, order[begins+i])
					}
				}
				for n := range hashes {
					got, ok := d.find(hash(n))
					i, want := newest[hash(n)]
					if ok != want || ok && got != order[i].seq {
						t.Fatalf("hash %d: got %d, %v, want it %v", n, got, ok, want)
					}
				}
			},
		})
	})
}
