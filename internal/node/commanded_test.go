package node

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/edged-io/edged/internal/claims"
	"github.com/edged-io/edged/internal/control"
	"github.com/edged-io/edged/lattice"
)

const fromFiles = "[registry]\nallow_files = true\n"

// The contracts that a probe may need.
var probeCaps = []string{"wasmcloud:keyvalue", "wasmcloud:httpserver", "wasmcloud:messaging", "acme:pump"}

// probeModule writes a signed probe of a revision, and returns its reference.
func (r *rig) probeModule(file string, account, module claims.Seed, rev int64) string {
	r.t.Helper()
	bin, err := os.ReadFile(probe)
	if err != nil {
		r.t.Fatal(err)
	}
	bin, err = claims.SignModule(bin, claims.Claims[claims.ModuleClaims]{
		Subject: module.Key().String(), IssuedAt: 1700000000,
		Wascap: claims.ModuleClaims{Name: "Pump watch", Caps: probeCaps, Rev: rev, Ver: fmt.Sprintf("0.%d", rev)},
	}, account)
	if err != nil {
		r.t.Fatal(err)
	}
	return "file://" + r.write(file, string(bin))
}

func (r *rig) host() controlHost { return controlHost{r.Node} }

func (r *rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatalf("%v\n%s", err, r.log.String())
	}
}

// refused checks that a command was refused, in words.
func refused(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("got no error, want %q", words)
		return
	}
	contains(t, err.Error(), words...)
}

// started are the actors that were started by command.
func (r *rig) started() (all []control.Actor) {
	for _, a := range r.host().State().Actors {
		if a.App == "" {
			all = append(all, a)
		}
	}
	return all
}

// An actor that was started by command takes requests as it is linked to, goes on after a restart without its file, and is gone when it was stopped.
func TestCommanded_actor(t *testing.T) {
	ours, key := seed(t, claims.Account), seed(t, claims.Module)
	id := key.Key().String()
	r := newRig(t, fromFiles+trusting(ours))
	ref := r.probeModule("probe.wasm", ours, key, 7)
	r.start()
	h, ctx := r.host(), t.Context()
	r.must(h.PutLink(ctx, control.Link{Link: lattice.Link{
		Actor: id, Contract: "wasmcloud:httpserver", Name: "default", Provider: "httpserver", Values: map[string]string{"ADDRESS": "127.0.0.1:0"},
	}}))
	r.must(h.PutLink(ctx, control.Link{Link: lattice.Link{Actor: id, Contract: "wasmcloud:keyvalue", Name: "default", Provider: "keyvalue", Values: map[string]string{"bucket": "pumps"}}}))
	site := map[string]string{"site": "north"}
	limits := map[string]string{"memory": "64MiB", "time": "30s"}
	r.must(h.ScaleActor(ctx, control.ActorScale{Ref: ref, Max: 2, Limits: limits}))
	r.must(h.ScaleActor(ctx, control.ActorScale{ID: id, Ref: ref, Max: 3, Annotations: site}))
	r.must(os.Remove(strings.TrimPrefix(ref, "file://")))

	check := func() {
		t.Helper()
		got := r.started()
		if len(got) != 2 || got[0].ID != id || got[0].Key != id || got[0].Ref != ref || got[0].Revision != 7 || got[0].Name != "Pump watch" ||
			got[0].Max != 2 || got[1].Max != 3 || got[1].Annotations["site"] != "north" || got[0].Instance == got[1].Instance {
			t.Errorf("runs %+v", got)
		}
		if got := r.health.actor(id).config.Limits; got.Instances != 5 || got.Memory != 64<<20 {
			t.Errorf("limits %+v", got)
		}
		if c := r.host().State().Claims; len(c) != 1 || c[0].Subject != id || c[0].Issuer != ours.Key().String() || c[0].Version != "0.7" || !slices.Equal(c[0].Caps, probeCaps) {
			t.Errorf("claims %+v", c)
		}
	}
	ask := func(want string) {
		t.Helper()
		status, body := r.post(newClient(t), "http://"+r.httpAddress("control-"+id+"-httpserver-1")+"/")
		if status != http.StatusOK || body != want {
			t.Errorf("got %d %s, want %s", status, body, want)
		}
	}
	check()
	ask("1")
	instance := r.started()[0].Instance
	r.stop()
	r.start()
	check()
	ask("2")
	if r.started()[0].Instance == instance {
		t.Error("after a restart the instance is the same one")
	}
	r.reload()
	check()

	h = r.host()
	r.must(h.ScaleActor(ctx, control.ActorScale{ID: id, Ref: ref, Annotations: site}))
	if got := r.started(); len(got) != 1 || got[0].Max != 2 {
		t.Errorf("runs %+v, want the entry without annotations", got)
	}
	r.must(h.ScaleActor(ctx, control.ActorScale{ID: id, Ref: ref}))
	r.must(h.ScaleActor(ctx, control.ActorScale{ID: id, Ref: ref}))
	if got := r.started(); len(got) != 0 {
		t.Errorf("runs %+v, want nothing", got)
	}
	if files, _ := os.ReadDir(r.modulesDir()); len(files) != 0 {
		t.Errorf("modules of nobody: %v", files)
	}
	if got := r.host().State().Links; len(got) != 2 {
		t.Errorf("links %+v, want those that were put: their actor may come back", got)
	}
	r.stop()
	r.start()
	if got := r.started(); len(got) != 0 || len(r.Status().Problems) != 0 {
		t.Errorf("after a restart runs %+v: %v", got, r.Status().Problems)
	}
}

