package e2e

import (
	"strings"
	"testing"
)

// All of version 1, section 5.2, and that both versions are about one state.
func TestControl_version1(t *testing.T) {
	b, s := newStranger(t)
	have := func(subject, body, want string) {
		t.Helper()
		response, _ := s.succeeds(subject, body)
		s.has(subject, response, want)
	}
	done := func(subject, body string) string {
		t.Helper()
		response, message := s.succeeds(subject, body)
		if response != "null" {
			t.Errorf("%s: got the response %s, want none", subject, response)
		}
		return message
	}

	have("host.ping", "", `{"id":"HOST","labels":{"hall":"3"},"friendly_name":"*","version":"*","lattice":"default","uptime_seconds":-1,"uptime_human":"*"}`)
	have("host.get.HOST", "", `{"host_id":"HOST","friendly_name":"*","labels":{"hall":"3"},"version":"*","uptime_human":"*","uptime_seconds":-1,"components":[],"-actors":0}`)

	// Components have ids that the operator chooses.
	have("component.auction", `{"component_ref":"ONE","component_id":"shop","constraints":{"hall":"3"}}`, `{"component_ref":"ONE","component_id":"shop","constraints":{"hall":"3"},"host_id":"HOST"}`)
	s.fails("component.auction", `{"component_ref":"ONE","component_id":"shop"}`) // constraints are required
	done("component.scale.HOST", `{"component_ref":"ONE","component_id":"shop","count":2,"host_id":"HOST","annotations":null,"config":[],"allow_update":false,"component_limits":null}`)
	s.hears("component_scaled", `{"public_key":"ACTOR","component_id":"shop","image_ref":"ONE","annotations":{},"host_id":"HOST","max_instances":2,"claims":{"name":"Thermostat"}}`)
	have("host.get.HOST", "", `{"components":[{"id":"shop","image_ref":"ONE","name":"Thermostat","annotations":{},"revision":1,"max_instances":2}]}`)
	s.has("version 0 shows its key", s.v0("get.HOST.inv", ""), `{"actors":[{"id":"ACTOR","instances":[{"max_instances":2}]}]}`)
	have("claims.get", "", `[{"sub":"ACTOR","name":"Thermostat","caps":"wasmcloud:keyvalue"}]`) // Trap 41: a list
	if message := done("component.scale.HOST", `{"component_ref":"TWO","component_id":"shop","count":3}`); message == "" {
		t.Error("no message that it runs from another reference")
	}
	s.hears("component_scaled", `{"image_ref":"ONE","max_instances":3}`)
	done("component.update.HOST", `{"component_id":"shop","new_component_ref":"TWO","host_id":"HOST","annotations":null}`)
	s.hears("actor_updated", `{"public_key":"ACTOR","revision":2}`)
	s.hears("component_scaled", `{"component_id":"shop","image_ref":"TWO","max_instances":3}`)
	have("host.get.HOST", "", `{"components":[{"id":"shop","image_ref":"TWO","revision":2,"max_instances":3}]}`)
	s.fails("component.update.HOST", `{"component_id":"nobody","new_component_ref":"TWO"}`)
	s.accepts("cmd.HOST.sa", `{"actor_ref":"ACTOR"}`) // what one version started, the other stops
	s.hears("component_scaled", `{"component_id":"shop","max_instances":0}`)
	have("host.get.HOST", "", `{"components":[]}`)
	done("component.scale.HOST", `{"component_ref":"/nowhere/at/all.wasm","component_id":"lost","count":1}`)
	s.hears("component_scale_failed", `{"component_id":"lost","image_ref":"/nowhere/at/all.wasm","host_id":"HOST","annotations":{},"max_instances":1,"error":"*"}`)

	// Providers that are not there.
	have("provider.auction", `{"provider_ref":"r/p:1","provider_id":"kv","constraints":{}}`, `{"provider_ref":"r/p:1","provider_id":"kv","constraints":{},"host_id":"HOST"}`)
	done("provider.start.HOST", `{"provider_ref":"/nowhere/at/all.par.gz","provider_id":"kv","host_id":"HOST","annotations":null,"config":[]}`)
	s.hears("provider_start_failed", `{"provider_ref":"/nowhere/at/all.par.gz","provider_id":"kv","host_id":"HOST","error":"*","link_name":"default"}`)
	s.fails("provider.stop.HOST", `{"provider_id":"kv","host_id":"HOST"}`)
	s.fails("provider.stop.HOST", `{"provider_ref":"kv","host_id":"HOST"}`)

	// Links by WIT names, configurations by name, both as version 0 sees them.
	done("config.put.redis", `{"URL":"redis://127.0.0.1:6379","TTL":"5"}`)
	s.hears("config_set", `{"config_name":"redis"}`)
	have("config.get.redis", "", `{"URL":"redis://127.0.0.1:6379","TTL":"5"}`)
	const link = `"source_id":"` + someActor + `","target":"` + someProvider + `","wit_namespace":"wasi","wit_package":"keyvalue","interfaces":["store","atomics"]`
	done("link.put", `{`+link+`,"source_config":[],"target_config":["redis"]}`)
	s.hears("linkdef_set", `{`+link+`,"name":"default","target_config":["redis"],"actor_id":"`+someActor+`","contract_id":"wasmcloud:keyvalue"}`)
	have("link.get", "", `[{`+link+`,"name":"default","source_config":[],"target_config":["redis"]}]`)
	s.has("links", s.v0("get.links", ""), `{"links":[{"actor_id":"`+someActor+`","provider_id":"`+someProvider+`","contract_id":"wasmcloud:keyvalue","link_name":"default","values":{"URL":"redis://127.0.0.1:6379","TTL":"5"}}]}`)
	s.fails("link.put", strings.Replace(`{`+link+`}`, someProvider, "elsewhere", 1))
	s.hears("linkdef_set_failed", `{"target":"elsewhere","error":"*"}`)
	s.fails("link.put", `{`+link+`,"name":"other","target_config":["nowhere"]}`)
	done("link.del", `{"source_id":"`+someActor+`","wit_namespace":"wasi","wit_package":"keyvalue"}`)
	s.hears("linkdef_deleted", `{"source_id":"`+someActor+`","name":"default","wit_namespace":"wasi","wit_package":"keyvalue"}`)
	done("link.del", `{"source_id":"`+someActor+`","wit_namespace":"wasi","wit_package":"keyvalue","name":"default"}`)
	have("link.get", "", `[]`)
	done("config.del.redis", "")
	s.hears("config_deleted", `{"config_name":"redis"}`)
	if message := done("config.get.redis", ""); message != "Configuration not found" {
		t.Errorf("got %q", message)
	}

	done("label.put.HOST", `{"key":"floor","value":"2"}`)
	have("host.ping", "", `{"labels":{"floor":"2"}}`)
	done("label.del.HOST", `{"key":"floor"}`)
	s.fails("label.put.HOST", `{"key":"hostcore.os","value":"plan9"}`)
	done("registry.put", `{"registry.example:5000":{"registryType":"oci","username":"u","password":"p"}}`)

	// Odd requests.
	for _, subject := range []string{"component.bogus.HOST", "provider.bogus.HOST", "host.bogus.HOST", "label.bogus.HOST", "link.bogus", "config.bogus.x"} {
		s.fails(subject, `{}`)
	}
	deep := strings.Repeat(`{"a":`, 20_000)
	for _, subject := range []string{"component.scale.HOST", "component.update.HOST", "component.auction", "provider.start.HOST", "provider.stop.HOST", "provider.auction", "link.put", "link.del", "label.put.HOST", "label.del.HOST"} {
		for _, body := range []string{``, `null`, `[]`, `{`, `{}`, "\xff", deep} {
			s.fails(subject, body)
		}
	}
	for _, body := range []string{``, `[]`, `{"a":1}`, `{"":"x"}`} {
		s.fails("config.put.redis", body)
		s.fails("registry.put", strings.Replace(body, `"x"`, `1`, 1))
	}
	s.fails("component.scale.HOST", `{"component_ref":"ONE","component_id":"a.b","count":1}`)
	s.fails("component.scale.HOST", `{"component_ref":"ONE","component_id":"a","count":-1}`)
	s.fails("host.stop.HOST", `{"host_id":"`+someHost+`"}`)
	have("host.get.HOST", "", `{"components":[]}`)

	done("host.stop.HOST", `{"host_id":"HOST","timeout":5000}`)
	s.hears("host_stopped", `{"labels":{"hall":"3"}}`)
	p := b.process()
	<-p.exited
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("the box ended with %d", code)
	}
}

