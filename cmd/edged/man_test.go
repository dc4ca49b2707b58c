package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// A build for the package writes a page for each verb, the same each time.
func TestMan(t *testing.T) {
	dir := t.TempDir()
	bin := filepath.Join(dir, "edged")
	if out, err := exec.Command("go", "build", "-tags", "man", "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	var pages [2]map[string]string
	for i := range pages {
		to := filepath.Join(dir, "man", string(rune('a'+i)))
		if out, err := exec.Command(bin, "man", to).CombinedOutput(); err != nil {
			t.Fatalf("edged man: %v\n%s", err, out)
		}
		entries, err := os.ReadDir(to)
		if err != nil {
			t.Fatal(err)
		}
		pages[i] = make(map[string]string)
		for _, e := range entries {
			b, err := os.ReadFile(filepath.Join(to, e.Name()))
			if err != nil {
				t.Fatal(err)
			}
			pages[i][e.Name()] = string(b)
		}
	}
	for _, name := range []string{"edged.1", "edged-run.1", "edged-dlq-show.1", "edged-hub-init.1", "edged-push.1", "edged-actor-start.1", "edged-events.1"} {
		if page := pages[0][name]; page == "" || page != pages[1][name] {
			t.Errorf("%s is missing, or another one each time", name)
		}
	}
}
