package control

import "strings"

// A WIT names what a link of version 1 is about. Interfaces are kept to be given back, and matter where one package stands for several contracts.
type WIT struct {
	Namespace  string
	Package    string
	Interfaces []string
}

// A mapping of WIT packages to contract ids. Inward means that the provider calls the actor, so that in version 1 it is the provider that is the source.
type mapping struct {
	namespace, pkg string
	face           string // interface that decides; "" for any
	inward         bool
	contract       string
}

// mappings is the table of docs/control.md. The first that fits decides, both ways. A pair that is not here is the contract "namespace:package".
var mappings = []mapping{
	{"wasi", "http", "incoming-handler", true, "wasmcloud:httpserver"},
	{"wasi", "http", "outgoing-handler", false, "wasmcloud:httpclient"},
	{"wasi", "keyvalue", "store", false, "wasmcloud:keyvalue"},
	{"wasi", "keyvalue", "", false, "wasmcloud:keyvalue"},
	{"wasi", "blobstore", "blobstore", false, "wasmcloud:blobstore"},
	{"wasi", "blobstore", "", false, "wasmcloud:blobstore"},
	{"wasi", "logging", "logging", false, "wasmcloud:builtin:logging"},
	{"wasi", "logging", "", false, "wasmcloud:builtin:logging"},
	{"wasi", "random", "random", false, "wasmcloud:builtin:numbergen"},
	{"wasi", "random", "", false, "wasmcloud:builtin:numbergen"},
	{"wasmcloud", "messaging", "consumer", false, "wasmcloud:messaging"},
	{"wasmcloud", "messaging", "handler", true, "wasmcloud:messaging"},
	{"wasmcloud", "messaging", "", false, "wasmcloud:messaging"},
	{"wasmcloud", "postgres", "", false, "wasmcloud:sqldb"},
}

// ContractOf is the contract id of a WIT package; inward says that the source of such a link is the provider. A link that names interfaces of
// both directions is the one of the first that is in the table.
func ContractOf(w WIT) (contract string, inward bool) {
	for _, m := range mappings {
		if m.namespace != w.Namespace || m.pkg != w.Package {
			continue
		}
		if m.face == "" {
			return m.contract, m.inward
		}
		for _, face := range w.Interfaces {
			// A version may follow the name, as in "incoming-handler@0.2.0".
			if name, _, _ := strings.Cut(face, "@"); name == m.face {
				return m.contract, m.inward
			}
		}
	}
	return w.Namespace + ":" + w.Package, false
}

// WITOf is what version 1 calls a contract: the first of the table, or namespace and package as the contract id has them.
func WITOf(contract string) (w WIT, inward bool) {
	for _, m := range mappings {
		if m.contract == contract {
			w = WIT{Namespace: m.namespace, Package: m.pkg}
			if m.face != "" {
				w.Interfaces = []string{m.face}
			}
			return w, m.inward
		}
	}
	namespace, pkg, _ := strings.Cut(contract, ":")
	return WIT{Namespace: namespace, Package: pkg}, false
}
