package broker

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// fleetHub is a hub with an account in which each box has the permissions that
// HubPermissions returns, and nothing else.
func fleetHub(t *testing.T, boxes map[string][]string) (h *testHub, admin nats.Option) {
	t.Helper()
	conf := "accounts { FLEET { jetstream: enabled, users: [\n { user: admin, password: x }\n"
	for device, groups := range boxes {
		p, err := HubPermissions(device, groups, "hub", "default")
		if err != nil {
			t.Fatal(err)
		}
		conf += fmt.Sprintf("{ user: %s, password: x\n%s }\n", device, p.Text())
	}
	conf += "] } }\n"
	file := filepath.Join(t.TempDir(), "hub.conf")
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	h = newTestHub(t, func(o *server.Options) {
		if err := o.ProcessConfigFile(file); err != nil {
			t.Fatal(err)
		}
	})
	admin = nats.UserInfo("admin", "x")
	h.init(admin)
	return h, admin
}

func TestHubPermissions_Box_worksWhole(t *testing.T) {
	h, admin := fleetHub(t, map[string][]string{"a": {"red"}, "b": nil})
	js := h.js(admin)
	o := boxOptions{streams: map[string]string{"telemetry": "s.>"}, local: map[string]string{"cmd": "cmd"}, groups: []string{"red"}, user: url.UserPassword("a", "x")}
	a := startBox(t, h, "a", t.TempDir(), o)
	a.putMany("telemetry", "s.x", "a", 3000)
	a.drained("telemetry")
	checkLane(t, h.lane("a", "telemetry", admin), "a", 3000)

	publishDown(t, js, "edge.down.device.a.cmd", "1")
	a.waitReceived("cmd", "cmd=1")
	publishDown(t, js, "edge.down.group.red.cmd", "2")
	a.waitReceived("cmd", "cmd=1", "cmd=2")
	publishDown(t, js, "edge.down.all.cmd", "3")
	a.waitReceived("cmd", "cmd=1", "cmd=2", "cmd=3")
	h.gate.reset() // the consumers are looked at again
	publishDown(t, js, "edge.down.device.a.cmd", "4")
	a.waitReceived("cmd", "cmd=1", "cmd=2", "cmd=3", "cmd=4")

	// What updates need: to watch the desired state, report, and fetch.
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	box, err := jetstream.NewWithDomain(a.nc, "hub")
	if err != nil {
		t.Fatal(err)
	}
	desired, err := box.KeyValue(ctx, bucketDesired)
	if err != nil {
		t.Fatal(err)
	}
	w, err := desired.Watch(ctx, "a", jetstream.UpdatesOnly(), jetstream.MetaOnly())
	if err != nil {
		t.Fatal(err)
	}
	operator, err := js.KeyValue(ctx, bucketDesired)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := operator.Put(ctx, "a", []byte("run this")); err != nil {
		t.Fatal(err)
	}
	select {
	case e := <-w.Updates():
		if e.Key() != "a" {
			t.Errorf("watch: got key %q, want a", e.Key())
		}
	case <-ctx.Done():
		t.Fatal("the watch saw no change")
	}
	if err := w.Stop(); err != nil {
		t.Errorf("stop the watch: %v", err)
	}
	if e, err := desired.Get(ctx, "a"); err != nil || string(e.Value()) != "run this" {
		t.Errorf("desired state: got %v, %v", e, err)
	}
	reported, err := box.KeyValue(ctx, bucketReported)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := reported.Put(ctx, "a", []byte("idle")); err != nil {
		t.Errorf("report: %v", err)
	}
	if e, err := reported.Get(ctx, "a"); err != nil || string(e.Value()) != "idle" {
		t.Errorf("reported state: got %v, %v", e, err)
	}
	store, err := js.ObjectStore(ctx, bucketArtifacts)
	if err != nil {
		t.Fatal(err)
	}
	info, err := store.PutBytes(ctx, "sha256:0123", []byte("a module"))
	if err != nil {
		t.Fatal(err)
	}
	artifacts, err := box.ObjectStore(ctx, bucketArtifacts)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := artifacts.GetInfo(ctx, "sha256:0123"); err != nil || got.NUID != info.NUID {
		t.Errorf("artifact: got %v, %v", got, err)
	}
	chunks, err := box.Stream(ctx, "OBJ_"+bucketArtifacts)
	if err != nil {
		t.Fatal(err)
	}
	m, err := chunks.GetMsg(ctx, 1, jetstream.WithGetMsgSubject("$O."+bucketArtifacts+".C."+info.NUID))
	if err != nil || string(m.Data) != "a module" {
		t.Errorf("chunk: got %v, %v", m, err)
	}

	// And to answer for its state.
	sub, err := a.nc.Subscribe(StatusSubject("a"), func(m *nats.Msg) { _ = m.Respond([]byte("well")) })
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Unsubscribe()
	asker := h.client(admin)
	waitFor(t, "the box to answer", func() (bool, string) {
		m, err := asker.Request(StatusSubject("a"), nil, time.Second)
		return err == nil && string(m.Data) == "well", fmt.Sprint(err)
	})
}

