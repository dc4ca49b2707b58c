package metadata

import (
	"fmt"
	"net/url"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// Boxes with servers of their own reach the bucket in the hub's JetStream domain. A box
// goes on when the hub goes, and both have all once it is back.
func TestMetadata_throughALeaf(t *testing.T) {
	h := &hub{t: t, opts: server.Options{
		ServerName: "hub", Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true, JetStream: true, JetStreamDomain: "hub", StoreDir: t.TempDir(),
		LeafNode: server.LeafNodeOpts{Host: "127.0.0.1", Port: server.RANDOM_PORT},
	}}
	h.start()
	t.Cleanup(h.stop)
	boxAt := func(name string) *box {
		ns, err := server.NewServer(&server.Options{
			ServerName: name, Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true,
			LeafNode: server.LeafNodeOpts{
				Remotes:           []*server.RemoteLeafOpts{{URLs: []*url.URL{{Scheme: "nats-leaf", Host: fmt.Sprintf("127.0.0.1:%d", h.opts.LeafNode.Port)}}}},
				ReconnectInterval: 50 * time.Millisecond,
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		ns.Start()
		t.Cleanup(func() { ns.Shutdown(); ns.WaitForShutdown() })
		if !ns.ReadyForConnections(patience) {
			t.Fatal("the server of the box is not ready")
		}
		nc, err := nats.Connect(ns.ClientURL(), nats.Timeout(patience))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(nc.Close)
		return startBox(t, nc, t.TempDir(), func(o *Options) { o.JetStreamDomain, o.look = "hub", 50*time.Millisecond })
	}
	a, b := boxAt("a"), boxAt("b")
	a.put(link("one", "a"))
	b.has("one=a")
	h.stop()
	b.put(link("two", "b"))
	a.delete(link("one", ""))
	eventually(t, "the box does not notice", func() bool { return !a.Status().Synced && !b.Status().Synced })
	h.start()
	a.has("two=b")
	b.has("two=b")
}
