package config_test

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/edged-io/edged/internal/config"
	"github.com/edged-io/edged/internal/oci"
	"github.com/edged-io/edged/internal/policy"
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

func TestLoadDevice_policy(t *testing.T) {
	dir := t.TempDir()
	const device = "[device]\nid = \"press-7\"\n[policy]\n"
	write(t, dir, "rules.toml", `default = "deny"
[[rule]]
permit = true
actions = ["start_actor", "start_provider"]
target_issuer = "A*"
message = "ours"
`)
	d, err := config.LoadDevice(write(t, dir, "edged.toml", device+"topic = \"acme.policy\"\nrules = \"rules.toml\"\n"))
	if err != nil || !d.Policy.On() || d.Policy.Timeout != time.Second {
		t.Fatalf("got %+v, %v", d, err)
	}
	rules, err := config.LoadRules(d.Policy.Rules)
	want := &policy.Rules{List: []policy.Rule{{Actions: []policy.Action{policy.StartActor, policy.StartProvider}, TargetIssuer: "A*", Permit: true, Message: "ours"}}}
	if err != nil || !reflect.DeepEqual(rules, want) {
		t.Errorf("got %+v, %v", rules, err)
	}
	write(t, dir, "rules.toml", `default = "maybe"
[[rule]]
actions = ["stop_actor"]
[[rule]]
permit = true
actions = ["start_actor"]
source = "M*"
who = "me"
`)
	_, err = config.LoadDevice(write(t, dir, "edged.toml", device+"topic = \"$SYS.x\"\nrules = \"rules.toml\"\n"))
	for _, want := range []string{"4: policy.topic: not a subject", `1: default: is "maybe"`, "rule[0].permit: required", `rule[0].actions[0]: is "stop_actor"`, "rule[1].actions: a start has no source", "rule[1].who: unknown key"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in\n%v", want, err)
		}
	}
	_, err = config.LoadDevice(write(t, dir, "edged.toml", device+"changes_topic = \"a\"\nrules = \"none.toml\"\n"))
	for _, want := range []string{"policy.changes_topic: there is no topic", "policy.rules: ", "cannot be read"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in\n%v", want, err)
		}
	}
}
