package runtime

import (
	"context"
	"errors"
	"time"

	"github.com/tetratelabs/wazero/api"
)

// Interpret has all hosts that are made from now on interpret their guests,
// until the function that it returns is called.
func Interpret() (restore func()) {
	before := interpreted
	interpreted = true
	return func() { interpreted = before }
}

// Interpreted says whether they do.
func Interpreted() bool { return interpreted }

// WASIFunction is the type of a function of WASI.
func WASIFunction(name string) (params, results []api.ValueType) {
	for _, f := range wasiHostFuncs() {
		if f.name == name {
			return f.params, f.results
		}
	}
	return nil, nil
}

// A HostFunction is one that guests may import: i and I in Params stand for i32
// and i64.
type HostFunction struct {
	Module, Name, Params string
	Results              int
}

// HostFunctions are all of them.
func HostFunctions() (all []HostFunction) {
	for _, module := range append([]string{wasiModule}, abiModules...) {
		for _, f := range hostFuncsOf(module) {
			params := ""
			for _, p := range f.params {
				params += map[api.ValueType]string{api.ValueTypeI32: "i", api.ValueTypeI64: "I"}[p]
			}
			all = append(all, HostFunction{module, f.name, params, len(f.results)})
		}
	}
	return all
}

// CallStackBytes is how large the call stack of an idle instance is.
func CallStackBytes(a *Actor) int {
	in := a.pool.take()
	defer a.pool.put(in)
	return in.stackBytes()
}

// LoadEntry loads from an entry of a cache that another process changes in
// between, when it has been found to be whole, and says whether it has loaded.
func LoadEntry(ctx context.Context, entry string, wasm []byte, between func() error) (bool, error) {
	is, err := verifyEntry(entry)
	if err == nil {
		err = between()
	}
	if err != nil {
		return false, err
	}
	m, err := is.load(ctx, "", wasm)
	if m == nil {
		return false, err
	}
	return true, errors.Join(err, m.close(ctx))
}

// Charge has an actor have had a core for so long.
func Charge(a *Actor, d time.Duration) { a.host.fair.charge(&a.share, clock(), int64(d)) }

// Greedy is how many actors have had much.
func Greedy(h *Host) int {
	h.fair.mu.Lock()
	defer h.fair.mu.Unlock()
	return len(h.fair.greedy)
}

// ProgramFile is what a program is told from others by.
func ProgramFile(path string) (string, error) { return programFile(path) }