// What a module has to be, to be started.
func TestCommanded_actor_trust(t *testing.T) {
	ours, key := seed(t, claims.Account), seed(t, claims.Module)
	r := newRig(t, fromFiles+trusting(ours))
	good, foreign := r.probeModule("good.wasm", ours, key, 1), r.probeModule("foreign.wasm", seed(t, claims.Account), key, 1)
	other := r.probeModule("other.wasm", ours, key, 2)
	r.write("text.wasm", "no module")
	r.start()
	h, ctx := r.host(), t.Context()
	scale := func(ref, id string) error {
		return h.ScaleActor(ctx, control.ActorScale{ID: id, Ref: ref, Max: 1, Limits: map[string]string{"memory": "64MiB"}})
	}
	refused(t, scale(foreign, ""), claims.ErrUnknownIssuer.Error())
	refused(t, scale("file://"+probe, ""), "not signed", "edged sign")
	refused(t, scale("file://"+r.path("text.wasm"), ""), "not a WebAssembly module")
	refused(t, scale("file://"+r.path("none.wasm"), ""), "none.wasm")
	refused(t, scale(good, seed(t, claims.Module).Key().String()), "has the key "+key.Key().String())
	refused(t, h.ScaleActor(ctx, control.ActorScale{Ref: good, Max: 1, Limits: map[string]string{"speed": "9", "memory": "much"}}), "limits.speed: unknown", "limits.memory: want a size")
	refused(t, h.ScaleActor(ctx, control.ActorScale{Ref: good, Max: 1, Config: []string{"c"}}), "values of its links")
	refused(t, h.UpdateActor(ctx, control.ActorUpdate{ID: key.Key().String(), Ref: good}), "does not run")
	if got := r.started(); len(got) != 0 {
		t.Fatalf("runs %+v", got)
	}
	r.must(scale(good, "pump"))
	refused(t, scale(other, "pump"), "use update")
	refused(t, scale(other, ""), "use update")
	refused(t, scale(good, "other"), "under the id pump")
	refused(t, h.UpdateActor(ctx, control.ActorUpdate{ID: "pump", Ref: foreign}), claims.ErrUnknownIssuer.Error())
	if got := r.started(); len(got) != 1 || got[0].ID != "pump" || got[0].Key != key.Key().String() {
		t.Errorf("runs %+v", got)
	}

	// Without the trust it is left out, others are not, and nothing else that is put fails for it.
	r.stop()
	r.write("edged.toml", strings.Replace(mustReadFile(t, r.file), ours.Key().String(), seed(t, claims.Account).Key().String(), 1))
	r.start()
	h = r.host()
	contains(t, strings.Join(r.Status().Problems, "\n"), "app control-"+key.Key().String(), claims.ErrUnknownIssuer.Error())
	r.must(h.SetConfig(ctx, "c", map[string][]byte{"a": []byte("b")}))
	refused(t, scale(good, "pump"), claims.ErrUnknownIssuer.Error())
	r.reload()
	contains(t, strings.Join(r.Status().Problems, "\n"), "app control-"+key.Key().String())
	contains(t, strings.Join(r.Status().Problems, "\n"), "edged actor stop "+key.Key().String())
	if got := ctl(t, r.latticeClient(), "default.cmd."+r.identity.host.Key().String()+".sa", `{"actor_ref":"`+key.Key().String()+`"}`); got["accepted"] != true {
		t.Errorf("got %v", got)
	}
	r.eventually("it is given up", func() bool { return len(r.held().Actors) == 0 && len(r.Status().Problems) == 0 })
	if p := r.Status().Problems; len(p) != 0 {
		t.Errorf("problems %v", p)
	}
}

