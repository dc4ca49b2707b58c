package control_test

import (
	"os"
	"strings"
	"testing"

	"github.com/edged-io/edged/internal/control"
)

func TestContractOf(t *testing.T) {
	for _, c := range []struct {
		namespace, pkg, faces, contract string
		inward                          bool
	}{
		{"wasi", "http", "incoming-handler", "wasmcloud:httpserver", true},
		{"wasi", "http", "types@0.2.0 incoming-handler@0.2.0", "wasmcloud:httpserver", true},
		{"wasi", "http", "outgoing-handler", "wasmcloud:httpclient", false},
		{"wasi", "keyvalue", "store atomics", "wasmcloud:keyvalue", false},
		{"wasi", "keyvalue", "watcher", "wasmcloud:keyvalue", false},
		{"wasi", "blobstore", "", "wasmcloud:blobstore", false},
		{"wasi", "logging", "logging", "wasmcloud:builtin:logging", false},
		{"wasi", "random", "random", "wasmcloud:builtin:numbergen", false},
		{"wasmcloud", "messaging", "consumer", "wasmcloud:messaging", false},
		{"wasmcloud", "messaging", "consumer handler", "wasmcloud:messaging", false},
		{"wasmcloud", "messaging", "handler", "wasmcloud:messaging", true},
		{"wasmcloud", "postgres", "query", "wasmcloud:sqldb", false},
		{"edged", "gpio", "", "edged:gpio", false},
		{"wasmcloud", "example:factorial", "", "wasmcloud:example:factorial", false},
	} {
		contract, inward := control.ContractOf(control.WIT{Namespace: c.namespace, Package: c.pkg, Interfaces: strings.Fields(c.faces)})
		if contract != c.contract || inward != c.inward {
			t.Errorf("%s:%s %s: got %s %v, want %s %v", c.namespace, c.pkg, c.faces, contract, inward, c.contract, c.inward)
		}
	}
}

// Every contract has a name in version 1 that leads back to it, and stands in the table of the documentation.
func TestWITOf_leadsBack(t *testing.T) {
	doc, err := os.ReadFile("../../docs/control.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, contract := range []string{
		"wasmcloud:httpserver", "wasmcloud:httpclient", "wasmcloud:keyvalue", "wasmcloud:blobstore", "wasmcloud:messaging", "wasmcloud:sqldb",
		"wasmcloud:builtin:logging", "wasmcloud:builtin:numbergen", "edged:pubsub", "wasmcloud:sensors", "wasmcloud:example:factorial",
	} {
		w, inward := control.WITOf(contract)
		got, back := control.ContractOf(w)
		if got != contract || back != inward {
			t.Errorf("%s: %+v leads to %s, inward %v and %v", contract, w, got, inward, back)
		}
		row := "`" + w.Namespace + ":" + w.Package + "`"
		if w.Namespace+":"+w.Package != contract && !(strings.Contains(string(doc), row) && strings.Contains(string(doc), "`"+contract+"`")) {
			t.Errorf("docs/control.md does not say that %s is %s", row, contract)
		}
	}
}

// The constructed example of PROTOCOL 7.1.
func TestLinkID(t *testing.T) {
	if got := control.LinkID(actorKey, "wasmcloud:keyvalue", "default"); got != "2A00B4ABDFDE5BDE08B98825693D194EF466A85D21998AD256883DBBCD689098" {
		t.Errorf("got %s", got)
	}
}
