package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/edged-io/edged/internal/atomicfile"
	"github.com/edged-io/edged/internal/claims"
	"github.com/edged-io/edged/internal/control"
	"github.com/edged-io/edged/providers/child"
)

// heldProvider is a provider that runs, or is to. Its archive is in the state directory, by its digest.
type heldProvider struct {
	ID            string            `json:"id"`
	Key           string            `json:"key"`
	Link          string            `json:"link"`
	Ref           string            `json:"ref"`
	Digest        string            `json:"digest"` // sha256:… of the archive
	Annotations   map[string]string `json:"annotations,omitempty"`
	Configuration string            `json:"configuration,omitempty"`

	Issuer   string          `json:"issuer"`
	Contract string          `json:"contract"`
	Name     string          `json:"name,omitempty"`
	Version  string          `json:"version,omitempty"`
	Revision int64           `json:"revision"`
	Schema   json.RawMessage `json:"schema,omitempty"`
}

// title is the provider for people.
func (p heldProvider) title() string { return p.ID + " " + p.Link }

func (p heldProvider) at() string { return providerKey(p.Key, p.Link) }

func providerKey(key, link string) string { return key + " " + link }

// archivesDir has the archives of providers that were started by command.
func (n *Node) archivesDir() string { return filepath.Join(n.stateDir, "control-providers") }

func (n *Node) archive(digest string) string {
	return filepath.Join(n.archivesDir(), strings.TrimPrefix(digest, "sha256:")+".par")
}

// StartProvider implements control.Host. The provider is an archive, signed by who may sign actors: nothing else that a command names is run as a program.
func (h controlHost) StartProvider(ctx context.Context, c control.ProviderStart) error {
	file, digest, err := h.references.Fetch(ctx, c.Ref)
	if err != nil {
		return err
	}
	signed, err := h.verifyArchive(ctx, file, digest)
	if errors.Is(err, claims.ErrMalformed) {
		return fmt.Errorf("%s: a provider that is started by command is a provider archive: %w", c.Ref, err)
	} else if err != nil {
		return fmt.Errorf("%s: %w", c.Ref, err)
	}
	p := heldProvider{
		ID: c.ID, Key: signed.Key.String(), Link: c.LinkName, Ref: c.Ref, Digest: digest, Annotations: c.Annotations,
		Issuer: signed.Issuer.String(), Contract: signed.Contract, Name: signed.Name, Version: signed.Ver, Revision: signed.EffectiveRev(), Schema: signed.ConfigSchema,
	}
	if p.ID == "" {
		p.ID = p.Key
	}
	if k, err := claims.Parse(c.ID); err == nil && k.Kind() == claims.Service && c.ID != p.Key {
		return fmt.Errorf("the archive has the key %s, and not %s", p.Key, c.ID)
	}
	if p.Configuration, err = h.configuration(c); err != nil {
		return err
	}
	for _, other := range h.held().Providers {
		if other.ID == p.ID && other.Key != p.Key {
			return fmt.Errorf("provider %s is another one, with the key %s; stop it first", p.ID, other.Key)
		}
	}
	h.commanded.archives.Lock()
	defer h.commanded.archives.Unlock()
	defer h.tidyArchives()
	if err := keepFile(file, h.archive(digest)); err != nil {
		return err
	}
	if err := h.processes.Start(ctx, h.spec(p)); err != nil {
		return err
	}
	err = h.keep(ctx, func(next *held) error {
		next.Providers[p.at()] = p
		return nil
	})
	if err != nil {
		return errors.Join(err, h.processes.Stop(context.WithoutCancel(ctx), p.Key, p.Link))
	}
	h.health.recover("provider", p.title())
	return nil
}

// verifyArchive checks an archive as those of apps are checked.
func (n *Node) verifyArchive(ctx context.Context, file, digest string) (signed claims.SignedProvider, err error) {
	f, err := os.Open(file)
	if err != nil {
		return signed, err
	}
	defer f.Close() // only read from
	err = n.admit(ctx, "provider:"+digest, func(p claims.Policy) error {
		signed, err = claims.VerifyArchive(f, p)
		return err
	})
	return signed, err
}

