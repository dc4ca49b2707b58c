package runtime_test

import (
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
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
		"others write":  func() error { return os.Chmod(code, 0o622) },
		"a link":        func() error { return errors.Join(os.Rename(code, code+"x"), os.Symlink(code+"x", code)) },
		"a pipe":        func() error { return errors.Join(os.Remove(sum), syscall.Mkfifo(sum, 0o600)) },
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

// Others may have read it; now they can not. It may be on another disk.
func TestHost_cache_mode(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cache")
	if err := os.Symlink(t.TempDir(), dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	h := newHost(t, runtime.Options{CacheDir: dir})
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 || h.CacheFault() != nil {
		t.Errorf("mode %v, %v, %v, want 0700", info.Mode(), err, h.CacheFault())
	}
}

// Where somebody else could have written, nothing is read and nothing written;
// the actors run.
func TestHost_cache_notOurs(t *testing.T) {
	for name, prepare := range map[string]func(dir string) error{
		"group can write": func(dir string) error { return errors.Join(os.Mkdir(dir, 0o700), os.Chmod(dir, 0o770)) },
		"all can write":   func(dir string) error { return errors.Join(os.Mkdir(dir, 0o700), os.Chmod(dir, 0o702)) },
		"a file":          func(dir string) error { return os.WriteFile(dir, nil, 0o600) },
		"a link to where all can write": func(dir string) error {
			return errors.Join(os.Mkdir(dir+"-open", 0o700), os.Chmod(dir+"-open", 0o777), os.Symlink(dir+"-open", dir))
		},
		"a link to nothing": func(dir string) error { return os.Symlink(dir+"-not", dir) },
		"somebody else's": func(dir string) error {
			if os.Geteuid() != 0 { // cannot give away what it owns
				return os.Symlink("/usr", dir)
			}
			return errors.Join(os.Mkdir(dir, 0o700), os.Chown(dir, 12345, 12345))
		},
	} {
		dir := filepath.Join(t.TempDir(), "cache")
		if err := prepare(dir); err != nil {
			t.Fatal(err)
		}
		var j journal
		h := newHost(t, runtime.Options{CacheDir: dir, Logger: j.logger()})
		if err := h.CacheFault(); err == nil || !strings.Contains(err.Error(), "compilation cache not used") || !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: fault %v", name, err)
		}
		if !strings.Contains(j.String(), "compilation cache not used") {
			t.Errorf("%s: log %s", name, j.String())
		}
		a := load(t, h, echoModule(), runtime.Limits{})
		if out, err := a.Call(t.Context(), "Echo", []byte("x")); err != nil || string(out) != "x" {
			t.Errorf("%s: got %q, %v", name, out, err)
		}
		if files := compiled(t, dir); len(files) > 0 {
			t.Errorf("%s: it wrote %q", name, files)
		}
	}
}

// What another program left is used if it would be the same, and goes if not. An
// outline without its code is never run.
func TestHost_cache_otherVersion(t *testing.T) {
	for name, c := range map[string]struct {
		change func(entry, outline, code string) error
		kept   bool // the code
	}{
		"of this program": {func(string, string, string) error { return nil }, true},
		"of another program": {func(_, outline, _ string) error {
			return os.Rename(outline, outline[:strings.LastIndexByte(outline, '-')]+"0.wasm")
		}, true},
		"of another rewriter": {func(entry, outline, _ string) error {
			return os.Rename(outline, filepath.Join(entry, "outline-00-1-1.wasm"))
		}, false},
		"of another engine": {func(entry, _, code string) error {
			return os.Rename(filepath.Dir(code), filepath.Join(entry, "wazero-v1.0.0-amd64-linux"))
		}, false},
		"of another processor": {func(_, _, code string) error { return os.Rename(code, code[:len(code)-2]+"00") }, false},
		"stale to the engine": {func(_, _, code string) error {
			return os.WriteFile(code, []byte("WAZEVO\x03old\x01\x00\x00\x00"), 0o600)
		}, false},
		"the code alone":    {func(_, outline, _ string) error { return os.Remove(outline) }, false},
		"the outline alone": {func(_, _, code string) error { return os.Remove(code) }, false},
		"a rewritten module, as once": {func(entry, outline, _ string) error {
			return os.Rename(outline, filepath.Join(entry, "metered-1-1.wasm"))
		}, false},
	} {
		dir := t.TempDir()
		load(t, newHost(t, runtime.Options{CacheDir: dir}), echoModule(), runtime.Limits{})
		code := compiled(t, dir)[0]
		entry := filepath.Dir(filepath.Dir(code))
		outlines, err := filepath.Glob(filepath.Join(entry, "outline-*"))
		if err != nil || len(outlines) != 1 {
			t.Fatalf("outlines %q, %v, want one", outlines, err)
		}
		good, err := os.ReadFile(code)
		if err != nil {
			t.Fatal(err)
		}
		was, err := os.Stat(code)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.change(entry, outlines[0], code); err != nil {
			t.Fatal(err)
		}
		reseal(t, entry)
		for range 2 {
			var j journal
			a := load(t, newHost(t, runtime.Options{CacheDir: dir, Logger: j.logger()}), echoModule(), runtime.Limits{})
			if out, err := a.Call(t.Context(), "Echo", []byte("x")); err != nil || string(out) != "x" {
				t.Errorf("%s: got %q, %v", name, out, err)
			}
			if j.String() != "" {
				t.Errorf("%s: log %s", name, j.String())
			}
			if files := compiled(t, dir); !slices.Equal(files, []string{code}) {
				t.Errorf("%s: code in %q, want %q", name, files, code)
				break
			}
			if now, err := os.ReadFile(code); err != nil || string(now) != string(good) {
				t.Errorf("%s: the code is other code, %v", name, err)
			}
			if files, err := os.ReadDir(entry); err != nil || len(files) != 3 || filepath.Join(entry, files[0].Name()) != outlines[0] {
				t.Errorf("%s: %q, %v, want the outline, the sum and the code", name, files, err)
			}
		}
		if now, err := os.Stat(code); err != nil || c.kept != (os.SameFile(was, now) && was.ModTime().Equal(now.ModTime())) {
			t.Errorf("%s: %v; the code was kept: %v, want %v", name, err, !c.kept, c.kept)
		}
	}
}

// In an image all files may have one time, and two builds may have one size: what
// one rewrote must not pass for what the other would.
func TestHost_cache_program(t *testing.T) {
	var names []string
	for _, build := range []string{"one", "two", "two"} {
		path := filepath.Join(t.TempDir(), "edged")
		if err := errors.Join(os.WriteFile(path, []byte("ELF "+build), 0o700), os.Chtimes(path, time.Unix(0, 0), time.Unix(0, 0))); err != nil {
			t.Fatal(err)
		}
		name, err := runtime.ProgramFile(path)
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, name)
	}
	if names[0] == names[1] || names[1] != names[2] {
		t.Errorf("got %q, want two of one build", names)
	}
}

