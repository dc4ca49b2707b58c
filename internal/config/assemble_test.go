package config

import (
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func assembly(t *testing.T, links ...Link) Assembly {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "m.wasm"), []byte("module"), 0o600); err != nil {
		t.Fatal(err)
	}
	return Assembly{Name: "control-pump", Version: "3", Dir: dir, Actor: "pump", Module: "m.wasm", Limits: map[string]string{"instances": "3", "memory": "16MiB"}, Links: links}
}

func TestAssemble(t *testing.T) {
	a := assembly(t,
		Link{Contract: ContractHTTPServer, Provider: "httpserver", Name: "default", Values: map[string]string{"PORT": "8081"}},
		Link{Contract: ContractMessaging, Provider: "messaging", Name: "default", Values: map[string]string{"SUBSCRIPTION": "a.*,b|q"}},
		Link{Contract: ContractKeyValue, Provider: "keyvalue", Name: "cache"},
		Link{Contract: ContractGPIO, Provider: "gpio", Name: "default", Values: map[string]string{"chip": "sim0", "line": "3", "direction": "out", "safe": "1"}},
	)
	app, err := Assemble(a)
	if err != nil {
		t.Fatal(err)
	}
	if got := app.Actors[0]; got.Name != "pump" || got.Module != "m.wasm" || got.Limits.Instances != 3 || got.Limits.Memory != 16<<20 || got.Limits.Calls != DefaultLimits().Calls {
		t.Errorf("actor %+v", got)
	}
	if !app.Assembled || app.Name != "control-pump" || app.Version != "3" || app.Dir != a.Dir {
		t.Errorf("app %+v", app)
	}
	if len(app.HTTP) != 1 || app.HTTP[0].Settings.Listen != "127.0.0.1:8081" || app.HTTP[0].Actor != "pump" {
		t.Errorf("http %+v", app.HTTP)
	}
	if len(app.Messaging) != 2 || app.Messaging[1].Group != "q" || len(app.GPIO) != 1 || app.GPIO[0].Line != 3 || app.GPIO[0].Safe != 1 || len(app.Links) != 4 {
		t.Errorf("messaging %+v, gpio %+v, links %+v", app.Messaging, app.GPIO, app.Links)
	}
	if got := app.CalledBy("pump"); !slices.Equal(got, []string{ContractHTTPServer, ContractMessaging}) {
		t.Errorf("called by %v", got)
	}

	// The digest is of all that matters.
	again, err := Assemble(a)
	if err != nil || again.Digest != app.Digest {
		t.Errorf("digest %s, then %s: %v", app.Digest, again.Digest, err)
	}
	a.Links[0].Values = map[string]string{"PORT": "8082"}
	if other, err := Assemble(a); err != nil || other.Digest == app.Digest {
		t.Errorf("another port, the same digest: %v", err)
	}
}