// What a stranger put is there when the box comes back, without a hub.
func TestControl_comesBack(t *testing.T) {
	b, s := newStranger(t)
	s.succeeds("component.scale.HOST", `{"component_ref":"ONE","component_id":"shop","count":2,"annotations":{"by":"hand"}}`)
	s.hears("component_scaled", `{"max_instances":2}`)
	s.accepts("linkdefs.put", `{"actor_id":"ACTOR","provider_id":"`+someProvider+`","contract_id":"wasmcloud:blobstore","values":{"ROOT":"/x"}}`)
	s.accepts("labels.HOST.put", `{"key":"floor","value":"2"}`)
	s.accepts("config.put."+someActor+".greeting", "hi")
	was := s.host
	b.kill()
	b.up()
	s.connect(b)
	if s.host != was {
		t.Errorf("the host was %s and is %s", was, s.host)
	}
	response, _ := s.succeeds("host.get.HOST", "")
	s.has("inventory", response, `{"labels":{"floor":"2","hall":"3"},"components":[{"id":"shop","image_ref":"ONE","annotations":{"by":"hand"},"revision":1,"max_instances":2}]}`)
	s.has("links", s.v0("get.links", ""), `{"links":[{"actor_id":"ACTOR","provider_id":"`+someProvider+`","values":{"ROOT":"/x"}}]}`)
	s.has("config", s.v0("get.config."+someActor+".greeting", ""), `{"found":true,"data":[104,105]}`)
}
