package control_test

import (
	"context"
	"errors"
	"log/slog"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edged-io/edged/internal/control"
	"github.com/edged-io/edged/lattice"
)

func TestEvents_envelope(t *testing.T) {
	r := newRig(t)
	r.accepts(cmd+"la", `{"actor_ref":"registry/counter:1"}`)
	all := r.take()
	if len(all) == 0 || len(all)%2 != 0 {
		t.Fatalf("got %d messages, want each event twice", len(all))
	}
	id := regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	seen := map[string]int{}
	for i, s := range all {
		e := s.event
		name := strings.TrimPrefix(e["type"].(string), "com.wasmcloud.lattice.")
		want := "wasmbus.evt.default"
		if i%2 == 1 {
			want += "." + name
		}
		if s.subject != want {
			t.Errorf("%s: got subject %s, want %s", name, s.subject, want)
		}
		if e["specversion"] != "1.0" || e["source"] != hostKey || e["datacontenttype"] != "application/json" || !id.MatchString(e["id"].(string)) || len(e) != 7 {
			t.Errorf("%s: got %v", name, e)
		}
		if _, err := time.Parse(time.RFC3339, e["time"].(string)); err != nil {
			t.Error(err)
		}
		seen[e["id"].(string)]++
	}
	for id, n := range seen {
		if n != 2 {
			t.Errorf("id %s: %d times", id, n)
		}
	}
}

func TestEvents_actors(t *testing.T) {
	r := newRig(t)
	const actor = `"public_key":"` + actorKey + `","host_id":"` + hostKey + `","image_ref":"registry/counter:1","annotations":{"by":"wadm"}`
	const claims = `"claims":{"call_alias":"","caps":["wasmcloud:keyvalue","wasmcloud:httpserver"],"issuer":"` + accountKey + `","tags":["demo"],"name":"Counter",
		"version":"0.1","revision":1,"not_before_human":"immediately","expires_human":"never"}`
	scale := func(n, wants string) map[string]map[string]any {
		t.Helper()
		r.accepts(cmd+"scale", `{"actor_ref":"registry/counter:1","annotations":{"by":"wadm"},"count":`+n+`}`)
		got := r.data()
		if len(got) != len(strings.Fields(wants)) {
			t.Errorf("to %s: got %d events, want %s", n, len(got), wants)
		}
		return got
	}
	e := scale("3", "actor_started actors_started actor_scaled component_scaled")
	wantEvent(t, e, "actor_started", `{`+actor+`,`+claims+`,"api_version":0,"instance_id":"i1"}`)
	wantEvent(t, e, "actors_started", `{`+actor+`,`+claims+`,"count":3}`)
	wantEvent(t, e, "actor_scaled", `{`+actor+`,`+claims+`,"max_instances":3}`)
	wantEvent(t, e, "component_scaled", `{`+actor+`,`+claims+`,"max_instances":3,"component_id":"`+actorKey+`"}`)
	e = scale("5", "actors_started actor_scaled component_scaled")
	wantEvent(t, e, "actors_started", `{`+actor+`,`+claims+`,"count":2}`)
	scale("5", "")
	e = scale("1", "actors_stopped actor_scaled component_scaled")
	wantEvent(t, e, "actors_stopped", `{`+actor+`,"count":4,"remaining":1}`)
	e = scale("0", "actor_stopped actors_stopped actor_scaled component_scaled")
	wantEvent(t, e, "actor_stopped", `{`+actor+`,"instance_id":"i1"}`)
	wantEvent(t, e, "actors_stopped", `{`+actor+`,"count":1,"remaining":0}`)
	wantEvent(t, e, "actor_scaled", `{`+actor+`,`+claims+`,"max_instances":0}`)

	r.accepts(cmd+"scale", `{"actor_ref":"registry/none:1","count":2}`)
	e = r.data()
	const failed = `"public_key":"","host_id":"` + hostKey + `","image_ref":"registry/none:1","annotations":{},"error":"fetch registry/none:1: no such module"`
	wantEvent(t, e, "actor_start_failed", `{`+failed+`,"actor_ref":"registry/none:1"}`)
	wantEvent(t, e, "actors_start_failed", `{`+failed+`}`)
	wantEvent(t, e, "actor_scale_failed", `{`+failed+`,"max_instances":2}`)
	wantEvent(t, e, "component_scale_failed", `{`+failed+`,"max_instances":2,"component_id":"registry/none:1"}`)
}

