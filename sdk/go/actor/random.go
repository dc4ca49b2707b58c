package actor

import (
	"math"

	"github.com/edged-io/edged/sdk/go/msgpack"
)

// Random are random numbers and unique ids of the box, fit for keys and secrets
// (wasmcloud:builtin:numbergen). A handler that runs again gets others; what has
// to be the same then is derived from what it handles.
var Random RandomSource

// RandomSource is where they come from.
type RandomSource struct{}

const numberGen = "wasmcloud:builtin:numbergen"

// GUID returns a random UUID, such as "2d3ff1cd-26a0-4d3f-a4b4-1c22ff1d6d4d".
func (RandomSource) GUID() (string, error) {
	response, err := Call(numberGen, "NumberGen.GenerateGuid", nil)
	if err != nil {
		return "", err
	}
	d := msgpack.NewDecoder(response)
	id := d.Str()
	return id, d.Done()
}

// Uint32 returns any of the numbers of 32 bits.
func (RandomSource) Uint32() (uint32, error) {
	return number(Call(numberGen, "NumberGen.Random32", nil))
}

// InRange returns a number from lowest to highest, both included.
func (RandomSource) InRange(lowest, highest uint32) (uint32, error) {
	b := msgpack.AppendMapHeader(nil, 2)
	b = msgpack.AppendUint(msgpack.AppendString(b, "min"), uint64(lowest))
	b = msgpack.AppendUint(msgpack.AppendString(b, "max"), uint64(highest))
	return number(Call(numberGen, "NumberGen.RandomInRange", b))
}

func number(response []byte, err error) (uint32, error) {
	if err != nil {
		return 0, err
	}
	d := msgpack.NewDecoder(response)
	n := d.IntIn(0, math.MaxUint32)
	return uint32(n), d.Done()
}
