package control_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/edged-io/edged/internal/control"
)

const cmd = "cmd." + hostKey + "."

func TestV0_ping(t *testing.T) {
	r := newRig(t)
	var got map[string]any
	if err := json.Unmarshal([]byte(r.v0("ping.hosts", "")), &got); err != nil {
		t.Fatal(err)
	}
	if h, ok := got["uptime_human"].(string); !ok || !strings.HasPrefix(h, "1h 51m 5") {
		t.Errorf("uptime_human: got %v", got["uptime_human"])
	}
	if s, ok := got["uptime_seconds"].(float64); !ok || s < 6714 {
		t.Errorf("uptime_seconds: got %v", got["uptime_seconds"])
	}
	delete(got, "uptime_human")
	delete(got, "uptime_seconds")
	b, _ := json.Marshal(got)
	wantJSON(t, "ping", string(b), `{"id":"`+hostKey+`","issuer":"`+clusterKey+`","cluster_issuers":"`+clusterKey+`",
		"labels":{"hostcore.arch":"aarch64","hostcore.os":"linux","hostcore.osfamily":"unix","hall":"3"},"friendly_name":"quiet-river-1234",
		"version":"0.82.0","js_domain":null,"ctl_host":"127.0.0.1:4222","rpc_host":"127.0.0.1:4222","prov_rpc_host":"127.0.0.1:4222",
		"lattice_prefix":"default","lattice":"default"}`)
}

// Readers drop a heartbeat whose version has another form than this.
func TestV0_ping_version(t *testing.T) {
	for version, want := range map[string]string{
		"1.2.3": "1.2.3", "v1.2.3-rc.1+g12ab": "1.2.3-rc.1+g12ab", "1.2.3+dirty": "1.2.3+dirty", "0.0.0-dev": "0.0.0-dev",
		"": "0.0.0", "dev": "0.0.0", "1.2": "0.0.0", "1.2.3.4": "0.0.0", "01.2.3": "0.0.0", "1.2.3-": "0.0.0", "1.2.3-a_b": "0.0.0", "1.2.-3": "0.0.0", "1.2.+3": "0.0.0",
	} {
		r := newRig(t)
		r.host.edit(func(st *control.State) { st.Version = version })
		var got struct{ Version string }
		if err := json.Unmarshal([]byte(r.v0("ping.hosts", "")), &got); err != nil || got.Version != want {
			t.Errorf("%q: got %q, want %q (%v)", version, got.Version, want, err)
		}
	}
}

func TestV0_inventory(t *testing.T) {
	r := newRig(t)
	strip := func(body string) string {
		t.Helper()
		var m map[string]any
		if err := json.Unmarshal([]byte(body), &m); err != nil {
			t.Fatal(err)
		}
		for _, k := range []string{"labels", "uptime_human", "uptime_seconds"} {
			if m[k] == nil {
				t.Errorf("inventory without %s", k)
			}
			delete(m, k)
		}
		b, _ := json.Marshal(m)
		return string(b)
	}
	head := `"host_id":"` + hostKey + `","issuer":"` + clusterKey + `","friendly_name":"quiet-river-1234","version":"0.82.0"`
	wantJSON(t, "empty", strip(r.v0("get."+hostKey+".inv", "")), `{`+head+`,"actors":[],"providers":[]}`)

	r.accepts(cmd+"scale", `{"actor_ref":"registry/counter:1","count":3,"host_id":"other","unknown":[1]}`)
	r.accepts(cmd+"scale", `{"actor_ref":"registry/counter:1","count":2,"annotations":{"by":"wadm"}}`)
	r.accepts(cmd+"lp", `{"provider_ref":"registry/kv:1","link_name":null,"annotations":null}`)
	wantJSON(t, "full", strip(r.v0("get."+hostKey+".inv", "")), `{`+head+`,
		"actors":[{"id":"`+actorKey+`","image_ref":"registry/counter:1","name":"Counter","instances":[
			{"instance_id":"i1","revision":1,"annotations":{},"image_ref":"registry/counter:1","max_instances":3},
			{"instance_id":"i2","revision":1,"annotations":{"by":"wadm"},"image_ref":"registry/counter:1","max_instances":2}]}],
		"providers":[{"id":"`+providerKey+`","image_ref":"registry/kv:1","contract_id":"wasmcloud:keyvalue","link_name":"default","name":"KV",
			"revision":1,"annotations":{},"instance_id":"i3"}]}`)
}

