package config

import (
	"path/filepath"
	"regexp"
	"strings"
)

// providerTable is a provider that is a program of its own.
type providerTable struct {
	Name        string              `toml:"name" required:"true"`
	File        string              `toml:"file" default:""`
	Digest      string              `toml:"digest" default:""`
	OCI         string              `toml:"oci" default:""`
	Exec        string              `toml:"exec" default:""`
	Remote      string              `toml:"remote" default:""`
	Key         string              `toml:"key" default:""`
	Contract    string              `toml:"contract" default:""`
	LinkName    string              `toml:"link_name" default:"default"`
	Config      string              `toml:"config" default:""`
	Env         map[string]string   `toml:"env"`
	ClusterSeed bool                `toml:"cluster_seed" default:"false"`
	OwnInbox    bool                `toml:"own_inbox" default:"false"`
	Limits      providerLimitsTable `toml:"limits"`
}

type providerLimitsTable struct {
	Memory Size   `toml:"memory" default:"0" min:"0" max:"1TiB"`
	Tasks  int    `toml:"tasks" default:"0" min:"0" max:"1000000"`
	CPU    int    `toml:"cpu" default:"0" min:"0" max:"100000"`
	User   string `toml:"user" default:""`
}

// Provider is a capability provider that is a program of its own. One of File, Ref, Exec and Remote is there.
type Provider struct {
	Name     string // within the app
	File     string // archive in the folder of the app, relative, with slashes
	Ref      string // reference to an archive
	Exec     string // program: in the folder of the app, relative, with slashes; or absolute, on the box
	Remote   string // key of one that somebody else starts
	Key      string // of Exec, "" for one that the box makes up
	Contract string // "" for that of the archive
	LinkName string
	Config   string // config_json of its host data
	Env      map[string]string
	// ClusterSeed gives it the cluster's key to sign with, instead of one of its own.
	ClusterSeed bool
	// OwnInbox keeps it from the inboxes of others.
	OwnInbox bool
	Limits   ProviderLimits
}

// ProviderLimits bound the processes of a provider; 0 and "" are for none.
type ProviderLimits struct {
	Memory int64  // bytes
	Tasks  int    // processes and threads
	CPU    int    // percent of one
	User   string // who it runs as
}

// envName is the form of a name of at most maxEnvName bytes; a form that counts takes
// 60 KiB at each start.
var envName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

const maxEnvName = 64

// providers checks the providers that the app brings or names.
func (b *builder) providers() {
	for i, t := range b.m.Providers {
		path := item("provider", i)
		b.named("provider", child(path, "name"), t.Name)
		if IsBuiltin(t.Name) {
			b.fault(child(path, "name"), "%q is built in: give yours another name", t.Name)
		}
		p := Provider{
			Name: t.Name, File: t.File, Exec: t.Exec, Remote: t.Remote, Key: t.Key, Contract: t.Contract, LinkName: t.LinkName, Config: t.Config, Env: t.Env,
			ClusterSeed: t.ClusterSeed, OwnInbox: t.OwnInbox, Limits: ProviderLimits{int64(t.Limits.Memory), t.Limits.Tasks, t.Limits.CPU, t.Limits.User},
		}
		b.checkName(child(path, "link_name"), t.LinkName)
		archive := t.File + t.Digest + t.OCI
		switch {
		case t.Exec != "" && archive+t.Remote != "", t.Remote != "" && archive != "":
			b.fault(path, "file, digest, oci, exec and remote are five ways to say what it is: take one")
		case t.Exec != "":
			b.checkExec(path, t.Exec)
		case t.Remote != "":
			b.checkProviderKey(child(path, "remote"), t.Remote)
		default:
			p.Ref = b.code(path, "file", t.File, t.Digest, t.OCI)
		}
		if t.Key != "" {
			b.checkProviderKey(child(path, "key"), t.Key)
			if t.Exec == "" {
				b.fault(child(path, "key"), "is for exec: an archive has the key in its claims")
			}
		}
		b.checkContract(child(path, "contract"), t.Contract, t.Exec+t.Remote != "")
		for name := range t.Env {
			if len(name) > maxEnvName || !envName.MatchString(name) {
				b.fault(child(path, "env"), "not the name of a variable: %q", clip(name))
			}
		}
		if t.Remote != "" && (t.Config != "" || len(t.Env) > 0 || t.ClusterSeed || t.OwnInbox || t.Limits != (providerLimitsTable{})) {
			b.fault(path, "whoever starts a remote provider configures it: leave config, env, cluster_seed, own_inbox and limits out")
		}
		b.app.Providers = append(b.app.Providers, p)
	}
}

// checkExec checks a program. One that is not in the folder of the app has to be named by the device file; see Device.CheckApps.
func (b *builder) checkExec(path, file string) {
	if !filepath.IsAbs(file) {
		b.checkModule(child(path, "exec"), file)
	} else if filepath.Clean(file) != file || strings.ContainsRune(file, 0) {
		b.fault(child(path, "exec"), "want a path in its shortest form, got %q", clip(file))
	}
}

func (b *builder) checkProviderKey(path, key string) {
	if !IsProviderKey(key) {
		b.fault(path, "want the key of a provider, V and 55 letters, got %q", clip(key))
	}
}

func (b *builder) checkContract(path, contract string, required bool) {
	switch {
	case contract == "" && required:
		b.fault(path, "required, since no archive says it")
	case contract != "" && !contractForm(contract):
		b.fault(path, "must have 1 to 256 letters, digits, and _ - . : / only, got %q", clip(contract))
	}
}

// checkOwnLink checks a link to a provider of the app, and says false if there is none of that name.
func (b *builder) checkOwnLink(path string, l linkTable) bool {
	for _, p := range b.app.Providers {
		if p.Name != l.Provider {
			continue
		}
		if p.Contract != "" && p.Contract != l.Contract {
			b.fault(child(path, "contract"), "provider %s serves %q, not %q", p.Name, p.Contract, clip(l.Contract))
		}
		if p.LinkName != l.Name {
			b.fault(child(path, "name"), "provider %s has the link name %q, and so have its links: name this one so, or declare the provider again with another link_name", p.Name, p.LinkName)
		}
		return true
	}
	return false
}
