package config

import (
	"net/url"
	"os"
	"strconv"
	"strings"

	"github.com/edged-io/edged/internal/outbound"
)

// HTTPClient bounds what apps may ask servers on the network for, whatever their manifests allow.
type HTTPClient struct {
	Allow             []string `toml:"allow" default:"public" items:"256"`
	Deny              []string `toml:"deny" items:"256"`
	CA                string   `toml:"ca" default:""`
	Proxy             string   `toml:"proxy" default:""`
	ProxyUser         string   `toml:"proxy_user" default:""`
	ProxyPasswordFile string   `toml:"proxy_password_file" default:""`
}

// Bound is what apps may reach.
func (h HTTPClient) Bound() (outbound.Bound, error) { return outbound.ParseBound(h.Allow, h.Deny) }

// ProxyURL is the proxy with its user and password, nil for none. It reads the password.
func (h HTTPClient) ProxyURL() (*url.URL, error) {
	if h.Proxy == "" {
		return nil, nil
	}
	u, err := url.Parse(h.Proxy)
	if err != nil || h.ProxyUser == "" {
		return u, err
	}
	u.User = url.User(h.ProxyUser)
	if h.ProxyPasswordFile != "" {
		password, err := readFile(h.ProxyPasswordFile, os.OpenFile)
		if err != nil {
			return nil, err
		}
		u.User = url.UserPassword(h.ProxyUser, strings.TrimRight(string(password), "\r\n"))
	}
	return u, nil
}

// checkHTTPClient makes the paths relative to base, too.
func (d *document) checkHTTPClient(h *HTTPClient, base string) {
	for key, list := range map[string][]string{"allow": h.Allow, "deny": h.Deny} {
		for i, text := range list {
			if text == outbound.Public && key == "allow" {
				continue
			}
			if _, err := outbound.ParseBound([]string{text}, nil); err != nil || text == outbound.Public {
				d.fault(item("http_client."+key, i), "want a name, *.NAME, an address or a network, with :PORT or without, got %q", clip(text))
			}
		}
	}
	for key, path := range map[string]*string{"ca": &h.CA, "proxy_password_file": &h.ProxyPasswordFile} {
		if *path = resolve(base, *path); *path == "" {
			continue
		}
		if _, err := readFile(*path, os.OpenFile); err != nil {
			d.fault("http_client."+key, "cannot be read: %v", err)
		}
	}
	if h.Proxy != "" {
		if u := d.checkURL("http_client.proxy", h.Proxy, "http", "https"); u != nil && u.User != nil {
			d.fault("http_client.proxy", "must not hold a user or password: use proxy_user and proxy_password_file")
		}
	}
	switch {
	case h.ProxyUser != "" && h.Proxy == "":
		d.fault("http_client.proxy_user", "there is no proxy")
	case h.ProxyPasswordFile != "" && h.ProxyUser == "":
		d.fault("http_client.proxy_password_file", "there is no proxy_user")
	}
}

type httpClientConfig struct {
	Allow       []string `toml:"allow" required:"true" items:"64"`
	Methods     []string `toml:"methods" items:"16"`
	Timeout     Duration `toml:"timeout" default:"10s" min:"1ms" max:"10m"`
	MaxResponse Size     `toml:"max_response" default:"1MiB" min:"1KiB" max:"64MiB"`
	Redirects   int      `toml:"redirects" default:"5" min:"0" max:"20"`
	MaxInFlight int      `toml:"max_in_flight" default:"8" min:"1" max:"256"`
	CA          string   `toml:"ca" default:""`
	Cert        string   `toml:"cert" default:""`
	Key         string   `toml:"key" default:""`
}

// httpClient adds rules to a link. What holds for all of them is in the first table.
func (b *builder) httpClient(_ grant, t table, l *Link) {
	var c httpClientConfig
	b.decode(t, &c)
	only := "*"
	if len(c.Methods) > 0 {
		only = strings.Join(c.Methods, ",")
	}
	for i, text := range c.Allow {
		if _, err := outbound.ParseRule(text, nil); err != nil {
			b.fault(item(child(t.path, "allow"), i), "%v", err)
		}
		l.Values["allow"] += only + " " + text + "\n"
	}
	for i, m := range c.Methods {
		if !outbound.ValidMethod(m) {
			b.fault(item(child(t.path, "methods"), i), "want a method in capital letters, and not CONNECT or TRACE, got %q", clip(m))
		}
	}
	if _, ok := t.values["allow"]; ok && len(c.Allow) == 0 {
		b.fault(child(t.path, "allow"), "must not be empty: without a capability an actor asks for nothing")
	}
	if l.Values["timeout"] != "" {
		for _, key := range []string{"timeout", "max_response", "redirects", "max_in_flight", "ca", "cert", "key"} {
			if _, ok := t.values[key]; ok {
				b.fault(child(t.path, key), "holds for all tables, and belongs into the first")
			}
		}
		return
	}
	b.checkSecrets(t, map[string]string{"ca": c.CA, "cert": c.Cert, "key": c.Key})
	if (c.Cert == "") != (c.Key == "") {
		b.fault(child(t.path, "cert"), "cert and key belong together")
	}
	for key, value := range map[string]string{
		"timeout": c.Timeout.String(), "max_response": strconv.FormatInt(int64(c.MaxResponse), 10), "redirects": strconv.Itoa(c.Redirects),
		"max_in_flight": strconv.Itoa(c.MaxInFlight), "ca": c.CA, "cert": c.Cert, "key": c.Key,
	} {
		if value != "" {
			l.Values[key] = value
		}
	}
}
