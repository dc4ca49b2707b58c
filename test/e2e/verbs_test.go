package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// guardedHub is a hub on which each box may do what edged hub permissions says, and the user operator what docs/control.md says. It returns where clients and
// boxes reach it; all passwords are x.
func guardedHub(t *testing.T, devices ...string) (addr, leaf string) {
	t.Helper()
	o := &server.Options{
		ServerName: "hub", Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true, JetStream: true, JetStreamDomain: "hub", StoreDir: t.TempDir(),
		Users: []*server.User{
			{Username: "admin", Password: "x"},
			{Username: "operator", Password: "x", Permissions: &server.Permissions{
				Publish:   &server.SubjectPermission{Allow: []string{"wasmbus.ctl.>"}},
				Subscribe: &server.SubjectPermission{Allow: []string{"wasmbus.evt.>", "_INBOX.>"}},
			}},
		},
	}
	for _, device := range devices {
		out, code := edged(t, "hub", "permissions", "--device", device, "--json")
		var allowed struct{ Publish, Subscribe []string }
		if err := json.Unmarshal([]byte(out), &allowed); err != nil || code != 0 {
			t.Fatalf("edged hub permissions: %v\n%s", err, out)
		}
		o.Users = append(o.Users, &server.User{Username: device, Password: "x", Permissions: &server.Permissions{
			Publish: &server.SubjectPermission{Allow: allowed.Publish}, Subscribe: &server.SubjectPermission{Allow: allowed.Subscribe},
		}})
	}
	o.LeafNode.Host, o.LeafNode.Port = "127.0.0.1", server.RANDOM_PORT
	ns, err := server.NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	ns.Start()
	t.Cleanup(func() { ns.Shutdown(); ns.WaitForShutdown() })
	if !ns.ReadyForConnections(time.Minute) {
		t.Fatal("the hub is not ready")
	}
	addr, leaf = fmt.Sprintf("127.0.0.1:%d", o.Port), fmt.Sprintf("127.0.0.1:%d", o.LeafNode.Port)
	if out, code := edged(t, "hub", "init", "--server", "nats://admin:x@"+addr); code != 0 {
		t.Fatalf("edged hub init: exit code %d\n%s", code, out)
	}
	return addr, leaf
}

// A box elsewhere is commanded through the hub by the verbs that command the box on the same machine.
func TestVerbs_throughHub(t *testing.T) {
	addr, leaf := guardedHub(t, "press-7", "press-8")
	seven, eight := newBox(t, "press-7", "press-7:x@"+leaf), newBox(t, "press-8", "press-8:x@"+leaf)
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
		out, got := edged(t, append(args, "--server", "nats://operator:x@"+addr)...)
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
	if out, code := edged(t, "actor", "ls", "--config", eight.config(), "--device", "press-7"); code != 3 {
		t.Errorf("a box commands another, which its user on the hub may not: %d\n%s", code, out)
	}
	verb("", 0, "label", "put", "hall=3", "--device", "press-8")
	verb("press-8  hall ", 0, "label", "ls")
	verb("done       thermostat is stopped", 0, "actor", "stop", "thermostat", "--device", "press-7")

	eight.kill()
	verb("nobody answers; in the lattice default there are: press-7", 3, "label", "ls", "--device", "press-8")
}
