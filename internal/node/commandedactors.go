package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/edged-io/edged/internal/atomicfile"
	"github.com/edged-io/edged/internal/claims"
	"github.com/edged-io/edged/internal/config"
	"github.com/edged-io/edged/internal/control"
)

// controlHost is the box as the control interface acts on it.
type controlHost struct{ *Node }

var _ control.Host = controlHost{}

// module is a module that was fetched and checked.
type module struct {
	key    string
	name   string // within its app
	wasm   []byte
	digest string
	signed claims.SignedModule // zero for an unsigned one
}

func (m *module) revision() int64 {
	if m.signed.Key == (claims.Key{}) {
		return 0
	}
	return m.signed.EffectiveRev()
}

// store puts the module where its app looks for it, on disk.
func (m *module) store(dir string) error {
	dir = filepath.Join(dir, assembledName(m.key))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return atomicfile.WriteFile(filepath.Join(dir, moduleFile(m.digest)), m.wasm, 0o600)
}

// fetchModule fetches a module and checks it as the modules of apps are checked. An unsigned one gets the identity id, or one after its reference.
func (n *Node) fetchModule(ctx context.Context, ref, id string) (*module, error) {
	file, _, err := n.references.Fetch(ctx, ref)
	if err != nil {
		return nil, err
	}
	m := &module{}
	if m.wasm, m.digest, err = readModule(file); err != nil {
		return nil, err
	}
	if !bytes.HasPrefix(m.wasm, []byte("\x00asm")) {
		return nil, fmt.Errorf("%s is not a WebAssembly module", ref)
	}
	a := &actor{digest: m.digest}
	if err := n.identify(ctx, a, m.wasm); err != nil {
		return nil, fmt.Errorf("%s: %w", ref, err)
	}
	if m.key, m.signed = a.key, a.signed; m.key != "" {
		if m.name = nameOf(m.signed.Name); m.name == "" {
			m.name = "actor"
		}
		return m, nil
	}
	if !n.o.Device.Trust.AllowUnsigned {
		return nil, fmt.Errorf("%s is not signed: sign it with edged sign, or set trust.allow_unsigned: %w", ref, claims.ErrUnsigned)
	}
	if m.name = id; id == "" {
		m.name = nameFromRef(ref)
	}
	if len(m.name) > 64-len(config.AssembledPrefix) || !nameForm.MatchString(m.name) {
		return nil, fmt.Errorf("%s is not signed, and %.80q can not be its id: give it one of at most %d letters, digits, _ and -", ref, m.name, 64-len(config.AssembledPrefix))
	}
	m.key = config.AssembledPrefix + m.name + "/" + m.name
	return m, nil
}

// nameOf is what of a text can be in a name.
func nameOf(text string) string {
	name := strings.Map(func(r rune) rune {
		switch {
		case nameForm.MatchString(string(r)):
			return r
		case r == ' ' || r == '.' || r == '/':
			return '-'
		}
		return -1
	}, text)
	return name[:min(len(name), 32)]
}

// nameFromRef is the last part of a reference, without tag, digest or the ending of a file.
func nameFromRef(ref string) string {
	name := path.Base(ref)
	name, _, _ = strings.Cut(name, "@")
	name, _, _ = strings.Cut(name, ":")
	return nameOf(strings.TrimSuffix(name, ".wasm"))
}

// ScaleActor implements control.Host.
func (h controlHost) ScaleActor(ctx context.Context, c control.ActorScale) error {
	if len(c.Config) > 0 {
		return errors.New("an actor reads no configuration: put what it is about into the values of its links")
	}
	key, was, there := h.held().actor(c.ID)
	if c.Max == 0 && !there {
		return nil
	}
	if there && (c.Max == 0 || h.health.running()[assembledName(key)] != nil && was.Ref == c.Ref) {
		return h.put(ctx, key, nil, func(next *held) error { return next.scale(key, c, nil) })
	}
	m, err := h.fetchModule(ctx, c.Ref, idOf(c.ID, key, was))
	if err != nil {
		return err
	}
	if err := h.mayStart(m, c.ID); err != nil {
		return err
	}
	return h.put(ctx, m.key, m, func(next *held) error { return next.scale(m.key, c, m) })
}

// idOf is the name that an unsigned module goes by.
func idOf(id, key string, was heldActor) string {
	if name, ok := strings.CutPrefix(key, assembledName(key)+"/"); ok {
		return name
	}
	if was.Name != "" {
		return was.Name
	}
	if app, name, unsigned := strings.Cut(id, "/"); unsigned && strings.HasPrefix(app, config.AssembledPrefix) {
		return name
	}
	return id
}

// mayStart says why a module can not be started under an id.
func (n *Node) mayStart(m *module, id string) error {
	if k, err := claims.Parse(id); err == nil && k.Kind() == claims.Module && id != m.key {
		return fmt.Errorf("the module has the key %s, and not %s", m.key, id)
	}
	for _, a := range n.health.actors() {
		if a.key == m.key && !a.commanded {
			return fmt.Errorf("actor %s belongs to the app %s; change the app instead", m.key, a.app)
		}
	}
	return nil
}

// scale makes c.Max the number of instances of an entry. m is the module, nil where it is there already.
func (h *held) scale(key string, c control.ActorScale, m *module) error {
	a, there := h.Actors[key]
	if there && m != nil {
		switch {
		case a.Ref != c.Ref:
			return fmt.Errorf("actor %s runs from %s already; use update to run it from %s", a.ID, a.Ref, c.Ref)
		case c.ID != "" && c.ID != a.ID && c.ID != key:
			return fmt.Errorf("actor %s runs under the id %s already", key, a.ID)
		}
	}
	if !there {
		if m == nil {
			return nil // it was stopped meanwhile
		}
		a = heldActor{ID: c.ID, Ref: c.Ref, Name: m.name}
		if a.ID == "" {
			a.ID = key
		}
	}
	if m != nil {
		a.Digest, a.Revision = m.digest, m.revision()
	}
	if len(c.Limits) > 0 && c.Max > 0 {
		a.Limits = maps.Clone(c.Limits)
	}
	if a = a.scaled(c.Annotations, c.Max); len(a.Entries) == 0 {
		delete(h.Actors, key)
		return nil
	}
	h.Actors[key] = a
	return nil
}

// UpdateActor implements control.Host.
func (h controlHost) UpdateActor(ctx context.Context, u control.ActorUpdate) error {
	key, was, there := h.held().actor(u.ID)
	if !there {
		return fmt.Errorf("actor %s does not run on this host", u.ID)
	}
	m, err := h.fetchModule(ctx, u.Ref, idOf(u.ID, key, was))
	if err != nil {
		return err
	}
	switch {
	case m.key != key:
		return fmt.Errorf("the module has the key %s, and actor %s has %s: an update has the same", m.key, was.ID, key)
	case m.digest == was.Digest && u.Ref == was.Ref:
		return fmt.Errorf("actor %s runs this code from %s already", was.ID, u.Ref)
	case m.digest == was.Digest: // a new name for what runs
	case m.revision() <= was.Revision && was.Revision > 0:
		return fmt.Errorf("the module has revision %d, and actor %s has %d: an update has a higher one", m.revision(), was.ID, was.Revision)
	}
	return h.put(ctx, key, m, func(next *held) error {
		a, there := next.Actors[key]
		if !there {
			return fmt.Errorf("actor %s was stopped meanwhile", was.ID)
		}
		a.Ref, a.Digest, a.Revision = u.Ref, m.digest, m.revision()
		next.Actors[key] = a
		return nil
	})
}