func TestEvents_providers(t *testing.T) {
	r := newRig(t)
	const short = `"public_key":"` + providerKey + `","provider_id":"kv","host_id":"` + hostKey + `","link_name":"default","contract_id":"wasmcloud:keyvalue"`
	const whole = short + `,"image_ref":"registry/kv:1","annotations":{}`
	const claims = `"claims":{"issuer":"` + accountKey + `","tags":null,"name":"KV","version":"0.2","not_before_human":"immediately","expires_human":"never"}`
	r.succeeds("provider.start."+hostKey, `{"provider_id":"kv","provider_ref":"registry/kv:1"}`)
	wantEvent(t, r.data(), "provider_started", `{`+whole+`,`+claims+`,"instance_id":"i1"}`)
	set := func(f func(p *control.Provider)) map[string]map[string]any {
		r.host.edit(func(st *control.State) {
			st.Providers = append([]control.Provider(nil), st.Providers...)
			f(&st.Providers[0])
		})
		r.Settle()
		return r.data()
	}
	wantEvent(t, set(func(p *control.Provider) { p.Health = control.Healthy }), "health_check_passed", `{`+short+`}`)
	wantEvent(t, set(func(p *control.Provider) { p.Health = control.Unhealthy }), "health_check_failed", `{`+short+`}`)
	e := set(func(p *control.Provider) { p.Instance, p.Health = "i2", control.HealthUnknown })
	wantEvent(t, e, "provider_stopped", `{`+whole+`,"instance_id":"i1","reason":"restarted"}`)
	wantEvent(t, e, "provider_started", `{`+whole+`,`+claims+`,"instance_id":"i2"}`)
	r.succeeds("provider.stop."+hostKey, `{"provider_id":"kv"}`)
	wantEvent(t, r.data(), "provider_stopped", `{`+whole+`,"instance_id":"i2","reason":"stopped"}`)
}

func TestEvents_links(t *testing.T) {
	r := newRig(t)
	put := `{"actor_id":"` + actorKey + `","provider_id":"` + providerKey + `","link_name":"default","contract_id":"wasmcloud:keyvalue","values":{"a":"b"}}`
	r.accepts("linkdefs.put", put)
	want := `{"id":"2A00B4ABDFDE5BDE08B98825693D194EF466A85D21998AD256883DBBCD689098","actor_id":"` + actorKey + `","provider_id":"` + providerKey + `",
		"link_name":"default","contract_id":"wasmcloud:keyvalue","values":{"a":"b"},"source_id":"` + actorKey + `","target":"` + providerKey + `","name":"default",
		"wit_namespace":"wasi","wit_package":"keyvalue","interfaces":["store"],"source_config":[],"target_config":[]}`
	wantEvent(t, r.data(), "linkdef_set", want)
	r.accepts("linkdefs.put", put)
	if e := r.data(); len(e) != 0 {
		t.Errorf("got %d events for a link that is as it was", len(e))
	}
	r.accepts("linkdefs.del", put)
	wantEvent(t, r.data(), "linkdef_deleted", want)
}

func TestEvents_config(t *testing.T) {
	r := newRig(t)
	r.succeeds("config.put.shop", `{"a":"1","b":"2"}`)
	if all := r.take(); len(all) != 2 || all[0].event["data"].(map[string]any)["config_name"] != "shop" {
		t.Errorf("got %v", all)
	}
	r.accepts("config.put."+actorKey+".k", "v")
	var entities, names int
	for _, s := range r.take() {
		data := s.event["data"].(map[string]any)
		if data["entity_id"] == actorKey && data["key"] == "k" {
			entities++
		}
		if data["config_name"] == actorKey {
			names++
		}
	}
	if entities != 2 || names != 2 {
		t.Errorf("got %d for who knows entities and %d for who knows configurations, want each twice", entities, names)
	}
	r.succeeds("config.del.shop", "")
	wantEvent(t, r.data(), "config_deleted", `{"config_name":"shop"}`)
}