// maxes are the instances of each entry.
func (r *rig) maxes() []uint32 {
	var all []uint32
	for _, a := range r.host.State().Actors {
		all = append(all, a.Max)
	}
	return all
}

func (r *rig) wantMaxes(what string, want ...uint32) {
	r.t.Helper()
	got := r.maxes()
	if len(got) != len(want) {
		r.t.Fatalf("%s: got %v, want %v", what, got, want)
	}
	for i := range want {
		if got[i] != want[i] {
			r.t.Fatalf("%s: got %v, want %v", what, got, want)
		}
	}
}

func TestV0_counts(t *testing.T) {
	r := newRig(t)
	ref := `"actor_ref":"registry/counter:1"`
	r.accepts(cmd+"la", `{`+ref+`}`)
	r.wantMaxes("launched one", 1)
	r.accepts(cmd+"la", `{`+ref+`,"count":4}`)
	r.wantMaxes("launched on top", 5)
	r.accepts(cmd+"scale", `{`+ref+`,"count":3,"actor_id":"`+actorKey+`"}`)
	r.wantMaxes("scaled down", 3)
	r.accepts(cmd+"scale", `{`+ref+`,"count":2,"annotations":{"by":"wadm","spec":"x"}}`)
	r.wantMaxes("another entry", 3, 2)
	r.accepts(cmd+"sa", `{"actor_ref":"`+actorKey+`","count":1,"annotations":{"by":"wadm"}}`)
	r.wantMaxes("stopped one of those that have the annotation", 3, 1)
	r.accepts(cmd+"scale", `{`+ref+`,"count":0,"annotations":{"by":"wadm"}}`)
	r.wantMaxes("scale wants all annotations to be equal", 3, 1)
	r.accepts(cmd+"sa", `{"actor_ref":"`+actorKey+`","annotations":{"spec":"x"}}`)
	r.wantMaxes("without a count, all", 3)
	r.accepts(cmd+"scale", `{`+ref+`,"count":0}`)
	r.wantMaxes("scaled to none")
	r.accepts(cmd+"scale", `{`+ref+`,"count":2}`)
	r.accepts(cmd+"la", `{`+ref+`,"count":1,"annotations":{"a":"b"}}`)
	r.accepts(cmd+"sa", `{"actor_ref":"`+actorKey+`","count":3}`)
	r.wantMaxes("stopped over entries")
	r.accepts(cmd+"scale", `{`+ref+`,"count":1}`)
	r.accepts(cmd+"scale", `{"actor_id":"`+actorKey+`","actor_ref":"registry/counter:2","count":0}`)
	r.wantMaxes("a stop is one from whatever reference")
}

