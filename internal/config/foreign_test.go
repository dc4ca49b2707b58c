package config_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/edged-io/edged/internal/config"
)

// elsewhere is the key of a provider that is not built in.
const elsewhere = "VDWUSKGGFDI4FRXK5EBTRECZSVQSSWJHHJOGH6JWG3AUMFFMQ435CDVS"

const oneActor = `specversion = "0.2"
name = "a"
version = "1"
[[actor]]
name = "x"
module = "thermostat.wasm"
`

func foreignLink(contract, more string) string {
	return fmt.Sprintf("[[link]]\nactor = \"x\"\ncontract = %q\nprovider = %q\n%s", contract, elsewhere, more)
}

// TestLoadApp_foreign: any contract may be served by a provider that is not built in,
// with values that are between the two.
func TestLoadApp_foreign(t *testing.T) {
	manifest := oneActor
	want := []config.Link{}
	for _, contract := range []string{
		config.ContractKeyValue, config.ContractBlobStore, config.ContractMessaging, config.ContractHTTPServer, config.ContractHTTPClient,
		config.ContractPubSub, config.ContractGPIO, config.ContractLogging, config.ContractNumberGen, "example:factory/press",
	} {
		name := strings.ReplaceAll(strings.ReplaceAll(contract, ":", "-"), "/", "-")
		manifest += foreignLink(contract, `name = "`+name+`"`+"\n"+`values = { URL = "redis://127.0.0.1:6379", "any.key" = "" }`+"\n")
		want = append(want, config.Link{
			Actor: "x", Contract: contract, Provider: elsewhere, Name: name, Values: map[string]string{"URL": "redis://127.0.0.1:6379", "any.key": ""},
		})
	}
	got, err := config.LoadApp(app(t, t.TempDir(), "a", manifest))
	if err != nil {
		t.Fatal(err)
	}
	same(t, "links", got.Links, want)
	if config.IsProviderKey("keyvalue") || !config.IsProviderKey(elsewhere) {
		t.Error("a name is a key, or a key none")
	}
}

func TestLoadApp_foreignFaults(t *testing.T) {
	for more, fault := range map[string]string{
		foreignLink("wasm cloud", ""):                             `9: link[0].contract: must have 1 to 256 letters, digits, and _ - . : / only, got "wasm cloud"`,
		foreignLink("", ""):                                       `9: link[0].contract: must have 1 to 256`,
		foreignLink("wasmcloud:keyvalue", "values = { n = 5 }\n"): `11: link[0].values.n: want a string, got 5`,
		"[[capability]]\nname = \"keyvalue\"\n" + foreignLink("wasmcloud:keyvalue", ""):                                         `9: link[0]: actor "x" has a link "default" for wasmcloud:keyvalue already, to keyvalue: leave one of them out`,
		foreignLink("wasmcloud:keyvalue", "") + foreignLink("wasmcloud:keyvalue", ""):                                           `: link[1]: actor "x" has a link "default" for wasmcloud:keyvalue already, to V`,
		"[[capability]]\nname = \"messaging\"\n" + foreignLink("wasmcloud:messaging", ""):                                       `: link[0]: actor "x" has a link "default" for wasmcloud:messaging already, to messaging`,
		foreignLink("edged:pubsub", "") + "[[link]]\nactor = \"x\"\ncontract = \"edged:pubsub\"\nprovider = \"pubsub.local\"\n": `: link[1]: actor "x" has a link "default" for edged:pubsub already`,
		foreignLink("x", "") + foreignLink("y", ""):                                                                             `: link[1]: actor "x" has a link "default" to this provider already, for x, and a provider takes one under a name`,
		foreignLink("x", "values = { n = \""+strings.Repeat("x", 65_536)+"\" }\n"):                                              "11: link[0].values: 1 values of 65537 bytes, at most 64 of 65536",
	} {
		_, err := config.LoadApp(app(t, t.TempDir(), "a", oneActor+more))
		if err == nil || !strings.Contains(err.Error(), fault) {
			t.Errorf("got %v, want %s", err, fault)
		}
	}
}
