package control_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/edged-io/edged/internal/control"
	"github.com/edged-io/edged/lattice"
)

// Keys of PROTOCOL 2.1.
const (
	hostKey     = "NBXHUHG5FGYLPD6RHL2MKWMP572O6KUXCZXDZJXS4T57ZTMAKBN7C574"
	clusterKey  = "CDFJHLAXAUMHA4OWPOB4P7YO72AQR2HMIUYFOXLXE2DZGM633K7HYHVW"
	accountKey  = "ACFIRY65OQE7DFP5KLNS2PF2LVZMUZYJX4OZIEQ36N2IQANUB5XVYYOU"
	actorKey    = "MCATS5YOVB6ROX2WUNKGNQ2MP3GMXDMKSG2O4N5CLX3A6W4PZGZZJPUL"
	providerKey = "VDWUSKGGFDI4FRXK5EBTRECZSVQSSWJHHJOGH6JWG3AUMFFMQ435CDVS"
)

// modules are what the fake host's registry has.
var modules = map[string]struct {
	key string
	rev int64
}{
	"registry/counter:1": {actorKey, 1},
	"registry/counter:2": {actorKey, 2},
	"registry/kv:1":      {providerKey, 1},
	"registry/kv:2":      {providerKey, 2},
}

// fakeHost does what a host is told, at once.
type fakeHost struct {
	mu         sync.Mutex // guards all below
	state      control.State
	calls      []string
	registries map[string]control.Registry
	stop       *time.Duration
	started    int
	hold       chan struct{} // ScaleActor waits for it, where there is one
}

func newFakeHost() *fakeHost {
	return &fakeHost{state: control.State{
		ID: hostKey, Issuer: clusterKey, ClusterIssuers: []string{clusterKey}, FriendlyName: "quiet-river-1234", Version: "0.82.0",
		Started: time.Now().Add(-(time.Hour + 51*time.Minute + 54*time.Second)), CtlHost: "127.0.0.1:4222", RPCHost: "127.0.0.1:4222",
		Labels: map[string]string{"hostcore.arch": "aarch64", "hostcore.os": "linux", "hostcore.osfamily": "unix", "hall": "3"},
		Config: map[string]map[string][]byte{},
	}}
}

func (h *fakeHost) State() control.State {
	h.mu.Lock()
	defer h.mu.Unlock()
	st := h.state
	st.Labels, st.Config = maps.Clone(st.Labels), maps.Clone(st.Config)
	st.Actors, st.Providers, st.Links, st.Claims = slices.Clone(st.Actors), slices.Clone(st.Providers), slices.Clone(st.Links), slices.Clone(st.Claims)
	return st
}

// change does f with the state.
func (h *fakeHost) change(call string, f func(st *control.State) error) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.calls = append(h.calls, call)
	return f(&h.state)
}

func (h *fakeHost) learn(st *control.State, c control.Claims) {
	for i, old := range st.Claims {
		if old.Subject == c.Subject {
			st.Claims[i] = c
			return
		}
	}
	st.Claims = append(st.Claims, c)
}

func (h *fakeHost) ScaleActor(_ context.Context, c control.ActorScale) error {
	h.mu.Lock()
	hold := h.hold
	h.mu.Unlock()
	if hold != nil {
		<-hold
	}
	return h.change(fmt.Sprintf("scale %s %s %d", c.ID, c.Ref, c.Max), func(st *control.State) error {
		for i, a := range st.Actors {
			if (c.ID == a.ID || c.ID == "" && c.Ref == a.Ref) && maps.Equal(a.Annotations, c.Annotations) {
				if c.Max == 0 {
					st.Actors = slices.Delete(slices.Clone(st.Actors), i, i+1)
				} else {
					st.Actors[i].Max = c.Max
				}
				return nil
			}
		}
		m, ok := modules[c.Ref]
		if !ok || m.key[0] != 'M' {
			return errors.New("fetch " + c.Ref + ": no such module")
		}
		for _, a := range st.Actors {
			if a.Key == m.key && a.Ref != c.Ref {
				return errors.New("it runs from " + a.Ref)
			}
		}
		h.started++
		a := control.Actor{ID: c.ID, Key: m.key, Ref: c.Ref, Name: "Counter", Revision: m.rev, Annotations: c.Annotations, Max: c.Max, Instance: fmt.Sprint("i", h.started)}
		if a.ID == "" {
			a.ID = m.key
		}
		st.Actors = append(st.Actors, a)
		h.learn(st, control.Claims{Subject: m.key, Issuer: accountKey, Name: "Counter", Version: "0.1", Revision: m.rev, Caps: []string{"wasmcloud:keyvalue", "wasmcloud:httpserver"}, Tags: []string{"demo"}})
		return nil
	})
}

