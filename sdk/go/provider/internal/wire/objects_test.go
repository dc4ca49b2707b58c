package wire

import (
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const patience = 30 * time.Second // for what has to come

// A payload that comes before the host has made the object store waits for it.
func TestObjects_Put_beforeTheBucket(t *testing.T) {
	ns, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true, JetStream: true, StoreDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	ns.Start()
	t.Cleanup(func() { ns.Shutdown(); ns.WaitForShutdown() })
	if !ns.ReadyForConnections(patience) {
		t.Fatal("server is not ready")
	}
	conn, err := nats.Connect(ns.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	asks, err := conn.SubscribeSync("$JS.API.STREAM.INFO.OBJ_home")
	if err != nil {
		t.Fatal(err)
	}
	objects, err := NewObjects(conn, "home", "", MayUse)
	if err != nil {
		t.Fatal(err)
	}
	put := make(chan error, 1)
	go func() { put <- objects.Put(t.Context(), "a", []byte("payload")) }() // received from below
	if _, err := asks.NextMsg(patience); err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateObjectStore(t.Context(), jetstream.ObjectStoreConfig{Bucket: "home"}); err != nil {
		t.Fatal(err)
	}
	if err := <-put; err != nil {
		t.Fatal(err)
	}
	got, err := objects.Take(t.Context(), "a", 7, func([]byte) error { return errors.New("kept") })
	if got != nil || err == nil || err.Error() != "kept" {
		t.Errorf("got %q, %v", got, err)
	}
	if got, err = objects.Take(t.Context(), "a", 7, func([]byte) error { return nil }); err != nil || string(got) != "payload" {
		t.Errorf("got %q, %v", got, err)
	}
}
