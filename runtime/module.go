package runtime

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/edged-io/edged/runtime/meter"
)

// A module is compiled code, shared by all actors that were made of the same
// code. It has an engine of its own, so that what it takes is given back when
// its last actor is closed.
type module struct {
	digest       string
	refs         int // guarded by the host's mu
	runtime      wazero.Runtime
	cache        wazero.CompilationCache // nil without a directory
	compiled     wazero.CompiledModule
	fromCache    bool     // nothing had to be compiled
	initialisers []string // to call in each new instance, in this order
	leastMemory  uint64   // bytes that an instance begins with
	tables       uint64   // bytes that the tables of an instance may grow to
}

// initialisers that a module may have, in the order of waPC hosts.
var initialisers = []string{startExport, "_start", "_initialize", "start", "wapc_init"}

// digestOf names the code that is made of a module: its bytes, without the custom
// sections that the rewriter drops, which are all but the names of functions. So a
// module that was signed anew is not compiled anew.
func digestOf(wasm []byte) string {
	const header = 8
	sum := sha256.New()
	start := min(header, len(wasm))
	sum.Write(wasm[:start])
	for rest := wasm[start:]; len(rest) > 0; {
		size, n := binary.Uvarint(rest[1:])
		if n <= 0 || size > uint64(len(rest)-1-n) {
			sum.Write(rest) // no section; the rewriter says so
			break
		}
		end := 1 + n + int(size)
		if rest[0] != 0 || customName(rest[1+n:end]) == "name" {
			sum.Write(rest[:end])
		}
		rest = rest[end:]
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// customName is the name of a custom section; that of one which counts where it has none.
func customName(section []byte) string {
	size, n := binary.Uvarint(section)
	if n <= 0 || size > uint64(len(section)-n) {
		return "name" // malformed: it is not to pass for a module without it
	}
	return string(section[n : n+int(size)])
}

// rewrite makes a module count its steps, leaves its start function to us, and
// has it begin with few data segments.
func rewrite(wasm []byte) ([]byte, error) {
	metered, err := meter.Rewrite(wasm)
	if err != nil {
		return nil, faultf("invalid module: %v", err)
	}
	return mergeData(exportStart(metered)), nil
}

// newModule compiles wasm in a new engine, with cache where it is not nil. The
// engine belongs to the module; the cache too.
func newModule(ctx context.Context, digest string, wasm []byte, cache wazero.CompilationCache) (*module, error) {
	return newModuleIn(ctx, engineConfig(), digest, wasm, cache)
}

func newModuleIn(ctx context.Context, config wazero.RuntimeConfig, digest string, wasm []byte, cache wazero.CompilationCache) (m *module, err error) {
	config = config.WithDebugInfoEnabled(false)
	if cache != nil {
		config = config.WithCompilationCache(cache)
	}
	m = &module{digest: digest, cache: cache, runtime: wazero.NewRuntimeWithConfig(ctx, config)}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.close(ctx))
			m = nil
		}
	}()
	if m.compiled, err = compileForeign(ctx, m.runtime, wasm); err != nil {
		if cache != nil { // it may be the cache's fault: only without one the module is known to be bad
			return m, err
		}
		return m, faultf("invalid module: %v", err)
	}
	provided, err := instantiateABI(ctx, m.runtime, m.compiled)
	if err != nil {
		return m, err
	}
	if err := checkImports(wasm, m.compiled, provided); err != nil {
		return m, err
	}
	if m.initialisers, err = checkExports(m.compiled); err != nil {
		return m, err
	}
	m.tables = tableBytes(wasm)
	m.leastMemory = uint64(m.compiled.ExportedMemories()["memory"].Min()) << 16
	return m, nil
}

// compileForeign keeps a fault of the compiler, met with bytes from outside,
// from ending the daemon.
func compileForeign(ctx context.Context, rt wazero.Runtime, wasm []byte) (c wazero.CompiledModule, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the compiler failed: %v", r)
		}
	}()
	return rt.CompileModule(ctx, wasm)
}

// instanceConfig gives the module no name, so that there can be many, and has
// the initialisers left to us. The engine's own source of random numbers, which
// nobody reads, would take half of the time of a small instance to seed.
var instanceConfig = wazero.NewModuleConfig().WithName("").WithStartFunctions().WithRandSource(rand.Reader)

// instantiate keeps a fault of the engine from ending the daemon, as
// compileForeign does: with 32 bits, an element segment that begins close to the
// end of the numbers is one.
func (m *module) instantiate(ctx context.Context) (mod api.Module, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the engine failed: %v", r)
		}
	}()
	return m.runtime.InstantiateModule(ctx, m.compiled, instanceConfig)
}

func (m *module) close(ctx context.Context) error {
	err := m.runtime.Close(ctx)
	if m.cache != nil {
		err = errors.Join(err, m.cache.Close(ctx))
	}
	return err
}