func TestV0_commands_refused(t *testing.T) {
	r := newRig(t)
	r.accepts(cmd+"scale", `{"actor_ref":"registry/counter:1","count":1}`)
	r.accepts(cmd+"lp", `{"provider_ref":"registry/kv:1","link_name":"cache"}`)
	for _, c := range []struct{ verb, body, words string }{
		{"scale", `{"actor_ref":"registry/counter:1"}`, "count is missing"},
		{"scale", `{"count":1}`, "actor_ref is missing"},
		{"scale", `{"actor_ref":"  ","count":1}`, "actor_ref is missing"},
		{"scale", `{"actor_ref":"a b","count":1}`, "no space"},
		{"scale", `{"actor_ref":"x","count":-1}`, "count"},
		{"scale", `{"actor_ref":"x","count":1.5}`, "count"},
		{"scale", `{"actor_ref":"x","count":4294967295}`, "2147483647"},
		{"scale", `{"actor_ref":"x","count":1,"annotations":{"":"x"}}`, "annotations"},
		{"scale", `{"actor_ref":"x","count":1,"annotations":{"a":1}}`, "annotations"},
		{"scale", `{"actor_ref":"registry/counter:2","actor_id":"` + actorKey + `","count":1}`, "use update"},
		{"la", `{"actor_ref":"registry/counter:1","count":0}`, "count is 0"},
		{"sa", `{"actor_ref":"` + providerKey + `"}`, "does not run on this host"},
		{"sa", `{"actor_ref":"` + actorKey + `","annotations":{"a":"b"}}`, "not with these annotations"},
		{"sa", `{}`, "actor_ref is missing"},
		{"upd", `{"actor_id":"` + providerKey + `","new_actor_ref":"registry/counter:2"}`, "does not run on this host"},
		{"upd", `{"actor_id":"` + actorKey + `"}`, "new_actor_ref is missing"},
		{"upd", `{"actor_id":"` + actorKey + `","new_actor_ref":"registry/counter:2","annotations":{"a":"b"}}`, "not with these annotations"},
		{"lp", `{"provider_ref":"registry/kv:1","link_name":"cache"}`, "already"},
		{"lp", `{"provider_ref":"registry/kv:1","link_name":"a.b"}`, "link_name"},
		{"lp", `{"provider_ref":"registry/kv:2","configuration":"` + strings.Repeat("x", control.MaxConfigBytes+1) + `"}`, "configuration"},
		{"sp", `{"provider_ref":"` + providerKey + `","link_name":"default"}`, "provider with that link name is not running"},
		{"sp", `{"provider_ref":"` + actorKey + `","link_name":"default"}`, "not running on this host"},
		{"stop", `{"timeout":"soon"}`, "timeout"},
		{"stop", `{"timeout":-5}`, "timeout"},
		{"scale", ``, "not a JSON object"},
		{"scale", `[]`, "not a JSON object"},
		{"scale", `{"actor_ref":"r/a:1","count":-1}`, "count: want a whole number that is not negative, got number -1"},
		{"scale", `{"actor_ref":5,"count":1}`, "actor_ref: want a text, got number"},
		{"scale", `{"actor_ref":"r/a:1","count":1,"annotations":[]}`, "annotations: want an object, got array"},
		{"scale", `{"actor_ref":`, "not JSON"},
		{"scale", `{"actor_ref":7}`, "actor_ref"},
		{"scale", strings.Repeat(" ", control.MaxRequestBytes+1), "bytes at most"},
		{"fly", `{}`, "unsupported subject"},
	} {
		r.refuses(cmd+c.verb, c.body, c.words)
	}
	r.wantMaxes("nothing was changed", 1)
	for _, subject := range []string{"get.foo", "linkdefs.foo", "labels." + hostKey + ".get", "config.foo.a", "config.put", "config.clear." + actorKey + ".k",
		"get.config.a.b.c", "auction.host", "auction.a.b", "x", ""} {
		r.refuses(subject, `{}`, "unsupported subject")
	}
}

func TestV0_update(t *testing.T) {
	r := newRig(t)
	r.accepts(cmd+"scale", `{"actor_ref":"registry/counter:1","count":2,"annotations":{"by":"wadm"}}`)
	r.take()
	r.accepts(cmd+"upd", `{"actor_id":"`+actorKey+`","new_actor_ref":"registry/counter:2"}`)
	if a := r.host.State().Actors[0]; a.Ref != "registry/counter:2" || a.Max != 2 {
		t.Errorf("got %+v", a)
	}
	e := r.data()
	if got := e["actor_updated"]["revision"]; got != 2.0 {
		t.Errorf("actor_updated: got revision %v", got)
	}
	if got := e["actor_scaled"]["image_ref"]; got != "registry/counter:2" {
		t.Errorf("actor_scaled: got image_ref %v", got)
	}
	r.accepts(cmd+"upd", `{"actor_id":"`+actorKey+`","new_actor_ref":"registry/none:1"}`)
	if got, _ := r.data()["actor_update_failed"]["reason"].(string); !strings.Contains(got, "no such module") {
		t.Errorf("actor_update_failed: got %q", got)
	}
}

func TestV0_providers(t *testing.T) {
	r := newRig(t)
	r.accepts(cmd+"lp", `{"provider_ref":" registry/kv:1 ","link_name":"cache","configuration":"{\"a\":1}","annotations":{"x":"y"}}`)
	if got := r.host.calls[0]; got != `start registry/kv:1 cache {"a":1}` {
		t.Errorf("got %q", got)
	}
	r.accepts(cmd+"sp", `{"provider_ref":"`+providerKey+`","link_name":"cache","contract_id":"wasmcloud:keyvalue"}`)
	if got := r.host.State().Providers; len(got) != 0 {
		t.Errorf("it runs: %+v", got)
	}
	r.take()
	r.accepts(cmd+"lp", `{"provider_ref":"registry/none:1"}`)
	wantEvent(t, r.data(), "provider_start_failed", `{"provider_ref":"registry/none:1","link_name":"default","host_id":"`+hostKey+`","public_key":"","provider_id":"","contract_id":"",
		"error":"fetch registry/none:1: no such archive"}`)
}