func (h *fakeHost) UpdateActor(_ context.Context, u control.ActorUpdate) error {
	return h.change("update "+u.ID+" "+u.Ref, func(st *control.State) error {
		m, ok := modules[u.Ref]
		if !ok {
			return errors.New("fetch " + u.Ref + ": no such module")
		}
		for i, a := range st.Actors {
			if a.ID == u.ID {
				st.Actors[i].Ref, st.Actors[i].Revision = u.Ref, m.rev
			}
		}
		return nil
	})
}

func (h *fakeHost) StartProvider(_ context.Context, p control.ProviderStart) error {
	return h.change("start "+p.Ref+" "+p.LinkName+" "+p.Configuration, func(st *control.State) error {
		m, ok := modules[p.Ref]
		if !ok || m.key[0] != 'V' {
			return errors.New("fetch " + p.Ref + ": no such archive")
		}
		h.started++
		o := control.Provider{ID: p.ID, Key: m.key, Ref: p.Ref, Contract: "wasmcloud:keyvalue", LinkName: p.LinkName, Name: "KV", Revision: m.rev, Annotations: p.Annotations, Instance: fmt.Sprint("i", h.started)}
		if o.ID == "" {
			o.ID = m.key
		}
		st.Providers = append(st.Providers, o)
		h.learn(st, control.Claims{Subject: m.key, Issuer: accountKey, Name: "KV", Version: "0.2", Revision: m.rev, Contract: "wasmcloud:keyvalue", ConfigSchema: `{}`})
		return nil
	})
}

func (h *fakeHost) StopProvider(_ context.Context, p control.ProviderStop) error {
	return h.change("stop "+p.ID+" "+p.LinkName, func(st *control.State) error {
		st.Providers = slices.DeleteFunc(slices.Clone(st.Providers), func(o control.Provider) bool { return o.ID == p.ID && o.LinkName == p.LinkName })
		return nil
	})
}

func sameLink(a, b lattice.Link) bool {
	return a.Actor == b.Actor && a.Contract == b.Contract && a.Name == b.Name
}

func (h *fakeHost) PutLink(_ context.Context, l control.Link) error {
	return h.change("link "+l.Actor+" "+l.Provider, func(st *control.State) error {
		st.Links = slices.DeleteFunc(slices.Clone(st.Links), func(o control.Link) bool { return sameLink(o.Link, l.Link) })
		st.Links = append(st.Links, l)
		return nil
	})
}

func (h *fakeHost) DeleteLink(_ context.Context, l lattice.Link) error {
	return h.change("unlink "+l.Actor, func(st *control.State) error {
		st.Links = slices.DeleteFunc(slices.Clone(st.Links), func(o control.Link) bool { return sameLink(o.Link, l) })
		return nil
	})
}

func (h *fakeHost) SetConfig(_ context.Context, name string, values map[string][]byte) error {
	return h.change("config "+name, func(st *control.State) error {
		st.Config = maps.Clone(st.Config)
		if values == nil {
			delete(st.Config, name)
		} else {
			st.Config[name] = values
		}
		return nil
	})
}

func (h *fakeHost) SetLabels(_ context.Context, labels map[string]string) error {
	return h.change("labels", func(st *control.State) error {
		all := maps.Clone(labels)
		for k, v := range st.Labels {
			if strings.HasPrefix(k, "hostcore.") {
				all[k] = v
			}
		}
		st.Labels = all
		return nil
	})
}

func (h *fakeHost) SetRegistries(_ context.Context, r map[string]control.Registry) error {
	return h.change("registries", func(*control.State) error {
		h.registries = r
		return nil
	})
}

func (h *fakeHost) Stop(within time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stop = &within
}

// edit changes the state as an app or a provider does.
func (h *fakeHost) edit(f func(st *control.State)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f(&h.state)
}