func TestHubPermissions_Box_reachesNoOther(t *testing.T) {
	h, admin := fleetHub(t, map[string][]string{"a": nil, "b": {"blue"}})
	o := boxOptions{streams: map[string]string{"telemetry": "s.>"}, user: url.UserPassword("b", "x")}
	b := startBox(t, h, "b", t.TempDir(), o)
	b.putMany("telemetry", "s.x", "b", 10)
	b.drained("telemetry")
	js := h.js(admin)
	publishDown(t, js, "edge.down.device.b.cmd", "secret")
	operator, err := js.KeyValue(t.Context(), bucketDesired)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := operator.Put(t.Context(), "b", []byte("secret")); err != nil {
		t.Fatal(err)
	}

	o = boxOptions{streams: map[string]string{"telemetry": "s.>"}, user: url.UserPassword("a", "x")}
	a := startBox(t, h, "a", t.TempDir(), o)
	a.putMany("telemetry", "s.x", "a", 10)
	a.drained("telemetry")
	asks := []struct{ subject, body string }{
		{"edge.up.b.telemetry.s.x", "forged"},
		{"edge.down.device.b.cmd", "forged"},
		{"edge.down.all.cmd", "forged"},
		{"$JS.hub.API.$KV.EDGE_REPORTED.b", "forged"},
		{"$JS.hub.API.$KV.EDGE_DESIRED.a", "forged"},
		{"$KV.EDGE_DESIRED.a", "forged"},
		{"$JS.hub.API.DIRECT.GET.EDGE_UP.edge.up.b.>", ""},
		{"$JS.hub.API.DIRECT.GET.EDGE_UP.edge.up.*.telemetry.>", ""},
		{"$JS.hub.API.DIRECT.GET.EDGE_UP.edge.up.>", ""},
		{"$JS.hub.API.DIRECT.GET.EDGE_UP.>", ""},
		{"$JS.hub.API.DIRECT.GET.EDGE_UP", `{"last_by_subj":"edge.up.b.>"}`},
		{"$JS.hub.API.DIRECT.GET.EDGE_UP", `{"seq":1}`},
		{"$JS.hub.API.STREAM.MSG.GET.EDGE_UP", `{"seq":1}`},
		{"$JS.API.STREAM.MSG.GET.EDGE_UP", `{"seq":1}`},
		{"$JS.hub.API.STREAM.MSG.GET.EDGE_DOWN", `{"seq":1}`},
		{"$JS.hub.API.STREAM.MSG.GET.KV_EDGE_DESIRED", `{"last_by_subj":"$KV.EDGE_DESIRED.b"}`},
		{"$JS.hub.API.DIRECT.GET.KV_EDGE_DESIRED.$KV.EDGE_DESIRED.b", ""},
		{"$JS.hub.API.CONSUMER.CREATE.KV_EDGE_DESIRED.x.$KV.EDGE_DESIRED.b", `{"stream_name":"KV_EDGE_DESIRED","config":{"name":"x","filter_subject":"$KV.EDGE_DESIRED.b","ack_policy":"none"}}`},
		{"$JS.hub.API.CONSUMER.CREATE.KV_EDGE_DESIRED.x.$KV.EDGE_DESIRED.a", `{"stream_name":"KV_EDGE_DESIRED","config":{"name":"x","filter_subject":"$KV.EDGE_DESIRED.b","ack_policy":"none"}}`},
		{"$JS.hub.API.CONSUMER.CREATE.EDGE_DOWN.edged-a.edge.down.device.a.>", `{"stream_name":"EDGE_DOWN","config":{"name":"edged-a","durable_name":"edged-a","filter_subject":"edge.down.device.b.>","ack_policy":"explicit"}}`},
		{"$JS.hub.API.CONSUMER.CREATE.EDGE_DOWN.edged-a", `{"stream_name":"EDGE_DOWN","config":{"name":"edged-a","durable_name":"edged-a","filter_subjects":["edge.down.device.b.>"],"ack_policy":"explicit"}}`},
		{"$JS.hub.API.CONSUMER.CREATE.EDGE_DOWN.edged-a=group=blue.edge.down.group.blue.>", `{"stream_name":"EDGE_DOWN","config":{"name":"edged-a=group=blue","durable_name":"edged-a=group=blue","filter_subject":"edge.down.group.blue.>","ack_policy":"explicit"}}`},
		{"$JS.hub.API.CONSUMER.DURABLE.CREATE.EDGE_DOWN.edged-a", `{"stream_name":"EDGE_DOWN","config":{"durable_name":"edged-a","filter_subject":"edge.down.device.b.>","ack_policy":"explicit"}}`},
		{"$JS.hub.API.CONSUMER.MSG.NEXT.EDGE_DOWN.edged-b", "1"},
		{"$JS.hub.API.CONSUMER.DELETE.EDGE_DOWN.edged-b", ""},
		{"$JS.hub.API.CONSUMER.CREATE.EDGE_UP.x.edge.up.b.>", `{"stream_name":"EDGE_UP","config":{"name":"x","filter_subject":"edge.up.b.>","ack_policy":"none"}}`},
		{"$JS.hub.API.STREAM.DELETE.EDGE_UP", ""},
		{"$JS.hub.API.STREAM.PURGE.EDGE_UP", `{"filter":"edge.up.b.>"}`},
		{"$JS.hub.API.STREAM.CREATE.MINE", `{"name":"MINE","subjects":["mine.>"],"mirror":{"name":"EDGE_UP"}}`},
	}
	for _, ask := range asks {
		m, err := a.nc.Request(ask.subject, []byte(ask.body), 300*time.Millisecond)
		if err != nil {
			continue // nobody answers: it did not get there
		}
		if !refused(m) {
			t.Errorf("%s %s: got %v %.200q, want no answer or a refusal", ask.subject, ask.body, m.Header, m.Data)
		}
	}
	if got := len(h.lane("b", "telemetry", admin)); got != 10 {
		t.Errorf("lane of b: got %d messages, want 10", got)
	}
	checkLane(t, h.lane("a", "telemetry", admin), "a", 10)
	b.waitStill(t, js)
}

