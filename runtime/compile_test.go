package runtime_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"

	"github.com/edged-io/edged/runtime"
)

// compiler is this program; see TestMain.
func compiler(t *testing.T) []string {
	t.Helper()
	name, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return []string{name, "compile"}
}

func TestCompile_cache_byAnotherProcess(t *testing.T) {
	dir := t.TempDir()
	var j journal
	h := newHost(t, runtime.Options{CacheDir: dir, Compiler: compiler(t), Logger: slog.New(slog.NewTextHandler(&j, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	load(t, h, callModule(num(1), nil), runtime.Limits{})
	a := load(t, h, echoModule(), runtime.Limits{})
	if out, err := a.Call(t.Context(), "Echo", []byte("x")); err != nil || string(out) != "x" {
		t.Errorf("got %q, %v", out, err)
	}
	if log := j.String(); !strings.Contains(log, "here=false") || strings.Contains(log, "WARN") {
		t.Errorf("log %s", log)
	}
	if files := compiled(t, dir); len(files) != 2 {
		t.Errorf("files %q", files)
	}
}

// What is wrong with a module is told in the same words.
func TestCompile_cache_moduleFaults(t *testing.T) {
	for name, wasm := range map[string][]byte{
		"import":   callModule(num(1), func(a *assembler) { a.use("env", "nope", 0, 0) }),
		"type":     callModule(drop, nil),
		"cut":      echoModule()[:50],
		"no guest": (&assembler{}).bytes(),
	} {
		_, here := newHost(t, runtime.Options{CacheDir: none}).Load(t.Context(), "lab/guest", wasm, runtime.Limits{})
		_, apart := newHost(t, runtime.Options{CacheDir: t.TempDir(), Compiler: compiler(t)}).Load(t.Context(), "lab/guest", wasm, runtime.Limits{})
		if !errors.Is(here, runtime.ErrModule) || !errors.Is(apart, runtime.ErrModule) || here.Error() != apart.Error() {
			t.Errorf("%s: here %v, apart %v", name, here, apart)
		}
	}
}

// A compiler that does not run leaves the work to the host.
func TestCompile_cache_compilerMissing(t *testing.T) {
	for _, command := range [][]string{{"/nonexistent"}, {"false"}} {
		var j journal
		h := newHost(t, runtime.Options{CacheDir: t.TempDir(), Compiler: command, Logger: j.logger()})
		load(t, h, echoModule(), runtime.Limits{})
		if !strings.Contains(j.String(), "the compiler does not run") {
			t.Errorf("%q: log %s", command, j.String())
		}
	}
}

// One that was killed, for its memory, is not followed by the host itself, and leaves
// nothing.
func TestCompile_cache_compilerKilled(t *testing.T) {
	dir := t.TempDir()
	h := newHost(t, runtime.Options{CacheDir: dir, Compiler: []string{"sh", "-c", `mkdir "$0/new-1"; kill -9 $$`}})
	_, err := h.Load(t.Context(), "lab/guest", echoModule(), runtime.Limits{})
	if !errors.Is(err, runtime.ErrCompilerKilled) || errors.Is(err, runtime.ErrModule) {
		t.Errorf("got %v", err)
	}
	if text := fmt.Sprint(err); !strings.Contains(text, "signal: killed") || !strings.Contains(text, "more memory") || !strings.Contains(text, fmt.Sprint(len(echoModule()), " bytes")) {
		t.Errorf("got %v", err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// A load that is given up ends its compiler.
func TestCompile_cache_cancelled(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	given := errors.New("given up")
	h := newHost(t, runtime.Options{CacheDir: t.TempDir(), Compiler: []string{"sh", "-c", "exec sleep 1000"}})
	done := make(chan error)
	go func() {
		_, err := h.Load(ctx, "lab/guest", echoModule(), runtime.Limits{})
		done <- err
	}()
	cancel(given)
	if err := <-done; !errors.Is(err, given) {
		t.Errorf("got %v", err)
	}
}
