package meter_test

import (
	"errors"
	"testing"

	"github.com/edged-io/edged/runtime/meter"
)

// A module that ends early is malformed, wherever it ends; but for the ends of
// its sections, and there the engine misses what is not there.
func TestRewrite_truncated(t *testing.T) {
	for seed := range uint64(5) {
		wasm, _ := randomModule(seed)
		whole := 0
		for n := range wasm {
			metered, err := meter.Rewrite(wasm[:n])
			switch {
			case err == nil && metered != nil:
				whole++
			case !errors.Is(err, meter.ErrMalformed):
				t.Fatalf("seed %d, %d of %d bytes: %v", seed, n, len(wasm), err)
			}
		}
		if whole > 13 {
			t.Errorf("seed %d: %d truncated modules were accepted, more than there are sections", seed, whole)
		}
	}
}