func TestV0_links(t *testing.T) {
	r := newRig(t)
	put := `{"actor_id":"` + actorKey + `","provider_id":"` + providerKey + `","link_name":"default","contract_id":"wasmcloud:keyvalue"`
	r.accepts("linkdefs.put", put+`,"values":{"URL":"redis://localhost"}}`)
	want := `{"links":[{"actor_id":"` + actorKey + `","provider_id":"` + providerKey + `","link_name":"default","contract_id":"wasmcloud:keyvalue","values":{"URL":"redis://localhost"}}]}`
	wantJSON(t, "links", r.v0("get.links", ""), want)
	r.accepts("linkdefs.put", put+`,"values":null}`)
	wantJSON(t, "replaced", r.v0("get.links", ""), strings.Replace(want, `"URL":"redis://localhost"`, "", 1))
	r.refuses("linkdefs.put", `{"actor_id":"a","provider_id":"b","contract_id":"c d"}`, "contract_id")
	r.refuses("linkdefs.put", `{"actor_id":"a","provider_id":"","contract_id":"c"}`, "provider_id is missing")
	r.refuses("linkdefs.put", `{"actor_id":"a.>","provider_id":"b","contract_id":"c"}`, "actor_id")
	r.refuses("linkdefs.put", put+`,"values":{"n":1}}`, "values")
	r.refuses("linkdefs.put", `{"actor_id":"a","provider_id":"`+actorKey+`","contract_id":"c"}`, "a link leads to a provider")
	r.refuses("linkdefs.put", `{"actor_id":"`+providerKey+`","provider_id":"p","contract_id":"c"}`, "begins at an actor")
	r.accepts("linkdefs.del", put+`}`)
	wantJSON(t, "deleted", r.v0("get.links", ""), `{"links":[]}`)
	r.accepts("linkdefs.del", put+`}`) // one that is not there
}

func TestV0_claims(t *testing.T) {
	r := newRig(t)
	wantJSON(t, "none", r.v0("get.claims", ""), `{"claims":[]}`)
	r.accepts(cmd+"la", `{"actor_ref":"registry/counter:1"}`)
	r.accepts(cmd+"lp", `{"provider_ref":"registry/kv:1"}`)
	wantJSON(t, "claims", r.v0("get.claims", ""), `{"claims":[
		{"sub":"`+actorKey+`","subject":"`+actorKey+`","iss":"`+accountKey+`","issuer":"`+accountKey+`","name":"Counter","version":"0.1","rev":"1","revision":"1",
		 "tags":"demo","caps":"wasmcloud:keyvalue,wasmcloud:httpserver","capabilities":"wasmcloud:keyvalue,wasmcloud:httpserver","call_alias":"","contract_id":""},
		{"sub":"`+providerKey+`","subject":"`+providerKey+`","iss":"`+accountKey+`","issuer":"`+accountKey+`","name":"KV","version":"0.2","rev":"1","revision":"1",
		 "tags":"","caps":"","capabilities":"","call_alias":"","contract_id":"wasmcloud:keyvalue","config_schema":"{}"}]}`)
}

func TestV0_auctions(t *testing.T) {
	r := newRig(t)
	silent := func(subject, body string) {
		t.Helper()
		if got, ok := r.Answer(t.Context(), "wasmbus.ctl.default."+subject, []byte(body)); ok {
			t.Errorf("%s %s: got %s, want silence", subject, body, got)
		}
	}
	wantJSON(t, "actor", r.v0("auction.actor", `{"actor_ref":"registry/counter:1","constraints":{"hall":"3","hostcore.os":"linux"}}`),
		`{"actor_ref":"registry/counter:1","constraints":{"hall":"3","hostcore.os":"linux"},"host_id":"`+hostKey+`"}`)
	wantJSON(t, "provider", r.v0("auction.provider", `{"provider_ref":"registry/kv:1","constraints":null}`),
		`{"provider_ref":"registry/kv:1","link_name":"default","constraints":{},"host_id":"`+hostKey+`"}`)
	silent("auction.actor", `{"actor_ref":"registry/counter:1","constraints":{"hall":"4"}}`)
	silent("auction.actor", `{"actor_ref":"registry/counter:1","constraints":{"floor":""}}`)
	silent("auction.provider", `{"provider_ref":"registry/kv:1","constraints":{"hall":"4"}}`)
	r.accepts(cmd+"lp", `{"provider_ref":"registry/kv:1"}`)
	silent("auction.provider", `{"provider_ref":"registry/kv:1","constraints":{}}`)
	r.v0("auction.provider", `{"provider_ref":"registry/kv:1","link_name":"second","constraints":{}}`)
	r.refuses("auction.actor", `{"constraints":{}}`, "actor_ref is missing")
	r.refuses("auction.provider", `?`, "not a JSON object")
}

