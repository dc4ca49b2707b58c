package provider

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/edged-io/edged/sdk/go/msgpack"
	"github.com/edged-io/edged/sdk/go/provider/internal/wire"
)

const patience = 30 * time.Second // for what has to come

// slow serves calls when it is let.
type slow struct{ begun, end chan struct{} }

func (slow) PutLink(context.Context, Link) error    { return nil }
func (slow) DeleteLink(context.Context, Link) error { return nil }
func (s slow) Call(_ context.Context, inv Invocation) ([]byte, error) {
	s.begun <- struct{}{}
	<-s.end
	return inv.Payload, nil
}

// What has come when a provider is stopped is answered, also what waits for its turn.
func TestRun_stop(t *testing.T) {
	ns, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true})
	if err != nil {
		t.Fatal(err)
	}
	ns.Start()
	t.Cleanup(func() { ns.Shutdown(); ns.WaitForShutdown() })
	if !ns.ReadyForConnections(patience) {
		t.Fatal("server is not ready")
	}
	const issuer, count = "CDFJHLAXAUMHA4OWPOB4P7YO72AQR2HMIUYFOXLXE2DZGM633K7HYHVW", 200
	d, err := ParseHostData(line(t, func(m map[string]any) {
		m["lattice_rpc_url"], m["cluster_issuers"] = ns.ClientURL(), []string{issuer}
		m["link_definitions"] = []map[string]any{{"actor_id": actorKey, "contract_id": "acme:slow", "link_name": "default", "values": map[string]string{}}}
	}))
	if err != nil {
		t.Fatal(err)
	}
	p := slow{make(chan struct{}, count), make(chan struct{})}
	ended := make(chan error, 1)
	go func() { ended <- Run(t.Context(), d, func(*Host) (Provider, error) { return p, nil }) }()

	nc, err := nats.Connect(ns.ClientURL(), nats.Timeout(patience))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	root := fmt.Sprintf("wasmbus.rpc.%s.%s.%s", d.Lattice, d.Key, d.LinkName)
	inbox := nc.NewInbox()
	answers, err := nc.SubscribeSync(inbox)
	if err != nil {
		t.Fatal(err)
	}
	wait := func(what string, done func() bool) {
		t.Helper()
		for tick, end := time.Tick(5*time.Millisecond), time.After(patience); !done(); {
			select {
			case <-tick:
			case <-end:
				t.Fatal(what)
			}
		}
	}
	wait("it does not answer", func() bool {
		_, err := nc.Request(root+".health", []byte{0x80}, patience)
		return err == nil
	})
	for i := range count {
		e := wire.Call{Origin: wire.Entity{Key: actorKey}, Target: wire.Entity{Key: d.Key, Link: d.LinkName, Contract: "acme:slow"}, Operation: "Slow.Call", ID: fmt.Sprint("call ", i), Host: d.HostID}
		if err := wire.Sign(&e, nil, d.InvocationSeed); err != nil {
			t.Fatal(err)
		}
		b, _ := msgpack.Marshal(e)
		if err := nc.PublishRequest(root, inbox, b); err != nil {
			t.Fatal(err)
		}
	}
	for range maxCalls {
		<-p.begun
	}
	all := ns.NumSubscriptions()
	if err := nc.Publish(root+".shutdown", nil); err != nil {
		t.Fatal(err)
	}
	wait("it takes calls still", func() bool { return ns.NumSubscriptions() < all })
	close(p.end)
	answered := make(map[string]bool)
	for len(answered) < count {
		m, err := answers.NextMsg(patience)
		if err != nil {
			t.Fatalf("%d of %d calls were answered: %v", len(answered), count, err)
		}
		var a wire.Answer
		if err := msgpack.Unmarshal(m.Data, &a); err != nil || a.Error != "" && a.Error != errStopping.Error() {
			t.Errorf("got %+v, %v", a, err)
		}
		answered[a.ID] = true
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
