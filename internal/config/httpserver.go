package config

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/edged-io/edged/internal/httpsettings"
)

// HTTPServer is a place where an actor takes HTTP requests.
type HTTPServer struct {
	Actor, Link string
	// Name is <app>-httpserver-<n>, n from 1 within the app.
	Name     string
	Settings httpsettings.Settings

	key  string // of the table, for faults
	line int
}

// httpServerConfig has the keys of a manifest, and the link values of classic
// wasmCloud.
type httpServerConfig struct {
	Listen         string       `toml:"listen" default:"127.0.0.1:8000"`
	Hosts          []string     `toml:"hosts" items:"32"`
	Routes         []string     `toml:"routes" default:"/" items:"64"`
	TLS            httpTLS      `toml:"tls"`
	MaxBody        Size         `toml:"max_body" default:"1MiB" max:"64MiB"`
	MaxConnections int          `toml:"max_connections" default:"256" min:"1" max:"65536"`
	MaxRequests    int          `toml:"max_requests" default:"64" min:"1" max:"4096"`
	Timeout        httpTimeouts `toml:"timeout"`
	CORS           *httpCORS    `toml:"cors"`
	CacheControl   string       `toml:"cache_control" default:""`
	ReadOnly       bool         `toml:"readonly_mode" default:"false"`

	Address      string `toml:"address" default:""`
	Port         int    `toml:"port" default:"0" min:"0" max:"65535"`
	ConfigJSON   string `toml:"config_json" default:""`
	ConfigBase64 string `toml:"config_b64" default:""`
	ConfigFile   string `toml:"config_file" default:""`
}

type httpTLS struct {
	Cert string `toml:"cert" default:""`
	Key  string `toml:"key" default:""`
}

type httpTimeouts struct {
	Header  Duration `toml:"header" default:"5s" min:"1ms" max:"10m"`
	Read    Duration `toml:"read" default:"30s" min:"1ms" max:"10m"`
	Handler Duration `toml:"handler" default:"30s" min:"1ms" max:"10m"`
	Write   Duration `toml:"write" default:"30s" min:"1ms" max:"10m"`
}

type httpCORS struct {
	Origins []string `toml:"allowed_origins" items:"64"`
	Headers []string `toml:"allowed_headers" items:"64"`
	Methods []string `toml:"allowed_methods" items:"64"`
	Exposed []string `toml:"exposed_headers" items:"64"`
	MaxAge  int      `toml:"max_age_secs" default:"0" min:"0" max:"86400"`
}

// httpServer reads where and how an actor takes HTTP requests. A settings
// document comes first; the keys beside it win.
func (b *builder) httpServer(g grant, t table, _ *Link) {
	before := len(b.faults)
	if t.text {
		t = b.lowerKeys(t)
	}
	var c httpServerConfig
	b.decode(t, &c)
	s := httpsettings.Default()
	b.httpDocument(t, c, &s)
	given := func(key string) bool { _, ok := t.values[key]; return ok }
	if given("port") {
		s.Port(c.Port)
	}
	for key, value := range map[string]string{"address": c.Address, "listen": c.Listen} {
		if given(key) {
			s.Listen = value
		}
	}
	if given("listen") && (given("address") || given("port")) || given("address") && given("port") {
		b.fault(child(t.path, "listen"), "listen, address and port are three ways to say where: take one")
	}
	c.overlay(given, &s)
	if len(b.faults) == before { // what follows from a fault is no news
		for _, p := range s.Check() {
			key := p.Key
			if key == "listen" && given("address") {
				key = "address"
			}
			b.fault(t.path+"."+key, "%s", p.Reason)
		}
	}
	b.count[g.provider]++
	if len(b.faults) > before {
		return // it can not be held against others
	}
	b.app.HTTP = append(b.app.HTTP, HTTPServer{
		Actor: g.actor, Link: g.link, Name: b.app.Name + "-httpserver-" + strconv.Itoa(b.count[g.provider]), Settings: s,
		key: t.path, line: b.line(t.path),
	})
}

// lowerKeys has the keys of a link's values in lower case: its classic counterpart takes
// them in upper case as well, such as PORT.
func (b *builder) lowerKeys(t table) table {
	values := make(map[string]any, len(t.values))
	for key, v := range t.values {
		lower := strings.ToLower(key)
		if _, again := values[lower]; again {
			b.fault(child(t.path, lower), "is there twice, in upper and in lower case")
		}
		values[lower] = v
	}
	t.values = values
	return t
}

// overlay sets what the table says. The decoder has filled in the defaults of
// the rest.
func (c *httpServerConfig) overlay(given func(string) bool, s *httpsettings.Settings) {
	for key, set := range map[string]func(){
		"hosts":           func() { s.Hosts = c.Hosts },
		"routes":          func() { s.Routes = c.Routes },
		"tls":             func() { s.TLS = httpsettings.TLS{Cert: c.TLS.Cert, Key: c.TLS.Key} },
		"max_body":        func() { s.MaxBody = int64(c.MaxBody) },
		"max_connections": func() { s.MaxConnections = c.MaxConnections },
		"max_requests":    func() { s.MaxRequests = c.MaxRequests },
		"timeout": func() {
			s.HeaderTimeout, s.ReadTimeout = c.Timeout.Header, c.Timeout.Read
			s.HandlerTimeout, s.WriteTimeout = c.Timeout.Handler, c.Timeout.Write
		},
		"cors": func() {
			if c.CORS != nil {
				s.CORS = &httpsettings.CORS{
					Origins: c.CORS.Origins, Headers: c.CORS.Headers, Methods: c.CORS.Methods, Exposed: c.CORS.Exposed,
					MaxAge: time.Duration(c.CORS.MaxAge) * time.Second,
				}
			}
		},
		"cache_control": func() { s.CacheControl = c.CacheControl },
		"readonly_mode": func() { s.ReadOnly = c.ReadOnly },
	} {
		if given(key) {
			set()
		}
	}
}