func TestV0_labels(t *testing.T) {
	r := newRig(t)
	labels := "labels." + hostKey + "."
	r.accepts(labels+"put", `{"key":"floor","value":"2"}`)
	r.accepts(labels+"del", `{"key":"hall"}`)
	r.accepts(labels+"del", `{"key":"hall","value":"3"}`)
	want := map[string]string{"hostcore.arch": "aarch64", "hostcore.os": "linux", "hostcore.osfamily": "unix", "floor": "2"}
	if got := r.host.State().Labels; len(got) != len(want) || got["floor"] != "2" || got["hostcore.arch"] != "aarch64" {
		t.Errorf("got %v, want %v", got, want)
	}
	r.refuses(labels+"put", `{"key":"hostcore.arch","value":"x"}`, "hostcore.")
	r.refuses(labels+"put", `{"key":"HostCore.arch","value":"x"}`, "hostcore.")
	r.refuses(labels+"del", `{"key":"hostcore.arch"}`, "hostcore.")
	r.refuses(labels+"put", `{"key":"x"}`, "value is missing")
	large := strings.Repeat("v", control.MaxValueBytes)
	for n := 0; ; n++ {
		put := fmt.Sprintf(`{"key":"%d","value":"%s"}`, n, large)
		if (n+1)*len(large) > control.MaxPairsBytes-100 {
			r.refuses(labels+"put", put, "delete one first")
			break
		}
		r.accepts(labels+"put", put)
	}
	r.refuses(labels+"put", `{"value":"x"}`, "key is missing")
	r.refuses(labels+"put", `{"key":"x","value":"`+strings.Repeat("v", control.MaxValueBytes+1)+`"}`, "bytes")
}

func TestV0_config(t *testing.T) {
	r := newRig(t)
	r.accepts("config.put."+actorKey+".greeting", "\x00hi\xff")
	r.accepts("config.put."+actorKey+".name", "")
	wantJSON(t, "one", r.v0("get.config."+actorKey+".greeting", ""), `{"found":true,"data":[0,104,105,255]}`)
	wantJSON(t, "none", r.v0("get.config."+actorKey+".other", ""), `{"found":false,"data":[]}`)
	wantJSON(t, "all", r.v0("get.config."+actorKey, ""), `{"greeting":[0,104,105,255],"name":[]}`)
	if got := r.v0("get.config."+providerKey, ""); got != "" {
		t.Errorf("got %q, want an answer without a body", got)
	}
	r.accepts("config.del."+actorKey+".name", "")
	r.accepts("config.del."+actorKey+".name", "")
	wantJSON(t, "left", r.v0("get.config."+actorKey, ""), `{"greeting":[0,104,105,255]}`)
	r.accepts("config.del."+actorKey, "") // what clients send
	if got := r.v0("get.config."+actorKey, ""); got != "" {
		t.Errorf("got %q after it was cleared", got)
	}
	r.accepts("config.put."+providerKey+".k", "v")
	r.accepts("config.clear."+providerKey, "") // what hosts expect
	if got := r.v0("get.config."+providerKey, ""); got != "" {
		t.Errorf("got %q after it was cleared", got)
	}
	r.refuses("config.put.somebody.k", "v", "not the key")
	r.refuses("config.put."+hostKey+".k", "v", "not the key")
	r.refuses("config.put."+actorKey+".k", strings.Repeat("v", control.MaxConfigBytes), "allowed")
}

func TestV0_registries(t *testing.T) {
	r := newRig(t)
	r.accepts("registries.put", `{"ghcr.example:5000":{"registryType":"oci","username":"u","password":"p","token":null}, " b ":{}}`)
	if got := r.host.registries; got["ghcr.example:5000"] != (control.Registry{Username: "u", Password: "p"}) || len(got) != 2 {
		t.Errorf("got %d registries", len(got))
	}
	r.refuses("registries.put", `{"a":{"registryType":"bindle"}}`, "bindle")
	r.refuses("registries.put", `{"":{"registryType":"oci"}}`, "registry")
	r.refuses("registries.put", `null`, "not a JSON object")
	r.refuses("registries.put", `{"a":"b"}`, "want an object, got string")
}

