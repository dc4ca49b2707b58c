package node

import (
	"errors"
	"os"
	"strings"
	"testing"
)

// A compilation cache that others can write is not used, which the box says; its
// apps run.
func TestNode_cacheNotOurs(t *testing.T) {
	r := newRig(t, unsigned)
	cache := r.path("state", "cache")
	if err := errors.Join(os.Remove(cache), os.Mkdir(cache, 0o700), os.Chmod(cache, 0o777)); err != nil {
		t.Fatal(err)
	}
	r.write("apps/empty/app.toml", "specversion = \"0.2\"\nname = \"empty\"\nversion = \"1\"\n")
	r.start()
	contains(t, strings.Join(r.Status().Problems, "\n"), "compilation cache: ", "others can write")
	if got := r.running(); got != "empty 1" {
		t.Errorf("runs %q", got)
	}
}
