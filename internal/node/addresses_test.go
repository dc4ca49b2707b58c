package node

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// Addresses that can not be written, as on a full disk, are a problem of the box until
// they are, without anybody's doing.
func TestNode_addresses_writtenLater(t *testing.T) {
	r := newRig(t, unsigned)
	r.beforeReady = func() { r.addressesAgain = time.Millisecond }
	path := r.path("state", "addresses.json")
	if err := os.MkdirAll(filepath.Join(path, "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	r.start()
	untold := func() bool {
		return slices.ContainsFunc(r.Status().Problems, func(p string) bool { return strings.HasPrefix(p, "addresses: ") })
	}
	if !untold() {
		t.Fatalf("problems %q", r.Status().Problems)
	}
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
	r.eventually("the addresses are told", func() bool { return !untold() })
	var a Addresses
	if data, err := os.ReadFile(path); err != nil || json.Unmarshal(data, &a) != nil || a.NATS == "" {
		t.Errorf("%s, %v", data, err)
	}
	if log := r.log.String(); strings.Count(log, "addresses are not told") != 1 || !strings.Contains(log, "addresses are told again") {
		t.Errorf("log %s", log)
	}
}