// Where two processes have one cache, the code of an entry may go while the other
// loads it, whose engine then leaves that of the outline. Who has found the entry to
// be whole before must not run it, nor say that it is.
func TestHost_cache_changedMeanwhile(t *testing.T) {
	dir := t.TempDir()
	load(t, newHost(t, runtime.Options{CacheDir: dir}), echoModule(), runtime.Limits{})
	code := compiled(t, dir)[0]
	entry := filepath.Dir(filepath.Dir(code))
	if ok, err := runtime.LoadEntry(t.Context(), entry, echoModule(), func() error { return os.Remove(code) }); ok || err != nil {
		t.Fatalf("without its code: loaded %v, %v", ok, err)
	}
	hollow, err := os.ReadFile(code)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"of this program", "of another program"} {
		call := func() {
			a := load(t, newHost(t, runtime.Options{CacheDir: dir}), echoModule(), runtime.Limits{})
			if out, err := a.Call(t.Context(), "Echo", []byte("x")); err != nil || string(out) != "x" {
				t.Errorf("%s: got %q, %v", name, out, err)
			}
		}
		call() // makes the entry anew
		if name == "of another program" {
			outlines, err := filepath.Glob(filepath.Join(entry, "outline-*"))
			if err != nil || len(outlines) != 1 {
				t.Fatalf("outlines %q, %v, want one", outlines, err)
			}
			if err := os.Rename(outlines[0], outlines[0][:strings.LastIndexByte(outlines[0], '-')]+"0.wasm"); err != nil {
				t.Fatal(err)
			}
			reseal(t, entry)
		}
		ok, err := runtime.LoadEntry(t.Context(), entry, echoModule(), func() error {
			return errors.Join(os.Remove(code), os.WriteFile(code, hollow, 0o600))
		})
		if ok || err != nil {
			t.Errorf("%s: loaded %v, %v", name, ok, err)
		}
		call()
	}
}

