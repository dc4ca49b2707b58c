package node

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/edged-io/edged/broker"
	"github.com/edged-io/edged/internal/claims"
	"github.com/edged-io/edged/lattice"
)

// strictHub is a hub where each box has the permissions that edged prints for it, and
// nothing else. A box is in the lattice of that name.
func strictHub(t *testing.T, boxes map[string]string, more ...func(*broker.BoxPermissions)) (leaf string, admin *nats.Conn) {
	t.Helper()
	conf := "accounts { FLEET { jetstream: enabled, users: [\n { user: admin, password: x }\n"
	for device, lattice := range boxes {
		p, err := broker.HubPermissions(device, nil, "hub", lattice)
		if err != nil {
			t.Fatal(err)
		}
		for _, add := range more {
			add(&p)
		}
		conf += fmt.Sprintf("{ user: %s, password: x\n%s }\n", device, p.Text())
	}
	file := filepath.Join(t.TempDir(), "hub.conf")
	if err := os.WriteFile(file, []byte(conf+"] } }\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	o := &server.Options{}
	if err := o.ProcessConfigFile(file); err != nil {
		t.Fatal(err)
	}
	o.ServerName, o.Host, o.Port, o.NoLog, o.NoSigs = "hub", "127.0.0.1", server.RANDOM_PORT, true, true
	o.JetStream, o.JetStreamDomain, o.StoreDir = true, "hub", t.TempDir()
	o.LeafNode.Host, o.LeafNode.Port = "127.0.0.1", server.RANDOM_PORT
	ns, err := server.NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	ns.Start()
	t.Cleanup(func() { ns.Shutdown(); ns.WaitForShutdown() })
	if !ns.ReadyForConnections(patience) {
		t.Fatal("the hub is not ready")
	}
	admin, err = nats.Connect(ns.ClientURL(), nats.UserInfo("admin", "x"), nats.Timeout(patience))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(admin.Close)
	if _, err := broker.InitHub(t.Context(), admin, broker.HubInitOptions{}); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", o.LeafNode.Port), admin
}

// With the permissions that edged prints boxes call each other, with large payloads
// too, keep what is known in the lattice, and are commanded; and nothing more.
func TestNode_lattice_withPermissions(t *testing.T) {
	leaf, admin := strictHub(t, map[string]string{"callee": "plant", "caller": "plant", "other": "office"})
	cluster := seed(t, claims.Cluster)
	box := func(id, lattice string) *rig {
		r := newBox(t, id, unsigned+fmt.Sprintf("[hub]\nurl = \"nats-leaf://%s:x@%s\"\n[lattice]\nname = %q\ncluster_seed_file = \"shared.seed\"\n", id, leaf, lattice))
		r.write("shared.seed", cluster.Reveal())
		return r
	}
	callee, caller, other := box("callee", "plant"), box("caller", "plant"), box("other", "office")
	key := callee.signedProbe("b")
	for _, r := range []*rig{callee, caller, other} {
		r.start()
	}
	call := func(r *rig, size int) (string, error) {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		reply, err := r.bus.Call(ctx, lattice.Invocation{
			Origin: lattice.Entity{Key: seed(t, claims.Module).Key().String()}, Target: lattice.Entity{Key: key}, Operation: "Probe.Echo", Payload: []byte(strings.Repeat("x", size)),
		})
		return string(reply), err
	}
	for _, size := range []int{10, 2 << 20} { // the second goes through the object store, both ways
		caller.eventually("the call is answered", func() bool {
			reply, err := call(caller, size)
			if err != nil {
				t.Logf("call with %d bytes: %v", size, err)
			}
			return err == nil && len(reply) == size
		})
	}
	if _, err := call(other, 10); err == nil {
		t.Error("a box of another lattice has called the actor")
	}

	// What is known in the lattice: each box writes it, and watches.
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	bucket := func(r *rig) (kv jetstream.KeyValue) {
		t.Helper()
		js, err := jetstream.NewWithDomain(r.link, "hub", jetstream.WithDefaultTimeout(patience))
		if err != nil {
			t.Fatal(err)
		}
		r.eventually("the box has made the bucket", func() bool {
			kv, err = js.KeyValue(ctx, "LATTICEDATA_plant")
			return err == nil
		})
		return kv
	}
	ours := bucket(callee)
	watch, err := ours.WatchAll(ctx)
	if err != nil {
		t.Fatal(err)
	}
	theirs := bucket(caller)
	if _, err := theirs.Put(ctx, "LINKDEF_x", []byte("{}")); err != nil {
		t.Fatal(err)
	}
	for e := (jetstream.KeyValueEntry)(nil); e == nil || e.Key() != "LINKDEF_x"; {
		select {
		case e = <-watch.Updates():
		case <-ctx.Done():
			t.Fatal("a link that another box put is not seen")
		}
	}
	if e, err := ours.Get(ctx, "LINKDEF_x"); err != nil || string(e.Value()) != "{}" {
		t.Errorf("link: got %v, %v", e, err)
	}
	callee.eventually("the link, and the claims of the actor, are there", func() bool {
		keys, err := ours.Keys(ctx)
		return err == nil && slices.Contains(keys, "LINKDEF_x") && slices.Contains(keys, "CLAIMS_"+key)
	})
	if err := ours.Purge(ctx, "LINKDEF_x"); err != nil {
		t.Error(err)
	}
	if err := watch.Stop(); err != nil {
		t.Error(err)
	}

	// A control tool at the hub asks a box, which answers; boxes tell events, and hear
	// those of others. A box does not command others.
	asked := make(chan string, 16)
	listen := func(nc *nats.Conn, subject string) {
		t.Helper()
		if _, err := nc.Subscribe(subject, func(m *nats.Msg) { asked <- m.Subject; _ = m.Respond([]byte("well")) }); err != nil {
			t.Fatal(err)
		}
		if err := nc.FlushTimeout(patience); err != nil {
			t.Fatal(err)
		}
	}
	listen(callee.link, "wasmbus.ctl.plant.test.a")
	listen(callee.link, "wasmbus.ctl.v1.plant.test.b")
	for _, subject := range []string{"wasmbus.ctl.plant.test.a", "wasmbus.ctl.v1.plant.test.b"} {
		callee.eventually(subject+" is answered", func() bool {
			m, err := admin.Request(subject, nil, time.Second)
			return err == nil && string(m.Data) == "well"
		})
		<-asked
	}
	listen(admin, "wasmbus.evt.plant")
	listen(callee.link, "wasmbus.evt.plant.test")
	for _, subject := range []string{"wasmbus.evt.plant", "wasmbus.evt.plant.test"} {
		caller.eventually(subject+" is heard", func() bool {
			_ = caller.link.Publish(subject, nil)
			select {
			case got := <-asked:
				return got == subject
			case <-time.After(100 * time.Millisecond):
				return false
			}
		})
	}
	for _, refused := range []struct {
		r       *rig
		subject string
	}{
		{caller, "wasmbus.ctl.plant.test.a"}, {caller, "wasmbus.ctl.v1.plant.test.b"}, {other, "wasmbus.rpc.plant." + key}, {other, "wasmbus.evt.plant.test"},
		{other, "$JS.hub.API.$KV.LATTICEDATA_plant.x"}, {other, "$JS.hub.API.STREAM.INFO.KV_LATTICEDATA_plant"}, {other, "$O.plant.C.x"},
		{caller, "$JS.hub.API.STREAM.DELETE.KV_LATTICEDATA_plant"}, {caller, "$JS.hub.API.STREAM.PURGE.KV_LATTICEDATA_plant"}, {caller, "$JS.hub.API.STREAM.UPDATE.KV_LATTICEDATA_plant"},
	} {
		if m, err := refused.r.link.Request(refused.subject, nil, 200*time.Millisecond); err == nil {
			t.Errorf("%s was answered: %s", refused.subject, m.Data)
		}
	}
}
