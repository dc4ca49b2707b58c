package node

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/edged-io/edged/internal/claims"
	"github.com/edged-io/edged/internal/config"
	"github.com/edged-io/edged/providers/child"
)

// provided is a provider of an app that is not built in.
type provided struct {
	name     string
	key      string
	contract string
	link     string     // its link name
	spec     child.Spec // zero where somebody else starts it
	print    string     // the same print is the same provider
}

// id tells providers apart, among all apps.
func (p provided) id() string { return p.key + "/" + p.link }

// prepareProviders checks the providers of an app: their archives, and that its links
// are for what they serve. Nothing is started.
func (n *Node) prepareProviders(ctx context.Context, c *config.App) ([]provided, error) {
	var all []provided
	for _, p := range c.Providers {
		one, err := n.prepareProvider(ctx, c, p)
		if err != nil {
			return nil, fmt.Errorf("app %s: %w", c.Name, err)
		}
		for _, l := range c.Links {
			if l.Provider == p.Name && l.Contract != one.contract {
				return nil, fmt.Errorf("app %s: actor %s has a link with provider %s for %s, and it serves %s", c.Name, l.Actor, p.Name, l.Contract, one.contract)
			}
		}
		all = append(all, one)
	}
	return all, nil
}

func (n *Node) prepareProvider(ctx context.Context, c *config.App, p config.Provider) (one provided, err error) {
	if p.Remote != "" {
		return provided{name: p.Name, key: p.Remote, contract: p.Contract, link: p.LinkName}, nil
	}
	s := child.Spec{
		Key: p.Key, LinkName: p.LinkName, Contract: p.Contract, Name: p.Name, Config: p.Config, Env: p.Env, ClusterSeed: p.ClusterSeed, OwnInbox: p.OwnInbox,
		Limits: child.Limits{Memory: p.Limits.Memory, Tasks: p.Limits.Tasks, Percent: p.Limits.CPU, User: p.Limits.User}, App: c.Name, Ref: p.Ref,
	}
	path, err := n.providerFile(ctx, c, p)
	if err != nil {
		return one, err
	}
	if p.Exec != "" {
		s.Program, s.Copy, s.Ref = path, !filepath.IsAbs(p.Exec), "file://"+path
		if s.Key == "" { // of this box alone: another one has other hardware
			s.Key = claims.NamedKey(claims.Service, n.identity.host.Key().String()+"/"+c.Name+"/"+p.Name).String()
		}
	} else {
		s.Archive = path
	}
	if s.Ref == "" {
		s.Ref = "file://" + path
	}
	if s, err = n.processes.Check(ctx, s); err != nil {
		return one, err
	}
	digest, err := digestFile(path)
	if err != nil {
		return one, err
	}
	print, err := json.Marshal(struct {
		Spec   child.Spec
		Digest string
	}{s, digest})
	return provided{p.Name, s.Key, s.Contract, s.LinkName, s, string(print)}, err
}

// providerFile is the archive or program of a provider.
func (n *Node) providerFile(ctx context.Context, c *config.App, p config.Provider) (string, error) {
	if filepath.IsAbs(p.Exec) {
		return p.Exec, nil
	}
	return n.code(ctx, c, p.File+p.Exec, p.Ref)
}

// digestFile is over the bytes of a file.
func digestFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close() // only read from
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return claims.Digest([sha256.Size]byte(h.Sum(nil))), nil
}

// providerKey is the key that a link of the app to one of its own providers leads to;
// what names another one stays as it is.
func (a *app) providerKey(name string) string {
	for _, p := range a.providers {
		if p.name == name {
			return p.key
		}
	}
	return name
}

// stopProviders ends the providers that next does not have, or has in another form.
func (n *Node) stopProviders(ctx context.Context, next appSet) error {
	keep := make(map[string]string)
	for _, a := range next {
		for _, p := range a.providers {
			keep[p.id()] = p.print
		}
	}
	for id, p := range n.provided {
		if keep[id] == p.print {
			continue
		}
		n.log.Info("provider is stopped, no app declares it so any more", "provider", p.name, "app", p.spec.App)
		if err := n.processes.Stop(context.WithoutCancel(ctx), p.key, p.link); err != nil {
			return err
		}
		delete(n.provided, id)
	}
	return nil
}

// startProviders starts those of next that are not there yet. Their links are put by
// now, so that they are told of them when they start.
func (n *Node) startProviders(ctx context.Context, next appSet) error {
	for _, a := range next.sorted() {
		for _, p := range a.providers {
			if _, there := n.provided[p.id()]; there || p.print == "" {
				continue
			}
			if err := n.processes.Start(ctx, p.spec); err != nil {
				return fmt.Errorf("app %s: %w", a.config.Name, err)
			}
			n.provided[p.id()] = p
		}
	}
	return nil
}
