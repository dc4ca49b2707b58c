package node

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/edged-io/edged/internal/claims"
	"github.com/edged-io/edged/internal/control"
	"github.com/edged-io/edged/internal/oci"
	"github.com/edged-io/edged/internal/oci/ocitest"
	"github.com/edged-io/edged/internal/policy"
	"github.com/edged-io/edged/lattice"
	"github.com/edged-io/edged/lattice/wire"
)

// patient is a provider that does nothing until it is ended.
const patient = "#!/bin/sh\nread -r line\nexec tail -f /dev/null\n"

// parArchive writes a provider archive, and returns its reference.
func (r *rig) parArchive(file string, account, provider claims.Seed, rev int64) string {
	r.t.Helper()
	program := r.write(file+".sh", patient)
	r.must(os.Chmod(program, 0o755))
	programs := make(map[string]string)
	for _, target := range []string{"x86_64-linux", "aarch64-linux", "armv7-linux", "arm-linux"} {
		programs[target] = program
	}
	var b bytes.Buffer
	r.must(claims.WriteArchive(&b, claims.Claims[claims.ProviderClaims]{
		Subject: provider.Key().String(), IssuedAt: 1700000000,
		Wascap: claims.ProviderClaims{Name: "Pump", Contract: "acme:pump", Vendor: "Acme", Rev: rev, Ver: "1.2", ConfigSchema: []byte(`{"type":"object"}`)},
	}, programs, account))
	return "file://" + r.write(file, b.String())
}

// programs are the providers that are not built in.
func (r *rig) programs() (all []control.Provider) {
	for _, p := range r.host().State().Providers {
		if p.Contract == "acme:pump" {
			all = append(all, p)
		}
	}
	return all
}

