package rpc_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/url"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/edged-io/edged/internal/claims"
	"github.com/edged-io/edged/lattice"
	"github.com/edged-io/edged/lattice/rpc"
	"github.com/edged-io/edged/lattice/wire"
)

// Two boxes, each with a server of its own, meet at a hub that has the JetStream.
// When the hub goes away callers are told, at once or after their time, and what is
// on the same box goes on.
func TestLattice_throughAHub(t *testing.T) {
	leaf := freePort(t)
	hub := newServer(t, &server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true, ServerName: "hub",
		JetStream: true, JetStreamDomain: "hub", StoreDir: t.TempDir(),
		LeafNode: server.LeafNodeOpts{Host: "127.0.0.1", Port: leaf},
	})
	cluster := seed(t, claims.Cluster)
	boxAt := func(name string) *box {
		u := &url.URL{Scheme: "nats-leaf", Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(leaf))}
		ns := newServer(t, &server.Options{
			Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true, ServerName: name,
			LeafNode: server.LeafNodeOpts{Remotes: []*server.RemoteLeafOpts{{URLs: []*url.URL{u}}}, ReconnectInterval: 50 * time.Millisecond},
		})
		return startBox(t, ns.ClientURL(), func(o *rpc.Options) {
			o.Cluster, o.JetStreamDomain, o.Timeout = cluster, "hub", 2*time.Second
		})
	}
	a, b := boxAt("a"), boxAt("b")
	there := b.serve(t, func(_ context.Context, inv lattice.Invocation) ([]byte, error) { return inv.Payload, nil })
	here := b.serve(t, echo)
	call := func(bus *lattice.Bus, key string, n int) error {
		payload := bytes.Repeat([]byte("x"), n)
		reply, err := bus.Call(t.Context(), lattice.Invocation{Target: lattice.Entity{Key: key}, Operation: "A.B", Payload: payload})
		if err == nil && key == there && !bytes.Equal(reply, payload) {
			t.Errorf("got %d bytes, want %d", len(reply), n)
		}
		return err
	}
	// The servers tell each other who listens where in their own time.
	settled := func(what string, done func(error) bool) {
		t.Helper()
		for deadline := time.Now().Add(patience); ; {
			err := call(a.bus, there, 10)
			if done(err) {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: %v", what, err)
			}
		}
	}
	settled("the boxes do not meet", func(err error) bool { return err == nil })
	if err := call(a.bus, there, 2*wire.ChunkBytes); err != nil {
		t.Errorf("large payload: %v", err)
	}
	hub.Shutdown()
	hub.WaitForShutdown()
	settled("nobody notices that the hub is gone", func(err error) bool { return errors.Is(err, lattice.ErrNoEntity) })
	if err := call(a.bus, there, 2*wire.ChunkBytes); !errors.Is(err, rpc.ErrTooLarge) && !errors.Is(err, lattice.ErrNoEntity) {
		t.Errorf("large payload without a hub: %v", err)
	}
	if err := call(b.bus, here, 10); err != nil {
		t.Errorf("on the same box: %v", err)
	}
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}