func mustReadFile(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// Where unsigned actors may run, one goes by the id that it was given, or by its reference.
func TestCommanded_actor_unsigned(t *testing.T) {
	r := newRig(t, fromFiles+unsigned)
	ref := "file://" + r.write("pump-watch.wasm", mustReadFile(t, probe))
	r.start()
	h, ctx := r.host(), t.Context()
	limits := map[string]string{"memory": "64MiB"}
	r.must(h.ScaleActor(ctx, control.ActorScale{Ref: ref, Max: 1, Limits: limits}))
	r.must(h.ScaleActor(ctx, control.ActorScale{ID: "second", Ref: ref, Max: 1, Limits: limits}))
	refused(t, h.ScaleActor(ctx, control.ActorScale{ID: "no/good", Ref: ref, Max: 1, Limits: limits}), "letters, digits")
	for range 2 {
		got := r.started()
		if len(got) != 2 || got[0].ID != "control-pump-watch/pump-watch" || got[1].ID != "second" || got[1].Key != "control-second/second" {
			t.Errorf("runs %+v", got)
		}
		r.stop()
		r.start()
	}
	r.must(r.host().UpdateActor(ctx, control.ActorUpdate{ID: "second", Ref: "file://" + r.write("new.wasm", mustReadFile(t, probe))}))
	if got := r.started(); len(got) != 2 || got[1].Ref != "file://"+r.path("new.wasm") {
		t.Errorf("runs %+v", got)
	}
}

// An update takes the place of the code without a call that fails for it.
func TestCommanded_update(t *testing.T) {
	ours, key := seed(t, claims.Account), seed(t, claims.Module)
	id := key.Key().String()
	r := newRig(t, fromFiles+trusting(ours))
	var refs []string
	for rev := range 4 {
		refs = append(refs, r.probeModule(fmt.Sprintf("probe%d.wasm", rev), ours, key, int64(rev+1)))
	}
	r.start()
	h := r.host()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r.must(h.PutLink(ctx, control.Link{Link: lattice.Link{Actor: id, Contract: "wasmcloud:keyvalue", Name: "default", Provider: "keyvalue"}}))
	r.must(h.ScaleActor(ctx, control.ActorScale{Ref: refs[0], Max: 2, Limits: map[string]string{"memory": "64MiB", "time": "30s"}}))

	var wg sync.WaitGroup
	var calls atomic.Int64
	for range 8 {
		wg.Go(func() {
			for ctx.Err() == nil {
				_, err := r.bus.Call(t.Context(), lattice.Invocation{Target: lattice.Entity{Key: id}, Operation: "Actor.HealthRequest", Payload: []byte{0x80}})
				if err != nil && !strings.Contains(err.Error(), "not handled") {
					t.Errorf("call: %v", err)
					return
				}
				calls.Add(1)
			}
		})
	}
	for i, ref := range refs[1:] {
		at := calls.Load()
		r.eventually("calls go on", func() bool { return calls.Load() > at+20 || t.Failed() })
		r.must(h.UpdateActor(ctx, control.ActorUpdate{ID: id, Ref: ref}))
		if got := r.started(); len(got) != 1 || got[0].Revision != int64(i+2) || got[0].Ref != ref {
			t.Errorf("runs %+v", got)
		}
		r.must(h.ScaleActor(ctx, control.ActorScale{ID: id, Ref: ref, Max: uint32(i + 3)}))
	}
	cancel()
	wg.Wait()
	refused(t, h.UpdateActor(t.Context(), control.ActorUpdate{ID: id, Ref: refs[1]}), "revision 2", "has 4", "higher")
	if files, _ := os.ReadDir(r.modulesDir() + "/" + assembledName(id)); len(files) != 1 {
		t.Errorf("modules %v, want one", files)
	}
}

// Links, and who may change them.
func TestCommanded_links(t *testing.T) {
	ours, key := seed(t, claims.Account), seed(t, claims.Module)
	id, pump := key.Key().String(), seed(t, claims.Service).Key().String()
	r := newRig(t, fromFiles+unsigned)
	ref := r.probeModule("probe.wasm", ours, key, 1)
	r.probe("plant", "1", "", "one")
	r.start()
	h, ctx := r.host(), t.Context()
	link := func(actor, contract, provider string, values ...string) control.Link {
		l := control.Link{Link: lattice.Link{Actor: actor, Contract: contract, Name: "default", Provider: provider, Values: map[string]string{}}}
		for i := 0; i < len(values); i += 2 {
			l.Values[values[i]] = values[i+1]
		}
		return l
	}
	refused(t, h.PutLink(ctx, link(id, "wasmcloud:httpserver", "httpserver", "PORT", "many")), "values.port")
	refused(t, h.PutLink(ctx, link(id, "wasmcloud:httpserver", "keyvalue")), `serves "wasmcloud:keyvalue"`)
	refused(t, h.PutLink(ctx, link(id, "wasmcloud:keyvalue", "keyvalue", "URL", "redis://127.0.0.1")), "no Redis")
	refused(t, h.PutLink(ctx, link("plant/one", "wasmcloud:httpserver", "httpserver")), "belongs to the app plant")

	// An app's actor may be linked with what is not built in.
	r.must(h.PutLink(ctx, link("plant/one", "acme:pump", pump, "speed", "1")))
	if l, ok := r.bus.Link("plant/one", "acme:pump", "default"); !ok || l.Provider != pump || l.Values["speed"] != "1" {
		t.Errorf("link %+v", l)
	}
	// A provider takes one link of an actor under a name, whatever it is for.
	refused(t, h.PutLink(ctx, link("plant/one", "acme:valve", pump)), "acme:pump")
	r.must(h.PutLink(ctx, link("plant/one", "acme:pump", pump, "speed", "1")))
	// The actor goes by an id that is not known yet, and so does a configuration.
	r.must(h.SetConfig(ctx, "fast", map[string][]byte{"speed": []byte("9")}))
	l := link("watch", "acme:pump", pump, "speed", "1")
	l.SourceConfig = []string{"fast"}
	r.must(h.PutLink(ctx, l))
	r.must(h.PutLink(ctx, link("watch", "wasmcloud:messaging", "messaging", "SUBSCRIPTION", "pumps.*")))
	r.must(h.PutLink(ctx, link("watch", "wasmcloud:keyvalue", "keyvalue", "bucket", "control-watch")))
	r.must(h.ScaleActor(ctx, control.ActorScale{ID: "watch", Ref: ref, Max: 1, Limits: map[string]string{"memory": "64MiB", "time": "30s"}}))
	linked := func(speed string) {
		t.Helper()
		if l, _ := r.bus.Link(id, "acme:pump", "default"); l.Values["speed"] != speed {
			t.Errorf("link %+v, want speed %s", l, speed)
		}
		if l, ok := r.bus.Link(id, "wasmcloud:keyvalue", "default"); !ok || l.Provider != "keyvalue" {
			t.Errorf("link %+v", l)
		}
	}
	linked("9")
	r.must(h.SetConfig(ctx, "fast", map[string][]byte{"speed": []byte("10")}))
	linked("10")
	publish := func(text string) { r.tell("pumps.a", text) }
	publish("one")
	r.sees("control", "watch", "one")

	r.stop()
	r.start()
	h = r.host()
	linked("10")
	publish("two")
	r.sees("control", "watch", "one", "two")
	before := r.health.actor(id)
	r.must(h.PutLink(ctx, link(id, "wasmcloud:messaging", "messaging", "SUBSCRIPTION", "valves.*")))
	if r.health.actor(id) != before {
		t.Error("the actor was started anew for a link")
	}
	r.tell("valves.a", "three")
	publish("four")
	r.sees("control", "watch", "one", "two", "three")
	if got := len(r.host().State().Links); got != 5 { // with that of the app
		t.Errorf("%d links: %+v", got, r.host().State().Links)
	}

	// What another app has already is refused, and nothing has changed.
	r.must(h.PutLink(ctx, link(id, "wasmcloud:httpserver", "httpserver", "address", "127.0.0.1:0")))
	taken := link(id, "wasmcloud:httpserver", "httpserver", "ADDRESS", "127.0.0.1:7777", "extra", "1")
	refused(t, h.PutLink(ctx, taken), "values.extra: unknown key")
	refused(t, h.PutLink(ctx, link(id, "wasmcloud:httpserver", "httpserver", "address", "192.0.2.1:80")), "http.listen")
	if l, _ := r.bus.Link(id, "wasmcloud:httpserver", "default"); l.Provider != "httpserver" || len(r.http.Listeners()) != 1 || r.http.Listeners()[0].Addr == "" {
		t.Errorf("link %+v, listeners %+v", l, r.http.Listeners())
	}
	r.must(h.DeleteLink(ctx, lattice.Link{Actor: "watch", Contract: "wasmcloud:httpserver", Name: "default"}))
	r.must(h.DeleteLink(ctx, lattice.Link{Actor: id, Contract: "acme:pump", Name: "default"}))
	r.must(h.DeleteLink(ctx, lattice.Link{Actor: "plant/one", Contract: "acme:pump", Name: "default"}))
	r.must(h.DeleteLink(ctx, lattice.Link{Actor: "plant/one", Contract: "acme:pump", Name: "default"}))
	for _, actor := range []string{id, "plant/one"} {
		if l, ok := r.bus.Link(actor, "acme:pump", "default"); ok {
			t.Errorf("link %+v is still there", l)
		}
	}
	r.eventually("the listener is gone", func() bool { return len(r.http.Listeners()) == 0 })
}

// Labels, configurations and logins come back; labels follow the device file where nobody has put others. No login is in the log.
func TestCommanded_settings(t *testing.T) {
	r := newRig(t, fromFiles+unsigned)
	r.write("edged.toml", strings.Replace(mustReadFile(t, r.file), "id = \"press-7\"\n", "id = \"press-7\"\nlabels = { site = \"a\", hall = \"1\", floor = \"0\" }\n", 1))
	r.start()
	h, ctx := r.host(), t.Context()
	labels := h.State().Labels
	if labels["site"] != "a" || labels["hostcore.os"] == "" || labels["hostcore.arch"] == "" {
		t.Errorf("labels %v", labels)
	}
	r.must(h.SetLabels(ctx, map[string]string{"site": "a", "hall": "2", "crew": "x"}))
	r.must(h.SetConfig(ctx, "c", map[string][]byte{"a": {0, 255}}))
	r.must(h.SetConfig(ctx, "gone", map[string][]byte{"a": nil}))
	r.must(h.SetConfig(ctx, "gone", nil))
	r.must(h.SetRegistries(ctx, map[string]control.Registry{"registry.example:5000": {Username: "u", Password: "hunter2", Token: "sesame"}}))
	r.stop()
	r.write("edged.toml", strings.Replace(mustReadFile(t, r.file), "site = \"a\"", "site = \"b\"", 1))
	r.start()
	st := r.host().State()
	for key, want := range map[string]string{"site": "b", "hall": "2", "crew": "x"} {
		if st.Labels[key] != want {
			t.Errorf("label %s is %q, want %q", key, st.Labels[key], want)
		}
	}
	if _, ok := st.Labels["floor"]; ok {
		t.Error("a label that was deleted is back")
	}
	if len(st.Config) != 1 || string(st.Config["c"]["a"]) != "\x00\xff" {
		t.Errorf("configurations %v", st.Config)
	}
	if l := r.held().Logins["registry.example:5000"]; l.Password != "hunter2" || l.Token != "sesame" || l.Username != "u" {
		t.Error("the login is not what was put")
	}
	if log := r.log.String(); strings.Contains(log, "hunter2") || strings.Contains(log, "sesame") {
		t.Error("a login is in the log")
	}
}

// An actor is of an app or was started by command: who comes second is told.
func TestCommanded_appComesSecond(t *testing.T) {
	ours, key := seed(t, claims.Account), seed(t, claims.Module)
	r := newRig(t, fromFiles+unsigned)
	ref := r.probeModule("probe.wasm", ours, key, 1)
	r.start()
	h, ctx := r.host(), t.Context()
	scale := control.ActorScale{Ref: ref, Max: 1, Limits: map[string]string{"memory": "64MiB"}}
	r.must(h.ScaleActor(ctx, scale))
	r.probe("plant", "1", "", "one")
	r.must(os.Remove(r.path("apps/plant/probe.wasm")))
	r.probeModule("apps/plant/probe.wasm", ours, key, 1)
	refused(t, r.Reload(ctx), "app plant", "started by command", "stop it first")
	r.must(h.ScaleActor(ctx, control.ActorScale{ID: key.Key().String()}))
	r.reload()
	refused(t, h.ScaleActor(ctx, scale), "belongs to the app plant")
	if got := r.host().State().Actors; len(got) != 1 || got[0].App != "plant" || got[0].Max != 8 {
		t.Errorf("runs %+v", got)
	}
}

// What another version has written is not touched.
func TestCommanded_otherFormat(t *testing.T) {
	r := newRig(t, fromFiles+unsigned)
	r.start()
	r.must(r.host().SetLabels(t.Context(), map[string]string{"a": "b"}))
	turn := r.db.Begin()
	r.must(turn.Put(heldSpace, "format", []byte("99")))
	r.must(turn.Commit())
	r.stop()
	r.start()
	contains(t, strings.Join(r.Status().Problems, "\n"), "control", "another version of edged")
	refused(t, r.host().SetLabels(t.Context(), map[string]string{"c": "d"}), "another version of edged")
	refused(t, r.host().ScaleActor(t.Context(), control.ActorScale{Ref: "file://" + probe, Max: 1}), "another version of edged")
}