// A provider that was started by command is told of its links, comes back with the box, and is gone when it was stopped.
func TestCommanded_provider(t *testing.T) {
	ours, key := seed(t, claims.Account), seed(t, claims.Service)
	id, actor := key.Key().String(), seed(t, claims.Module).Key().String()
	r := newRig(t, fromFiles+trusting(ours))
	ref := r.parArchive("pump.par", ours, key, 3)
	foreign := r.parArchive("foreign.par", seed(t, claims.Account), key, 3)
	r.write("text.par", "no archive")
	r.start()
	h, ctx := r.host(), t.Context()
	refused(t, h.StartProvider(ctx, control.ProviderStart{Ref: foreign, LinkName: "default"}), claims.ErrUnknownIssuer.Error())
	refused(t, h.StartProvider(ctx, control.ProviderStart{Ref: "file://" + r.path("text.par"), LinkName: "default"}), "text.par")
	refused(t, h.StartProvider(ctx, control.ProviderStart{Ref: "file://" + r.path("pump.par.sh"), LinkName: "default"}), "provider archive")
	refused(t, h.StartProvider(ctx, control.ProviderStart{ID: seed(t, claims.Service).Key().String(), Ref: ref, LinkName: "default"}), "has the key "+id)
	if files, _ := os.ReadDir(r.archivesDir()); len(files) != 0 {
		t.Errorf("archives %v", files)
	}

	r.must(h.SetConfig(ctx, "a", map[string][]byte{"speed": []byte("1"), "way": []byte("up")}))
	r.must(h.SetConfig(ctx, "b", map[string][]byte{"speed": []byte("2")}))
	r.must(h.StartProvider(ctx, control.ProviderStart{ID: "pump", Ref: ref, LinkName: "default", Annotations: map[string]string{"a": "b"}, Config: []string{"a", "b"}}))
	refused(t, h.StartProvider(ctx, control.ProviderStart{Ref: ref, LinkName: "default"}), "runs already")
	r.must(h.StartProvider(ctx, control.ProviderStart{Ref: ref, LinkName: "second", Configuration: "text"}))
	if got := r.held().Providers[providerKey(id, "default")].Configuration; got != `{"speed":"2","way":"up"}` {
		t.Errorf("configuration %s", got)
	}
	check := func() {
		t.Helper()
		r.eventually("both run", func() bool { return len(r.programs()) == 2 })
		got := r.programs()
		if got[0].ID != "pump" || got[0].Key != id || got[0].Ref != ref || got[0].LinkName != "default" || got[0].Annotations["a"] != "b" || got[0].Revision != 3 || got[0].Name != "Pump" {
			t.Errorf("runs %+v", got[0])
		}
		if got[1].ID != id || got[1].LinkName != "second" || got[1].Instance == got[0].Instance {
			t.Errorf("runs %+v", got[1])
		}
		all := r.host().State().Claims
		if len(all) != 1 || all[0].Subject != id || all[0].Issuer != ours.Key().String() || all[0].Contract != "acme:pump" || all[0].ConfigSchema != `{"type":"object"}` {
			t.Errorf("claims %+v", all)
		}
	}
	check()

	// Links reach it under its key, also where they were put under its id.
	nc := r.latticeClient()
	heard, err := nc.SubscribeSync(wire.ProviderSubject("default", id, "default") + ".linkdefs.*")
	r.must(err)
	r.must(nc.Flush())
	told := func(suffix, speed string) { // some things twice
		t.Helper()
		for {
			m, err := heard.NextMsg(patience)
			if err != nil {
				t.Fatalf("not told of a link: %v", err)
			}
			l, err := wire.DecodeLink(m.Data)
			if err != nil {
				t.Fatal(err)
			}
			if strings.HasSuffix(m.Subject, suffix) && l.Actor == actor && l.Values["speed"] == speed {
				return
			}
		}
	}
	link := func(speed string) error {
		return h.PutLink(ctx, control.Link{Link: lattice.Link{Actor: actor, Contract: "acme:pump", Name: "default", Provider: "pump", Values: map[string]string{"speed": speed}}})
	}
	r.must(link("1"))
	told(".put", "1")
	r.must(link("2"))
	told(".del", "1")
	told(".put", "2")

	r.stop()
	r.start()
	h = r.host()
	check()
	r.must(h.StopProvider(ctx, control.ProviderStop{ID: "pump", LinkName: "default"}))
	if got := r.programs(); len(got) != 1 || got[0].LinkName != "second" {
		t.Errorf("runs %+v", got)
	}
	if l, ok := r.bus.Link(actor, "acme:pump", "default"); ok {
		t.Errorf("link %+v: nobody is called pump", l)
	}
	r.must(h.StopProvider(ctx, control.ProviderStop{ID: id, LinkName: "second"}))
	r.must(h.StopProvider(ctx, control.ProviderStop{ID: id, LinkName: "second"}))
	if files, _ := os.ReadDir(r.archivesDir()); len(files) != 0 || len(r.programs()) != 0 {
		t.Errorf("archives %v, providers %+v", files, r.programs())
	}
	r.stop()
	r.start()
	if got := r.programs(); len(got) != 0 {
		t.Errorf("runs %+v", got)
	}
}

// One whose signer is not trusted any more is left out, and the box says so until it is stopped.
func TestCommanded_provider_trust(t *testing.T) {
	ours, key := seed(t, claims.Account), seed(t, claims.Service)
	r := newRig(t, fromFiles+trusting(ours))
	ref := r.parArchive("pump.par", ours, key, 3)
	r.start()
	ctx := t.Context()
	r.must(r.host().StartProvider(ctx, control.ProviderStart{ID: "pump", Ref: ref, LinkName: "default"}))
	r.stop()
	r.write("edged.toml", strings.Replace(mustReadFile(t, r.file), ours.Key().String(), seed(t, claims.Account).Key().String(), 1))
	r.start()
	if got := r.programs(); len(got) != 0 {
		t.Errorf("runs %+v", got)
	}
	contains(t, strings.Join(r.Status().Problems, "\n"), "provider pump default", claims.ErrUnknownIssuer.Error())
	if got := ctl(t, r.latticeClient(), "default.cmd."+r.identity.host.Key().String()+".sp", `{"provider_ref":"`+key.Key().String()+`"}`); got["accepted"] != true {
		t.Errorf("got %v", got)
	}
	r.eventually("it is given up", func() bool { return len(r.held().Providers) == 0 && len(r.Status().Problems) == 0 })
	if p := r.Status().Problems; len(p) != 0 {
		t.Errorf("problems %v", p)
	}
}

