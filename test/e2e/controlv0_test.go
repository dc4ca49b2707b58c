package e2e

import (
	"strings"
	"testing"
)

// All of version 0, section 5.1.
func TestControl_version0(t *testing.T) {
	b, s := newStranger(t)

	// 5.1.1: all members, of the types that readers insist on.
	s.has("ping", s.v0("ping.hosts", ""), `{"id":"HOST","issuer":"*","labels":{"hall":"3","hostcore.arch":"*","hostcore.os":"linux","hostcore.osfamily":"unix"},"friendly_name":"*",
		"uptime_seconds":-1,"uptime_human":"*","version":"*","cluster_issuers":"*","js_domain":null,"ctl_host":"*","rpc_host":"*","prov_rpc_host":"*","lattice_prefix":"default","lattice":"default"}`)
	s.has("inventory", s.v0("get.HOST.inv", ""), `{"host_id":"HOST","issuer":"*","friendly_name":"*","labels":{"hall":"3"},"actors":[],"version":"*","uptime_human":"*","uptime_seconds":-1}`)

	// Auctions: the host that has all labels bids, another one is silent (Trap 37).
	s.has("auction", s.v0("auction.actor", `{"actor_ref":"ONE","constraints":{"hall":"3","hostcore.os":"linux"}}`), `{"actor_ref":"ONE","constraints":{"hall":"3","hostcore.os":"linux"},"host_id":"HOST"}`)
	s.has("auction", s.v0("auction.actor", `{"actor_ref":"ONE","constraints":null}`), `{"actor_ref":"ONE","constraints":{},"host_id":"HOST"}`)
	s.silence("auction.actor", `{"actor_ref":"ONE","constraints":{"hall":"4"}}`)
	s.has("auction", s.v0("auction.provider", `{"provider_ref":"r/p:1","link_name":"default","constraints":{}}`), `{"provider_ref":"r/p:1","link_name":"default","constraints":{},"host_id":"HOST"}`)
	s.silence("auction.provider", `{"provider_ref":"r/p:1","constraints":{"hostcore.arch":"pdp11"}}`)
	s.refuses("auction.component", `{}`)

	// Actors. Clients repeat the host's id, and send null for what they leave out.
	s.accepts("cmd.HOST.la", `{"actor_ref":"ONE","host_id":"HOST","annotations":null,"count":null,"more":[1]}`)
	s.hears("actor_started", `{"public_key":"ACTOR","image_ref":"ONE","api_version":-1,"instance_id":"*","annotations":{},"claims":{"call_alias":"","caps":["wasmcloud:keyvalue"],"issuer":"`+someAccount+`",
		"tags":["lab"],"name":"Thermostat","version":"0.1","revision":1,"not_before_human":"*","expires_human":"*"}}`)
	s.hears("actors_started", `{"public_key":"ACTOR","image_ref":"ONE","annotations":{},"host_id":"HOST","claims":{"name":"Thermostat"},"count":1}`)
	s.hears("actor_scaled", `{"public_key":"ACTOR","image_ref":"ONE","annotations":{},"host_id":"HOST","claims":{"name":"Thermostat"},"max_instances":1}`)
	s.accepts("cmd.HOST.scale", `{"actor_ref":"ONE","actor_id":"ACTOR","count":3,"host_id":"HOST"}`)
	s.hears("actor_scaled", `{"max_instances":3}`)
	s.accepts("cmd.HOST.scale", `{"actor_ref":"ONE","count":2,"annotations":{"wasmcloud.dev/appspec":"shop"}}`)
	s.hears("actors_started", `{"count":2,"annotations":{"wasmcloud.dev/appspec":"shop"}}`)
	s.hears("actor_scaled", `{"max_instances":2}`)
	s.has("inventory", s.v0("get.HOST.inv", ""), `{"actors":[{"id":"ACTOR","image_ref":"ONE","name":"Thermostat","instances":[
		{"instance_id":"*","revision":1,"annotations":{},"image_ref":"ONE","max_instances":3},{"instance_id":"*","revision":1,"annotations":{"wasmcloud.dev/appspec":"shop"},"max_instances":2}]}]}`)
	s.has("claims", s.v0("get.claims", ""), `{"claims":[{"call_alias":"","iss":"`+someAccount+`","issuer":"`+someAccount+`","name":"Thermostat","caps":"wasmcloud:keyvalue","capabilities":"wasmcloud:keyvalue",
		"rev":"1","revision":"1","tags":"lab","version":"0.1","sub":"ACTOR","subject":"ACTOR","contract_id":""}]}`)
	s.refuses("cmd.HOST.scale", `{"actor_ref":"TWO","actor_id":"ACTOR","count":1}`) // it runs from another reference
	s.accepts("cmd.HOST.upd", `{"actor_id":"ACTOR","new_actor_ref":"TWO","host_id":"HOST","annotations":{}}`)
	s.hears("actor_updated", `{"public_key":"ACTOR","revision":2,"instance_id":"*"}`)
	s.has("inventory", s.v0("get.HOST.inv", ""), `{"actors":[{"id":"ACTOR","instances":[{"revision":2,"image_ref":"TWO","max_instances":3},{"revision":2,"image_ref":"TWO","max_instances":2}]}]}`)
	s.accepts("cmd.HOST.upd", `{"actor_id":"ACTOR","new_actor_ref":"ONE"}`) // accepted is not done: its revision is lower
	s.hears("actor_update_failed", `{"public_key":"ACTOR","revision":-1,"instance_id":"*","reason":"*"}`)
	s.accepts("cmd.HOST.sa", `{"actor_ref":"ACTOR","count":1,"host_id":"HOST"}`)
	s.hears("actors_stopped", `{"host_id":"HOST","public_key":"ACTOR","count":1,"remaining":2,"annotations":{},"image_ref":"TWO"}`)
	s.accepts("cmd.HOST.sa", `{"actor_ref":"ACTOR","count":0,"annotations":{"wasmcloud.dev/appspec":"shop"}}`)
	s.hears("actor_stopped", `{"public_key":"ACTOR","instance_id":"*","annotations":{"wasmcloud.dev/appspec":"shop"}}`)
	s.hears("actors_stopped", `{"count":2,"remaining":0,"annotations":{"wasmcloud.dev/appspec":"shop"}}`)
	s.accepts("cmd.HOST.sa", `{"actor_ref":"ACTOR"}`) // newer clients say nothing for all
	s.hears("actors_stopped", `{"count":2,"remaining":0,"annotations":{}}`)
	s.has("inventory", s.v0("get.HOST.inv", ""), `{"actors":[]}`)
	s.refuses("cmd.HOST.sa", `{"actor_ref":"ACTOR","count":0}`)
	s.accepts("cmd.HOST.la", `{"actor_ref":"/nowhere/at/all.wasm"}`)
	s.hears("actor_start_failed", `{"actor_ref":"/nowhere/at/all.wasm","error":"*"}`)
	s.hears("actors_start_failed", `{"image_ref":"/nowhere/at/all.wasm","annotations":{},"host_id":"HOST","error":"*"}`)

	// Providers that are not there.
	s.accepts("cmd.HOST.lp", `{"provider_ref":"/nowhere/at/all.par.gz","link_name":"default","annotations":null,"configuration":"{}","host_id":"HOST"}`)
	s.hears("provider_start_failed", `{"provider_ref":"/nowhere/at/all.par.gz","link_name":"default","error":"*"}`)
	s.refuses("cmd.HOST.sp", `{"provider_ref":"`+someProvider+`","link_name":"default","contract_id":"a:b","annotations":{}}`)

	// Links, with the id of section 7.1: of an actor and a provider that run nowhere.
	const id = "2A00B4ABDFDE5BDE08B98825693D194EF466A85D21998AD256883DBBCD689098"
	const link = `"actor_id":"` + someActor + `","provider_id":"` + someProvider + `","contract_id":"wasmcloud:keyvalue"`
	s.accepts("linkdefs.put", `{`+link+`,"link_name":"default","values":{"URL":"redis://127.0.0.1:6379"}}`)
	s.hears("linkdef_set", `{"id":"`+id+`",`+link+`,"link_name":"default","values":{"URL":"redis://127.0.0.1:6379"}}`)
	s.has("links", s.v0("get.links", ""), `{"links":[{`+link+`,"link_name":"default","values":{"URL":"redis://127.0.0.1:6379"}}]}`)
	s.accepts("linkdefs.put", `{`+link+`,"values":null}`)
	s.hears("linkdef_set", `{"id":"`+id+`","link_name":"default","values":{}}`)
	s.accepts("linkdefs.del", `{"actor_id":" `+someActor+` ","contract_id":"wasmcloud:keyvalue","link_name":"default"}`)
	s.hears("linkdef_deleted", `{"id":"`+id+`",`+link+`,"link_name":"default"}`)
	s.accepts("linkdefs.del", `{"actor_id":"`+someActor+`","contract_id":"wasmcloud:keyvalue","link_name":"default"}`)
	s.has("links", s.v0("get.links", ""), `{"links":[]}`)

	// Labels, configurations, logins.
	s.accepts("labels.HOST.put", `{"key":"floor","value":"2"}`)
	s.hears("labels_changed", `{"host_id":"HOST","labels":{"floor":"2","hall":"3"}}`)
	s.accepts("labels.HOST.del", `{"key":"floor","value":""}`)
	s.has("ping", s.v0("ping.hosts", ""), `{"labels":{"-floor":0}}`)
	s.refuses("labels.HOST.put", `{"key":"hostcore.os","value":"plan9"}`)
	s.accepts("config.put."+someActor+".greeting", "hi")
	s.hears("config_set", `{"config_name":"`+someActor+`"}`)
	s.hears("config_set", `{"entity_id":"`+someActor+`","key":"greeting"}`)
	s.has("config", s.v0("get.config."+someActor+".greeting", ""), `{"found":true,"data":[104,105]}`)
	s.has("config", s.v0("get.config."+someActor+".nothing", ""), `{"found":false,"data":[]}`)
	s.has("config", s.v0("get.config."+someActor, ""), `{"greeting":[104,105]}`)
	s.accepts("config.del."+someActor+".greeting", "")
	s.hears("config_deleted", `{"config_name":"`+someActor+`"}`)
	if got := s.v0("get.config."+someActor, ""); got != "" {
		t.Errorf("no configuration is %q", got)
	}
	for _, clear := range []string{"config.del.", "config.clear."} { // Trap 40: client and host disagree
		s.accepts("config.put."+someActor+".a", "1")
		s.accepts(clear+someActor, "")
		s.has("config", s.v0("get.config."+someActor+".a", ""), `{"found":false}`)
	}
	s.accepts("registries.put", `{"registry.example:5000":{"registryType":"oci","username":"u","password":"p","token":null}}`)

	// Odd requests. Each is answered; none is done.
	for _, subject := range []string{"cmd.HOST.bogus", "get.bogus", "labels.HOST.bogus", "linkdefs.bogus", "config.bogus.x.y", "auction.a.b.c"} {
		s.refuses(subject, `{}`)
	}
	if got := s.v0("cmd.HOST.bogus", `{}`); !strings.Contains(got, "unsupported subject") {
		t.Errorf("got %s", got)
	}
	deep := strings.Repeat(`{"a":`, 20_000)
	for _, body := range []string{``, `null`, `[]`, `"x"`, `{`, `{}`, "\xff\xfe", `{"actor_ref":1}`, `{"actor_ref":"","count":1}`, `{"actor_ref":"a b","count":1}`, `{"actor_ref":"ONE","count":-1}`,
		`{"actor_ref":"ONE","count":1e99}`, `{"actor_ref":"ONE","count":1.5}`, `{"actor_ref":"ONE","count":1,"annotations":[]}`, `{"actor_ref":"ONE","count":1,"annotations":{"a":1}}`, deep} {
		s.refuses("cmd.HOST.scale", body)
	}
	for _, body := range []string{`{}`, `{"actor_id":"a.b","provider_id":"p","contract_id":"c"}`, `{"actor_id":"a","provider_id":"p*","contract_id":"c"}`, `{"actor_id":"a","provider_id":"p","contract_id":"c","link_name":"a b"}`,
		`{"actor_id":"a","provider_id":"p","contract_id":"c>"}`, `{"actor_id":"a","provider_id":"p","contract_id":"c","values":{"a":{}}}`} {
		s.refuses("linkdefs.put", body)
	}
	for _, subject := range []string{"cmd.HOST.la", "cmd.HOST.sa", "cmd.HOST.upd", "cmd.HOST.lp", "cmd.HOST.sp", "linkdefs.del", "labels.HOST.put", "labels.HOST.del", "registries.put", "auction.actor", "auction.provider"} {
		s.refuses(subject, `[`)
		if subject != "registries.put" {
			s.refuses(subject, `{}`)
		}
		if err := s.nc.Publish(s.fill("wasmbus.ctl.default."+subject), []byte(`{}`)); err != nil { // nobody waits for the answer
			t.Fatal(err)
		}
	}
	s.refuses("config.put.nokey.a", "1")
	s.silence("cmd.HOST.stop", `{"host_id":"`+someHost+`","timeout":1}`)
	s.has("inventory", s.v0("get.HOST.inv", ""), `{"actors":[]}`)
	s.has("links", s.v0("get.links", ""), `{"links":[]}`)

	// Stop: the answer first, then the end.
	s.accepts("cmd.HOST.stop", `{"host_id":"HOST","timeout":5000}`)
	s.hears("host_stopped", `{"labels":{"hall":"3"}}`)
	p := b.process()
	<-p.exited
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("the box ended with %d", code)
	}
}

