package config

import (
	"encoding/base32"
	"encoding/binary"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/edged-io/edged/internal/claims"
	"github.com/edged-io/edged/internal/nameform"
	"github.com/edged-io/edged/internal/topic"
)

// Device is a device file. Its paths are absolute or relative to the working directory, no longer to the file.
type Device struct {
	Device  Identity `toml:"device"`
	Lattice Lattice  `toml:"lattice"`
	NATS    NATS     `toml:"nats"`
	MQTT    MQTT     `toml:"mqtt"`
	HTTP    HTTP     `toml:"http"`

	HTTPClient HTTPClient `toml:"http_client"`
	Registry   Registry   `toml:"registry"`

	Hub    *Hub   `toml:"hub"` // nil for a box without a hub
	Trust  Trust  `toml:"trust"`
	Policy Policy `toml:"policy"`
	Apps   Apps   `toml:"apps"`
	Store  Store  `toml:"store"`
	Limits Limits `toml:"limits"`
	Admin  Admin  `toml:"admin"`
}

// Identity is who the box is.
type Identity struct {
	ID       string            `toml:"id" required:"true"`
	Groups   []string          `toml:"groups" items:"64"`
	Labels   map[string]string `toml:"labels"`
	StateDir string            `toml:"state_dir" default:"state"`
}

// Lattice is the lattice the box takes part in.
type Lattice struct {
	Name            string   `toml:"name" default:"default"`
	HostSeedFile    string   `toml:"host_seed_file" default:""`     // "" for one that the box makes
	ClusterSeedFile string   `toml:"cluster_seed_file" default:""`  // the same
	Issuers         []string `toml:"issuers" items:"256"`           // cluster keys
	Control         bool     `toml:"control" default:"true"`        // control tools may ask and change what runs
	AllowRepeats    bool     `toml:"allow_repeats" default:"false"` // an invocation may come again
	// ProviderObjects lets providers that are programs use the object store of the lattice.
	ProviderObjects bool `toml:"provider_objects" default:"true"`
}

// NATS is the listener for local NATS clients. An empty Listen means none.
type NATS struct {
	Listen   string `toml:"listen" default:"127.0.0.1:4222"`
	Insecure bool   `toml:"insecure" default:"false"`
}

// MQTT is the listener for MQTT clients. An empty Listen means none.
type MQTT struct {
	Listen   string `toml:"listen" default:""`
	Insecure bool   `toml:"insecure" default:"false"`
}

// Hub is where the box reports to.
type Hub struct {
	URL             string   `toml:"url" required:"true"` // may hold a password
	Credentials     string   `toml:"credentials" default:""`
	JetStreamDomain string   `toml:"jetstream_domain" default:"hub"`
	Share           []string `toml:"share" items:"64"`     // subject filters
	MaxRate         Size     `toml:"max_rate" default:"0"` // bytes per second of all uplinked streams; 0 means no bound
}

// LogValue keeps the password of the URL out of logs.
func (h Hub) LogValue() slog.Value {
	shown := "(unreadable)"
	if u, err := url.Parse(h.URL); err == nil {
		shown = u.Redacted()
	}
	return slog.GroupValue(slog.String("url", shown), slog.String("credentials", h.Credentials))
}

// Trust is whose apps and actors may run.
type Trust struct {
	Issuers       []string `toml:"issuers"`
	AllowUnsigned bool     `toml:"allow_unsigned" default:"false"`
	Programs      []string `toml:"programs" items:"64"`
}

// Apps is where the apps are, one folder each. The folder need not exist.
type Apps struct {
	Dir string `toml:"dir" default:"apps"`
}

// Store bounds what is kept on disk.
type Store struct {
	MaxBytes Size `toml:"max_bytes" default:"1GiB" min:"1MiB" max:"16TiB"`
}

// Limits are the limits of the box as a whole.
type Limits struct {
	MaxMessage Size `toml:"max_message" default:"1MiB" min:"1KiB" max:"8MiB"`
	Memory     Size `toml:"memory" default:"0" max:"1TiB"` // linear memory of all actors; 0 for no bound of its own
	Staged     Size `toml:"staged" default:"0" max:"1TiB"` // by turns of actors under way; 0 for the default
	State      Size `toml:"state" default:"64MiB" min:"64KiB" max:"1TiB"`
	Blobs      Size `toml:"blobs" default:"1GiB" min:"64KiB" max:"16TiB"` // files of objects
}

