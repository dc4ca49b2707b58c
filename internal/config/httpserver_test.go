package config_test

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/edged-io/edged/internal/config"
	"github.com/edged-io/edged/internal/httpsettings"
)

// shop is an app with one actor; more is the rest of its manifest.
func shop(name, more string) string {
	return "specversion = \"0.2\"\nname = \"" + name + "\"\nversion = \"1\"\n[[actor]]\nname = \"shop\"\nmodule = \"thermostat.wasm\"\n" + more
}

func TestLoadApp_httpServer(t *testing.T) {
	dir := app(t, t.TempDir(), "shop", shop("shop", `[[capability]]
name = "httpserver"
[[capability.config]]
listen = "localhost:8001"
hosts = ["Shop.Example"]
routes = ["GET /items/{id}", "POST /items"]
tls = { cert = "/etc/c.pem", key = "/etc/k.pem" }
max_body = "64KiB"
max_connections = 10
max_requests = 5
timeout = { header = "1s", handler = "2s" }
cors = { allowed_origins = ["https://a.example"], max_age_secs = 60 }
cache_control = "no-cache"
[[capability.config]]
listen = "127.0.0.1:0"

[[link]]
actor = "shop"
contract = "wasmcloud:httpserver"
provider = "httpserver"
name = "classic"
values = { port = "8002", readonly_mode = "true", routes = "/a, GET /b", config_file = "http.json" }

[[link]]
actor = "shop"
contract = "wasmcloud:httpserver"
provider = "httpserver"
name = "plain"
`))
	write(t, dir, "http.json", `{"address":"127.0.0.1:1","timeout_ms":100,"cache_control":"private"}`)
	a, err := config.LoadApp(dir)
	if err != nil {
		t.Fatal(err)
	}
	one := httpsettings.Default()
	one.Listen, one.Hosts, one.Routes = "127.0.0.1:8001", []string{"shop.example"}, []string{"GET /items/{id}", "POST /items"}
	one.TLS = httpsettings.TLS{Cert: "/etc/c.pem", Key: "/etc/k.pem"}
	one.MaxBody, one.MaxConnections, one.MaxRequests, one.HeaderTimeout, one.HandlerTimeout = 64<<10, 10, 5, time.Second, 2*time.Second
	one.CORS, one.CacheControl = &httpsettings.CORS{Origins: []string{"https://a.example"}, MaxAge: time.Minute}, "no-cache"
	two := httpsettings.Default()
	two.Listen = "127.0.0.1:0"
	three := httpsettings.Default()
	three.Listen, three.ReadOnly, three.Routes, three.HandlerTimeout, three.CacheControl = "127.0.0.1:8002", true, []string{"/a", "GET /b"}, 100*time.Millisecond, "private"
	want := []httpsettings.Settings{one, two, three, httpsettings.Default()}
	if len(a.HTTP) != len(want) {
		t.Fatalf("got %+v", a.HTTP)
	}
	for i, h := range a.HTTP {
		if !reflect.DeepEqual(h.Settings, want[i]) {
			t.Errorf("%s: got %+v, want %+v", h.Name, h.Settings, want[i])
		}
	}
	if h := a.HTTP[2]; h.Name != "shop-httpserver-3" || h.Link != "classic" || h.Actor != "shop" {
		t.Errorf("got %+v", h)
	}
	same(t, "links", len(a.Links), 3)

	// Without a table, it has its defaults.
	a, err = config.LoadApp(app(t, t.TempDir(), "bare", shop("bare", "[[capability]]\nname = \"httpserver\"\n")))
	if err != nil || len(a.HTTP) != 1 || !reflect.DeepEqual(a.HTTP[0].Settings, httpsettings.Default()) {
		t.Errorf("got %+v, %v", a, err)
	}
}

