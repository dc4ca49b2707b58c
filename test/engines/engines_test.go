// Package engines runs the tests of the actor host where its guests are interpreted: on ARM v7, for which the engine has no
// compiler, in an emulator; and on this machine. A guest has to meet the same limits, traps and deadlines there.
package engines

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
)

// tests are those of a package without the ones that are not for an interpreter; slow are those that take long in an emulator and
// have little to do with an engine. They are run where EDGED_TEST_ENGINES is set, as by make engines.
type tests struct{ dir, skip, slow string }

var (
	host = tests{"runtime", "_cache_", // there is no compiled code to keep
		"|_noStatePromised|_environment|_outputGoes|_Healthy|_sdkPublish|_idleInstances|_waitsFor|_concurrently|_contextOfAHostCall|_instancePerCall|_truncated"}
	// The suite of the standard is run in the interpreter anyway, with a case that the engine does not survive with 32 bits.
	meter = tests{"runtime/meter", "_specSuite", "|_randomModulesSame/compiler|_randomModulesSame/interpreter-[12]"}
)

func TestRuntime_armv7(t *testing.T) {
	t.Parallel()
	emulator, err := exec.LookPath("qemu-arm-static")
	if err != nil {
		t.Fatalf("%v; make needs installs it, Debian has it in qemu-user-static", err)
	}
	run(t, []string{"GOOS=linux", "GOARCH=arm", "GOARM=7", "CGO_ENABLED=0"}, nil, []string{emulator}, host, meter)
}

func TestRuntime_interpreted(t *testing.T) {
	t.Parallel()
	run(t, []string{"CGO_ENABLED=0"}, []string{"EDGED_TEST_INTERPRETER=1"}, nil, host)
}

// run builds the tests of packages with one environment and runs them with another, by a command before the program.
func run(t *testing.T, build, test, command []string, packages ...tests) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range packages {
		dir, program := filepath.Join(root, filepath.FromSlash(p.dir)), filepath.Join(t.TempDir(), "test")
		compile := exec.CommandContext(t.Context(), "go", "test", "-c", "-o", program, ".")
		compile.Dir, compile.Env = dir, append(os.Environ(), build...)
		if out, err := compile.CombinedOutput(); err != nil {
			t.Fatalf("build the tests of %s: %v\n%s", p.dir, err, out)
		}
		if len(command) > 0 && os.Getenv("EDGED_TEST_ENGINES") == "" {
			p.skip += p.slow
		}
		args := slices.Concat(command, []string{program, "-test.timeout=10m", "-test.skip=" + p.skip})
		cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), test...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", p.dir, err, out)
		}
	}
}
