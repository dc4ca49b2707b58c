// Package numbergen is the built-in provider of wasmcloud:builtin:numbergen:
// random numbers and unique ids, from the generator of the kernel.
package numbergen

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"

	"github.com/edged-io/edged/lattice"
	"github.com/edged-io/edged/providers"
	"github.com/edged-io/edged/sdk/go/msgpack"
)

// Contract is the capability contract served here. Every actor may use it
// without a link.
const Contract = "wasmcloud:builtin:numbergen"

// Provider serves wasmcloud:builtin:numbergen.
type Provider struct{}

var _ providers.Provider = Provider{}

// Contract is wasmcloud:builtin:numbergen.
func (Provider) Contract() string { return Contract }

// PutLink has nothing to do: there are no values.
func (Provider) PutLink(context.Context, lattice.Link) error { return nil }

// DeleteLink has nothing to do.
func (Provider) DeleteLink(context.Context, lattice.Link) error { return nil }

// Call serves NumberGen.GenerateGuid, Random32 and RandomInRange, at once: a turn
// that runs again gets other numbers. What the first two are sent is not looked
// at, since they take nothing.
func (Provider) Call(_ context.Context, inv lattice.Invocation) ([]byte, error) {
	switch inv.Operation {
	case "NumberGen.GenerateGuid":
		return msgpack.AppendString(nil, guid()), nil
	case "NumberGen.Random32":
		return msgpack.AppendUint(nil, uint64(random32())), nil
	case "NumberGen.RandomInRange":
		return inRange(inv.Payload)
	}
	return nil, fail(fmt.Errorf("%.80q is no operation of %s", inv.Operation, Contract))
}

func fail(cause error) error { return providers.Fail("numbergen", providers.ErrFormat, cause) }

func random32() uint32 {
	var b [4]byte
	rand.Read(b[:]) // never fails
	return binary.LittleEndian.Uint32(b[:])
}

// guid returns a version 4 UUID (RFC 9562, 5.4).
func guid() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	h := hex.EncodeToString(b[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// inRange includes both ends, as classic hosts do.
func inRange(payload []byte) ([]byte, error) {
	var lo, hi int64
	d := providers.Decoder(payload)
	providers.Struct(d, []string{"min", "max"}, func(name string) {
		switch name {
		case "min":
			lo = d.IntIn(0, math.MaxUint32)
		case "max":
			hi = d.IntIn(0, math.MaxUint32)
		default:
			d.Skip()
		}
	})
	if err := d.Done(); err != nil {
		return nil, fail(fmt.Errorf("RandomInRange: %w", err))
	}
	if lo > hi {
		return nil, fail(fmt.Errorf("RandomInRange: min %d is above max %d", lo, hi))
	}
	return msgpack.AppendUint(nil, uint64(lo)+below(uint64(hi-lo)+1)), nil
}

// below returns a number below n, which is from 1 to 1<<32, all of them as likely
// as another: draws that would favour the small ones are thrown away.
func below(n uint64) uint64 {
	const all = 1 << 32
	for {
		if r := uint64(random32()); r < all-all%n {
			return r % n
		}
	}
}