// A provider archive of somebody's runs by command of either version, and each sees and stops what the other started.
func TestControl_provider(t *testing.T) {
	_, s := newStranger(t)
	archive := s.archive()
	s.accepts("cmd.HOST.lp", `{"provider_ref":"`+archive+`","link_name":"hall3","annotations":{"by":"hand"},"configuration":"{\"a\":1}","host_id":"HOST"}`)
	s.hears("provider_started", `{"public_key":"`+someProvider+`","image_ref":"`+archive+`","link_name":"hall3","contract_id":"acme:pump","instance_id":"*","annotations":{"by":"hand"},
		"host_id":"HOST","claims":{"issuer":"`+someAccount+`","tags":null,"name":"Pump","version":"1.2","not_before_human":"*","expires_human":"*"}}`)
	s.has("the inventory has it", s.theProvider(s.v0("get.HOST.inv", "")), `{"id":"`+someProvider+`","image_ref":"`+archive+`","contract_id":"acme:pump","link_name":"hall3","name":"Pump","revision":3,"annotations":{"by":"hand"},"instance_id":"*"}`)
	s.has("claims", s.v0("get.claims", ""), `{"claims":[{"sub":"`+someProvider+`","contract_id":"acme:pump","rev":"3","iss":"`+someAccount+`"}]}`)
	s.refuses("cmd.HOST.lp", `{"provider_ref":"`+archive+`","link_name":"hall3"}`)
	s.silence("auction.provider", `{"provider_ref":"`+archive+`","link_name":"hall3","constraints":{}}`)
	s.has("another link name is free", s.v0("auction.provider", `{"provider_ref":"`+archive+`","constraints":{}}`), `{"link_name":"default","host_id":"HOST"}`)
	s.refuses("cmd.HOST.sp", `{"provider_ref":"`+someProvider+`","link_name":"default"}`)
	s.accepts("cmd.HOST.sp", `{"provider_ref":"`+someProvider+`","link_name":"hall3","contract_id":"acme:pump"}`)
	s.hears("provider_stopped", `{"public_key":"`+someProvider+`","link_name":"hall3","contract_id":"acme:pump","instance_id":"*","annotations":{"by":"hand"},"reason":"*","host_id":"HOST"}`)

	s.succeeds("provider.start.HOST", `{"provider_ref":"`+archive+`","provider_id":"pump","host_id":"HOST","annotations":{},"config":[]}`)
	s.hears("provider_started", `{"public_key":"`+someProvider+`","provider_id":"pump","link_name":"default","host_id":"HOST"}`)
	response, _ := s.succeeds("host.get.HOST", "")
	s.has("the inventory has it", s.theProvider(response), `{"id":"pump","image_ref":"`+archive+`","name":"Pump","revision":3,"annotations":{}}`)
	s.fails("provider.start.HOST", `{"provider_ref":"`+archive+`","provider_id":"pump"}`)
	s.succeeds("provider.stop.HOST", `{"provider_id":"pump","host_id":"HOST"}`)
	s.hears("provider_stopped", `{"public_key":"`+someProvider+`","provider_id":"pump","link_name":"default"}`)
	s.fails("provider.stop.HOST", `{"provider_id":"pump","host_id":"HOST"}`)
}
