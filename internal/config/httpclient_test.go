package config_test

import (
	"path/filepath"
	"testing"

	"github.com/edged-io/edged/internal/config"
)

const fetcher = `specversion = "0.2"
name = "a"
version = "1"
[[actor]]
name = "x"
module = "x.wasm"
`

func TestLoadApp_httpClient(t *testing.T) {
	load := func(more string) (*config.App, error) {
		t.Helper()
		dir := t.TempDir()
		write(t, dir, "x.wasm", "x")
		write(t, dir, "app.toml", fetcher+more)
		return config.LoadApp(dir)
	}
	a, err := load(`[[capability]]
name = "httpclient"
[[capability.config]]
allow = ["https://a/*", "http://*.b:*/x"]
timeout = "1m"
redirects = 0
ca = "/etc/ca.pem"
[[capability.config]]
allow = ["https://c/"]
methods = ["GET", "POST"]
`)
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]string{
		"allow": "* https://a/*\n* http://*.b:*/x\nGET,POST https://c/\n", "timeout": "1m0s", "redirects": "0", "max_response": "1048576", "max_in_flight": "8", "ca": "/etc/ca.pem",
	}
	want := config.Link{Actor: "x", Contract: "wasmcloud:httpclient", Provider: "httpclient", Name: "default", Values: values}
	same(t, "links", a.Links, []config.Link{want})

	// The same by hand, where values are texts.
	a, err = load(`[[link]]
actor = "x"
contract = "wasmcloud:httpclient"
provider = "httpclient"
values = { allow = "https://a/*, https://b/*", methods = "GET", max_response = "64KiB" }
`)
	if err != nil || a.Links[0].Values["allow"] != "GET https://a/*\nGET https://b/*\n" || a.Links[0].Values["max_response"] != "65536" {
		t.Errorf("got %+v, %v", a, err)
	}
	// Without a table nothing is allowed.
	a, err = load("[[capability]]\nname = \"httpclient\"\n")
	if err != nil || len(a.Links) != 1 || len(a.Links[0].Values) != 0 {
		t.Errorf("got %+v, %v", a, err)
	}

	_, err = load(`[[capability]]
name = "httpclient"
[[capability.config]]
allow = ["https://a", "ftp://a/*", 5]
methods = ["get", "CONNECT"]
max_response = "1GiB"
redirects = 21
cert = "cert.pem"
[[capability.config]]
allow = []
timeout = "5s"
[[capability.config]]
methods = ["GET"]
[[capability]]
name = "httpclient"
`)
	wantFaults(t, err,
		`10: capability[0].config[0].allow[0]: "https://a": no path: say https://a/* for all of the host`,
		`10: capability[0].config[0].allow[1]: "ftp://a/*": it begins with neither`,
		"10: capability[0].config[0].allow[2]: want a string, got 5",
		`11: capability[0].config[0].methods[0]: want a method in capital letters`,
		`11: capability[0].config[0].methods[1]: want a method in capital letters`,
		"12: capability[0].config[0].max_response: too large, at most 64MiB",
		"13: capability[0].config[0].redirects: too large, at most 20",
		"14: capability[0].config[0].cert: want the absolute path",
		"16: capability[0].config[1].allow: must not be empty",
		"17: capability[0].config[1].timeout: holds for all tables",
		"18: capability[0].config[2].allow: required",
		`20: capability[1]: actor "x" has a link "default" for wasmcloud:httpclient already`,
	)
}

func TestLoadDevice_httpClient(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "password", "geheim\n")
	load := func(more string) (*config.Device, error) {
		return config.LoadDevice(write(t, dir, "edged.toml", "[device]\nid = \"press-7\"\n[http_client]\n"+more))
	}
	d, err := load(`allow = ["public", "10.0.0.0/8", "*.local:80", "[::1]:8080"]
deny = ["10.0.0.1"]
proxy = "http://proxy:3128"
proxy_user = "u"
proxy_password_file = "password"
`)
	if err != nil {
		t.Fatal(err)
	}
	if u, err := d.HTTPClient.ProxyURL(); err != nil || u.String() != "http://u:geheim@proxy:3128" || d.HTTPClient.ProxyPasswordFile != filepath.Join(dir, "password") {
		t.Errorf("the proxy is %v, %v", u, err)
	}
	if b, err := d.HTTPClient.Bound(); err != nil || b.Host("10.0.0.1", 80) == nil || b.Host("10.0.0.2", 80) != nil {
		t.Errorf("the bound is %+v, %v", b, err)
	}
	d, err = load("allow = []\n")
	if b, _ := d.HTTPClient.Bound(); err != nil || b.Host("a.example", 80) == nil {
		t.Errorf("nothing is allowed: got %+v, %v", d.HTTPClient, err)
	}
	if u, err := d.HTTPClient.ProxyURL(); u != nil || err != nil {
		t.Errorf("no proxy: got %v, %v", u, err)
	}
	_, err = load(`allow = ["*", "10.0.0.1/8", "http://a"]
deny = ["public"]
ca = "missing.pem"
proxy = "socks5://u:p@proxy"
proxy_password_file = "missing"
`)
	wantFaults(t, err,
		"4: http_client.allow[0]: want a name", "4: http_client.allow[1]: want a name", "4: http_client.allow[2]: want a name", "5: http_client.deny[0]: want a name",
		"6: http_client.ca: cannot be read", `7: http_client.proxy: scheme must be one of http, https, got "socks5"`, "8: http_client.proxy_password_file: cannot be read",
	)
	_, err = load("proxy = \"http://u:p@proxy\"\nproxy_password_file = \"password\"\n")
	wantFaults(t, err, "4: http_client.proxy: must not hold a user or password", "5: http_client.proxy_password_file: there is no proxy_user")
	_, err = load("proxy_user = \"u\"\n")
	wantFaults(t, err, "4: http_client.proxy_user: there is no proxy")
}
