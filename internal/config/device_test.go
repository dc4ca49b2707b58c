package config_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/edged-io/edged/internal/claims"
	"github.com/edged-io/edged/internal/config"
	"github.com/nats-io/nkeys"
)

// write makes a file, and the folders it is in, and returns its path.
func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// faults returns each fault as "LINE: key: reason".
func faults(t *testing.T, err error) []string {
	t.Helper()
	if err == nil {
		return nil
	}
	var all config.Faults
	if !errors.As(err, &all) || len(all) == 0 {
		t.Fatalf("got %T %v, want Faults", err, err)
	}
	var lines []string
	for _, f := range all {
		lines = append(lines, strings.TrimPrefix(f.String(), f.File+":"))
	}
	return lines
}

// wantFaults compares faults by the beginnings of their lines, in order.
func wantFaults(t *testing.T, err error, want ...string) {
	t.Helper()
	got := faults(t, err)
	ok := len(got) == len(want)
	for i := 0; ok && i < len(got); i++ {
		ok = strings.HasPrefix(got[i], want[i])
	}
	if !ok {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestSample_loads(t *testing.T) {
	d, err := config.LoadDevice(write(t, t.TempDir(), "edged.toml", string(config.Sample())))
	if err != nil {
		t.Fatal(err)
	}
	if d.Device.ID != "edge-box" || d.Device.StateDir != "/var/lib/edged" || d.MQTT.Listen != "127.0.0.1:1883" || d.Hub != nil || d.Trust.AllowUnsigned {
		t.Errorf("got %+v", d)
	}
}

// TestSample_commented turns what the sample shows in comments into settings: they must be right too.
func TestSample_commented(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "device.creds", "x")
	write(t, dir, "corporate.pem", "x")
	write(t, dir, "proxy.password", "x")
	write(t, dir, "host.seed", newSeed(t, claims.Server).Reveal())
	write(t, dir, "cluster.seed", newSeed(t, claims.Cluster).Reveal())
	write(t, dir, "ghcr.password", "x")
	write(t, dir, "policy.toml", "default = \"permit\"\n")
	var text strings.Builder
	for line := range strings.Lines(string(config.Sample())) {
		if rest, ok := strings.CutPrefix(line, "# "); ok && (strings.HasPrefix(rest, "[") || strings.Contains(rest, " = ") && !strings.HasPrefix(rest, "A ")) {
			line = rest
		}
		text.WriteString(line)
	}
	d, err := config.LoadDevice(write(t, dir, "edged.toml", text.String()))
	if err != nil {
		t.Fatalf("%v\n%s", err, text.String())
	}
	if d.Hub == nil || d.Hub.URL != "tls://hub.example.com:7422" || d.Hub.Credentials != filepath.Join(dir, "device.creds") || d.Device.Labels["site"] != "lab" {
		t.Errorf("got %+v", d)
	}
}

func TestLoadDevice_defaults(t *testing.T) {
	dir := t.TempDir()
	d, err := config.LoadDevice(write(t, dir, "edged.toml", "[device]\nid = \"press-7\"\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := config.Device{
		HTTP: config.HTTP{Listen: []string{"127.0.0.1:*", "[::1]:*"}},

		HTTPClient: config.HTTPClient{Allow: []string{"public"}},
		Registry:   config.Registry{MaxArtifact: 256 << 20, Cache: 1 << 30},
		Policy:     config.Policy{Timeout: time.Second},

		Device:  config.Identity{ID: "press-7", StateDir: filepath.Join(dir, "state")},
		Lattice: config.Lattice{Name: "default", Control: true, ProviderObjects: true},
		NATS:    config.NATS{Listen: "127.0.0.1:4222"},
		Apps:    config.Apps{Dir: filepath.Join(dir, "apps")},
		Store:   config.Store{MaxBytes: 1 << 30},
		Limits:  config.Limits{MaxMessage: 1 << 20, State: 64 << 20, Blobs: 1 << 30},
		Admin:   config.Admin{Listen: "127.0.0.1:9180"},
	}
	if !reflect.DeepEqual(*d, want) {
		t.Errorf("got %+v, want %+v", *d, want)
	}
}

func TestLoadDevice_full(t *testing.T) {
	account, err := nkeys.CreateAccount()
	if err != nil {
		t.Fatal(err)
	}
	key, err := account.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write(t, dir, "device.creds", "secret")
	d, err := config.LoadDevice(write(t, dir, "edged.toml", fmt.Sprintf(`
[device]
id = "press-7"
groups = ["presses", "hall_2"]
labels = { site = "lab", "floor" = "2" }
state_dir = "/tmp/x"
[lattice]
name = "plant"
[nats]
listen = ""
[mqtt]
listen = "0.0.0.0:0"
insecure = true
[hub]
url = "wss://u:p@hub.example.com:443/leaf"
credentials = "device.creds"
jetstream_domain = "cloud"
share = ["shared.>"]
max_rate = "64KiB"
[trust]
issuers = [%q]
allow_unsigned = true
[store]
max_bytes = 2000000
[limits]
max_message = "64KiB"
[admin]
listen = "[::1]:0"
`, key)))
	if err != nil {
		t.Fatal(err)
	}
	if d.NATS.Listen != "" || d.MQTT.Listen != "0.0.0.0:0" || d.Hub.Share[0] != "shared.>" || d.Hub.MaxRate != 64<<10 || d.Store.MaxBytes != 2000000 || d.Limits.MaxMessage != 65536 || d.Device.Labels["floor"] != "2" {
		t.Errorf("got %+v", d)
	}
	if shown := d.Hub.LogValue().String(); strings.Contains(shown, "u:p@") {
		t.Errorf("a password is logged: %s", shown)
	}
}

func TestLoadDevice_allFaultsAtOnce(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "apps", "a file")
	_, err := config.LoadDevice(write(t, dir, "edged.toml", `
colour = "red"
[device]
id = "press 7"
groups = ["ok", 5, "not/ok"]
labels = { "a b" = "x", n = 1 }
state_dir = ""
naem = 1
[lattice]
name = true
[nats]
listen = "0.0.0.0:4222"
[mqtt]
listen = "127.0.0.1"
[hub]
url = "http://u:secret@hub"
credentials = "missing.creds"
share = ["a..b", "_INBOX.>"]
[trust]
issuers = ["ABC", "SAAA"]
allow_unsigned = "yes"
[store]
max_bytes = "1 GB x"
[limits]
max_message = "9MiB"
[admin]
listen = "127.0.0.1:65536"
[admin.tls]
`))
	wantFaults(t, err,
		"1: apps.dir: not a folder",
		"2: colour: unknown key",
		`4: device.id: must match`,
		"5: device.groups[1]: want a string, got 5",
		"5: device.groups[2]: must match",
		`6: device.labels."a b": name must match`,
		"6: device.labels.n: want a string, got 1",
		"7: device.state_dir: must not be empty",
		"8: device.naem: unknown key",
		"10: lattice.name: want a string, got true",
		`12: nats.listen: "0.0.0.0:4222" is not on loopback and has neither authentication nor TLS`,
		"14: mqtt.listen: want HOST:PORT",
		`16: hub.url: scheme must be one of nats-leaf, tls, ws, wss, got "http"`,
		"17: hub.credentials: cannot be read: no such file",
		"18: hub.share[0]: not a subject filter",
		`18: hub.share[1]: "_INBOX.>" is reserved`,
		"20: trust.issuers[0]: not the public key of an account",
		"20: trust.issuers[1]: not the public key of an account",
		"21: trust.allow_unsigned: want true or false",
		"23: store.max_bytes: want a size",
		"25: limits.max_message: too large, at most 8MiB",
		"27: admin.listen: port must be",
		"28: admin.tls: unknown key",
	)
	if err != nil && strings.Contains(err.Error(), "secret") {
		t.Error("a password is in the faults")
	}
}

func TestLoadDevice_missing(t *testing.T) {
	dir := t.TempDir()
	_, err := config.LoadDevice(filepath.Join(dir, "none.toml"))
	if want := filepath.Join(dir, "none.toml") + ":1: cannot be read: no such file or directory"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	_, err = config.LoadDevice(dir)
	wantFaults(t, err, "1: cannot be read: not a regular file")
	_, err = config.LoadDevice(write(t, dir, "big.toml", strings.Repeat("#", config.MaxFileBytes+1)))
	wantFaults(t, err, "1: cannot be read: longer than")
	_, err = config.LoadDevice(write(t, dir, "empty.toml", ""))
	wantFaults(t, err, "1: device.id: required")
	_, err = config.LoadDevice(write(t, dir, "hub.toml", "[device]\nid='a'\n\n[hub]\n"))
	wantFaults(t, err, "4: hub.url: required")
}

func TestLoadDevice_notTOML(t *testing.T) {
	dir := t.TempDir()
	for name, c := range map[string]struct{ text, want string }{
		"syntax":    {"[device]\nid = \n", "2: not TOML: "},
		"duplicate": {"[device]\nid = 'a'\nid = 'b'\n", "3: not TOML: key id is already defined"},
		"binary":    {"\x00asm", "1: not TOML: "},
		"unended":   {"[device]\nid = 'a", "2: not TOML: "},
		"deep":      {"x = " + strings.Repeat("[", 200000), "1: not TOML: "},
		"long key":  {"\n" + strings.Repeat("a.", 100000) + "a = 1", "1: a key is longer or nested deeper"},
		"many keys": {"x = [" + strings.Repeat("1,", 100000) + "]", "1: more than 20000 keys"},
	} {
		_, err := config.LoadDevice(write(t, dir, "edged.toml", c.text))
		if got := faults(t, err); len(got) != 1 || !strings.HasPrefix(got[0], c.want) {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
}

func TestLoadDevice_hubRate(t *testing.T) {
	dir := t.TempDir()
	for rate, ok := range map[string]bool{"0": true, `"1KiB"`: true, `"1GiB"`: true, `"1000"`: false, "100": false, `"2GiB"`: false} {
		_, err := config.LoadDevice(write(t, dir, "edged.toml", "[device]\nid = \"a\"\n[hub]\nurl = \"tls://hub\"\nmax_rate = "+rate+"\n"))
		if ok && err != nil {
			t.Errorf("max_rate = %s: %v", rate, err)
		}
		if !ok {
			wantFaults(t, err, "5: hub.max_rate: must be 0, for no bound, or 1KiB to 1GiB")
		}
	}
}