func TestV0_apps(t *testing.T) {
	r := newRig(t)
	r.host.edit(func(st *control.State) {
		st.Actors = []control.Actor{{ID: "oven/plates", Key: "oven/plates", Ref: "plates.wasm", Max: 4, App: "oven"}}
		st.Providers = []control.Provider{{ID: "keyvalue", Key: "keyvalue", Contract: "wasmcloud:keyvalue", LinkName: "default", App: "oven"}}
		st.Links = []control.Link{{App: "oven"}}
		st.Links[0].Actor, st.Links[0].Provider, st.Links[0].Contract, st.Links[0].Name = "oven/plates", "keyvalue", "wasmcloud:keyvalue", "default"
	})
	const words = "belongs to the app oven"
	r.refuses(cmd+"sa", `{"actor_ref":"oven/plates"}`, words)
	r.refuses(cmd+"scale", `{"actor_ref":"plates.wasm","count":9}`, words)
	r.refuses(cmd+"upd", `{"actor_id":"oven/plates","new_actor_ref":"x"}`, words)
	r.refuses(cmd+"sp", `{"provider_ref":"keyvalue"}`, words)
	r.refuses("linkdefs.put", `{"actor_id":"oven/plates","contract_id":"wasmcloud:keyvalue","provider_id":"`+providerKey+`"}`, words)
	r.refuses("linkdefs.del", `{"actor_id":"oven/plates","contract_id":"wasmcloud:keyvalue"}`, words)
	r.fails("link.del", `{"source_id":"oven/plates","wit_namespace":"wasi","wit_package":"keyvalue"}`, words)
}

// What was accepted and has not begun when the host stops is not done.
func TestV0_order_stop(t *testing.T) {
	r := newRig(t)
	hold := make(chan struct{})
	r.host.hold = hold
	ctx, cancel := context.WithCancel(t.Context())
	for range 3 {
		r.Answer(ctx, "wasmbus.ctl.default."+cmd+"la", []byte(`{"actor_ref":"registry/counter:1"}`))
	}
	cancel()
	close(hold)
	r.Settle()
	if got := len(r.host.calls); got > 1 {
		t.Errorf("%d commands were done", got)
	}
}

func TestV0_stopHost(t *testing.T) {
	r := newRig(t)
	if got, ok := r.Answer(t.Context(), "wasmbus.ctl.default."+cmd+"stop", []byte(`{"host_id":"`+actorKey+`"}`)); ok {
		t.Errorf("got %s for another host, want silence", got)
	}
	if r.host.stop != nil {
		t.Error("it stops for another host")
	}
}

// An actor's commands are done in order; a slow one does not keep those of others.
func TestV0_order(t *testing.T) {
	r := newRig(t)
	hold := make(chan struct{})
	r.host.hold = hold
	send := func(subject, body string) {
		t.Helper()
		if got, _ := r.Answer(t.Context(), "wasmbus.ctl.default."+subject, []byte(body)); string(got) != accepted {
			t.Fatalf("%s %s: got %s", subject, body, got)
		}
	}
	for n := range 5 {
		send(cmd+"scale", `{"actor_ref":"registry/counter:1","count":`+string(rune('1'+n))+`}`)
	}
	send(cmd+"la", `{"actor_ref":"registry/counter:1","count":2}`)
	send(cmd+"lp", `{"provider_ref":"registry/kv:1"}`)
	eventually(t, "a provider does not wait for an actor", func() bool { return len(r.host.State().Providers) > 0 })
	for range control.MaxCommands {
		if got, _ := r.Answer(t.Context(), "wasmbus.ctl.default."+cmd+"la", []byte(`{"actor_ref":"registry/counter:1","count":2147483647}`)); string(got) != accepted {
			if !strings.Contains(string(got), "try again later") {
				t.Errorf("got %s", got)
			}
			close(hold)
			r.Settle()
			r.wantMaxes("never more than can be counted", control.MaxInstances-1)
			return
		}
	}
	t.Errorf("more than %d commands wait", control.MaxCommands)
}

func wantEvent(t testing.TB, events map[string]map[string]any, name, want string) {
	t.Helper()
	got, ok := events[name]
	if !ok {
		t.Errorf("no event %s among %d", name, len(events))
		return
	}
	b, _ := json.Marshal(got)
	wantJSON(t, name, string(b), want)
}
