package box

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/edged-io/edged/internal/node"
)

// A module that takes more memory to be compiled than there is costs its own app
// time, and nobody else anything: the compiler is killed, and not the box. The box
// says so, keeps the messages, and handles them once there is more.
func TestBox_compilesInLittleMemory(t *testing.T) {
	group := newBudget(t, 40<<20)
	if group.dir == "" {
		t.Log("no cgroup can be made here")
		return
	}
	b := newBox(t, unsigned)
	b.must(os.Remove(b.path("state", "cache"))) // that of all tests has the module
	b.app("apps/good", "1")                     // 2.5 MB of Go
	b.write("apps/small/app.toml", "specversion = \"0.2\"\nname = \"small\"\nversion = \"1\"\n[[actor]]\nname = \"a\"\nmodule = \"loop.wasm\"\n")
	assemble(t, b.path("apps", "small"), animal{name: "loop", wat: filepath.Join(zoo, "loop.wat")})
	b.start(group.wrap()...)
	pid := b.cmd.Process.Pid
	b.publish(b.nats(), "greenhouse.s.temperature", []byte(`{"value":1}`))
	b.eventually("it is told", func() bool {
		return strings.Contains(b.health(), "actor greenhouse/thermostat: actor thermostat of app greenhouse: load actor greenhouse/thermostat: the compiler was killed, most likely because memory is short (signal: killed)")
	})
	b.eventually("the small one runs", func() bool {
		return slices.ContainsFunc(b.status().Apps, func(a node.AppStatus) bool { return a.Name == "small" && len(a.Compiling) == 0 })
	})
	if n := group.killed(t); n != 1 || b.cmd.Process.Pid != pid {
		t.Errorf("%d processes were killed", n)
	}
	b.term()
	b.start()
	b.handled(1)
	b.term()
}
