package rpc_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/edged-io/edged/internal/claims"
	"github.com/edged-io/edged/lattice"
	"github.com/edged-io/edged/lattice/rpc"
	"github.com/edged-io/edged/lattice/wire"
	"github.com/edged-io/edged/store"
)

func openStore(t testing.TB) *store.DB {
	t.Helper()
	db, err := store.Open(store.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// DESIGN 4: what acts at once waits until the turn can not lose any more, and says
// which call it is, so that the receiver recognises it when the turn runs again.
func TestLattice_Call_inATurn(t *testing.T) {
	db := openStore(t)
	message := "telemetry/7"
	a := startBox(t, startServer(t, nil), func(o *rpc.Options) {
		o.Handled = func(context.Context) string { return message }
	})
	key := newKey(t, claims.Service)
	var mu sync.Mutex
	var keys []string
	sub, err := a.conn.Subscribe(wire.ProviderSubject("home", key, "default"), func(m *nats.Msg) {
		i, err := wire.DecodeInvocation(m.Data)
		if err != nil {
			t.Error(err)
		}
		mu.Lock()
		keys = append(keys, m.Header.Get(rpc.HeaderIdempotency))
		mu.Unlock()
		_ = m.Respond((&wire.Response{ID: i.ID}).Append(nil))
	})
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Unsubscribe()
	call := func(ctx context.Context, payload string) {
		t.Helper()
		if _, err := a.bus.Call(ctx, lattice.Invocation{Target: lattice.Entity{Key: key}, Operation: "A.B", Payload: []byte(payload)}); err != nil {
			t.Error(err)
		}
	}
	failure := errors.New("the actor fails after it has called")
	turn := func() {
		err := db.Do(t.Context(), func(ctx context.Context, turn *store.Turn) error {
			call(ctx, "one")
			call(ctx, "one")
			call(ctx, "two")
			if !turn.Exclusive() {
				t.Error("the turn can still lose")
			}
			return failure
		})
		if !errors.Is(err, failure) {
			t.Error(err)
		}
	}
	turn()
	turn() // the message comes again
	message = "telemetry/8"
	turn()
	call(t.Context(), "one")
	mu.Lock()
	defer mu.Unlock()
	if len(keys) != 10 || keys[9] != "" {
		t.Fatalf("got %q", keys)
	}
	different := make(map[string]bool)
	for n, k := range keys[:9] {
		different[k] = true
		if k == "" || n >= 3 && n < 6 && k != keys[n-3] {
			t.Errorf("call %d has key %q", n, k)
		}
	}
	if len(different) != 6 {
		t.Errorf("%d different keys in %q, want 6", len(different), keys)
	}
}

// A call is one turn, on disk before it is answered; when it fails nothing has
// happened.
func TestLattice_serve_isATurn(t *testing.T) {
	db := openStore(t)
	b := startBox(t, startServer(t, nil), func(o *rpc.Options) { o.Store = db })
	key := b.serve(t, func(ctx context.Context, inv lattice.Invocation) ([]byte, error) {
		if err := store.TurnFrom(ctx).Put("s", "k", inv.Payload); err != nil {
			return nil, err
		}
		if string(inv.Payload) == "fail" {
			return nil, errors.New("as asked")
		}
		return nil, nil
	})
	for _, payload := range []string{"good", "fail"} {
		i := b.signed(t, key, []byte(payload), nil)
		if r := b.ask(t, key, i.Append(nil)); r.Failed != (payload == "fail") || r.Failed && r.Error != "as asked" {
			t.Errorf("got %+v", r)
		}
	}
	err := db.Do(t.Context(), func(_ context.Context, turn *store.Turn) error {
		if v, _, err := turn.Get("s", "k"); err != nil || string(v) != "good" {
			t.Errorf("got %q, %v", v, err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// A calls B, and B calls back into what A's turn holds: that can not be waited for.
func TestLattice_Call_backIsADeadlock(t *testing.T) {
	url := startServer(t, nil)
	cluster := seed(t, claims.Cluster)
	open := func() (*box, *store.DB) {
		db := openStore(t)
		return startBox(t, url, func(o *rpc.Options) { o.Cluster, o.Store = cluster, db }), db
	}
	a, db := open()
	b, _ := open()
	write := func(ctx context.Context) error { return store.TurnFrom(ctx).Put("s", "k", []byte("v")) }
	back := a.serve(t, func(ctx context.Context, _ lattice.Invocation) ([]byte, error) { return nil, write(ctx) })
	forth := b.serve(t, func(ctx context.Context, _ lattice.Invocation) ([]byte, error) {
		return b.bus.Call(ctx, lattice.Invocation{Target: lattice.Entity{Key: back}, Operation: "A.Back"})
	})
	err := db.Do(t.Context(), func(ctx context.Context, _ *store.Turn) error {
		if err := write(ctx); err != nil {
			return err
		}
		_, err := a.bus.Call(ctx, lattice.Invocation{Target: lattice.Entity{Key: forth}, Operation: "A.Forth"})
		return err
	})
	if err == nil || !strings.Contains(err.Error(), store.ErrDeadlock.Error()) {
		t.Errorf("got %v, want %v", err, store.ErrDeadlock)
	}
}

func TestThrough(t *testing.T) {
	bus := lattice.NewBus()
	bus.SetThrough(rpc.Through(seed(t, claims.Server).Key(), seed(t, claims.Cluster)))
	var got lattice.Invocation
	failure := errors.New("as asked")
	h := func(_ context.Context, inv lattice.Invocation) ([]byte, error) {
		if got = inv; inv.Operation == "A.Fail" {
			return nil, failure
		}
		return []byte("reply"), nil
	}
	bus.Replace(lattice.Entity{Key: "keyvalue"}, h)
	for _, origin := range []lattice.Entity{{}, {Key: "app/actor"}, {Key: newKey(t, claims.Module)}} {
		call := lattice.Invocation{Origin: origin, Target: lattice.Entity{Key: "keyvalue", Link: "default"}, Contract: "wasmcloud:keyvalue", Operation: "A.B", Payload: []byte("x")}
		reply, err := bus.Call(t.Context(), call)
		if err != nil || string(reply) != "reply" || got.Origin != origin || got.Target != call.Target || got.Contract != call.Contract || string(got.Payload) != "x" {
			t.Errorf("got %q, %v; arrived as %+v", reply, err, got)
		}
		call.Operation = "A.Fail"
		if _, err := bus.Call(t.Context(), call); !errors.Is(err, failure) {
			t.Errorf("got %v", err)
		}
	}
}
