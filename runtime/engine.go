package runtime

import (
	goruntime "runtime"

	"github.com/tetratelabs/wazero"
)

// interpreted says that guests run in wazero's interpreter, which is all there
// is on machines that its compiler does not know: on ARM v7 guests do the same,
// thirty to seventy times slower. There is nothing to keep in a cache, and calls
// within a guest nest 2000 deep at most. Tests switch it on elsewhere.
var interpreted = goruntime.GOARCH != "amd64" && goruntime.GOARCH != "arm64"

func engineConfig() wazero.RuntimeConfig {
	if interpreted {
		return wazero.NewRuntimeConfigInterpreter()
	}
	return wazero.NewRuntimeConfig()
}