// rig is a service without NATS.
type rig struct {
	*control.Service
	t    testing.TB
	host *fakeHost

	mu   sync.Mutex // guards sent
	sent []sent
}

type sent struct {
	subject string
	event   map[string]any
}

func newRig(t testing.TB) *rig {
	t.Helper()
	r := &rig{t: t, host: newFakeHost()}
	s, err := control.Detached(control.Options{Host: r.host, Lattice: "default", Log: slog.New(slog.DiscardHandler)}, r.publish)
	if err != nil {
		t.Fatal(err)
	}
	r.Service = s
	r.Settle() // the state that is there is no news
	r.take()
	return r
}

func (r *rig) publish(subject string, data []byte) error {
	var e map[string]any
	if err := json.Unmarshal(data, &e); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sent = append(r.sent, sent{subject, e})
	return nil
}

// take is what was published since it was called last.
func (r *rig) take() []sent {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := r.sent
	r.sent = nil
	return all
}

// data is what each type of event said since the last call; the last of a type.
func (r *rig) data() map[string]map[string]any {
	all := map[string]map[string]any{}
	for _, s := range r.take() {
		name := strings.TrimPrefix(s.event["type"].(string), "com.wasmcloud.lattice.")
		all[name] = s.event["data"].(map[string]any)
	}
	return all
}

// ask is the answer to a request, with its commands done. A silent service fails the test.
func (r *rig) ask(subject, body string) string {
	r.t.Helper()
	reply, ok := r.Answer(r.t.Context(), subject, []byte(body))
	if !ok {
		r.t.Fatalf("%s: no answer", subject)
	}
	r.Settle()
	return string(reply)
}

func (r *rig) v0(subject, body string) string {
	r.t.Helper()
	return r.ask("wasmbus.ctl.default."+subject, body)
}

func (r *rig) v1(subject, body string) string {
	r.t.Helper()
	return r.ask("wasmbus.ctl.v1.default."+subject, body)
}

const accepted = `{"accepted":true,"error":""}`

// accepts fails the test unless version 0 accepts.
func (r *rig) accepts(subject, body string) {
	r.t.Helper()
	if got := r.v0(subject, body); got != accepted {
		r.t.Errorf("%s %s: got %s, want it accepted", subject, body, got)
	}
}

// refuses fails the test unless version 0 refuses with a text that has the words.
func (r *rig) refuses(subject, body, words string) {
	r.t.Helper()
	got := r.v0(subject, body)
	var ack struct {
		Accepted *bool
		Error    string
	}
	if err := json.Unmarshal([]byte(got), &ack); err != nil || ack.Accepted == nil || *ack.Accepted || !strings.Contains(ack.Error, words) {
		r.t.Errorf("%s %s: got %s, want it refused with %q", subject, body, got, words)
	}
}

// succeeds returns the message and the response of version 1.
func (r *rig) succeeds(subject, body string) (message, response string) {
	r.t.Helper()
	got := r.v1(subject, body)
	var reply struct {
		Success  bool
		Message  *string
		Response json.RawMessage
	}
	if err := json.Unmarshal([]byte(got), &reply); err != nil || !reply.Success || reply.Message == nil {
		r.t.Fatalf("%s %s: got %s, want success", subject, body, got)
	}
	return *reply.Message, string(reply.Response)
}

// fails fails the test unless version 1 refuses with a text that has the words.
func (r *rig) fails(subject, body, words string) {
	r.t.Helper()
	got := r.v1(subject, body)
	if !strings.HasPrefix(got, `{"success":false,"message":"`) || !strings.Contains(got, words) || strings.Contains(got, `"response"`) {
		r.t.Errorf("%s %s: got %s, want it refused with %q", subject, body, got, words)
	}
}

func wantJSON(t testing.TB, what, got, want string) {
	t.Helper()
	var g, w any
	if err := json.Unmarshal([]byte(got), &g); err != nil {
		t.Fatalf("%s: %v: %s", what, err, got)
	}
	if err := json.Unmarshal([]byte(want), &w); err != nil {
		t.Fatalf("%s: %v: %s", what, err, want)
	}
	gb, _ := json.Marshal(g)
	wb, _ := json.Marshal(w)
	if string(gb) != string(wb) {
		t.Errorf("%s:\n got %s\nwant %s", what, gb, wb)
	}
}
