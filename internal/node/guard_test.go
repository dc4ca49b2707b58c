package node

import (
	"encoding/json"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/edged-io/edged/internal/claims"
	"github.com/edged-io/edged/internal/control"
	"github.com/edged-io/edged/internal/policy"
	"github.com/edged-io/edged/lattice/metadata"
)

// policyService answers on a topic, as long as a program is connected.
type policyService struct {
	mu       sync.Mutex // guards what follows
	requests []map[string]any
	permit   func(action, target string) bool
}

func (s *policyService) serve(t *testing.T, nc *nats.Conn) {
	t.Helper()
	_, err := nc.Subscribe("acme.policy", func(m *nats.Msg) {
		var r map[string]any
		if err := json.Unmarshal(m.Data, &r); err != nil {
			t.Errorf("request %s: %v", m.Data, err)
			return
		}
		s.mu.Lock()
		s.requests = append(s.requests, r)
		ok := s.permit(r["action"].(string), r["target"].(map[string]any)["publicKey"].(string))
		s.mu.Unlock()
		answer, err := json.Marshal(map[string]any{"requestId": r["requestId"], "permitted": ok, "message": "by the test"})
		if err == nil {
			err = m.Respond(answer)
		}
		if err != nil {
			t.Error(err)
		}
	})
	if err == nil {
		err = nc.Flush()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// about returns the last request about an action.
func (s *policyService) about(action policy.Action) map[string]any {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := len(s.requests) - 1; i >= 0; i-- {
		if s.requests[i]["action"] == string(action) {
			return s.requests[i]
		}
	}
	return nil
}

const asksPolicy = "[policy]\ntopic = \"acme.policy\"\nchanges_topic = \"acme.policy.changes\"\ntimeout = \"20s\"\n[lattice]\nname = \"plant\"\n"

// An actor starts when the service says so, and again without the service; a call from elsewhere is asked about, and a change counts.
func TestNode_policy(t *testing.T) {
	r := newRig(t, unsigned+asksPolicy)
	good, bad := r.signedProbe("good"), r.signedProbe("bad")
	r.start()
	if got := r.running(); got != "" {
		t.Fatalf("%s runs, and nobody was asked", got)
	}
	contains(t, strings.Join(r.Status().Problems, "\n"), policy.ErrUnanswered.Error())
	service := &policyService{permit: func(action, target string) bool { return target == good }}
	service.serve(t, r.latticeClient())
	r.eventually("the good one runs", func() bool { return r.running() == "good 1" })
	r.eventually("the bad one is denied", func() bool {
		return strings.Contains(strings.Join(r.Status().Problems, "\n"), "denied by policy: by the test")
	})
	asked := service.about(policy.StartActor)
	if host := asked["host"].(map[string]any); host["publicKey"] != r.identity.host.Key().String() || host["latticeId"] != "plant" || host["issuer"] != r.identity.cluster.Key().String() || host["labels"].(map[string]any)["hostcore.os"] == "" {
		t.Errorf("asked %v", asked)
	}

	nc := r.latticeClient()
	cluster, _ := claims.SeedFile(r.path("state", "cluster.seed"))
	if got := invokeAs(t, nc, cluster, "plant", good, good, "Probe.Echo", "hello"); got.Failed || string(got.Payload) != "hello" {
		t.Errorf("got %+v", got)
	}
	call := service.about(policy.PerformInvocation)
	if call == nil || call["source"].(map[string]any)["publicKey"] != good || call["source"].(map[string]any)["issuer"] == "" {
		t.Errorf("asked %v", call)
	}
	if got := invoke(t, nc, cluster, "plant", good, "Probe.Echo", "hello"); !got.Failed || !strings.Contains(got.Error, errUnknownCaller.Error()) {
		t.Errorf("a stranger's call: got %+v", got)
	}
	stranger := seed(t, claims.Module).Key().String()
	r.must(r.metadata.PutClaims(metadata.Claims{Subject: stranger, Issuer: "A", Caps: []string{"wasmcloud:keyvalue"}}))
	r.eventually("a caller that the lattice knows is asked about", func() bool {
		invokeAs(t, nc, cluster, "plant", stranger, good, "Probe.Echo", "hello")
		return service.about(policy.PerformInvocation)["source"].(map[string]any)["publicKey"] == stranger
	})
	change, err := json.Marshal(map[string]any{"request_id": call["requestId"], "permitted": false, "message": "enough"})
	if err != nil {
		t.Fatal(err)
	}
	if m, err := nc.Request("acme.policy.changes", change, patience); err != nil || string(m.Data) != `{"success":true}` {
		t.Fatalf("change: %v, %v", m, err)
	}
	if got := invokeAs(t, nc, cluster, "plant", good, good, "Probe.Echo", "hello"); !got.Failed || !strings.Contains(got.Error, "enough") {
		t.Errorf("after the change: got %+v", got)
	}

	// Nobody serves the topic now, and what was permitted to start starts. Calls are asked about anew.
	r.stop()
	r.start()
	if got := r.running(); got != "good 1" {
		t.Errorf("after a restart %s runs", got)
	}
	if got := invokeAs(t, r.latticeClient(), cluster, "plant", good, good, "Probe.Echo", "hello"); !got.Failed || !strings.Contains(got.Error, policy.ErrUnanswered.Error()) {
		t.Errorf("without the service: got %+v", got)
	}
	contains(t, strings.Join(r.Status().Problems, "\n"), "by the test")
	if b, err := os.ReadFile(r.path("state", "policy.json")); err != nil || !strings.Contains(string(b), bad) {
		t.Errorf("kept %s, %v", b, err)
	}
}

// A box may have rules alone.
func TestNode_policy_rules(t *testing.T) {
	r := newRig(t, unsigned+"[policy]\nrules = \"rules.toml\"\n")
	good := r.signedProbe("good")
	r.signedProbe("bad")
	r.write("rules.toml", "default = \"deny\"\n[[rule]]\nactions = [\"start_actor\"]\ntarget = \""+good+"\"\npermit = true\n")
	r.start()
	if got := r.running(); got != "good 1" {
		t.Errorf("%s runs", got)
	}
	cluster, _ := claims.SeedFile(r.path("state", "cluster.seed"))
	if got := invokeAs(t, r.latticeClient(), cluster, "default", good, good, "Probe.Echo", "hello"); !got.Failed || !strings.Contains(got.Error, "no rule fits") {
		t.Errorf("got %+v", got)
	}
}

// Providers are asked about, too: those of apps and those that were started by command before.
func TestNode_policy_providers(t *testing.T) {
	key := seed(t, claims.Service)
	r := newRig(t, unsigned+fromFiles)
	ref := r.parArchive("pump.par", seed(t, claims.Account), key, 3)
	r.start()
	r.must(r.host().StartProvider(t.Context(), control.ProviderStart{Ref: ref, LinkName: "default"}))
	r.write("apps/a/greet", greeter(t))
	r.probe("a", "1", greeting("a", execGreeter, "hello"), "one")
	r.stop()
	device, err := os.ReadFile(r.file)
	r.must(err)
	r.write("edged.toml", string(device)+asksPolicy)
	r.start()
	if all := r.processes.Running(); len(all) != 0 || r.running() != "" {
		t.Fatalf("%+v and %s run, and nobody was asked", all, r.running())
	}
	service := &policyService{permit: func(string, string) bool { return true }}
	service.serve(t, r.latticeClient())
	r.eventually("both providers run", func() bool { return len(r.processes.Running()) == 2 && r.running() == "a 1" })
	r.eventually("nothing waits", func() bool {
		return !strings.Contains(strings.Join(r.Status().Problems, "\n"), policy.ErrUnanswered.Error())
	})
	service.mu.Lock()
	defer service.mu.Unlock()
	for _, q := range service.requests {
		target := q["target"].(map[string]any)
		if q["action"] == string(policy.StartProvider) && target["publicKey"] == key.Key().String() && (target["contractId"] != "acme:pump" || target["linkName"] != "default" || target["issuer"] == "") {
			t.Errorf("asked %v", q)
		}
	}
	r.stop()
	r.start() // nobody is there to ask, and all is known
	r.eventually("both providers run again", func() bool { return len(r.processes.Running()) == 2 && r.running() == "a 1" })
}
