// Package examples holds actors that run as they are, and the test that the
// page about writing one can be followed.
package examples

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Files and commands of docs/write-an-actor.md, in order. A file is a block
// after a line that begins with its name in back quotes.
var block = regexp.MustCompile("(?ms)(?:^`([^`\n]+)`[^\n]*:\n\n)?^```(\\w+)\n(.*?)^```$")

func TestDocs_writeAnActor(t *testing.T) {
	page, err := os.ReadFile("../docs/write-an-actor.md")
	if err != nil {
		t.Fatal(err)
	}
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	files, commands := 0, 0
	for _, m := range block.FindAllStringSubmatch(string(page), -1) {
		name, language, text := m[1], m[2], m[3]
		switch {
		case name != "":
			if err := os.WriteFile(filepath.Join(dir, "hello", name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			files++
		case language == "sh":
			cmd := exec.Command("sh", "-ec", text)
			cmd.Dir = dir
			if commands > 0 {
				cmd.Dir = filepath.Join(dir, "hello")
			}
			// Nothing may come from the network.
			cmd.Env = append(os.Environ(), "EDGED="+root, "GOFLAGS=", "GOPROXY=off", "GOWORK=off")
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%s: %v\n%s", strings.TrimSpace(text), err, out)
			}
			commands++
		}
	}
	if files != 4 || commands != 3 {
		t.Errorf("%d files and %d commands, want 4 and 3", files, commands)
	}
	if wasm, err := os.ReadFile(filepath.Join(dir, "hello", "hello.wasm")); err != nil || !strings.HasPrefix(string(wasm), "\x00asm") {
		t.Errorf("hello.wasm: %v", err)
	}
}
