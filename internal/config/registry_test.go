package config_test

import (
	"strings"
	"testing"

	"github.com/edged-io/edged/internal/config"
	"github.com/edged-io/edged/internal/oci"
)

func TestLoadDevice_registry(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "a.password", "open sesame\r\n")
	write(t, dir, "b.token", "t0ken")
	const device = "[device]\nid = \"press-7\"\n"
	d, err := config.LoadDevice(write(t, dir, "edged.toml", device+`[registry]
allow_files = true
insecure = ["localhost:5000"]
cache = "2GiB"
[[registry.login]]
host = "ghcr.io"
user = "me"
password_file = "a.password"
[[registry.login]]
host = "[::1]:5000"
token_file = "b.token"
`))
	if err != nil {
		t.Fatal(err)
	}
	o, err := d.Registry.Options()
	if err != nil {
		t.Fatal(err)
	}
	if !o.Files || o.Latest || o.CacheBytes != 2<<30 || o.MaxBytes != 256<<20 || len(o.Insecure) != 1 {
		t.Errorf("got %+v", o)
	}
	if o.Logins["ghcr.io"] != (oci.Login{User: "me", Password: "open sesame"}) || o.Logins["[::1]:5000"] != (oci.Login{Token: "t0ken"}) {
		t.Error("the logins are others")
	}
	_, err = config.LoadDevice(write(t, dir, "edged.toml", device+`[registry]
insecure = ["http://localhost:5000", "a/b"]
ca = "none.pem"
cache = "1MiB"
[[registry.login]]
host = "ghcr.io"
[[registry.login]]
host = "GHCR.io"
user = "me"
token_file = "b.token"
[[registry.login]]
host = "a"
user = "me"
password_file = "none"
`))
	for _, want := range []string{
		":4: registry.insecure[0]: want HOST", ":4: registry.insecure[1]: want HOST", ":5: registry.ca: cannot be read", ":3: registry.max_artifact: is more",
		":7: registry.login[0]: want either", ":10: registry.login[1].host: GHCR.io has a login already, in line 8", "registry.login[1]: a user has a password_file", "registry.login[2].password_file: cannot be read",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in\n%v", want, err)
		}
	}
}