// A host says that it is there each 30 s, with what it has, tells changes at once, and says that it goes.
func TestEvents_heartbeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := newFakeHost()
		host.state.Actors = []control.Actor{
			{ID: "shop", Key: actorKey, Ref: "registry/counter:1", Revision: 1, Max: 3, Instance: "i1"},
			{ID: "shop", Key: actorKey, Ref: "registry/counter:1", Revision: 1, Max: 2, Instance: "i2", Annotations: map[string]string{"a": "b"}},
		}
		host.state.Providers = []control.Provider{{ID: "kv", Key: providerKey, Contract: "wasmcloud:keyvalue", LinkName: "default", Health: control.Healthy}}
		host.state.Links = []control.Link{{Link: lattice.Link{Actor: "shop", Provider: "kv", Contract: "wasmcloud:keyvalue", Name: "default"}}}
		r := &rig{t: t, host: host}
		var broken atomic.Bool
		s, err := control.Detached(control.Options{Host: host, Lattice: "default", Log: slog.New(slog.DiscardHandler)}, func(subject string, data []byte) error {
			if broken.Load() {
				return errors.New("cut")
			}
			return r.publish(subject, data)
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go s.Events(ctx)
		names := func() string {
			synctest.Wait()
			var all []string
			for i, s := range r.take() {
				if i%2 == 0 {
					all = append(all, strings.TrimPrefix(s.event["type"].(string), "com.wasmcloud.lattice."))
				}
			}
			return strings.Join(all, " ")
		}
		want := func(what, want string) {
			t.Helper()
			if got := names(); got != want {
				t.Errorf("%s: got %s, want %s", what, got, want)
			}
		}
		actor := "actor_started actors_started actor_scaled component_scaled "
		want("start: links are no news", "host_started "+actor+actor+"provider_started health_check_passed host_heartbeat")
		time.Sleep(control.DefaultHeartbeat - time.Millisecond)
		want("early", "")
		time.Sleep(time.Millisecond)
		synctest.Wait()
		e := r.data()
		beat := e["host_heartbeat"]
		delete(beat, "uptime_human")
		delete(beat, "uptime_seconds")
		wantEvent(t, e, "host_heartbeat", `{"host_id":"`+hostKey+`","issuer":"`+clusterKey+`","friendly_name":"quiet-river-1234","version":"0.82.0",
			"labels":{"hostcore.arch":"aarch64","hostcore.os":"linux","hostcore.osfamily":"unix","hall":"3"},
			"actors":[{"id":"`+actorKey+`","image_ref":"registry/counter:1","instances":[
				{"instance_id":"i1","revision":1,"annotations":{},"image_ref":"registry/counter:1","max_instances":3},
				{"instance_id":"i2","revision":1,"annotations":{"a":"b"},"image_ref":"registry/counter:1","max_instances":2}]}],
			"components":[{"id":"shop","image_ref":"registry/counter:1","annotations":{},"revision":1,"max_instances":3},
				{"id":"shop","image_ref":"registry/counter:1","annotations":{"a":"b"},"revision":1,"max_instances":2}],
			"providers":[{"id":"kv","contract_id":"wasmcloud:keyvalue","link_name":"default","revision":0,"annotations":{}}]}`)
		wantEvent(t, e, "health_check_status", `{"public_key":"`+providerKey+`","provider_id":"kv","host_id":"`+hostKey+`","link_name":"default","contract_id":"wasmcloud:keyvalue"}`)

		host.edit(func(st *control.State) { st.Labels = map[string]string{"hall": "4"} })
		s.Changed()
		s.Changed()
		want("a change", "labels_changed")
		host.edit(func(st *control.State) { st.Links = nil })
		time.Sleep(control.DefaultHeartbeat)
		want("a change that nobody told", "linkdef_deleted host_heartbeat health_check_status")
		broken.Store(true)
		time.Sleep(control.DefaultHeartbeat)
		want("nothing leaves", "")
		broken.Store(false)
		time.Sleep(control.DefaultHeartbeat)
		want("it goes on", "host_heartbeat health_check_status")
	})
}

