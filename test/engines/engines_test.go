// Package engines runs the tests of the actor host where its guests are interpreted: on ARM v7, for which the engine has no
// compiler, in an emulator; and on this machine. A guest has to meet the same limits, traps and deadlines there.
package engines

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// The interpreter keeps no compiled code.
const compilerOnly = "_cache_"

// packages with tests that run guests.
var packages = []string{"runtime"}

func TestRuntime_armv7(t *testing.T) {
	t.Parallel()
	emulator, err := exec.LookPath("qemu-arm-static")
	if err != nil {
		t.Fatalf("%v; make needs installs it, Debian has it in qemu-user-static", err)
	}
	run(t, []string{"GOOS=linux", "GOARCH=arm", "GOARM=7", "CGO_ENABLED=0"}, nil, emulator)
}

func TestRuntime_interpreted(t *testing.T) {
	t.Parallel()
	run(t, []string{"CGO_ENABLED=0"}, []string{"EDGED_TEST_INTERPRETER=1"})
}

// run builds the tests of the packages with one environment and runs them with another, by a command before the program.
func run(t *testing.T, build, test []string, command ...string) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range packages {
		dir, program := filepath.Join(root, filepath.FromSlash(name)), filepath.Join(t.TempDir(), "test")
		compile := exec.CommandContext(t.Context(), "go", "test", "-c", "-o", program, ".")
		compile.Dir, compile.Env = dir, append(os.Environ(), build...)
		if out, err := compile.CombinedOutput(); err != nil {
			t.Fatalf("build the tests of %s: %v\n%s", name, err, out)
		}
		args := append(append([]string{}, command...), program, "-test.timeout=10m", "-test.skip="+compilerOnly)
		cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), test...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}
