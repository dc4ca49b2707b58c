package control_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/edged-io/edged/internal/control"
)

func TestV1_ping(t *testing.T) {
	r := newRig(t)
	_, response := r.succeeds("host.ping", "")
	var got map[string]any
	if err := json.Unmarshal([]byte(response), &got); err != nil {
		t.Fatal(err)
	}
	if got["uptime_human"] == nil || got["uptime_seconds"] == nil {
		t.Errorf("got %s", response)
	}
	delete(got, "uptime_human")
	delete(got, "uptime_seconds")
	b, _ := json.Marshal(got)
	wantJSON(t, "ping", string(b), `{"id":"`+hostKey+`","labels":{"hostcore.arch":"aarch64","hostcore.os":"linux","hostcore.osfamily":"unix","hall":"3"},
		"friendly_name":"quiet-river-1234","version":"0.82.0","lattice":"default","rpc_host":"127.0.0.1:4222","ctl_host":"127.0.0.1:4222","js_domain":null}`)
}

// components is the inventory of version 1 without what is the same as in a ping.
func (r *rig) components() string {
	r.t.Helper()
	_, response := r.succeeds("host.get."+hostKey, "")
	var got map[string]json.RawMessage
	if err := json.Unmarshal([]byte(response), &got); err != nil {
		r.t.Fatal(err)
	}
	for _, k := range []string{"host_id", "friendly_name", "labels", "version", "uptime_human", "uptime_seconds"} {
		if got[k] == nil {
			r.t.Errorf("inventory without %s", k)
		}
		delete(got, k)
	}
	b, _ := json.Marshal(got)
	return string(b)
}

func TestV1_components(t *testing.T) {
	r := newRig(t)
	wantJSON(t, "none", r.components(), `{"components":[],"providers":[]}`)
	scale, update := "component.scale."+hostKey, "component.update."+hostKey
	ask := func(ref, rest string) string {
		return `{"component_id":"shop-counter","component_ref":"registry/counter:` + ref + `","host_id":"` + hostKey + `"` + rest + `}`
	}
	r.succeeds(scale, ask("1", `,"count":5,"annotations":{"by":"wadm"},"config":[],"allow_update":false`))
	one := `{"id":"shop-counter","image_ref":"registry/counter:1","name":"Counter","annotations":{"by":"wadm"},"revision":1,"max_instances":5}`
	wantJSON(t, "five", r.components(), `{"components":[`+one+`],"providers":[]}`)

	r.succeeds(scale, ask("1", `,"max_instances":7`))
	r.wantMaxes("the name in documents; annotations stay", 7)
	message, _ := r.succeeds(scale, ask("2", `,"count":3`))
	if !strings.Contains(message, "keeps running from registry/counter:1") {
		t.Errorf("got message %q", message)
	}
	r.wantMaxes("scaled, not updated", 3)
	message, _ = r.succeeds(scale, ask("2", `,"count":4,"allow_update":true`))
	if !strings.Contains(message, "updated from registry/counter:1 to registry/counter:2") {
		t.Errorf("got message %q", message)
	}
	if a := r.host.State().Actors; len(a) != 1 || a[0].Max != 4 || a[0].Ref != "registry/counter:2" {
		t.Errorf("got %+v", a)
	}
	r.succeeds(update, `{"component_id":"shop-counter","new_component_ref":"registry/counter:1"}`)
	if a := r.host.State().Actors[0]; a.Ref != "registry/counter:1" {
		t.Errorf("got %+v", a)
	}
	calls := len(r.host.calls)
	if message, _ = r.succeeds(update, `{"component_id":"shop-counter","new_component_ref":"registry/counter:1"}`); !strings.Contains(message, "already") {
		t.Errorf("got message %q", message)
	}
	if len(r.host.calls) != calls {
		t.Error("it was updated to what it is")
	}
	r.fails(update, `{"component_id":"other","new_component_ref":"registry/counter:1"}`, "component other not found")
	r.fails(scale, ask("1", ``), "count is missing")
	r.fails(scale, ask("1", `,"count":1,"config":["none"]`), "not found")
	r.fails(scale, `{"component_ref":"x","count":1}`, "component_id is missing")
	r.fails(scale, `{"component_id":"a b","component_ref":"x","count":1}`, "component_id")
	r.succeeds(scale, ask("9", `,"count":0`))
	wantJSON(t, "stopped", r.components(), `{"components":[],"providers":[]}`)
}

func TestV1_providers(t *testing.T) {
	r := newRig(t)
	start, stop := "provider.start."+hostKey, "provider.stop."+hostKey
	body := `{"provider_id":"shop-kv","provider_ref":"registry/kv:1","host_id":"` + hostKey + `","annotations":{"a":"b"}}`
	message, _ := r.succeeds(start, body)
	if message != "successfully started provider" {
		t.Errorf("got message %q", message)
	}
	wantJSON(t, "inventory", r.components(), `{"components":[],"providers":[{"id":"shop-kv","image_ref":"registry/kv:1","name":"KV","annotations":{"a":"b"},"revision":1}]}`)
	r.fails(start, body, "already running")
	r.fails(stop, `{"provider_id":"other"}`, "not running")
	message, _ = r.succeeds(stop, `{"provider_ref":"shop-kv","host_id":"x"}`)
	if message != "successfully stopped provider" {
		t.Errorf("got message %q", message)
	}
	wantJSON(t, "inventory", r.components(), `{"components":[],"providers":[]}`)
	r.fails(stop, `{"provider_id":"shop-kv"}`, "not running")
}

