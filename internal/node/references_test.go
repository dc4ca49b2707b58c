package node

import (
	"errors"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/edged-io/edged/internal/claims"
	"github.com/edged-io/edged/internal/oci"
	"github.com/edged-io/edged/internal/oci/ocitest"
	"github.com/edged-io/edged/internal/ota"
)

// What a box fetched once it has after a restart, with nobody to ask.
func TestNode_references(t *testing.T) {
	reg := ocitest.New(t)
	reg.User, reg.Password = "box", "open sesame"
	ref, _ := reg.Push("acme/thermostat:1", ocitest.Layer{Type: oci.ActorLayer, Data: []byte("code")})
	r := newRig(t, "[registry]\ninsecure = [\""+reg.Host+"\"]\n[[registry.login]]\nhost = \""+reg.Host+"\"\nuser = \"box\"\npassword_file = \"secret\"\n")
	r.write("secret", "open sesame\n")
	r.start()
	path, digest, err := r.references.Fetch(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != "code" {
		t.Errorf("got %q, %v", got, err)
	}
	if _, _, err := r.references.Fetch(t.Context(), sha256Digest([]byte("none"))); !errors.Is(err, oci.ErrNotFound) {
		t.Errorf("got %v", err)
	}
	r.stop()
	reg.Close()
	r.start()
	if _, _, err := r.references.Fetch(t.Context(), ref); err != nil {
		t.Error(err)
	}
	if got, _, ok := r.references.Held(digest); !ok || got != path {
		t.Errorf("got %s, %v", got, ok)
	}
}

// referring is the greenhouse with its module by reference: in key, such as oci.
func referring(name, key, ref string) string {
	return strings.Replace(greenhouse(name, "1", name, ""), `module = "thermostat.wasm"`, key+" = \""+ref+"\"", 1)
}

func layer(t *testing.T, path string) ocitest.Layer {
	t.Helper()
	code, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return ocitest.Layer{Type: oci.ActorLayer, Data: code}
}

// An app runs what its references named first, with or without the registry.
func TestNode_references_app(t *testing.T) {
	reg := ocitest.New(t)
	ref, _ := reg.Push("acme/thermostat:1", layer(t, thermostat))
	r := newRig(t, "[registry]\ninsecure = [\""+reg.Host+"\"]\n"+unsigned)
	r.start()
	r.write("apps/a/app.toml", referring("a", "oci", ref))
	r.reload()
	r.write("apps/b/app.toml", referring("b", "digest", sha256Digest(layer(t, thermostat).Data)))
	r.reload()
	if got := r.running(); got != "a 1, b 1" {
		t.Fatalf("runs %s", got)
	}
	r.publish("a.x.temperature", 20)
	r.eventually("a turn", func() bool { return r.turns("a") == 1 })
	digest := r.apps["a"].actors[0].digest

	// What the tag names later is for other apps, or other versions.
	reg.Push("acme/thermostat:1", layer(t, probe))
	reg.Requests()
	r.reload()
	r.stop()
	r.start()
	if got := r.apps["a"].actors[0].digest; got != digest || len(reg.Requests()) != 0 {
		t.Errorf("runs %s instead of %s, or has asked the registry", got, digest)
	}
	r.stop()
	reg.Close()
	r.start()
	if got := r.running(); got != "a 1, b 1" {
		t.Errorf("without a registry it runs %s", got)
	}
	// A new app needs the registry, and what runs goes on.
	r.write("apps/c/app.toml", referring("c", "oci", reg.Host+"/other:1"))
	if err := r.Reload(t.Context()); !errors.Is(err, oci.ErrUnreachable) {
		t.Errorf("reload: %v", err)
	}
	if got := r.running(); got != "a 1, b 1" {
		t.Errorf("runs %s", got)
	}
}

// A box does not wait for a registry, and an app starts when it can.
func TestNode_references_late(t *testing.T) {
	reg := ocitest.New(t)
	reg.Status = http.StatusServiceUnavailable
	ref, _ := reg.Push("acme/thermostat:1", layer(t, thermostat))
	r := newRig(t, "[registry]\ninsecure = [\""+reg.Host+"\"]\n"+unsigned)
	r.write("apps/a/app.toml", referring("a", "oci", ref))
	r.app("b", "1", "b", "")
	r.start()
	contains(t, strings.Join(r.Status().Problems, "\n"), "app a: ")
	r.eventually("b runs", func() bool { return strings.Contains(r.running(), "b 1") })
	reg.Set(func(reg *ocitest.Registry) { reg.Status = 0 })
	r.eventually("a runs too", func() bool { return r.running() == "a 1, b 1" })
	r.eventually("nothing is wrong", func() bool { return len(r.Status().Problems) == 0 })

	// What is lost is fetched again.
	r.stop()
	if err := os.RemoveAll(r.path("state", "oci")); err != nil {
		t.Fatal(err)
	}
	r.start()
	r.eventually("a runs again", func() bool { return r.running() == "a 1, b 1" })
}

// The signature of an app is none over what a tag names.
func TestNode_references_trust(t *testing.T) {
	ours, theirs := seed(t, claims.Account), seed(t, claims.Account)
	reg := ocitest.New(t)
	unsignedRef, digest := reg.Push("acme/thermostat:1", layer(t, thermostat))
	bare := layer(t, thermostat)
	signed := func(by claims.Seed) ocitest.Layer {
		code, err := claims.SignModule(bare.Data, claims.Claims[claims.ModuleClaims]{
			Subject: seed(t, claims.Module).Key().String(), Wascap: claims.ModuleClaims{Name: "t", Caps: []string{"wasmcloud:keyvalue", "edged:pubsub"}},
		}, by)
		if err != nil {
			t.Fatal(err)
		}
		return ocitest.Layer{Type: oci.ActorLayer, Data: code}
	}
	signedRef, _ := reg.Push("acme/thermostat:2", signed(ours))
	foreignRef, _ := reg.Push("acme/thermostat:3", signed(theirs))
	r := newRig(t, "[registry]\ninsecure = [\""+reg.Host+"\"]\n"+trusting(ours))
	for app, ref := range map[string]string{"tag": unsignedRef, "digest": reg.Host + "/acme/thermostat@" + digest, "signed": signedRef, "foreign": foreignRef} {
		r.write("apps/"+app+"/app.toml", referring(app, "oci", ref))
		r.sign(app, ours, time.Time{}, time.Time{})
	}
	r.start()
	r.eventually("all have been tried", func() bool {
		problems := strings.Join(r.Status().Problems, "\n")
		return r.running() == "digest 1, signed 1" && strings.Contains(problems, claims.ErrUnsigned.Error()) && strings.Contains(problems, claims.ErrUnknownIssuer.Error())
	})
}

// A release waits for what it names by reference; what can never be is refused.
func TestNode_references_update(t *testing.T) {
	reg := ocitest.New(t)
	reg.Status = http.StatusServiceUnavailable
	ref, _ := reg.Push("acme/thermostat:1", layer(t, thermostat))
	r := newRig(t, "[registry]\ninsecure = [\""+reg.Host+"\"]\n"+unsigned)
	r.start()
	r.write("new/app.toml", referring("a", "oci", ref))
	s := ota.Staged{App: "a", Version: "1", Dir: r.path("new")}
	if err := r.admitUpdate(t.Context(), s); !errors.Is(err, ota.ErrLater) {
		t.Errorf("got %v, want to be asked again", err)
	}
	reg.Set(func(reg *ocitest.Registry) { reg.Status = 0 })
	if err := errors.Join(r.admitUpdate(t.Context(), s), r.applyUpdate(t.Context(), s)); err != nil || r.running() != "a 1" {
		t.Errorf("got %v, runs %s", err, r.running())
	}
	r.write("new/app.toml", referring("a", "oci", reg.Host+"/acme/thermostat:latest"))
	if err := r.admitUpdate(t.Context(), s); !errors.Is(err, oci.ErrRefused) || errors.Is(err, ota.ErrLater) {
		t.Errorf("got %v, want a refusal", err)
	}
}

// A provider archive comes from a registry as a module does.
func TestNode_references_provider(t *testing.T) {
	ours := seed(t, claims.Account)
	reg := ocitest.New(t)
	r := newRig(t, "[registry]\ninsecure = [\""+reg.Host+"\"]\n"+unsigned)
	key := seed(t, claims.Service)
	archive, err := os.ReadFile(strings.TrimPrefix(r.parArchive("pump.par", ours, key, 3), "file://"))
	if err != nil {
		t.Fatal(err)
	}
	ref, _ := reg.Push("acme/pump:1", ocitest.Layer{Type: oci.ProviderLayer, Data: archive})
	r.write("apps/a/app.toml", "specversion = \"0.2\"\nname = \"a\"\nversion = \"1\"\n[[provider]]\nname = \"pump\"\noci = \""+ref+"\"\n")
	r.start()
	r.eventually("the provider runs", func() bool { return len(r.processes.Running()) == 1 })
	if s := r.processes.Running()[0]; s.Key != key.Key().String() || s.Ref != ref {
		t.Errorf("status %+v", s)
	}
	r.stop()
	reg.Close()
	r.start()
	r.eventually("the provider runs without the registry", func() bool { return len(r.processes.Running()) == 1 })
}
