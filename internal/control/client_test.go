package control_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/edged-io/edged/internal/control"
	"github.com/edged-io/edged/lattice"
)

// newClient is a client, and a host that it can reach.
func newClient(t *testing.T) (*control.Client, *box, *nats.Conn) {
	t.Helper()
	connect := startNATS(t)
	b := startBox(t, connect(), hostKey)
	nc := connect()
	return client(t, nc), b, nc
}

func client(t *testing.T, nc *nats.Conn) *control.Client {
	t.Helper()
	c, err := control.NewClient(nc, "default", "")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// patient is a context in which nothing takes too long.
func patient(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// want fails the test unless an error says all of this; without words there must be none.
func want(t *testing.T, err error, words ...string) {
	t.Helper()
	if len(words) == 0 && err != nil {
		t.Fatal(err)
	}
	for _, w := range words {
		if err == nil || !strings.Contains(err.Error(), w) {
			t.Fatalf("got %v, want an error with %q", err, w)
		}
	}
}

// heard asks all hosts, briefly since that is waited for in any case, and again while none has answered in time.
func heard(t *testing.T, ask func(within time.Duration) error) error {
	t.Helper()
	for ctx := patient(t); ; {
		err := ask(300 * time.Millisecond)
		if silent := errors.Is(err, control.ErrNobody) && !strings.Contains(err.Error(), "there are: "); !silent || ctx.Err() != nil {
			return err
		}
	}
}

func TestClient_Hosts(t *testing.T) {
	c, _, nc := newClient(t)
	ctx := patient(t)
	var all []control.State
	want(t, heard(t, func(within time.Duration) (err error) { all, err = c.Hosts(ctx, within); return err }))
	if len(all) != 1 || all[0].ID != hostKey || all[0].FriendlyName != "quiet-river-1234" || all[0].Labels["hall"] != "3" || all[0].Version != "0.82.0" {
		t.Errorf("got %+v", all)
	}
	if up := time.Since(all[0].Started).Round(time.Minute); up != time.Hour+52*time.Minute {
		t.Errorf("it is up for %v", up)
	}
	for _, name := range []string{"quiet-river-1234", hostKey} {
		if id, err := c.Find(ctx, name, 30*time.Second); id != hostKey {
			t.Errorf("%s: got %q, %v", name, id, err)
		}
	}
	err := heard(t, func(within time.Duration) error { _, err := c.Find(ctx, "loud-sea-1", within); return err })
	want(t, err, "loud-sea-1", "in the lattice default there are: quiet-river-1234")
	if !errors.Is(err, control.ErrNobody) {
		t.Errorf("got %v", err)
	}
	nobody, err := control.NewClient(nc, "elsewhere", "")
	want(t, err)
	if _, err := nobody.Hosts(ctx, 30*time.Second); !errors.Is(err, control.ErrNobody) {
		t.Errorf("got %v", err)
	}
	if _, err := c.State(ctx, actorKey); !errors.Is(err, control.ErrNobody) {
		t.Errorf("got %v", err)
	}
	if _, err := control.NewClient(nc, "a.b", ""); err == nil {
		t.Error("a lattice with a dot is a lattice")
	}
}

func TestClient_actors(t *testing.T) {
	c, b, _ := newClient(t)
	ctx := patient(t)
	accepted := 0
	wait := func() bool { accepted++; return true }
	ref := "registry/counter:1"
	by := map[string]string{"by": "hand"}

	st, err := c.ScaleActor(ctx, hostKey, control.ActorScale{Ref: ref, Max: 2, Annotations: by}, wait)
	want(t, err)
	if len(st.Actors) != 1 || st.Actors[0].Key != actorKey || st.Actors[0].Max != 2 || st.Actors[0].Annotations["by"] != "hand" || st.Actors[0].Ref != ref {
		t.Errorf("got %+v", st.Actors)
	}
	// What is as it should be needs no event.
	_, err = c.ScaleActor(ctx, hostKey, control.ActorScale{Ref: ref, Max: 2, Annotations: by}, wait)
	want(t, err)
	_, err = c.ScaleActor(ctx, hostKey, control.ActorScale{ID: actorKey, Ref: ref, Max: 1}, wait)
	want(t, err)
	if n := len(b.host.State().Actors); n != 2 {
		t.Errorf("%d entries", n)
	}
	_, err = c.ScaleActor(ctx, hostKey, control.ActorScale{Ref: "registry/none:1", Max: 1}, wait)
	want(t, err, "fetch registry/none:1: no such module")
	_, err = c.ScaleActor(ctx, hostKey, control.ActorScale{Ref: "registry/counter:2", ID: actorKey, Max: 1}, wait)
	want(t, err, "use update to run it from")

	_, err = c.UpdateActor(ctx, hostKey, control.ActorUpdate{ID: actorKey, Ref: "registry/none:2"}, wait)
	want(t, err, "fetch registry/none:2: no such module")
	st, err = c.UpdateActor(ctx, hostKey, control.ActorUpdate{ID: actorKey, Ref: "registry/counter:2"}, wait)
	want(t, err)
	if st.Actors[0].Revision != 2 || st.Actors[0].Ref != "registry/counter:2" {
		t.Errorf("got %+v", st.Actors)
	}

	st, err = c.StopActor(ctx, hostKey, actorKey, by, wait)
	want(t, err)
	if len(st.Actors) != 1 {
		t.Errorf("got %+v", st.Actors)
	}
	before := accepted
	_, err = c.StopActor(ctx, hostKey, actorKey, by, wait)
	want(t, err, "not with these annotations")
	if accepted != before {
		t.Error("what was refused was accepted")
	}
	st, err = c.StopActor(ctx, hostKey, actorKey, nil, wait)
	want(t, err)
	if len(st.Actors) != 0 {
		t.Errorf("got %+v", st.Actors)
	}
}

// What another command for the actor failed at, and is told late, is not taken for the failure of this one.
func TestClient_ScaleActor_another(t *testing.T) {
	c, b, nc := newClient(t)
	hold := make(chan struct{})
	b.host.edit(func(*control.State) { b.host.hold = hold })
	defer close(hold)
	tell := func(ref, why string) {
		want(t, nc.Publish("wasmbus.evt.default", fmt.Appendf(nil, `{"specversion":"1.0","id":%q,"source":%q,"type":"com.wasmcloud.lattice.actor_scale_failed","data":{"public_key":%q,"image_ref":%q,"error":%q}}`,
			why, hostKey, actorKey, ref, why)))
	}
	_, err := c.ScaleActor(patient(t), hostKey, control.ActorScale{ID: actorKey, Ref: "registry/counter:2", Max: 1}, func() bool {
		tell("registry/counter:1", "of another")
		tell("registry/counter:2", "its own")
		return true
	})
	want(t, err, "its own")
}

// Who does not wait is not told; who waits in vain is told that it was accepted.
func TestClient_ScaleActor_wait(t *testing.T) {
	c, b, _ := newClient(t)
	hold := make(chan struct{})
	b.host.edit(func(*control.State) { b.host.hold = hold })
	scale := control.ActorScale{Ref: "registry/counter:1", Max: 1}
	_, err := c.ScaleActor(patient(t), hostKey, scale, func() bool { return false })
	want(t, err)
	ctx, cancel := context.WithCancelCause(patient(t))
	_, err = c.ScaleActor(ctx, hostKey, scale, func() bool { cancel(errors.New("lost patience")); return true })
	want(t, err, "lost patience")
	if !errors.Is(err, control.ErrNotDone) {
		t.Errorf("got %v", err)
	}
	ended := make(chan error, 1)
	go func() { // received below
		_, err := c.ScaleActor(patient(t), hostKey, scale, func() bool { close(hold); return true })
		ended <- err
	}()
	want(t, <-ended)
}

func TestClient_providers(t *testing.T) {
	c, b, _ := newClient(t)
	ctx := patient(t)
	wait := func() bool { return true }
	start := control.ProviderStart{Ref: "registry/kv:1", LinkName: "default", Configuration: `{"a":1}`}
	st, err := c.StartProvider(ctx, hostKey, start, wait)
	want(t, err)
	if len(st.Providers) != 1 || st.Providers[0].Key != providerKey || st.Providers[0].Contract != "wasmcloud:keyvalue" || st.Providers[0].LinkName != "default" {
		t.Errorf("got %+v", st.Providers)
	}
	if got := strings.Join(b.host.calls, " "); !strings.Contains(got, `registry/kv:1 default {"a":1}`) {
		t.Errorf("got %s", got)
	}
	_, err = c.StartProvider(ctx, hostKey, start, wait)
	want(t, err, "runs on this host already")
	_, err = c.StartProvider(ctx, hostKey, control.ProviderStart{Ref: "registry/none:1", LinkName: "default"}, wait)
	want(t, err, "no such archive")
	_, err = c.StopProvider(ctx, hostKey, control.ProviderStop{ID: providerKey, LinkName: "other"}, wait)
	want(t, err, "with that link name is not running")
	st, err = c.StopProvider(ctx, hostKey, control.ProviderStop{ID: providerKey, LinkName: "default"}, wait)
	want(t, err)
	if len(st.Providers) != 0 {
		t.Errorf("got %+v", st.Providers)
	}
}

func TestClient_links(t *testing.T) {
	c, b, _ := newClient(t)
	ctx := patient(t)
	l := lattice.Link{Actor: actorKey, Provider: providerKey, Contract: "wasmcloud:keyvalue", Name: "default", Values: map[string]string{"URL": "x"}}
	want(t, c.PutLink(ctx, l))
	all, err := c.Links(ctx)
	want(t, err)
	if len(all) != 1 || fmt.Sprint(all[0].Link) != fmt.Sprint(l) {
		t.Errorf("got %+v", all)
	}
	want(t, c.PutLink(ctx, lattice.Link{Actor: actorKey, Provider: actorKey, Contract: "a:b", Name: "default"}), "link a:b of "+actorKey, "is an actor")
	b.host.edit(func(st *control.State) { st.Links[0].App = "shop" })
	want(t, c.DeleteLink(ctx, l), "belongs to the app shop")
	b.host.edit(func(st *control.State) { st.Links[0].App = "" })
	want(t, c.DeleteLink(ctx, l))
	want(t, c.DeleteLink(ctx, l))
	if all, err := c.Links(ctx); len(all) != 0 || err != nil {
		t.Errorf("got %+v, %v", all, err)
	}
}

func TestClient_configAndLabels(t *testing.T) {
	c, b, _ := newClient(t)
	ctx := patient(t)
	if _, found, err := c.Config(ctx, "shop"); found || err != nil {
		t.Errorf("got %v, %v", found, err)
	}
	if all, err := c.Configs(ctx); len(all) != 0 || err != nil {
		t.Errorf("got %v, %v", all, err)
	}
	want(t, c.PutConfig(ctx, "shop", map[string]string{"a": "1"}))
	want(t, c.PutConfig(ctx, "depot", nil))
	if all, err := c.Configs(ctx); !slices.Equal(all, []string{"depot", "shop"}) || err != nil {
		t.Errorf("got %v, %v", all, err)
	}
	if v, found, err := c.Config(ctx, "shop"); !found || v["a"] != "1" || err != nil {
		t.Errorf("got %v, %v, %v", v, found, err)
	}
	want(t, c.DeleteConfig(ctx, "shop"))
	want(t, c.DeleteConfig(ctx, "shop"))
	want(t, c.PutConfig(ctx, "shop", map[string]string{"": "1"}), "configuration shop: ", "a name has 1 to")
	want(t, c.PutConfig(ctx, "a.b", nil), "a name has no space")

	want(t, c.PutLabel(ctx, hostKey, "floor", "2"))
	want(t, c.DeleteLabel(ctx, hostKey, "hall"))
	want(t, c.PutLabel(ctx, hostKey, "hostcore.os", "plan9"), "the host's own")
	st, err := c.State(ctx, hostKey)
	want(t, err)
	if st.Labels["floor"] != "2" || st.Labels["hall"] != "" || st.Labels["hostcore.os"] != "linux" {
		t.Errorf("got %v", st.Labels)
	}
	want(t, c.StopHost(ctx, hostKey, 3*time.Second))
	eventually(t, "the host is asked to stop", func() bool {
		b.host.mu.Lock()
		defer b.host.mu.Unlock()
		return b.host.stop != nil && *b.host.stop == 3*time.Second
	})
}

// Events come once, whether a host tells them on one subject or on both; what is none does not matter.
func TestClient_Follow(t *testing.T) {
	c, _, nc := newClient(t)
	ctx := patient(t)
	enough := errors.New("enough")
	counts := map[string]int{}
	var last control.Event
	begun := func() {
		for _, m := range []struct{ subject, data string }{
			{"", `nonsense`}, {"", `{"id":"1","type":"com.example.other"}`}, {".old", `{"type":"com.wasmcloud.lattice.old"}`},
			{"", `{"id":"1","source":"N1","type":"com.wasmcloud.lattice.old","data":{"a":1}}`},
			{".new", `{"id":"2","source":"N2","type":"com.wasmcloud.lattice.new","time":"2023-11-20T17:58:36.123Z"}`},
		} {
			if err := nc.Publish("wasmbus.evt.default"+m.subject, []byte(m.data)); err != nil {
				t.Error(err)
			}
		}
		if err := c.PutConfig(ctx, "shop", nil); err != nil {
			t.Error(err)
		}
	}
	err := c.Follow(ctx, begun, func(e control.Event) error {
		counts[e.Name]++
		if last = e; e.Name == "config_set" {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) || counts["old"] != 1 || counts["new"] != 1 {
		t.Errorf("got %v, %v", err, counts)
	}
	if last.Source != hostKey || string(last.Data) != `{"config_name":"shop"}` || time.Since(last.Time) > time.Hour {
		t.Errorf("got %+v", last)
	}
	ended, cancel := context.WithCancel(ctx)
	want(t, c.Follow(ended, cancel, func(control.Event) error { return nil }))
}

// foreign is a host that answers what it is told to.
func foreign(t *testing.T, nc *nats.Conn, answers map[string]string) {
	t.Helper()
	for subject, answer := range answers {
		if _, err := nc.Subscribe(subject, func(m *nats.Msg) { _ = m.Respond([]byte(answer)) }); err != nil {
			t.Fatal(err)
		}
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
}

// Hosts of other makes have other inventories: the one in Elixir lists each instance, and knows no number of them.
func TestClient_State_foreign(t *testing.T) {
	connect := startNATS(t)
	c := client(t, connect())
	ctx := patient(t)
	instance := func(id, annotations string) string {
		return `{"instance_id":"` + id + `","revision":3,"annotations":` + annotations + `}`
	}
	foreign(t, connect(), map[string]string{
		"wasmbus.ctl.default.get.A.inv": `{"host_id":"A","friendly_name":"wild-wind-1","labels":{"hostcore.os":"linux"},"issuer":"C","extra":[1],
			"actors":[{"id":"` + actorKey + `","name":null,"image_ref":"r:1","instances":[` + instance("1", `{}`) + `,` + instance("2", `null`) + `,` + instance("3", `{"a":"b"}`) + `]}],
			"providers":[{"id":"` + providerKey + `","image_ref":null,"contract_id":"a:b","link_name":"default","name":"P","revision":7,"annotations":null,"instance_id":"4"}]}`,
		"wasmbus.ctl.default.get.B.inv":           `{"accepted":false,"error":"too large"}`,
		"wasmbus.ctl.default.get.C.inv":           `<html>`,
		"wasmbus.ctl.default.cmd.A.lp":            `{"accepted":false,"error":null}`,
		"wasmbus.ctl.v1.default.config.get.empty": `{"success":true,"message":"","response":{}}`,
		"wasmbus.ctl.default.ping.hosts":          `{"id":"A","friendly_name":"wild-wind-1","labels":null,"uptime_seconds":9000000000000000000}`,
	})
	st, err := c.State(ctx, "A")
	want(t, err)
	if len(st.Actors) != 2 || st.Actors[0].Max != 2 || st.Actors[1].Max != 1 || st.Actors[0].Ref != "r:1" || len(st.Providers) != 1 || st.Providers[0].Revision != 7 {
		t.Errorf("got %+v", st)
	}
	_, err = c.State(ctx, "B")
	want(t, err, "too large")
	_, err = c.State(ctx, "C")
	want(t, err, "the answer is not understood")
	_, err = c.StartProvider(ctx, "A", control.ProviderStart{Ref: "x", LinkName: "default"}, func() bool { return true })
	want(t, err, "refused without a reason")
	if v, found, err := c.Config(ctx, "empty"); !found || len(v) != 0 || err != nil {
		t.Errorf("got %v, %v, %v", v, found, err)
	}
	var all []control.State
	err = heard(t, func(within time.Duration) (err error) { all, err = c.Hosts(ctx, within); return err })
	if err != nil || len(all) != 1 || all[0].FriendlyName != "wild-wind-1" {
		t.Errorf("got %+v, %v", all, err)
	}
}

// FuzzInventory reads what a stranger says that it has.
func FuzzInventory(f *testing.F) {
	f.Add([]byte(`{"host_id":"N","actors":[{"id":"M","instances":[{"max_instances":4294967295},{"max_instances":4294967295}]}],"providers":[{}],"uptime_seconds":-1}`))
	f.Add([]byte(`{"actors":[{"instances":[{"annotations":{"a":"b"}},{"annotations":null,"image_ref":"r"},{}]}]}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, data []byte) {
		st, err := control.ReadInventory(data)
		if err != nil {
			return
		}
		for _, a := range st.Actors {
			if a.Max == 0 {
				t.Errorf("an entry without instances: %+v", a)
			}
		}
		if st.Started.After(time.Now()) {
			t.Errorf("it began at %v", st.Started)
		}
	})
}

// FuzzEvent reads what anybody published as an event.
func FuzzEvent(f *testing.F) {
	f.Add([]byte(`{"specversion":"1.0","id":"1","source":"N","type":"com.wasmcloud.lattice.x","time":"2023-11-20T17:58:36.123Z","data":{}}`))
	f.Add([]byte(`{"id":"1","type":"com.wasmcloud.lattice."}`))
	f.Add([]byte(`[1]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		e, ok := control.ReadEvent(data)
		if ok && (e.ID == "" || e.Name == "" || len(e.Data) > 0 && !json.Valid(e.Data)) {
			t.Errorf("got %+v", e)
		}
	})
}
