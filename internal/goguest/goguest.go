// Package goguest builds actors in Go, for tests.
package goguest

import (
	"fmt"
	"os"
	"os/exec"
)

// Build makes module of the package in the directory source, which begins with a
// dot, by the go command.
func Build(module, source string) error {
	cmd := exec.Command("go", "build", "-buildmode=c-shared", "-o", module, source)
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "GOFLAGS=", "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", source, err, out)
	}
	return nil
}
