package atomicfile_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/edged-io/edged/internal/atomicfile"
)

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func wantOnly(t *testing.T, dir, name string) {
	t.Helper()
	if got := names(t, dir); len(got) != 1 || got[0] != name {
		t.Errorf("directory holds %v, want only %s", got, name)
	}
}

func TestWriteFile_createsAndReplaces(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "state.json")
	for i, perm := range []fs.FileMode{0o600, 0o644, 0o666} {
		want := fmt.Appendf(nil, "content %d", i)
		if err := atomicfile.WriteFile(path, want, perm); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("got %q, %v, want %q", got, err, want)
		}
		info, err := os.Stat(path)
		if err != nil || info.Mode() != perm {
			t.Errorf("mode %v, %v, want %v", info.Mode(), err, perm)
		}
		wantOnly(t, dir, "state.json")
	}
}

func TestWriteFile_empty(t *testing.T) {
	path := filepath.Join(t.TempDir(), "empty")
	if err := atomicfile.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Size() != 0 {
		t.Errorf("stat: %v, %v", info, err)
	}
}

func TestWriteFile_bareName(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := atomicfile.WriteFile("bare", []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	wantOnly(t, ".", "bare")
}

func TestWriteFile_replacesSymlink(t *testing.T) {
	dir := t.TempDir()
	other := filepath.Join(t.TempDir(), "other")
	if err := os.WriteFile(other, []byte("other"), 0o600); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "link")
	if err := os.Symlink(other, path); err != nil {
		t.Fatal(err)
	}
	if err := atomicfile.WriteFile(path, []byte("new"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(other); string(got) != "other" {
		t.Errorf("target of the link became %q", got)
	}
	if got, _ := os.ReadFile(path); string(got) != "new" {
		t.Errorf("got %q, want new", got)
	}
}

func TestWriteFile_missingDirectory(t *testing.T) {
	err := atomicfile.WriteFile(filepath.Join(t.TempDir(), "none", "f"), []byte("x"), 0o600)
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want fs.ErrNotExist", err)
	}
}

// The rename fails here, so the temporary file has been written already.
func TestWriteFile_targetIsDirectory(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "taken")
	if err := os.MkdirAll(filepath.Join(path, "child"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := atomicfile.WriteFile(path, []byte("x"), 0o600); err == nil {
		t.Error("wrote over a directory")
	}
	wantOnly(t, dir, "taken")
}

func TestWriteFile_concurrentWritersOneWins(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			data := bytes.Repeat([]byte{byte('a' + i)}, 10_000)
			if err := atomicfile.WriteFile(path, data, 0o600); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	got, err := os.ReadFile(path)
	if err != nil || len(got) != 10_000 || !bytes.Equal(got, bytes.Repeat(got[:1], 10_000)) {
		t.Errorf("content is a mixture: %d bytes, %v", len(got), err)
	}
	wantOnly(t, dir, "f")
}

func TestReplace(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	for _, text := range []string{"one", "two, longer"} {
		if err := atomicfile.Replace(path, []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		info, statErr := os.Stat(path)
		if err != nil || statErr != nil || string(got) != text || info.Mode().Perm() != 0o640 {
			t.Errorf("got %q, %v, %v, %v", got, info.Mode(), err, statErr)
		}
	}
	wantOnly(t, dir, "f")
	if err := atomicfile.Replace(dir, nil, 0o600); err == nil {
		t.Error("wrote over a directory")
	}
	wantOnly(t, dir, "f")
}

func TestIsTemp(t *testing.T) {
	for name, want := range map[string]bool{".state.json.tmp-123": true, "state.json": false, ".hidden": false, "x.tmp-1": false} {
		if got := atomicfile.IsTemp(name); got != want {
			t.Errorf("IsTemp(%q) = %v, want %v", name, got, want)
		}
	}
}
