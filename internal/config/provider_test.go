package config_test

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/edged-io/edged/internal/config"
)

const someProvider = "VDWUSKGGFDI4FRXK5EBTRECZSVQSSWJHHJOGH6JWG3AUMFFMQ435CDVS"

// providerApp writes an app with an actor, an archive and a program, and what text says.
func providerApp(t *testing.T, text string) string {
	t.Helper()
	dir := t.TempDir()
	for name, body := range map[string]string{
		"app.toml": "specversion = \"0.2\"\nname = \"plant\"\nversion = \"1\"\n[[actor]]\nname = \"a\"\nmodule = \"a.wasm\"\n" + text,
		"a.wasm":   "", "modbus.par": "", "bin/store": "",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(body), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestLoadApp_providers(t *testing.T) {
	app, err := config.LoadApp(providerApp(t, `
[[provider]]
name = "modbus"
file = "modbus.par"
link_name = "hall3"
config = "{}"
env = { MODE = "fast" }
limits = { memory = "64MiB", tasks = 32, cpu = 50, user = "nobody" }
[[provider]]
name = "store"
exec = "bin/store"
contract = "wasmcloud:keyvalue"
cluster_seed = true
[[provider]]
name = "afar"
remote = "`+someProvider+`"
contract = "acme:afar"
[[provider]]
name = "other"
digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
[[link]]
actor = "a"
contract = "acme:modbus"
provider = "modbus"
name = "hall3"
values = { url = "tcp://10.0.0.7:502", unit = "1" }
[[link]]
actor = "a"
contract = "wasmcloud:keyvalue"
provider = "store"
[[link]]
actor = "a"
contract = "acme:any"
name = "x"
provider = "`+someProvider+`"
`))
	if err != nil {
		t.Fatal(err)
	}
	want := []config.Provider{
		{Name: "modbus", File: "modbus.par", LinkName: "hall3", Config: "{}", Env: map[string]string{"MODE": "fast"}, Limits: config.ProviderLimits{Memory: 64 << 20, Tasks: 32, CPU: 50, User: "nobody"}},
		{Name: "store", Exec: "bin/store", Contract: "wasmcloud:keyvalue", LinkName: "default", ClusterSeed: true},
		{Name: "afar", Remote: someProvider, Contract: "acme:afar", LinkName: "default"},
		{Name: "other", Ref: "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", LinkName: "default"},
	}
	if !reflect.DeepEqual(app.Providers, want) {
		t.Errorf("got %+v\nwant %+v", app.Providers, want)
	}
	links := []config.Link{
		{Actor: "a", Contract: "acme:modbus", Provider: "modbus", Name: "hall3", Values: map[string]string{"url": "tcp://10.0.0.7:502", "unit": "1"}},
		{Actor: "a", Contract: "wasmcloud:keyvalue", Provider: "store", Name: "default", Values: map[string]string{}},
		{Actor: "a", Contract: "acme:any", Provider: someProvider, Name: "x", Values: map[string]string{}},
	}
	if !reflect.DeepEqual(app.Links, links) {
		t.Errorf("got %+v\nwant %+v", app.Links, links)
	}
	if refs := app.References(); len(refs) != 1 || refs[0] != want[3].Ref {
		t.Errorf("references %q", refs)
	}
}

func TestLoadApp_providers_faults(t *testing.T) {
	_, err := config.LoadApp(providerApp(t, `
[[provider]]
name = "keyvalue"
file = "modbus.par"
exec = "bin/store"
[[provider]]
name = "a"
exec = "../bin/store"
key = "V"
[[provider]]
name = "a"
exec = "/opt//x"
contract = "two words"
link_name = "x.y"
[[provider]]
name = "b"
remote = "M"
contract = "c:d"
cluster_seed = true
[[provider]]
name = "c"
file = "none.par"
key = "`+someProvider+`"
env = { "A=B" = "x" }
limits = { memory = "x" }
[[capability]]
name = "keyvalue"
[[link]]
actor = "a"
contract = "wasmcloud:keyvalue"
provider = "c"
[[link]]
actor = "a"
contract = "c:e"
provider = "b"
name = "other"
`))
	wantFaults(t, err,
		`8: provider[0]: file, digest, oci, exec and remote are five ways to say what it is: take one`,
		`8: provider[0].contract: required`,
		`9: provider[0].name: "keyvalue" is built in`,
		`12: provider[1].contract: required`,
		`14: provider[1].exec: want a file in the folder of the app`,
		`15: provider[1].key: want the key of a provider`,
		`17: provider[2].name: provider "a" is there already, in line 13`,
		`18: provider[2].exec: want a path in its shortest form`,
		`19: provider[2].contract: must have 1 to 256`,
		`20: provider[2].link_name: must match`,
		`21: provider[3]: whoever starts a remote provider configures it`,
		`23: provider[3].remote: want the key of a provider`,
		`28: provider[4].file: file "none.par"`,
		`29: provider[4].key: is for exec`,
		`30: provider[4].env: not the name of a variable: "A=B"`,
		`31: provider[4].limits.memory: want a size`,
		`34: link[0]: actor "a" has a link "default" for wasmcloud:keyvalue already`,
		`40: link[1].contract: provider b serves "c:d", not "c:e"`,
		`42: link[1].name: provider b has the link name "default"`,
	)
}

// A program of the box has to be one that its owner lets apps run.
func TestDevice_CheckApps_programs(t *testing.T) {
	app, err := config.LoadApp(providerApp(t, "[[provider]]\nname = \"store\"\nexec = \"/usr/bin/store\"\ncontract = \"c:d\"\n"))
	if err != nil {
		t.Fatal(err)
	}
	for trust, refused := range map[string]bool{"": true, "programs = [\"/usr/bin/other\"]": true, "programs = [\"/usr/bin/store\"]": false, "allow_unsigned = true": false} {
		file := filepath.Join(t.TempDir(), "edged.toml")
		if err := os.WriteFile(file, []byte("[device]\nid = \"x\"\n[trust]\n"+trust+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		d, err := config.LoadDevice(file)
		if err != nil {
			t.Fatal(err)
		}
		if faults := d.CheckApps([]*config.App{app}); (len(faults) > 0) != refused {
			t.Errorf("%q: %v", trust, faults)
		}
	}
}