// One that had to wait at boot, and is stopped in the moment in which it is started, does not run.
func TestCommanded_provider_stoppedWhileStarted(t *testing.T) {
	ours, key := seed(t, claims.Account), seed(t, claims.Service)
	r := newRig(t, fromFiles+trusting(ours))
	ref := r.parArchive("pump.par", ours, key, 3)
	r.start()
	r.must(r.host().StartProvider(t.Context(), control.ProviderStart{Ref: ref, LinkName: "default"}))
	r.stop()
	r.write("edged.toml", mustReadFile(t, r.file)+asksPolicy)
	r.start() // nobody says that the provider may start
	asked, answer := make(chan struct{}), make(chan struct{})
	once := sync.OnceFunc(func() { close(asked) })
	service := &policyService{permit: func(action, _ string) bool {
		if action == string(policy.StartProvider) {
			once()
			<-answer
		}
		return true
	}}
	service.serve(t, r.latticeClient())
	<-asked
	stopped := make(chan error, 1)
	go func() {
		stopped <- r.host().StopProvider(t.Context(), control.ProviderStop{ID: key.Key().String(), LinkName: "default"})
	}()
	select {
	case err := <-stopped:
		stopped <- err
	case <-time.After(100 * time.Millisecond): // it waits for the start
	}
	close(answer)
	r.must(<-stopped)
	r.commanded.archives.Lock() // what tries to start it has done so
	all := r.processes.Running()
	r.commanded.archives.Unlock()
	if len(all) != 0 || len(r.held().Providers) != 0 {
		t.Errorf("runs %+v, kept %+v", all, r.held().Providers)
	}
}

// An actor and a provider come from a registry with a login that a control tool gave, and without the registry after that.
func TestCommanded_registry(t *testing.T) {
	ours := seed(t, claims.Account)
	actor, provider := seed(t, claims.Module), seed(t, claims.Service)
	reg := ocitest.New(t)
	reg.User, reg.Password = "box", "open sesame"
	r := newRig(t, "[registry]\ninsecure = [\""+reg.Host+"\"]\n"+trusting(ours))
	push := func(name, media, file string) string {
		ref, _ := reg.Push(name, ocitest.Layer{Type: media, Data: []byte(mustReadFile(t, strings.TrimPrefix(file, "file://")))})
		return ref
	}
	watch := push("acme/watch:1", oci.ActorLayer, r.probeModule("watch.wasm", ours, actor, 1))
	pump := push("acme/pump:1", oci.ProviderLayer, r.parArchive("pump.par", ours, provider, 1))
	r.start()
	h, ctx := r.host(), t.Context()
	scale := control.ActorScale{Ref: watch, Max: 1, Limits: map[string]string{"memory": "64MiB"}}
	if err := h.ScaleActor(ctx, scale); !errors.Is(err, oci.ErrLogin) {
		t.Errorf("without a login: %v", err)
	}
	refused(t, h.ScaleActor(ctx, control.ActorScale{Ref: "file://" + r.path("watch.wasm"), Max: 1}), "allow_files")
	r.must(h.SetRegistries(ctx, map[string]control.Registry{reg.Host: {Username: "box", Password: "open sesame"}}))
	r.must(h.ScaleActor(ctx, scale))
	r.stop()
	r.start()
	h = r.host()
	r.must(h.StartProvider(ctx, control.ProviderStart{Ref: pump, LinkName: "default"})) // with the login of before
	r.stop()
	reg.Close()
	r.must(os.RemoveAll(r.path("state", "oci")))
	r.start()
	r.eventually("both are there", func() bool { return len(r.started()) == 1 && len(r.programs()) == 1 })
	if p := r.Status().Problems; len(p) != 0 {
		t.Errorf("problems %v", p)
	}
}