// Admin is the listener for health and metrics. An empty Listen means none.
type Admin struct {
	Listen   string `toml:"listen" default:"127.0.0.1:9180"`
	Insecure bool   `toml:"insecure" default:"false"`
}

// LoadDevice reads a device file. The error is a Faults.
func LoadDevice(path string) (*Device, error) {
	d, faults := loadDevice(path)
	if err := faults.err(); err != nil {
		return nil, err
	}
	return d, nil
}

// loadDevice returns what could be read, nil if nothing, and all that is wrong with it.
func loadDevice(path string) (*Device, Faults) {
	data, err := readFile(path, os.OpenFile)
	if err != nil {
		return nil, Faults{{File: path, Line: 1, Reason: "cannot be read: " + err.Error()}}
	}
	return decodeDevice(path, data)
}

func decodeDevice(path string, data []byte) (*Device, Faults) {
	doc := parse(path, data)
	if doc.faults != nil {
		return nil, doc.faults
	}
	var d Device
	doc.decode(table{values: doc.values}, &d)
	doc.checkDevice(&d)

	base := filepath.Dir(path)
	d.Device.StateDir = resolve(base, d.Device.StateDir)
	d.Apps.Dir = resolve(base, d.Apps.Dir)
	doc.checkAppsDir(d.Apps.Dir)
	doc.checkHTTPClient(&d.HTTPClient, base)
	doc.checkSeed("lattice.host_seed_file", &d.Lattice.HostSeedFile, base, claims.Server)
	doc.checkSeed("lattice.cluster_seed_file", &d.Lattice.ClusterSeedFile, base, claims.Cluster)
	doc.checkRegistry(&d.Registry, base)
	doc.checkPolicy(&d.Policy, base)
	if d.Hub != nil && d.Hub.Credentials != "" {
		d.Hub.Credentials = resolve(base, d.Hub.Credentials)
		if _, err := readFile(d.Hub.Credentials, os.OpenFile); err != nil {
			doc.fault("hub.credentials", "cannot be read: %v", err)
		}
	}
	return &d, doc.faults
}

// resolve makes a path of a file relative to what the file's paths are relative to.
func resolve(base, path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(base, path)
}

// checkAppsDir faults an apps folder that is something else. None is right: apps come over the air.
func (d *document) checkAppsDir(dir string) {
	info, err := os.Stat(dir)
	switch {
	case dir == "" || os.IsNotExist(err):
	case err != nil:
		d.fault("apps.dir", "cannot be read: %v", plainCause(err))
	case !info.IsDir():
		d.fault("apps.dir", "not a folder")
	}
}

func (d *document) checkDevice(c *Device) {
	d.checkName("device.id", c.Device.ID)
	for i, g := range c.Device.Groups {
		d.checkName(item("device.groups", i), g)
	}
	for key := range c.Device.Labels {
		if !nameForm.MatchString(key) {
			d.fault(child("device.labels", key), "name must match [A-Za-z0-9_-]{1,64}")
		}
	}
	for _, p := range []struct{ path, value string }{{"device.state_dir", c.Device.StateDir}, {"apps.dir", c.Apps.Dir}} {
		if p.value == "" {
			d.fault(p.path, "must not be empty")
		}
	}
	if d.checkName("lattice.name", c.Lattice.Name) && c.Lattice.Name == "v1" {
		d.fault("lattice.name", "%q is a version of the control interface, choose another name", "v1")
	}
	for i, key := range c.Lattice.Issuers {
		if k, err := claims.Parse(key); err != nil || k.Kind() != claims.Cluster {
			d.fault(item("lattice.issuers", i), "not the public key of a cluster (C…): %q", clip(key))
		}
	}
	d.checkListen("nats", c.NATS.Listen, c.NATS.Insecure)
	d.checkListen("mqtt", c.MQTT.Listen, c.MQTT.Insecure)
	d.checkHTTP(c.HTTP)
	d.checkListen("admin", c.Admin.Listen, c.Admin.Insecure)
	if c.Hub != nil {
		d.checkHub(c.Hub)
	}
	for i, key := range c.Trust.Issuers {
		if !accountKey(key) {
			d.fault(item("trust.issuers", i), "not the public key of an account (A…): %q", clip(key))
		}
	}
	for i, program := range c.Trust.Programs {
		if !filepath.IsAbs(program) || filepath.Clean(program) != program {
			d.fault(item("trust.programs", i), "want an absolute path in its shortest form, got %q", clip(program))
		}
	}
}

