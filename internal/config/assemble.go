package config

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/edged-io/edged/internal/httpsettings"
)

// AssembledPrefix is what the names of assembled apps begin with, and those of manifests do not.
const AssembledPrefix = "control-"

// Assembly is an app of one actor for which nobody wrote a manifest: it was started, and linked, by commands.
type Assembly struct {
	Name    string // begins with AssembledPrefix
	Version string
	Dir     string // has the module
	Actor   string // its name within the app
	Module  string // file in Dir; "" to check the links of an actor that is not here
	// Limits are those of a manifest, each as the text that a manifest has; those left out have their defaults.
	Limits map[string]string
	// Links have the name of a built-in provider as a manifest has it, and the values of its classic counterpart where it has one. Actor is ignored.
	Links []Link
}

// secretFiles are values of links by which the box would show others what is in a file, or sign with it. Who wrote a manifest is known; whoever may put
// links could otherwise have any file of the box.
var secretFiles = []string{"password_file", "credentials", "nkey_file", "cert", "key"}

const secretFault = "names a file with a secret of the box, which only the manifest of an app may do"

// Assemble checks an assembly as if it were a manifest, and returns its app. The error has a line for each fault, and says of which link it is.
func Assemble(a Assembly) (*App, error) {
	doc := &document{file: filepath.Join(a.Dir, ManifestName), lines: make(map[string]int), faulty: make(map[string]bool)}
	m := manifest{SpecVersion: "0.2", Name: a.Name, Version: a.Version}
	actor := actorTable{Name: a.Actor, Module: a.Module}
	doc.decode(texts("limits", a.Limits), &actor.Limits)
	m.Actors = []actorTable{actor}
	for i, l := range a.Links {
		m.Links = append(m.Links, linkTable{
			Actor: a.Actor, Contract: l.Contract, Provider: l.Provider, Name: l.Name, Values: texts(child(item("link", i), "values"), l.Values),
		})
		for _, key := range secretFiles {
			if _, named := l.Values[key]; named && IsBuiltin(l.Provider) {
				doc.fault(child(child(item("link", i), "values"), key), secretFault)
			}
		}
	}
	digest, err := json.Marshal(a)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(digest)
	b := newBuilder(doc, os.DirFS(a.Dir), &m, &App{Dir: a.Dir, Digest: "sha256:" + hex.EncodeToString(sum[:]), Name: a.Name, Version: a.Version, Assembled: true})
	b.checkName("name", m.Name)
	if a.Module != "" {
		b.actors()
	}
	b.grants()
	for _, h := range b.app.HTTP { // also by a settings document
		if h.Settings.TLS != (httpsettings.TLS{}) {
			b.fault(child(h.key, "tls"), secretFault)
		}
	}
	b.httpConflicts()
	return b.app, a.err(doc.faults)
}

// texts is a table of which every value is a string.
func texts(path string, values map[string]string) table {
	t := table{path: path, values: make(map[string]any, len(values)), text: true}
	for k, v := range values {
		t.values[k] = v
	}
	return t
}

// err tells faults to somebody who knows of no file.
func (a Assembly) err(faults Faults) error {
	var errs []error
	for _, f := range faults.sorted() {
		key := strings.TrimPrefix(f.Key, "actor[0].")
		for i, l := range a.Links {
			if rest, ok := strings.CutPrefix(f.Key, item("link", i)); ok {
				key = strings.TrimSpace(fmt.Sprintf("link %s for %s: %s", l.Name, l.Contract, strings.TrimPrefix(rest, ".")))
			}
		}
		errs = append(errs, fmt.Errorf("%s: %s", key, f.Reason))
	}
	return errors.Join(errs...)
}

// Reasons tells what is wrong without saying in which file.
func (f Faults) Reasons() error {
	var reasons []string
	for _, fault := range f {
		if !slices.Contains(reasons, fault.Reason) {
			reasons = append(reasons, fault.Reason)
		}
	}
	return errors.New(strings.Join(reasons, "; "))
}

// Builtins are the built-in providers by name, and the contract of each.
func Builtins() map[string]string {
	all := make(map[string]string, len(builtins))
	for name, b := range builtins {
		all[name] = b.contract
	}
	return all
}