// configuration is what a provider gets as config_json: as version 0 has it, or the configurations that version 1 names, in one object.
func (n *Node) configuration(c control.ProviderStart) (string, error) {
	if len(c.Config) == 0 {
		return c.Configuration, nil
	}
	all, put := make(map[string]string), n.held().Config
	for _, name := range c.Config {
		for key, value := range put[name] {
			all[key] = string(value)
		}
	}
	text, err := json.Marshal(all)
	return string(text), err
}

// spec is how the provider is run.
func (n *Node) spec(p heldProvider) child.Spec {
	return child.Spec{Archive: n.archive(p.Digest), LinkName: p.Link, Config: p.Configuration, Ref: p.Ref, Annotations: p.Annotations}
}

// StopProvider implements control.Host.
func (h controlHost) StopProvider(ctx context.Context, c control.ProviderStop) error {
	// Also one that is just started late does not outlive this.
	h.commanded.archives.Lock()
	defer h.commanded.archives.Unlock()
	key := h.held().key(c.ID)
	at := providerKey(key, c.LinkName)
	_, there := h.held().Providers[at]
	err := h.processes.Stop(ctx, key, c.LinkName)
	if errors.Is(err, child.ErrUnknown) || errors.Is(err, child.ErrNotHere) && there {
		err = nil
	}
	if err != nil || !there {
		return err
	}
	defer h.tidyArchives()
	title := h.held().Providers[at].title()
	err = h.keep(ctx, func(next *held) error {
		delete(next.Providers, at)
		return nil
	})
	if err == nil {
		h.health.recover("provider", title) // also where it could not be started
	}
	return err
}

// startProviderLate starts a provider that was left out at boot. It returns false if there is something to wait for still.
func (n *Node) startProviderLate(ctx context.Context, at string) bool {
	n.commanded.archives.Lock() // who stops it does so before, or ends it afterwards
	defer n.commanded.archives.Unlock()
	p, there := n.held().Providers[at]
	if !there { // it was stopped
		return true
	}
	switch err := n.processes.Start(ctx, n.spec(p)); {
	case ctx.Err() != nil:
		return false
	case err == nil || errors.Is(err, child.ErrRunning):
		n.health.recover("provider", p.title())
		return true
	default:
		n.health.degrade("provider", p.title(), err)
		return final(err)
	}
}

// providersAtBoot starts the providers that were started by command before, as soon as providers run.
func (n *Node) providersAtBoot(ctx context.Context) {
	h := n.held()
	for _, at := range sortedKeys(h.Providers) {
		p := h.Providers[at]
		err := n.processes.Start(ctx, n.spec(p))
		if err == nil {
			continue
		}
		n.log.Error("provider left out", "provider", p.ID, "link", p.Link, "err", err)
		n.health.degrade("provider", p.title(), fmt.Errorf("%w; edged provider stop %s --link-name %s gives it up", err, p.Key, p.Link))
		if mayWait(err) {
			n.waiting = append(n.waiting, func(ctx context.Context) bool { return n.startProviderLate(ctx, at) })
		}
	}
}

// tidyArchives removes the archives that nobody needs. commanded.archives is held.
func (n *Node) tidyArchives() {
	needed := make(map[string]bool)
	for _, p := range n.held().Providers {
		needed[n.archive(p.Digest)] = true
	}
	files, err := os.ReadDir(n.archivesDir())
	if err != nil {
		return // there are none
	}
	for _, f := range files {
		if path := filepath.Join(n.archivesDir(), f.Name()); !needed[path] {
			if err := os.Remove(path); err != nil {
				n.log.Warn("an archive that nobody needs is still there", "file", path, "err", err)
			}
		}
	}
}

// keepFile has a file under another name too, on disk; the file does not change any more.
func keepFile(from, to string) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	if _, err := os.Stat(to); err == nil {
		return nil
	}
	if err := os.Link(from, to); err == nil {
		return atomicfile.SyncDir(filepath.Dir(to))
	}
	return copyFile(from, to) // not every file system has links
}

// copyFile puts a copy of a file in place, on disk.
func copyFile(from, to string) (err error) {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer f.Close() // only read from
	tmp, err := os.CreateTemp(filepath.Dir(to), ".new-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(tmp.Name()))
		}
	}()
	_, err = io.Copy(tmp, f)
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	if err = os.Rename(tmp.Name(), to); err != nil {
		return err
	}
	return atomicfile.SyncDir(filepath.Dir(to))
}
