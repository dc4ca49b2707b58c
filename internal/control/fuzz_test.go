package control_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/edged-io/edged/internal/control"
)

// subjects are all that a host listens to, without the prefix.
var (
	subjects0 = []string{
		"ping.hosts", "get." + hostKey + ".inv", "get.claims", "get.links", "linkdefs.put", "linkdefs.del", "registries.put", "auction.actor", "auction.provider",
		cmd + "la", cmd + "sa", cmd + "scale", cmd + "upd", cmd + "lp", cmd + "sp", cmd + "stop", "labels." + hostKey + ".put", "labels." + hostKey + ".del",
		"config.put." + actorKey + ".k", "config.del." + actorKey + ".k", "config.del." + actorKey, "config.clear." + actorKey, "get.config." + actorKey + ".k", "get.config." + actorKey,
	}
	subjects1 = []string{
		"host.ping", "host.get." + hostKey, "host.stop." + hostKey, "component.auction", "provider.auction", "component.scale." + hostKey, "component.update." + hostKey,
		"provider.start." + hostKey, "provider.stop." + hostKey, "link.put", "link.del", "link.get", "claims.get", "config.put.shop", "config.get.shop", "config.get", "config.del.shop",
		"label.put." + hostKey, "label.del." + hostKey, "registry.put",
	}
)

// everything has all fields of all requests.
const everything = `{"actor_ref":"registry/counter:1","actor_id":"` + actorKey + `","new_actor_ref":"registry/counter:2","count":2,"provider_ref":"registry/kv:1","provider_id":"kv",
	"link_name":"default","contract_id":"wasmcloud:keyvalue","annotations":{"a":"b"},"configuration":"{}","constraints":{},"values":{"a":"b"},"key":"k","value":"v","timeout":1,
	"component_ref":"registry/counter:1","component_id":"shop","new_component_ref":"registry/counter:2","allow_update":true,"config":["shop"],"source_id":"shop","target":"kv",
	"name":"default","wit_namespace":"wasi","wit_package":"http","interfaces":["incoming-handler"],"source_config":[],"target_config":[]}`

// FuzzAnswer asks a host that has something of everything. Each request is answered in the form of its version, unless it may be silent; whatever was
// accepted leaves a state that can be told.
func FuzzAnswer(f *testing.F) {
	for _, s := range subjects0 {
		f.Add("default."+s, []byte(everything))
	}
	for _, s := range subjects1 {
		f.Add("v1.default."+s, []byte(everything))
	}
	for _, body := range []string{``, `{}`, `null`, `[]`, `"x"`, `{"actor_ref":null,"count":null}`, `{"count":1e99}`, `{"key":"\u0000","value":"\ud800"}`, `{"a":{"registryType":"oci"}}`,
		strings.Repeat(`{"a":`, 20000)} {
		f.Add("default."+cmd+"scale", []byte(body))
		f.Add("v1.default.link.put", []byte(body))
		f.Add("default.registries.put", []byte(body))
	}
	for _, s := range []string{"default.", "v1.default.", "default.get", "v1.default.x", "default.cmd." + hostKey + ".", "default.config....", "other.ping.hosts"} {
		f.Add(s, []byte(`{}`))
	}
	f.Fuzz(func(t *testing.T, subject string, body []byte) {
		r := newRig(t)
		r.accepts(cmd+"la", `{"actor_ref":"registry/counter:1","annotations":{"a":"b"}}`)
		r.accepts(cmd+"lp", `{"provider_ref":"registry/kv:2"}`)
		r.accepts("linkdefs.put", `{"actor_id":"`+actorKey+`","provider_id":"`+providerKey+`","contract_id":"wasmcloud:keyvalue"}`)
		r.succeeds("config.put.shop", `{"a":"b"}`)
		r.take()

		reply, ok := r.Answer(t.Context(), "wasmbus.ctl."+subject, body)
		r.Settle()
		version1 := strings.HasPrefix(subject, "v1.default.")
		silent := strings.HasSuffix(subject, ".auction") || strings.HasPrefix(subject, "default.auction.") || !version1 && strings.HasSuffix(subject, ".stop")
		if !ok && !silent {
			t.Fatalf("no answer to %q", subject)
		}
		if ok {
			checkAnswer(t, subject, version1, reply)
		}
		for _, l := range r.host.State().Links {
			for _, token := range []string{l.Actor, l.Provider, l.Name, l.Contract} {
				if token == "" || len(token) > control.MaxName || strings.ContainsAny(token, ".*> \t\r\n\x00") {
					t.Errorf("link with %q", token)
				}
			}
		}
		for _, s := range r.take() {
			if strings.ContainsAny(s.subject, "*> \t\r\n") {
				t.Errorf("event on %q", s.subject)
			}
		}
		for _, s := range []string{"get." + hostKey + ".inv", "get.links", "get.claims", "ping.hosts"} {
			if got := r.v0(s, ""); !json.Valid([]byte(got)) || strings.Contains(got, `"annotations":null`) {
				t.Errorf("%s: got %s", s, got)
			}
		}
		for _, s := range []string{"host.get." + hostKey, "link.get", "claims.get"} {
			r.succeeds(s, "")
		}
		if strings.Contains(string(mustLabels(r)), "hostcore.x") {
			t.Error("a label of the host's own was put")
		}
	})
}

// checkAnswer holds an answer to the form of its version.
func checkAnswer(t *testing.T, subject string, version1 bool, reply []byte) {
	t.Helper()
	if len(reply) == 0 && strings.HasPrefix(subject, "default.get.config.") {
		return
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(reply, &fields); err != nil {
		t.Fatalf("%q: got %q: %v", subject, reply, err)
	}
	success := fields["success"]
	if version1 != (success != nil && fields["message"] != nil) {
		t.Fatalf("%q: got %q", subject, reply)
	}
	if version1 && bytes.Equal(success, []byte("false")) && (fields["response"] != nil || len(fields["message"]) < 3) {
		t.Fatalf("%q: refused with %q", subject, reply)
	}
	if accepted := fields["accepted"]; bytes.Equal(accepted, []byte("false")) && len(fields["error"]) < 3 {
		t.Fatalf("%q: refused with %q", subject, reply)
	}
}

func mustLabels(r *rig) []byte {
	b, err := json.Marshal(r.host.State().Labels)
	if err != nil {
		r.t.Fatal(err)
	}
	return b
}
