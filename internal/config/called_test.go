package config_test

import (
	"testing"

	"github.com/edged-io/edged/internal/config"
)

func TestApp_CalledBy(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "x.wasm", "x")
	write(t, dir, "app.toml", `specversion = "0.2"
name = "a"
version = "1"
[[actor]]
name = "x"
module = "x.wasm"
[[actor]]
name = "y"
module = "x.wasm"
[[stream]]
name = "s"
subjects = ["s.>"]
[[subscription]]
name = "asked"
stream = "s"
actor = "y"
delivery = "pull"
[[capability]]
name = "pubsub.local"
actor = "x"
[[capability.config]]
topic = "x/y"
[[capability]]
name = "pubsub.local"
actor = "y"
[[capability.config]]
queue = "x/z"
delivery = "pull"
[[capability]]
name = "messaging"
actor = "x"
[[capability.config]]
subject = "m"
[[capability]]
name = "httpserver"
actor = "x"
[[capability]]
name = "keyvalue"
actor = "x"
[[capability]]
name = "keyvalue"
actor = "y"
`)
	a, err := config.LoadApp(dir)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "x is called", a.CalledBy("x"), []string{"edged:pubsub", "wasmcloud:httpserver", "wasmcloud:messaging"})
	same(t, "y is called", a.CalledBy("y"), []string(nil))
}