// httpDocument reads the settings document of classic wasmCloud, wherever it is.
// A file is one of the app, so that its signature covers it.
func (b *builder) httpDocument(t table, c httpServerConfig, s *httpsettings.Settings) {
	ways := 0
	for key, way := range map[string]struct {
		value string
		read  func() error
	}{
		"config_json": {c.ConfigJSON, func() error { return s.Document([]byte(c.ConfigJSON)) }},
		"config_b64":  {c.ConfigBase64, func() error { return s.Base64(c.ConfigBase64) }},
		"config_file": {c.ConfigFile, func() error {
			data, err := b.readAppFile(c.ConfigFile, httpsettings.MaxDocument)
			if err != nil {
				return err
			}
			return s.Document(data)
		}},
	} {
		if way.value == "" {
			continue
		}
		if ways++; ways > 1 {
			b.fault(child(t.path, key), "config_json, config_b64 and config_file are three ways to give one document: take one")
			return
		}
		if err := way.read(); err != nil {
			b.fault(child(t.path, key), "%v", err)
		}
	}
}

// readAppFile reads a file in the folder of the app.
func (b *builder) readAppFile(name string, most int) ([]byte, error) {
	if !fs.ValidPath(name) {
		return nil, fmt.Errorf("want a file in the folder of the app, got %q", clip(name))
	}
	info, err := fs.Stat(b.files, name)
	switch {
	case err != nil:
		return nil, plainCause(err)
	case !info.Mode().IsRegular():
		return nil, errors.New("not a file")
	case info.Size() > int64(most):
		return nil, fmt.Errorf("%d bytes, at most %d", info.Size(), most)
	}
	data, err := fs.ReadFile(b.files, name)
	return data, plainCause(err)
}

// httpConflicts faults what an app wants twice.
func (b *builder) httpConflicts() {
	for _, f := range httpConflicts([]*App{b.app}) {
		b.fault(f.Key, "%s", f.Reason)
	}
}

// httpConflicts returns what is wrong between the places where apps take HTTP
// requests.
func httpConflicts(apps []*App) (faults Faults) {
	var places []httpsettings.Place
	var of []Fault
	for _, a := range apps {
		for _, h := range a.HTTP {
			places, of = append(places, httpsettings.Place{Name: h.Name, Settings: h.Settings}), append(of, h.fault(a))
		}
	}
	for _, c := range httpsettings.Conflicts(places) {
		f := of[c.Place]
		f.Reason = c.Reason
		faults = append(faults, f)
	}
	return faults
}

// fault is one without a reason.
func (h *HTTPServer) fault(a *App) Fault {
	return Fault{File: filepath.Join(a.Dir, ManifestName), Line: h.line, Key: h.key}
}

// CheckApps returns what is wrong between apps on this box, nil if nothing: as
// the function of that name, and where the box lets no app listen.
func (d *Device) CheckApps(apps []*App) Faults {
	faults := CheckApps(apps)
	for _, a := range apps {
		for i := range a.HTTP {
			if why := d.refusesHTTP(&a.HTTP[i].Settings); why != "" {
				f := a.HTTP[i].fault(a)
				f.Reason = why
				faults = append(faults, f)
			}
		}
		for _, p := range a.Providers {
			if filepath.IsAbs(p.Exec) && !d.Trust.AllowUnsigned && !slices.Contains(d.Trust.Programs, p.Exec) {
				faults = append(faults, a.fault("provider "+p.Name+": "+strconv.Quote(p.Exec)+" is not in trust.programs of the device file, which says what of the box apps may run"))
			}
		}
	}
	return faults.sorted()
}

// refusesHTTP says why an app may not listen as s wants to, "" if it may.
func (d *Device) refusesHTTP(s *httpsettings.Settings) string {
	a, err := httpsettings.ParseAddress(s.Listen)
	if err != nil {
		return "" // a fault of the app
	}
	covered := slices.ContainsFunc(d.HTTP.Listen, func(text string) bool {
		p, err := httpsettings.ParsePermit(text)
		return err == nil && p.Covers(a)
	})
	if !covered {
		return strconv.Quote(s.Listen) + " is not in http.listen of the device file, which says where apps may listen"
	}
	if !a.Addr().IsLoopback() && s.TLS == (httpsettings.TLS{}) && !d.HTTP.Insecure {
		return strconv.Quote(s.Listen) + " is not on loopback and has no TLS: give it tls = { cert, key }, or set http.insecure = true in the device file if that is wanted"
	}
	for _, own := range []struct{ table, listen string }{{"nats", d.NATS.Listen}, {"mqtt", d.MQTT.Listen}, {"admin", d.Admin.Listen}} {
		if httpsettings.Overlap(own.listen, s.Listen) {
			return strconv.Quote(s.Listen) + " is the box's own: " + own.table + ".listen in the device file"
		}
	}
	return ""
}

// HTTP is where apps may listen for HTTP requests. An empty Listen means nowhere.
type HTTP struct {
	Listen   []string `toml:"listen" default:"127.0.0.1:*,[::1]:*" items:"64"`
	Insecure bool     `toml:"insecure" default:"false"`
}

func (d *document) checkHTTP(h HTTP) {
	for i, s := range h.Listen {
		if _, err := httpsettings.ParsePermit(s); err != nil {
			d.fault(item("http.listen", i), `%v; "*" stands for all ports`, err)
		}
	}
}
