package config

import (
	"fmt"
	"os"
	"regexp"
	"strings"

	"github.com/edged-io/edged/internal/oci"
)

// Registry is where references to code lead, and what the box keeps of it.
type Registry struct {
	AllowLatest bool            `toml:"allow_latest" default:"false"`
	AllowFiles  bool            `toml:"allow_files" default:"false"`
	Insecure    []string        `toml:"insecure" items:"64"`
	CA          string          `toml:"ca" default:""`
	MaxArtifact Size            `toml:"max_artifact" default:"256MiB" min:"64KiB" max:"4GiB"`
	Cache       Size            `toml:"cache" default:"1GiB" min:"1MiB" max:"1TiB"`
	Login       []RegistryLogin `toml:"login" items:"64"`
}

// RegistryLogin is who the box is to one registry: a user with a password, or a token.
type RegistryLogin struct {
	Host         string `toml:"host" required:"true"`
	User         string `toml:"user" default:""`
	PasswordFile string `toml:"password_file" default:""`
	TokenFile    string `toml:"token_file" default:""`
}

// Options are those of a Fetcher as far as the file has them. It reads certificates and passwords.
func (r Registry) Options() (o oci.Options, err error) {
	o = oci.Options{
		Files: r.AllowFiles, Latest: r.AllowLatest, Insecure: r.Insecure, MaxBytes: int64(r.MaxArtifact), CacheBytes: int64(r.Cache),
		Logins: make(map[string]oci.Login),
	}
	if r.CA != "" {
		if o.CA, err = readFile(r.CA, os.OpenFile); err != nil {
			return o, fmt.Errorf("registry: ca: %w", err)
		}
	}
	for _, l := range r.Login {
		login := oci.Login{User: l.User}
		for path, to := range map[string]*string{l.PasswordFile: &login.Password, l.TokenFile: &login.Token} {
			if path == "" {
				continue
			}
			secret, err := readFile(path, os.OpenFile)
			if err != nil {
				return o, fmt.Errorf("registry: login of %s: %w", l.Host, err)
			}
			*to = strings.TrimRight(string(secret), "\r\n")
		}
		o.Logins[l.Host] = login
	}
	return o, nil
}

// registryHost is HOST[:PORT] as references begin with it.
var registryHost = regexp.MustCompile(`^([A-Za-z0-9._-]+|\[[0-9A-Fa-f:]+\])(:[0-9]{1,5})?$`)

// checkRegistry makes the paths relative to base, too.
func (d *document) checkRegistry(r *Registry, base string) {
	for i, host := range r.Insecure {
		d.checkRegistryHost(item("registry.insecure", i), host)
	}
	if r.CA = resolve(base, r.CA); r.CA != "" {
		if _, err := readFile(r.CA, os.OpenFile); err != nil {
			d.fault("registry.ca", "cannot be read: %v", err)
		}
	}
	if r.MaxArtifact > r.Cache {
		d.fault("registry.max_artifact", "is more than registry.cache holds")
	}
	first := make(map[string]string)
	for i := range r.Login {
		l, path := &r.Login[i], item("registry.login", i)
		d.checkRegistryHost(child(path, "host"), l.Host)
		if at, ok := first[strings.ToLower(l.Host)]; ok {
			d.fault(child(path, "host"), "%s has a login already, in line %d", l.Host, d.line(at))
		}
		first[strings.ToLower(l.Host)] = child(path, "host")
		for key, file := range map[string]*string{"password_file": &l.PasswordFile, "token_file": &l.TokenFile} {
			if *file = resolve(base, *file); *file == "" {
				continue
			}
			if _, err := readFile(*file, os.OpenFile); err != nil {
				d.fault(child(path, key), "cannot be read: %v", err)
			}
		}
		switch {
		case (l.User == "") != (l.PasswordFile == ""):
			d.fault(path, "a user has a password_file, and a password_file a user")
		case (l.User == "") == (l.TokenFile == ""):
			d.fault(path, "want either user and password_file, or token_file")
		}
	}
}

func (d *document) checkRegistryHost(path, host string) {
	if host != "" && !registryHost.MatchString(host) {
		d.fault(path, "want HOST or HOST:PORT, as references to it begin, got %q", clip(host))
	}
}
