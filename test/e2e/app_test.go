package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// app is the app of the tests: readings of sensors and commands go to an actor.
type app struct {
	version string
	module  string // file
	broker  string // of the sensors, an address; "" for the box itself
	hold    bool   // a second subscription never acknowledges a reading
	more    string // of the manifest
}

// streams of the app that go to the hub.
var uplinked = []string{"telemetry", "alarms"}

func (a app) manifest() string {
	text := fmt.Sprintf("specversion = \"0.2\"\nname = \"counter\"\nversion = %q\n", a.version)
	if a.module != "" {
		text += `
[[actor]]
name = "counter"
module = "counter.wasm"
limits = { memory = "64MiB", time = "30s" }

[[capability]]
name = "keyvalue"

[[capability]]
name = "pubsub.local"
[[capability.config]]
topic = "report"
[[capability.config]]
topic = "cmd"
`
		if a.broker == "" {
			text += "[[capability.config]]\ntopic = \"sensors/+/temperature\"\n"
		} else {
			text += fmt.Sprintf("\n[[capability]]\nname = \"pubsub.mqtt\"\n[[capability.config]]\nurl = \"tcp://%s\"\nqos = 1\ntopic = \"sensors/+/temperature\"\n", a.broker)
		}
	}
	if a.hold {
		text += "\n[[subscription]]\nname = \"hold\"\nstream = \"telemetry\"\non_message = \"Hold\"\n"
	}
	return text + `
[[stream]]
name = "telemetry"
subjects = ["sensors.>"]
uplink = true

[[stream]]
name = "alarms"
subjects = ["alarms.>"]
uplink = true

[[stream]]
name = "cmd"
subjects = ["cmd"]
` + a.more
}

// write makes dir a folder of the app.
func (a app) write(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "app.toml"), []byte(a.manifest()), 0o600); err != nil {
		t.Fatal(err)
	}
	if a.module == "" {
		return
	}
	wasm, err := os.ReadFile(a.module)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "counter.wasm"), wasm, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}