func TestV1_auctions(t *testing.T) {
	r := newRig(t)
	silent := func(subject, body string) {
		t.Helper()
		if got, ok := r.Answer(t.Context(), "wasmbus.ctl.v1.default."+subject, []byte(body)); ok {
			t.Errorf("%s %s: got %s, want silence", subject, body, got)
		}
	}
	component := `{"component_ref":"registry/counter:1","component_id":"shop","constraints":{"hall":"3"}}`
	_, response := r.succeeds("component.auction", component)
	wantJSON(t, "component", response, `{"component_ref":"registry/counter:1","component_id":"shop","constraints":{"hall":"3"},"host_id":"`+hostKey+`"}`)
	provider := `{"provider_ref":"registry/kv:1","provider_id":"kv","constraints":{}}`
	_, response = r.succeeds("provider.auction", provider)
	wantJSON(t, "provider", response, `{"provider_ref":"registry/kv:1","provider_id":"kv","constraints":{},"host_id":"`+hostKey+`"}`)
	silent("component.auction", strings.Replace(component, `"3"`, `"4"`, 1))
	r.succeeds("component.scale."+hostKey, `{"component_id":"shop","component_ref":"registry/counter:1","count":1}`)
	r.succeeds("provider.start."+hostKey, `{"provider_id":"kv","provider_ref":"registry/kv:1"}`)
	silent("component.auction", component)
	silent("provider.auction", provider)
	r.fails("component.auction", `{"component_ref":"x","component_id":"y"}`, "constraints is missing")
	r.fails("provider.auction", `{"provider_ref":"x","constraints":{}}`, "provider_id is missing")
}

func TestV1_links(t *testing.T) {
	r := newRig(t)
	r.succeeds("config.put.redis", `{"url":"redis://localhost","db":"1"}`)
	r.succeeds("config.put.mine", `{"db":"2"}`)
	link := `{"source_id":"shop","target":"kv","name":"default","wit_namespace":"wasi","wit_package":"keyvalue","interfaces":["store","atomics"],"source_config":["mine"],"target_config":["redis"]}`
	message, _ := r.succeeds("link.put", link)
	if message != "successfully set link" {
		t.Errorf("got message %q", message)
	}
	_, got := r.succeeds("link.get", "")
	wantJSON(t, "as it was put", got, `[`+link+`]`)
	wantJSON(t, "in version 0", r.v0("get.links", ""), `{"links":[{"actor_id":"shop","provider_id":"kv","link_name":"default","contract_id":"wasmcloud:keyvalue",
		"values":{"url":"redis://localhost","db":"2"}}]}`)

	r.succeeds("link.put", link) // again
	const other = "link already exists with different target"
	r.fails("link.put", strings.Replace(link, `"target":"kv"`, `"target":"kv2"`, 1), other)
	wantEvent(t, r.data(), "linkdef_set_failed", strings.Replace(strings.Replace(link, `"target":"kv"`, `"target":"kv2"`, 1), `}`,
		`,"error":"link already exists with different target, consider deleting the existing link or using a different link name"}`, 1))
	// Other interfaces may lead elsewhere in version 1, but an actor has one provider for a contract and link name.
	r.fails("link.put", strings.Replace(strings.Replace(link, `"target":"kv"`, `"target":"kv2"`, 1), `"store","atomics"`, `"batch"`, 1), "to another provider")
	r.succeeds("link.put", strings.Replace(strings.Replace(link, `"target":"kv"`, `"target":"kv2"`, 1), `"default"`, `"second"`, 1))
	r.fails("link.put", strings.Replace(link, `"redis"`, `"none"`, 1), "not found")
	r.fails("link.put", strings.Replace(link, `"kv"`, `""`, 1), "target is missing")

	// What version 1 put, version 0 deletes, and the other way round.
	r.accepts("linkdefs.del", `{"actor_id":"shop","contract_id":"wasmcloud:keyvalue","link_name":"second"}`)
	r.accepts("linkdefs.put", `{"actor_id":"`+actorKey+`","contract_id":"wasmcloud:sqldb","provider_id":"`+providerKey+`"}`)
	_, got = r.succeeds("link.get", "")
	wantJSON(t, "both", got, `[`+link+`,{"source_id":"`+actorKey+`","target":"`+providerKey+`","name":"default","wit_namespace":"wasmcloud","wit_package":"postgres","interfaces":[],"source_config":[],"target_config":[]}]`)
	r.succeeds("link.del", `{"source_id":"`+actorKey+`","wit_namespace":"wasmcloud","wit_package":"postgres"}`)
	r.succeeds("link.del", `{"source_id":"shop","wit_namespace":"wasi","wit_package":"keyvalue","name":"default"}`)
	r.succeeds("link.del", `{"source_id":"shop","wit_namespace":"wasi","wit_package":"keyvalue","name":"default"}`)
	_, got = r.succeeds("link.get", "")
	wantJSON(t, "none", got, `[]`)
}

