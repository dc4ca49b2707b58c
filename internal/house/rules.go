package house

// Rules are what Check holds a tree to.
type Rules struct {
	Module   string  // its module path
	Rooms    []Room  // every package belongs to one
	Doors    []Door  // every dependency goes through one
	MaxLines int     // of a Go file that is neither a test nor generated
	Allow    []Allow // exceptions
}

// A Room is a directory and all below it. It may import rooms of a lower level, and itself. The longest Path that matches
// a package decides; a last element "*" makes each directory there a room of its own.
type Room struct {
	Path  string
	Level int
}

// A Door says which rooms, their tests aside, may import a dependency: an import path and all below it. Rooms nil means tests
// only; Anybody, every room.
type Door struct {
	Import string
	Rooms  []string
}

// Anybody is the list of rooms of a dependency without a door.
var Anybody = []string{"*"}

// Allow excepts one file from one rule.
type Allow struct {
	Rule, Path string
	Why        string
}

// Edged returns the rules of this repository.
func Edged() Rules {
	return Rules{
		Module: "github.com/edged-io/edged",
		Rooms: []Room{
			{"test", 90}, // whole-system tests look at everything
			{"cmd", 80},
			{"internal/demo", 75}, // a box and a hub to look at
			{"internal/node", 70},
			{"internal/powercut", 25}, // a store under test, and nothing else
			{"broker", 50}, {"runtime", 50}, {"providers/*", 50}, {"internal/control", 50}, {"internal/ota", 50},
			{"providers/providertest", 45}, // the suite that every provider's tests run
			{"providers", 42},              // the contract, in the words of the lattice
			{"lattice", 40},
			{"lattice/rpc", 41}, // the lattice over NATS; the Bus knows nothing of it
			{"lattice/metadata", 41},
			{"internal/config", 30}, // the files; of the parts, only those that handle a manifest see it
			{"internal/claims", 20}, {"store", 20},
			{"internal/policy", 25}, // asks whether something may start or be called
			{"internal/oci", 25},    // code from registries, files and the hub
			// Small packages that anybody may import.
			{"internal/topic", 0}, {"internal/wasm", 0}, {"internal/outbound", 0}, {"internal/event", 0}, {"internal/nameform", 0}, {"internal/atomicfile", 0}, {"internal/cgroup", 0}, {"internal/house", 0}, {"sdk", 0},
			{"sdk/go/provider", 1}, // for programs of their own; it stands beside lattice/wire, which knows hosts too
			{"internal/strictjson", 0}, {"internal/httpsettings", 1}, {"internal/logtext", 0},
			{"internal/logbuffer", 0}, {"internal/goguest", 0}, // for tests
			{"examples", 10}, // actors: they know the SDK alone
		},
		Doors: []Door{
			{"github.com/nats-io/nats-server", []string{"broker"}},
			{"github.com/nats-io/nats.go", []string{"broker", "providers/natsbroker", "providers/child", "internal/control", "internal/ota", "internal/node", "internal/demo", "lattice/rpc", "lattice/metadata", "providers/providertest", "sdk/go/provider", "cmd"}},
			{"github.com/tetratelabs/wazero", []string{"runtime"}},
			{"go.etcd.io/bbolt", []string{"store"}},
			{"periph.io", []string{"providers/gpio"}},
			{"github.com/eclipse/paho.mqtt.golang", []string{"providers/mqtt"}},
			{"github.com/mochi-mqtt/server", []string{"providers/mqtt"}},
			{"github.com/coreos/go-systemd", []string{"internal/node"}},
			{"oras.land/oras-go", []string{"internal/oci"}},
			{"github.com/opencontainers", []string{"internal/oci"}},
			{"github.com/pelletier/go-toml", []string{"internal/config"}},
			{"github.com/spf13/cobra", []string{"cmd"}},
			{"golang.org/x/term", []string{"cmd"}},
			{"github.com/nats-io/nkeys", Anybody},
			{"github.com/nats-io/nuid", Anybody},
			{"github.com/prometheus/client_golang", Anybody},
			{"golang.org/x/sys", Anybody},
			{"github.com/rogpeppe/go-internal", nil},
			{"pgregory.net/rapid", nil},
		},
		MaxLines: 600,
		Allow:    nil,
	}
}