func TestLoadApp_httpServerFaults(t *testing.T) {
	dir := app(t, t.TempDir(), "shop", shop("shop", `[[capability]]
name = "httpserver"
[[capability.config]]
listen = "example.com:80"
routes = ["items"]
[[capability.config]]
max_body = "1GiB"
color = "red"
[[capability.config]]
address = "127.0.0.1:8001"
port = 8002
config_json = "{"
[[capability.config]]
config_file = "../edged.toml"
[[capability.config]]
config_file = "none.json"
[[capability.config]]
tls = { cert = "cert.pem", key = "/k" }
timeout = { read = "1h" }
[[capability.config]]
listen = "127.0.0.1:8003"
[[capability.config]]
listen = "127.0.0.1:8003"
`))
	_, err := config.LoadApp(dir)
	wantFaults(t, err,
		`10: capability[0].config[0].listen: want an IP address or localhost, got "example.com"`,
		`11: capability[0].config[0].routes: want a path like`,
		`13: capability[0].config[1].max_body: too large, at most 64MiB`,
		`14: capability[0].config[1].color: unknown key`,
		`15: capability[0].config[2].listen: listen, address and port are three ways`,
		`18: capability[0].config[2].config_json: unexpected EOF`,
		`20: capability[0].config[3].config_file: want a file in the folder of the app`,
		`22: capability[0].config[4].config_file: no such file or directory`,
		`25: capability[0].config[5].timeout.read: too large, at most 10m`,
		`28: capability[0].config[7]: route "/" on 127.0.0.1:8003 is also one of shop-httpserver-7`,
	)
}

func TestCheckApps_http(t *testing.T) {
	dir := t.TempDir()
	load := func(name, table string) *config.App {
		a, err := config.LoadApp(app(t, dir, name, shop(name, "[[capability]]\nname = \"httpserver\"\n[[capability.config]]\n"+table)))
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	device := func(more string) *config.Device {
		d, err := config.LoadDevice(write(t, dir, "edged.toml", "[device]\nid = \"box\"\n"+more))
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	a, b, c := load("a", `listen = "127.0.0.1:8000"`), load("b", `routes = ["/b/"]`), load("c", `routes = ["GET /c"]`)
	if f := config.CheckApps([]*config.App{a, b, c}); f != nil {
		t.Error(f)
	}
	thief := load("thief", `routes = ["/b/"]`)
	wantFaults(t, config.CheckApps([]*config.App{a, b, thief}), `9: capability[0].config[0]: route "/b/" on 127.0.0.1:8000 is also one of b-httpserver-1`)

	outside := load("outside", `listen = "0.0.0.0:8443"`)
	secure := load("secure", "listen = \"0.0.0.0:8443\"\ntls = { cert = \"/c\", key = \"/k\" }")
	for _, test := range []struct {
		device string
		app    *config.App
		want   string // "" if it may
	}{
		{"", a, ""}, {"", load("six", `listen = "[::1]:0"`), ""},
		{"", outside, `"0.0.0.0:8443" is not in http.listen of the device file`}, {"", secure, `"0.0.0.0:8443" is not in http.listen of the device file`},
		{"[http]\nlisten = [\"0.0.0.0:8443\"]\n", outside, `"0.0.0.0:8443" is not on loopback and has no TLS`},
		{"[http]\nlisten = [\"0.0.0.0:8443\"]\n", secure, ""}, {"[http]\nlisten = [\"0.0.0.0:*\"]\ninsecure = true\n", outside, ""},
		{"[http]\nlisten = [\"0.0.0.0:8443\"]\n", a, `"127.0.0.1:8000" is not in http.listen`},
		{"[http]\nlisten = []\n", a, `"127.0.0.1:8000" is not in http.listen`},
		{"", load("nats", `listen = "127.0.0.1:4222"`), `"127.0.0.1:4222" is the box's own: nats.listen`},
		{"[admin]\nlisten = \"0.0.0.0:8000\"\ninsecure = true\n", a, `"127.0.0.1:8000" is the box's own: admin.listen`},
	} {
		f := device(test.device).CheckApps([]*config.App{test.app})
		switch {
		case test.want == "" && f != nil, test.want != "" && (len(f) != 1 || !strings.Contains(f.Error(), ": capability[0].config[0]: "+test.want)):
			t.Errorf("%q, %s: got %v, want %q", test.device, test.app.Name, f, test.want)
		}
	}
	_, err := config.LoadDevice(write(t, dir, "edged.toml", "[device]\nid = \"box\"\n[http]\nlisten = [\"127.0.0.1:*\", \"*:80\"]\n"))
	wantFaults(t, err, `4: http.listen[1]: want an IP address or localhost, got "*"`)
}
