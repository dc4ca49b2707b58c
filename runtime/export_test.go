package runtime

import "github.com/tetratelabs/wazero/api"

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
