package config_test

import (
	"strings"
	"testing"

	"github.com/edged-io/edged/internal/config"
)

func TestLoadApp_blobstore(t *testing.T) {
	manifest := `specversion = "0.2"
name = "a"
version = "1"
[[actor]]
name = "x"
module = "thermostat.wasm"
[[capability]]
name = "blobstore"
[[link]]
actor = "x"
contract = "wasmcloud:blobstore"
provider = "blobstore"
name = "shared"
values = { bucket = "plant", max_bytes = "1GiB", max_objects = "5", ROOT = "/srv" }
`
	_, err := config.LoadApp(app(t, t.TempDir(), "a", manifest))
	wantFaults(t, err, `14: link[0].values.ROOT: not enforced by this version: objects are in the state directory of the box, and in no folder of yours: leave it out`)
	got, err := config.LoadApp(app(t, t.TempDir(), "a", strings.Replace(manifest, `, ROOT = "/srv"`, "", 1)))
	if err != nil {
		t.Fatal(err)
	}
	same(t, "links", got.Links, []config.Link{
		{Actor: "x", Contract: config.ContractBlobStore, Provider: "blobstore", Name: "default", Values: map[string]string{"bucket": "a"}},
		{Actor: "x", Contract: config.ContractBlobStore, Provider: "blobstore", Name: "shared", Values: map[string]string{"bucket": "plant", "max_bytes": "1073741824", "max_objects": "5"}},
	})
}