// refused says whether JetStream answered with an error.
func refused(m *nats.Msg) bool {
	_, err := parseStreamInfo(m.Data)
	var hub *hubError
	return errors.As(err, &hub) || m.Header.Get("Status") != "" && m.Header.Get("Status") != "100"
}

// waitStill makes sure that the box got what the operator sent, and no more.
func (b *testBox) waitStill(t *testing.T, js jetstream.JetStream) {
	t.Helper()
	e, err := js.KeyValue(t.Context(), bucketDesired)
	if err != nil {
		t.Fatal(err)
	}
	got, err := e.Get(t.Context(), "b")
	if err != nil || string(got.Value()) != "secret" {
		t.Errorf("desired state of b: got %v, %v", got, err)
	}
	s, err := js.Stream(t.Context(), streamDown)
	if err != nil {
		t.Fatal(err)
	}
	if n := s.CachedInfo().State.LastSeq; n != 1 {
		t.Errorf("messages for boxes: got %d, want 1", n)
	}
}

func TestHubPermissions_Names(t *testing.T) {
	for _, device := range []string{"", "a.b", "*", ">", "a b", "ä"} {
		if _, err := HubPermissions(device, nil, "hub", "default"); err == nil {
			t.Errorf("device %q: got no error", device)
		}
	}
	if _, err := HubPermissions("a", []string{"x.>"}, "hub", "default"); err == nil {
		t.Error("group x.>: got no error")
	}
	for _, lattice := range []string{"a.b", ">", "EDGE_ARTIFACTS"} {
		if _, err := HubPermissions("a", nil, "hub", lattice); err == nil {
			t.Errorf("lattice %q: got no error", lattice)
		}
	}
	if p, err := HubPermissions("a", nil, "hub", ""); err != nil || strings.Contains(p.Text(), "wasmbus") {
		t.Errorf("no lattice: got %v, %v", p, err)
	}
	if _, err := HubPermissions("a", nil, "*", "default"); err == nil {
		t.Error("domain *: got no error")
	}
}