// A link of version 1 that is led by the provider is one of the actor.
func TestV1_links_inward(t *testing.T) {
	r := newRig(t)
	link := `{"source_id":"http","target":"shop","name":"default","wit_namespace":"wasi","wit_package":"http","interfaces":["incoming-handler"],"source_config":[],"target_config":[]}`
	r.succeeds("link.put", link)
	r.succeeds("component.scale."+hostKey, `{"component_id":"shop","component_ref":"registry/counter:1","count":1}`)
	wantJSON(t, "in version 0", r.v0("get.links", ""), `{"links":[{"actor_id":"`+actorKey+`","provider_id":"http","link_name":"default","contract_id":"wasmcloud:httpserver","values":{}}]}`)
	_, got := r.succeeds("link.get", "")
	wantJSON(t, "in version 1", got, `[`+link+`]`)
	r.fails("link.put", strings.Replace(link, `"shop"`, `"shop2"`, 1), "different target")
	// By its key it is the same actor.
	r.accepts("linkdefs.put", `{"actor_id":"`+actorKey+`","contract_id":"wasmcloud:httpserver","provider_id":"`+providerKey+`"}`)
	if got := r.host.State().Links; len(got) != 1 || got[0].Actor != "shop" || got[0].Provider != providerKey {
		t.Errorf("got %+v", got)
	}
	r.succeeds("link.del", `{"source_id":"`+providerKey+`","wit_namespace":"wasi","wit_package":"http"}`)
	if got := r.host.State().Links; len(got) != 0 {
		t.Errorf("got %+v", got)
	}
}

func TestV1_config(t *testing.T) {
	r := newRig(t)
	if message, response := r.succeeds("config.get.shop", ""); message != "Configuration not found" || response != "" {
		t.Errorf("got %q, %q", message, response)
	}
	if message, _ := r.succeeds("config.put.shop", `{"a":"1","b":"2"}`); message != "successfully put config" {
		t.Errorf("got message %q", message)
	}
	r.succeeds("config.put.shop", `{"b":"3"}`)
	_, got := r.succeeds("config.get.shop", "")
	wantJSON(t, "replaced", got, `{"b":"3"}`)
	wantJSON(t, "in version 0", r.v0("get.config.shop.b", ""), `{"found":true,"data":[51]}`)
	r.accepts("config.put."+actorKey+".k", "v")
	_, got = r.succeeds("config.get."+actorKey, "")
	wantJSON(t, "of version 0", got, `{"k":"v"}`)
	if message, _ := r.succeeds("config.del.shop", ""); message != "successfully deleted config" {
		t.Errorf("got message %q", message)
	}
	r.succeeds("config.del.shop", "")
	r.fails("config.put.shop", `{"a":1}`, "want a text, got number")
	r.fails("config.put.shop", `["a"]`, "not a JSON object")
	r.fails("config.put.shop", `{"a":"`+strings.Repeat("x", control.MaxConfigBytes)+`"}`, "allowed")
	for _, subject := range []string{"config.put", "config.get.a.b", "config.put.a.b", "config.foo.a", "link.foo", "host.foo." + hostKey, "component.fly." + hostKey, "label.get." + hostKey} {
		r.fails(subject, `{}`, "unsupported subject")
	}
}

func TestV1_rest(t *testing.T) {
	r := newRig(t)
	if message, _ := r.succeeds("label.put."+hostKey, `{"key":"floor","value":"2"}`); message != "successfully put label" {
		t.Errorf("got message %q", message)
	}
	wantEvent(t, r.data(), "labels_changed", `{"host_id":"`+hostKey+`","labels":{"hostcore.arch":"aarch64","hostcore.os":"linux","hostcore.osfamily":"unix","hall":"3","floor":"2"}}`)
	if message, _ := r.succeeds("label.del."+hostKey, `{"key":"floor"}`); message != "successfully deleted label" {
		t.Errorf("got message %q", message)
	}
	r.fails("label.put."+hostKey, `{"key":"hostcore.os","value":"x"}`, "hostcore.")
	if message, _ := r.succeeds("registry.put", `{"a":{"registryType":"oci","username":"u"}}`); message != "successfully put registries" || r.host.registries["a"].Username != "u" {
		t.Errorf("got message %q", message)
	}
	r.fails("registry.put", `[]`, "not a JSON object")
	_, got := r.succeeds("claims.get", "")
	wantJSON(t, "claims", got, `[]`)
	if message, _ := r.succeeds("host.stop."+hostKey, `{"host_id":"`+hostKey+`","timeout":2000}`); message != "successfully handled stop host" {
		t.Errorf("got message %q", message)
	}
	r.fails("host.stop."+hostKey, `{"host_id":"`+actorKey+`"}`, "another host")
}
