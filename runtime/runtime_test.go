package runtime_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/edged-io/edged/internal/goguest"
	"github.com/edged-io/edged/internal/logbuffer"
	"github.com/edged-io/edged/runtime"
)

// goGuest is testdata/guest, built once for all tests.
var goGuest = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "edged-guest-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "guest.wasm")
	if err := goguest.Build(out, "./testdata/guest"); err != nil {
		return nil, err
	}
	return os.ReadFile(out)
})

func guest(t testing.TB) []byte {
	t.Helper()
	b, err := goGuest()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// codeDir keeps compiled guests for all tests of this process.
var codeDir string

func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "compile" { // as the compiler of a test
		os.Exit(runtime.Compile(context.Background(), os.Args[2], os.Stdin, os.Stdout))
	}
	// test/engines runs these tests once more that way.
	if os.Getenv("EDGED_TEST_INTERPRETER") != "" {
		runtime.Interpret()
	}
	// Beside this program is where go test cleans up, also after a test that was ended.
	name, err := os.Executable()
	if err == nil {
		codeDir, err = os.MkdirTemp(filepath.Dir(name), "edged-code-")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(codeDir)
	os.Exit(code)
}

// A journal collects log lines.
type journal struct{ logbuffer.Buffer }

func (j *journal) logger() *slog.Logger { return slog.New(slog.NewTextHandler(j, nil)) }

func noHost(context.Context, string, string, string, string, []byte) ([]byte, error) {
	return nil, errors.New("nobody is there")
}

// none for Options.CacheDir stands for no cache.
const none = "none"

func newHost(t testing.TB, o runtime.Options) *runtime.Host {
	t.Helper()
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Call == nil {
		o.Call = noHost
	}
	switch o.CacheDir {
	case "":
		o.CacheDir = codeDir
	case none:
		o.CacheDir = ""
	}
	h, err := runtime.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return h
}

func load(t testing.TB, h *runtime.Host, wasm []byte, l runtime.Limits) *runtime.Actor {
	t.Helper()
	a, err := h.Load(t.Context(), "lab/guest", wasm, l)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// A guest error counts even when the guest returns 1, and one that gives no
// error text has failed all the same.
// A failed host call is exactly 0 and a good one exactly 1.
func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			t.Fatal("it did not happen within 30 s")
		case <-tick.C:
		}
	}
}
