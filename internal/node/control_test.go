package node

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/edged-io/edged/internal/claims"
)

// ctl asks the control interface, as a tool that knows the protocol alone.
func ctl(t *testing.T, nc *nats.Conn, subject, body string) map[string]any {
	t.Helper()
	m, err := nc.Request("wasmbus.ctl."+subject, []byte(body), patience)
	if err != nil {
		t.Fatalf("%s: %v", subject, err)
	}
	var answer map[string]any
	if err := json.Unmarshal(m.Data, &answer); err != nil {
		t.Fatalf("%s: %q: %v", subject, m.Data, err)
	}
	return answer
}

// A tool of version 0 starts an actor and links it, one of version 1 sees it, and events tell of it.
func TestControl(t *testing.T) {
	ours, key := seed(t, claims.Account), seed(t, claims.Module)
	id := key.Key().String()
	r := newRig(t, fromFiles+trusting(ours))
	ref := r.probeModule("probe.wasm", ours, key, 1)
	second := r.probeModule("second.wasm", ours, key, 2)
	r.start()
	nc := r.latticeClient()
	host := r.identity.host.Key().String()
	var told []string
	events, err := nc.SubscribeSync("wasmbus.evt.default.*")
	r.must(err)
	r.must(nc.Flush())
	heard := func(names ...string) {
		t.Helper()
		r.eventually("events "+strings.Join(names, " "), func() bool {
			for {
				m, err := events.NextMsg(time.Millisecond)
				if err != nil {
					break
				}
				told = append(told, strings.TrimPrefix(m.Subject, "wasmbus.evt.default."))
			}
			return !slices.ContainsFunc(names, func(n string) bool { return !slices.Contains(told, n) })
		})
		told = nil
	}

	if got := ctl(t, nc, "default.ping.hosts", ""); got["id"] != host || got["issuer"] != r.identity.cluster.Key().String() || got["friendly_name"] != "press-7" {
		t.Errorf("ping: %v", got)
	}
	if got := ctl(t, nc, "default.cmd."+host+".la", `{"actor_ref":"`+ref+`","annotations":{"a":"b"}}`); got["accepted"] != true {
		t.Fatalf("launch: %v", got)
	}
	heard("actor_started", "actors_started", "component_scaled")
	if got := ctl(t, nc, "default.linkdefs.put", `{"actor_id":"`+id+`","provider_id":"httpserver","contract_id":"wasmcloud:httpserver","link_name":"default","values":{"address":"127.0.0.1:0"}}`); got["accepted"] != true {
		t.Fatalf("link: %v", got)
	}
	heard("linkdef_set")
	if got := ctl(t, nc, "default.linkdefs.put", `{"actor_id":"`+id+`","provider_id":"keyvalue","contract_id":"wasmcloud:keyvalue","values":{"nonsense":"1"}}`); got["accepted"] != false || !strings.Contains(got["error"].(string), "values.nonsense") {
		t.Errorf("link: %v", got)
	}
	if got := ctl(t, nc, "default.cmd."+host+".sp", `{"provider_ref":"httpserver","link_name":"default"}`); got["accepted"] != false || !strings.Contains(got["error"].(string), "built in") {
		t.Errorf("stop provider: %v", got)
	}
	inventory := ctl(t, nc, "v1.default.host.get."+host, "")["response"].(map[string]any)
	components := inventory["components"].([]any)
	if len(components) != 1 || components[0].(map[string]any)["id"] != id || components[0].(map[string]any)["image_ref"] != ref {
		t.Errorf("components %v", components)
	}
	if got := ctl(t, nc, "v1.default.component.update."+host, `{"component_id":"`+id+`","new_component_ref":"`+second+`","host_id":"`+host+`"}`); got["success"] != true {
		t.Errorf("update: %v", got)
	}
	heard("actor_updated")
	if got := ctl(t, nc, "v1.default.component.update."+host, `{"component_id":"`+id+`","new_component_ref":"`+ref+`","host_id":"`+host+`"}`); got["success"] != true {
		t.Errorf("update: %v", got)
	}
	heard("actor_update_failed")
	r.must(os.Remove(strings.TrimPrefix(second, "file://")))

	// The host stops when it is told to, and comes back with what it had.
	if got := ctl(t, nc, "default.cmd."+host+".stop", `{"timeout":2000}`); got["accepted"] != true {
		t.Errorf("stop: %v", got)
	}
	heard("host_stopped")
	r.stop()
	r.start()
	nc = r.latticeClient()
	actors := ctl(t, nc, "default.get."+host+".inv", "")["actors"].([]any)
	if len(actors) != 1 || actors[0].(map[string]any)["image_ref"] != second {
		t.Errorf("after a restart: %v", actors)
	}
	if links := ctl(t, nc, "default.get.links", "")["links"].([]any); len(links) != 1 {
		t.Errorf("links %v", links)
	}
	if got := ctl(t, nc, "default.cmd."+host+".sa", `{"actor_ref":"`+id+`"}`); got["accepted"] != true {
		t.Errorf("stop actor: %v", got)
	}
	r.eventually("the actor is gone", func() bool {
		return len(ctl(t, nc, "default.get."+host+".inv", "")["actors"].([]any)) == 0
	})
}

func TestControl_off(t *testing.T) {
	r := newRig(t, unsigned+"[lattice]\ncontrol = false\n")
	r.start()
	if m, err := r.latticeClient().Request("wasmbus.ctl.default.ping.hosts", nil, patience); err == nil {
		t.Errorf("answered %q", m.Data)
	}
}
