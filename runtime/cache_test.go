package runtime_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/edged-io/edged/runtime"
)

// compiled lists the files with code below a cache directory.
func compiled(t *testing.T, dir string) (files []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*", "wazero-*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestHost_cache_hitOnSecondLoad(t *testing.T) {
	dir := t.TempDir()
	var first os.FileInfo
	for i := range 2 {
		var j journal
		h := newHost(t, runtime.Options{CacheDir: dir, Logger: j.logger()})
		load(t, h, echoModule(), runtime.Limits{})
		files := compiled(t, dir)
		if len(files) != 1 || j.String() != "" {
			t.Fatalf("load %d: files %q, log %s", i, files, j.String())
		}
		info, err := os.Stat(files[0])
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			first = info
		} else if !os.SameFile(first, info) || !info.ModTime().Equal(first.ModTime()) {
			t.Error("the code was compiled again")
		}
	}
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode %v, %v, want 0700", info.Mode(), err)
	}
}

// A flipped bit anywhere in an entry, a file too many, a file too few: the
// module is compiled anew and runs.
func TestHost_cache_damaged(t *testing.T) {
	dir := t.TempDir()
	load(t, newHost(t, runtime.Options{CacheDir: dir}), echoModule(), runtime.Limits{})
	code := compiled(t, dir)[0]
	good, err := os.ReadFile(code)
	if err != nil {
		t.Fatal(err)
	}
	sum := filepath.Join(filepath.Dir(filepath.Dir(code)), "sum")
	damages := map[string]func() error{
		"file too many": func() error { return os.WriteFile(code+".tmp", good, 0o600) },
		"no file":       func() error { return os.Remove(code) },
		"half a file":   func() error { return os.WriteFile(code, good[:len(good)/2], 0o600) },
		"no sum":        func() error { return os.Remove(sum) },
		"bad sum":       func() error { return os.WriteFile(sum, []byte("x"), 0o600) },
	}
	for _, at := range []int{0, 20, len(good) / 2, len(good) - 1} {
		damages["flipped bit at "+string(rune('0'+len(damages)))] = func() error {
			bad := append([]byte{}, good...)
			bad[at] ^= 4
			return os.WriteFile(code, bad, 0o600)
		}
	}
	for name, damage := range damages {
		if err := damage(); err != nil {
			t.Fatal(err)
		}
		var j journal
		a := load(t, newHost(t, runtime.Options{CacheDir: dir, Logger: j.logger()}), echoModule(), runtime.Limits{})
		if out, err := a.Call(t.Context(), "Echo", []byte("x")); err != nil || string(out) != "x" {
			t.Errorf("%s: got %q, %v", name, out, err)
		}
		if !strings.Contains(j.String(), "damaged entry") {
			t.Errorf("%s: log %s", name, j.String())
		}
		if now, err := os.ReadFile(code); err != nil || string(now) != string(good) {
			t.Errorf("%s: the entry was not written again: %v", name, err)
		}
	}
}

// An entry that cannot be written keeps nothing from running.
func TestHost_cache_unusable(t *testing.T) {
	dir := t.TempDir()
	load(t, newHost(t, runtime.Options{CacheDir: dir}), echoModule(), runtime.Limits{})
	entry := filepath.Dir(filepath.Dir(compiled(t, dir)[0]))
	h := newHost(t, runtime.Options{CacheDir: dir})
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	a := load(t, h, echoModule(), runtime.Limits{})
	if out, err := a.Call(t.Context(), "Echo", []byte("x")); err != nil || string(out) != "x" {
		t.Errorf("%s: got %q, %v", entry, out, err)
	}
}

func TestNew_cacheMode(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	newHost(t, runtime.Options{CacheDir: dir})
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode %v, %v, want 0700", info.Mode(), err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := runtime.New(runtime.Options{CacheDir: file, Logger: (&journal{}).logger(), Call: noHost}); err == nil || !strings.Contains(err.Error(), "compilation cache") {
		t.Errorf("got %v", err)
	}
}

func TestHost_cache_isPruned(t *testing.T) {
	dir := t.TempDir()
	h := newHost(t, runtime.Options{CacheDir: dir, MaxCacheBytes: 1})
	long := time.Now().Add(-time.Hour)
	load(t, h, echoModule(), runtime.Limits{})
	first := filepath.Dir(filepath.Dir(compiled(t, dir)[0]))
	if err := os.Chtimes(first, long, long); err != nil {
		t.Fatal(err)
	}
	load(t, h, callModule(num(1), nil), runtime.Limits{})
	if files := compiled(t, dir); len(files) != 1 || strings.HasPrefix(files[0], first) {
		t.Errorf("left: %q, want the second module's only", files)
	}
}

// Interpreted guests leave no code behind, and are the same guests.
func TestHost_cache_interpreter(t *testing.T) {
	defer runtime.Interpret()()
	dir := filepath.Join(t.TempDir(), "cache")
	a := load(t, newHost(t, runtime.Options{CacheDir: dir}), echoModule(), runtime.Limits{})
	if out, err := a.Call(t.Context(), "Echo", []byte("x")); err != nil || string(out) != "x" {
		t.Errorf("got %q, %v", out, err)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the cache directory: %v, want none", err)
	}
}