func (d *document) checkHub(h *Hub) {
	d.checkURL("hub.url", h.URL, "nats-leaf", "tls", "ws", "wss")
	d.checkName("hub.jetstream_domain", h.JetStreamDomain)
	if h.MaxRate != 0 && h.MaxRate < 1<<10 || h.MaxRate > 1<<30 {
		d.fault("hub.max_rate", "must be 0, for no bound, or 1KiB to 1GiB")
	}
	for i, s := range h.Share {
		if !topic.ValidFilter(s) {
			d.fault(item("hub.share", i), "not a subject filter: %q", clip(s))
		} else if topic.Reserved(s) {
			d.fault(item("hub.share", i), "%q is reserved", clip(s))
		}
	}
}

// nameForm is what names of things are made of: they become parts of subjects, of file names and of stream names.
const nameForm = nameform.Form(64)

func (d *document) checkName(path, name string) bool {
	if nameForm.MatchString(name) {
		return true
	}
	d.fault(path, "must match [A-Za-z0-9_-]{1,64}, got %q", clip(name))
	return false
}

// checkListen checks the address of a listener. No listener has authentication or TLS, so one that strangers reach must be wanted.
func (d *document) checkListen(table, listen string, insecure bool) {
	if listen == "" {
		return
	}
	path := table + ".listen"
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		d.fault(path, "want HOST:PORT, got %q", clip(listen))
		return
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || strconv.FormatUint(n, 10) != port {
		d.fault(path, "port must be 0 to 65535, got %q", clip(port))
	}
	if ip := net.ParseIP(host); !insecure && host != "localhost" && !ip.IsLoopback() {
		d.fault(path, "%q is not on loopback and has neither authentication nor TLS: set %s.insecure = true if that is wanted", clip(listen), table)
	}
}

// checkSeed makes the path of a seed's file absolute or relative to the working directory, and reads it. What is in it is not shown.
func (d *document) checkSeed(key string, path *string, base string, kind claims.Kind) {
	if *path == "" {
		return
	}
	*path = resolve(base, *path)
	data, err := readFile(*path, os.OpenFile)
	if err != nil {
		d.fault(key, "cannot be read: %v", err)
		return
	}
	if seed, err := claims.ParseSeed(strings.TrimSpace(string(data))); err != nil || seed.Kind() != kind {
		d.fault(key, "not a file with the seed of a %s (S%c…): edged keys gen %s --out FILE makes one", kind, kind, kind)
	}
}

// checkURL checks the URL of a server.
func (d *document) checkURL(path, text string, schemes ...string) *url.URL {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		d.fault(path, "not a URL") // the cause would quote a password
	case !slices.Contains(schemes, u.Scheme):
		d.fault(path, "scheme must be one of %s, got %q", strings.Join(schemes, ", "), clip(u.Scheme))
	case u.Hostname() == "":
		d.fault(path, "has no host")
	case u.RawQuery != "" || u.Fragment != "":
		d.fault(path, "must not have a query or fragment")
	case u.Path != "" && u.Path != "/" && !strings.HasPrefix(u.Scheme, "ws"):
		d.fault(path, "must not have a path")
	default:
		return u
	}
	return nil
}

// accountKey reports whether s is the public key of an account: base32 of a prefix byte, 32 bytes of key, and their CRC-16 (XMODEM), little endian.
func accountKey(s string) bool {
	raw, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(s)
	if err != nil || len(raw) != 35 || raw[0] != 0 { // 0 is "A"
		return false
	}
	var crc uint16
	for _, b := range raw[:33] {
		crc ^= uint16(b) << 8
		for range 8 {
			carry := crc&0x8000 != 0
			crc <<= 1
			if carry {
				crc ^= 0x1021
			}
		}
	}
	return crc == binary.LittleEndian.Uint16(raw[33:])
}
