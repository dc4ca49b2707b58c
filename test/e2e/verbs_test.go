package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A box elsewhere is commanded through the hub by the verbs that command the box on the same machine.
func TestVerbs_throughHub(t *testing.T) {
	h := newHub(t)
	seven, eight := newBox(t, "press-7", h.leafAddr()), newBox(t, "press-8", h.leafAddr())
	text, err := os.ReadFile(seven.config())
	if err == nil {
		err = os.WriteFile(seven.config(), append(text, "[registry]\nallow_files = true\n"...), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	seven.up()
	eight.up()
	for _, b := range []*box{seven, eight} {
		b.linkIs("up")
	}
	module := filepath.Join(seven.dir, "thermostat.wasm")
	if err := os.WriteFile(module, quietActor, 0o600); err != nil {
		t.Fatal(err)
	}
	verb := func(want string, code int, args ...string) string {
		t.Helper()
		out, got := edged(t, append(args, "--server", h.url())...)
		if got != code || !strings.Contains(out, want) {
			t.Fatalf("edged %s: exit code %d, want %d and %q:\n%s", strings.Join(args, " "), got, code, want, out)
		}
		return out
	}
	hosts := func() int {
		var all struct{ Items []struct{ Name string } }
		if err := json.Unmarshal([]byte(verb("", 0, "host", "ls", "--wait", "1s", "--json")), &all); err != nil {
			t.Fatal(err)
		}
		return len(all.Items)
	}
	eventually(t, "the hub reaches both boxes", func() (bool, string) { n := hosts(); return n == 2, "" })
	verb("--server needs --device", 2, "actor", "start", module)
	verb("done ", 0, "actor", "start", module, "--count", "2", "--device", "press-7")
	out := verb("press-7 ", 0, "actor", "ls")
	if strings.Contains(out, "press-8") {
		t.Errorf("it runs on both:\n%s", out)
	}
	if out, code := edged(t, "actor", "ls", "--config", eight.config(), "--device", "press-7"); code != 0 || !strings.Contains(out, "press-7 ") {
		t.Errorf("a box does not see the other: %d\n%s", code, out)
	}
	verb("", 0, "label", "put", "hall=3", "--device", "press-8")
	verb("press-8  hall ", 0, "label", "ls")
	verb("done       thermostat is stopped", 0, "actor", "stop", "thermostat", "--device", "press-7")

	eight.kill()
	verb("nobody answers; in the lattice default there are: press-7", 3, "label", "ls", "--device", "press-8")
}