// insisted are the members without which readers that we know of drop an event: controllers of classic lattices, and of those of version 1.
var insisted = map[string]string{
	"actor_started":          "annotations claims image_ref instance_id public_key",
	"actors_started":         "annotations claims image_ref count public_key",
	"actors_start_failed":    "annotations image_ref public_key error",
	"actor_start_failed":     "actor_ref error",
	"actor_stopped":          "instance_id public_key",
	"actors_stopped":         "public_key count remaining",
	"actor_updated":          "public_key revision instance_id",
	"actor_update_failed":    "public_key revision instance_id reason",
	"actor_scaled":           "public_key claims annotations host_id image_ref max_instances",
	"actor_scale_failed":     "public_key annotations host_id image_ref max_instances error",
	"component_scaled":       "annotations image_ref max_instances component_id",
	"component_scale_failed": "annotations image_ref max_instances component_id error",
	"provider_started":       "annotations claims contract_id image_ref instance_id link_name public_key provider_id",
	"provider_start_failed":  "error link_name provider_ref provider_id",
	"provider_stopped":       "annotations contract_id instance_id link_name public_key provider_id reason",
	"health_check_passed":    "public_key link_name contract_id provider_id host_id",
	"linkdef_set":            "id actor_id provider_id link_name contract_id values source_id target name wit_namespace wit_package interfaces source_config target_config",
	"linkdef_deleted":        "id actor_id provider_id link_name contract_id values source_id name wit_namespace wit_package",
	"config_set":             "config_name",
	"config_deleted":         "config_name",
	"labels_changed":         "host_id labels",
	"linkdef_set_failed":     "source_id target name wit_namespace wit_package error",
}

// Whatever a host knows little about, its events have the members that readers insist on, and none is null.
func TestEvents_insisted(t *testing.T) {
	r := newRig(t)
	r.host.edit(func(st *control.State) { // an app's, unsigned and built in
		st.Actors = []control.Actor{{ID: "oven/plates", Key: "oven/plates", Max: 4, App: "oven"}}
		st.Providers = []control.Provider{{ID: "keyvalue", Key: "keyvalue", LinkName: "default", App: "oven", Health: control.Healthy}}
		st.Links = []control.Link{{App: "oven"}}
	})
	r.Settle()
	r.host.edit(func(st *control.State) { st.Actors[0].Revision, st.Actors[0].Max = 1<<40, 5 })
	r.Settle()
	r.host.edit(func(st *control.State) { st.Actors, st.Providers, st.Links = nil, nil, nil })
	r.Settle()
	r.accepts(cmd+"la", `{"actor_ref":"registry/none:1"}`)
	r.accepts(cmd+"lp", `{"provider_ref":"registry/none:1"}`)
	r.accepts(cmd+"la", `{"actor_ref":"registry/counter:1"}`)
	r.accepts(cmd+"upd", `{"actor_id":"`+actorKey+`","new_actor_ref":"registry/none:1"}`)
	r.succeeds("label.put."+hostKey, `{"key":"a","value":"b"}`)
	r.succeeds("config.put.a", `{"b":"c"}`)
	r.succeeds("config.del.a", ``)
	r.fails("link.put", `{"source_id":"a","target":"b","wit_namespace":"c","wit_package":"d","target_config":["none"]}`, "not found")
	seen := map[string]bool{}
	for _, s := range r.take() {
		name := strings.TrimPrefix(s.event["type"].(string), "com.wasmcloud.lattice.")
		members, ok := insisted[name]
		if !ok {
			t.Errorf("event %s is not in the table", name)
		}
		seen[name] = true
		data := s.event["data"].(map[string]any)
		for _, m := range strings.Fields(members) {
			if v, ok := data[m]; !ok || v == nil {
				t.Errorf("%s: got %s %v", name, m, v)
			}
		}
		if rev, ok := data["revision"].(float64); ok && (rev < 0 || rev > 1<<31-1) {
			t.Errorf("%s: got revision %v, more than readers can hold", name, rev)
		}
	}
	for name := range insisted {
		if !seen[name] {
			t.Errorf("no event %s", name)
		}
	}
}