// What the engine can not read or write of a cache is not told as a fault of the module.
func TestHost_cache_faultIsNotTheModules(t *testing.T) {
	dir := t.TempDir()
	load(t, newHost(t, runtime.Options{CacheDir: dir}), echoModule(), runtime.Limits{})
	code := compiled(t, dir)[0]
	_, err := runtime.LoadEntry(t.Context(), filepath.Dir(filepath.Dir(code)), echoModule(), func() error {
		return errors.Join(os.Remove(code), os.Mkdir(code, 0o700))
	})
	if err == nil || errors.Is(err, runtime.ErrModule) || strings.Contains(err.Error(), "module") {
		t.Errorf("got %v", err)
	}
}

// reseal writes the sum of an entry.
func reseal(t *testing.T, entry string) {
	t.Helper()
	var sum strings.Builder
	for _, pattern := range []string{"*.wasm", "wazero-*/*"} {
		files, err := filepath.Glob(filepath.Join(entry, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			data, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&sum, "%08x %d %s\n", crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli)), len(data), f[len(entry)+1:])
		}
	}
	if err := os.WriteFile(filepath.Join(entry, "sum"), []byte(sum.String()), 0o600); err != nil {
		t.Fatal(err)
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

// What nobody loaded for months goes, but nothing of this process, whatever the
// clock says.
func TestHost_cache_isPrunedByAge(t *testing.T) {
	dir := t.TempDir()
	h := newHost(t, runtime.Options{CacheDir: dir})
	load(t, newHost(t, runtime.Options{CacheDir: dir}), echoModule(), runtime.Limits{})
	stale := compiled(t, dir)
	load(t, h, callModule(num(1), nil), runtime.Limits{})
	entries, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(entries) != 2 {
		t.Fatalf("entries %q, %v, want two", entries, err)
	}
	for _, e := range entries {
		if err := os.Chtimes(e, time.Unix(0, 0), time.Unix(0, 0)); err != nil {
			t.Fatal(err)
		}
	}
	load(t, h, callModule(num(2), nil), runtime.Limits{})
	files := compiled(t, dir)
	if len(files) != 2 || slices.Contains(files, stale[0]) {
		t.Errorf("left: %q, want two without %q", files, stale)
	}
}

// Hosts with one cache fill an entry once, whoever comes first, and none takes it from
// another. What a compiler left that was killed goes.
func TestHost_cache_shared(t *testing.T) {
	dir := t.TempDir()
	left := filepath.Join(dir, "new-1234")
	if err := errors.Join(os.Mkdir(left, 0o700), os.WriteFile(filepath.Join(left, "outline"), []byte("half"), 0o600)); err != nil {
		t.Fatal(err)
	}
	var j journal
	var loads sync.WaitGroup
	for range 8 {
		h := newHost(t, runtime.Options{CacheDir: dir, Logger: j.logger()})
		loads.Go(func() {
			a, err := h.Load(t.Context(), "a", echoModule(), runtime.Limits{})
			if err != nil {
				t.Error(err)
				return
			}
			if err := a.Close(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	loads.Wait()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 || len(compiled(t, dir)) != 1 || j.String() != "" {
		t.Errorf("left: %v, %v; log %s", entries, err, j.String())
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