func TestAssemble_faults(t *testing.T) {
	for _, test := range []struct {
		change func(*Assembly)
		want   string
	}{
		{func(a *Assembly) { a.Limits["speed"] = "1" }, "limits.speed: unknown key"},
		{func(a *Assembly) { a.Limits["instances"] = "0" }, "limits.instances: too small"},
		{func(a *Assembly) { a.Module = "none.wasm" }, "module: file"},
		{func(a *Assembly) { a.Module = "../m.wasm" }, "module: want a file in the folder"},
		{func(a *Assembly) { a.Links[0].Provider = "redis" }, "link default for wasmcloud:httpserver: provider: unknown provider"},
		{func(a *Assembly) { a.Links[0].Contract = ContractKeyValue }, "link default for wasmcloud:keyvalue: contract: httpserver serves"},
		{func(a *Assembly) { a.Links[0].Name = "a b" }, "link a b for wasmcloud:httpserver: name: must match"},
		{func(a *Assembly) { a.Links[0].Values["PORT"] = "eighty" }, "link default for wasmcloud:httpserver: values.port: want an integer"},
		{func(a *Assembly) { a.Links[0].Values["port"] = "1" }, "values.port: is there twice"},
		{func(a *Assembly) { a.Links = append(a.Links, a.Links[0]) }, "is also one of control-pump-httpserver-1"},
		{func(a *Assembly) {
			a.Links[0] = Link{Contract: ContractPubSub, Provider: "pubsub.mqtt", Name: "default", Values: map[string]string{
				"url": "tcp://127.0.0.1:1", "topic": "a", "user": "u", "password_file": "/var/lib/edged/cluster.seed",
			}}
		}, "values.password_file: names a file with a secret"},
		{func(a *Assembly) {
			a.Links[0] = Link{Contract: ContractPubSub, Provider: "pubsub.nats", Name: "default", Values: map[string]string{
				"url": "nats://127.0.0.1:1", "topic": "a", "credentials": "/etc/edged/hub.creds",
			}}
		}, "values.credentials: names a file with a secret"},
		{func(a *Assembly) {
			a.Links[0].Values = map[string]string{"config_json": `{"address":"127.0.0.1:1","tls":{"cert_file":"/etc/edged/box.crt","priv_key_file":"/etc/edged/box.key"}}`}
		}, "values.tls: names a file with a secret"},
		{func(a *Assembly) {
			a.Links[0].Values = map[string]string{"tls": `{"cert":"/etc/edged/box.crt","key":"/etc/edged/box.key"}`}
		}, "values.tls: "},
		{func(a *Assembly) { a.Links[0].Values = map[string]string{"config_file": "../../etc/passwd"} }, "values.config_file: want a file in the folder"},
	} {
		a := assembly(t, Link{Contract: ContractHTTPServer, Provider: "httpserver", Name: "default", Values: map[string]string{"PORT": "80"}})
		test.change(&a)
		_, err := Assemble(a)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("got %v, want %q", err, test.want)
		}
	}
}

func TestApp_reservedName(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, ManifestName), []byte("specversion = \"0.2\"\nname = \"control-x\"\nversion = \"1\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadApp(dir); err == nil || !strings.Contains(err.Error(), "control interface has started") {
		t.Errorf("got %v", err)
	}
}

func TestBuiltins(t *testing.T) {
	all := Builtins()
	if all["keyvalue"] != ContractKeyValue || !IsBuiltin("pubsub.mqtt") || IsBuiltin("redis") || len(all) != len(builtins) {
		t.Errorf("got %v", all)
	}
}

// Values come from whoever may put a link. None makes a fault without a reason, or an app that differs from one time to the next.
func FuzzAssemble(f *testing.F) {
	f.Add("httpserver", ContractHTTPServer, "default", "PORT", "8080", "address", "0.0.0.0:1")
	f.Add("messaging", ContractMessaging, "a", "SUBSCRIPTION", "a.>|q", "config_json", `{"subscriptions":["x"]}`)
	f.Add("gpio", ContractGPIO, "default", "chip", "sim0", "line", "1")
	f.Add("pubsub.mqtt", ContractPubSub, "default", "url", "tcp://a:1", "topic", "a/#")
	f.Add("httpclient", ContractHTTPClient, "default", "allow", "a, b", "config_b64", "%%%")
	f.Add("keyvalue", ContractKeyValue, "", "bucket", "\x00", "", "")
	f.Fuzz(func(t *testing.T, provider, contract, name, k1, v1, k2, v2 string) {
		a := Assembly{Name: "control-a", Version: "1", Actor: "a", Limits: map[string]string{k1: v2}, Links: []Link{{Contract: contract, Provider: provider, Name: name, Values: map[string]string{k1: v1, k2: v2}}}}
		given := maps.Clone(a.Links[0].Values)
		one, err := Assemble(a)
		two, again := Assemble(a)
		if !maps.Equal(given, a.Links[0].Values) {
			t.Fatal("the values were changed")
		}
		switch {
		case (err == nil) != (again == nil):
			t.Fatalf("%v, then %v", err, again)
		case err != nil && strings.TrimSpace(err.Error()) == "":
			t.Fatal("no reason")
		case err == nil && !reflect.DeepEqual(one, two):
			t.Fatalf("%+v, then %+v", one, two)
		}
	})
}
