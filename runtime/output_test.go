package runtime

import (
	"bytes"
	"testing"
)

// The end of what a guest says is kept in one place, however much it says.
func TestLineWriter_keep(t *testing.T) {
	var w lineWriter
	var all []byte
	say := func() {
		for _, n := range []int{1, 0, 700, maxOutputBytes - 1, maxOutputBytes, 2*maxOutputBytes + 3, 5} {
			p := bytes.Repeat([]byte{byte('a' + len(all)%26)}, n)
			all = append(all, p...)
			w.keep(p)
			if want := all[max(0, len(all)-maxOutputBytes):]; !bytes.Equal(w.tail, want) {
				t.Fatalf("%d bytes later: %d bytes are kept, want the last %d", len(all), len(w.tail), len(want))
			}
		}
	}
	say()
	say()
	line := make([]byte, maxLineBytes)
	if n := testing.AllocsPerRun(100, func() { w.keep(line); w.keep(line[:1]) }); n > 0 {
		t.Errorf("%v allocations for two lines", n)
	}
}
