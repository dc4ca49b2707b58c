package runtime

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"time"
)

// compileLimit is how long the compiler may take. The largest modules take
// minutes on the smallest boxes.
const compileLimit = 15 * time.Minute

// Exit codes of a compiler.
const (
	compilerDone   = 0
	compilerFailed = 1 // try it otherwise
	compilerFault  = 3 // of the module; what is wrong with it is on stdout
)

// compile makes code of wasm, or finds it in the cache. What is to be made, a
// compiler makes, if there is one. h.compiling is held.
func (h *Host) compile(ctx context.Context, digest string, wasm []byte) (*module, error) {
	if err := checkHeader(wasm); err != nil {
		return nil, err
	}
	began := time.Now()
	apart := h.needsCompiler(digest)
	if apart {
		if err := h.compileApart(ctx, digest, wasm); err != nil {
			return nil, err
		}
	}
	m, err := h.cache.compile(ctx, digest, wasm)
	if err != nil {
		return nil, err
	}
	if apart || !m.fromCache {
		debug.FreeOSMemory() // what it took, tens of megabytes, is not needed again; new modules are rare
	}
	h.log.Debug("module compiled", "digest", digest[:16], "bytes", len(wasm), "here", !m.fromCache, "took", time.Since(began))
	return m, nil
}

// compileApart has the compiler put code of wasm into the cache. If it cannot,
// for a reason that is not the module's, this process is left to do it.
func (h *Host) compileApart(ctx context.Context, digest string, wasm []byte) error {
	defer h.cache.prune(filepath.Join(h.cache.dir, digest)) // also of what one left that was killed
	limited, cancel := context.WithTimeout(ctx, compileLimit)
	defer cancel()
	var out, errOut bytes.Buffer
	cmd := exec.CommandContext(limited, h.compiler[0], append(slices.Clone(h.compiler[1:]), h.cache.dir)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(wasm), &out, &errOut
	cmd.Env = []string{"GOMAXPROCS=1"} // the other cores have other work
	cmd.WaitDelay = 5 * time.Second
	apart(cmd)
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case limited.Err() != nil:
		return faultf("compiling takes longer than %v", compileLimit)
	case errors.As(err, &exit) && exit.ExitCode() == compilerFault:
		return faultf("%s", cleanText(bytes.TrimSpace(out.Bytes())))
	case errors.As(err, &exit) && !exit.Exited():
		// Here it would take the box with it.
		return fmt.Errorf("%w (%w): its %d bytes may take thirty times as much, and more; give the box more memory, or make the module smaller, as TinyGo or wasm-opt do", ErrCompilerKilled, err, len(wasm))
	default:
		h.log.Warn("the compiler does not run, its work is done here", "err", err, "output", cleanText(errOut.Bytes()))
		return nil
	}
}

// Compile is what Options.Compiler runs: it reads a module from in and puts its
// code into the cache in dir. It returns the exit code of the process, and writes
// to out why it is not 0. The process lets all others go first, and is the first to
// be ended where memory is short.
func Compile(ctx context.Context, dir string, in io.Reader, out io.Writer) (code int) {
	yieldMemory()
	yieldProcessor()
	wasm, err := io.ReadAll(io.LimitReader(in, MaxModuleBytes+1))
	if err != nil {
		fmt.Fprintln(out, err)
		return compilerFailed
	}
	cache := newCodeCache(dir, 0, slog.New(slog.DiscardHandler))
	cache.keep = true
	if cache.fault != nil || cache.dir == "" {
		fmt.Fprintln(out, "no compilation cache:", cache.fault)
		return compilerFailed
	}
	err = checkHeader(wasm)
	if err == nil {
		var m *module
		if m, err = cache.compile(ctx, digestOf(wasm), wasm); err == nil {
			err = m.close(ctx)
		}
	}
	switch {
	case err == nil:
		return compilerDone
	case errors.Is(err, ErrModule):
		code = compilerFault
	default:
		code = compilerFailed
	}
	fmt.Fprintln(out, err)
	return code
}
