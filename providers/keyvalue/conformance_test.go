package keyvalue_test

import (
	"context"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/edged-io/edged/providers/keyvalue"
	"github.com/edged-io/edged/providers/providertest"
	"github.com/edged-io/edged/store"
)

// The provider does what every other of the contract has to do.
func TestProvider_conforms(t *testing.T) {
	ns, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true, JetStream: true, StoreDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	ns.Start()
	t.Cleanup(func() { ns.Shutdown(); ns.WaitForShutdown() })
	const patience = 60 * time.Second
	if !ns.ReadyForConnections(patience) {
		t.Fatal("server is not ready")
	}
	f := newFixtureWith(t, store.Options{Dir: t.TempDir()})
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	results, err := providertest.Run(t.Context(), providertest.Options{
		URL: ns.ClientURL(), Contract: keyvalue.Contract, Timeout: patience, Start: patience, Values: map[string]string{"bucket": "b"},
		Ready: func(line string) { go func() { served <- providertest.Serve(ctx, f.p, line) }() },
	})
	cancel()
	if err != nil {
		t.Fatal(err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
	for _, r := range results {
		// Here an operation that is not there is an error of the kind that all built-in
		// providers have. Its text is for an actor of this box, and not for another host.
		if r.Status != providertest.Pass && (r.Check != "unknown-operation" || r.Status != providertest.Warn) {
			t.Errorf("%s %s: %s", r.Status, r.Check, r.Detail)
		}
	}
	if n := len(results); n < 35 {
		t.Errorf("%d checks", n)
	}
}
