package box

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/edged-io/edged/internal/goguest"
)

// The hello world of the README: its code is that of the example, and its
// commands do what it says.
func TestREADME_hello(t *testing.T) {
	page, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(page), "\n## Hello, world\n")
	section, _, _ = strings.Cut(section, "\n## ")
	block := regexp.MustCompile("(?ms)^```(go|sh)\n(.*?)^```$").FindAllStringSubmatch(section, -1)
	if len(block) != 2 || block[0][1] != "go" || block[1][1] != "sh" {
		t.Fatalf("blocks %q", block)
	}
	code, err := os.ReadFile("../../examples/hello/main.go")
	if err != nil {
		t.Fatal(err)
	}
	if _, actor, _ := strings.Cut(string(code), "\npackage "); "package "+actor != block[0][2] {
		t.Error("the code is not that of examples/hello")
	}
	if n := strings.Count(string(code), "\n"); n > 15 {
		t.Errorf("hello world has %d lines", n)
	}
	script := block[1][2]
	making, script, _ := strings.Cut(script, "\n")
	targets := strings.Fields(making)
	if targets[0] != "make" {
		t.Fatalf("the first command is %s", making)
	}
	if out, err := exec.Command("make", append([]string{"-C", "../..", "--dry-run"}, targets[1:]...)...).CombinedOutput(); err != nil {
		t.Errorf("%s: %v\n%s", making, err, out)
	}
	if !may("unshare", "-n", "ip", "link", "set", "lo", "up") {
		t.Log("no network of its own to be had: the commands are not tried, their ports may be taken")
		return
	}

	// What make leaves behind, with other flags.
	dir := t.TempDir()
	if err := goguest.Build(filepath.Join(dir, "dist/actors/hello.wasm"), "../../examples/hello"); err != nil {
		t.Fatal(err)
	}
	examples, err := filepath.Abs("../../examples")
	if err != nil {
		t.Fatal(err)
	}
	for to, from := range map[string]string{"dist/edged": edged, "examples": examples} {
		if err := os.Symlink(from, filepath.Join(dir, to)); err != nil {
			t.Fatal(err)
		}
	}
	// Ended with all it started, when the script has come to its end.
	cmd := exec.Command("unshare", "-n", "sh", "-ec", "ip link set lo up\n"+script+"kill $!\nwait $!\n")
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := cmd.CombinedOutput()
	log, _ := os.ReadFile(filepath.Join(dir, "box", "log"))
	if err != nil || string(out) != "Hello, world!\n" {
		t.Errorf("%v: %q\n%s", err, out, log)
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	}
}
