package lattice_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/edged-io/edged/lattice"
)

// echo answers with who was called and how.
func echo(name string) lattice.Handler {
	return func(_ context.Context, inv lattice.Invocation) ([]byte, error) {
		return []byte(name + " " + inv.Target.String() + " " + inv.Contract + " " + inv.Operation + " " + inv.Origin.Key), nil
	}
}

func handle(t *testing.T, b *lattice.Bus, e lattice.Entity, h lattice.Handler) {
	t.Helper()
	remove, err := b.Handle(e, h)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(remove)
}

func TestBus_HostCall_resolves(t *testing.T) {
	b := lattice.NewBus()
	handle(t, b, lattice.Entity{Key: "logging"}, echo("logging"))
	handle(t, b, lattice.Entity{Key: "store"}, echo("store"))
	handle(t, b, lattice.Entity{Key: "MPONG"}, echo("pong"))
	b.Builtin("wasmcloud:builtin:logging", lattice.Entity{Key: "logging"})
	b.SetGrant("free", lattice.Grant{})
	b.SetGrant("bound", lattice.Grant{Signed: true, Contracts: []string{"wasmcloud:keyvalue"}})
	b.SetGrant("MPONG", lattice.Grant{Signed: true, Alias: "wasmcloud/ponger"})
	for _, actor := range []string{"free", "bound"} {
		b.PutLink(lattice.Link{Actor: actor, Contract: "wasmcloud:keyvalue", Name: "default", Provider: "store"})
		b.PutLink(lattice.Link{Actor: actor, Contract: "edged:gpio", Name: "default", Provider: "store"})
	}
	tests := []struct{ actor, binding, namespace, want string }{
		{"free", "default", "wasmcloud:builtin:logging", "logging logging wasmcloud:builtin:logging Op free"},
		{"free", "default", "wasmcloud:keyvalue", "store store/default wasmcloud:keyvalue Op free"},
		{"free", "", "wasmcloud:keyvalue", "store store/default wasmcloud:keyvalue Op free"},
		{"free", "other", "wasmcloud:keyvalue", "missing link definition for wasmcloud:keyvalue"},
		{"free", "", "MPONG", "pong MPONG  Op free"},
		{"free", "", "wasmcloud/ponger", "pong MPONG  Op free"},
		{"free", "default", "wasmcloud:blobstore", "missing link definition for wasmcloud:blobstore"},
		{"bound", "default", "wasmcloud:keyvalue", "store store/default wasmcloud:keyvalue Op bound"},
		{"bound", "default", "edged:gpio", "missing capability claim for edged:gpio"},
		{"bound", "default", "wasmcloud:builtin:logging", "missing capability claim for wasmcloud:builtin:logging"},
		{"bound", "", "wasmcloud/ponger", "pong MPONG  Op bound"},
		{"stranger", "default", "wasmcloud:keyvalue", "unknown actor"},
	}
	for _, test := range tests {
		reply, err := b.HostCall(t.Context(), test.actor, test.binding, test.namespace, "Op", nil)
		got := string(reply)
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, test.want) {
			t.Errorf("%s calls %q under %q: got %q, want %q", test.actor, test.namespace, test.binding, got, test.want)
		}
	}
}

func TestBus_SetGrant_aliasGoesWithItsActor(t *testing.T) {
	b := lattice.NewBus()
	handle(t, b, lattice.Entity{Key: "MPONG"}, echo("pong"))
	b.SetGrant("free", lattice.Grant{})
	b.SetGrant("MPONG", lattice.Grant{Alias: "old"})
	b.SetGrant("MPONG", lattice.Grant{Alias: "new"})
	if _, err := b.HostCall(t.Context(), "free", "", "old", "Op", nil); !errors.Is(err, lattice.ErrNoLink) {
		t.Fatalf("old alias: got %v, want ErrNoLink", err)
	}
	if _, err := b.HostCall(t.Context(), "free", "", "new", "Op", nil); err != nil {
		t.Fatalf("new alias: %v", err)
	}
	b.DeleteGrant("MPONG")
	if _, err := b.HostCall(t.Context(), "free", "", "new", "Op", nil); !errors.Is(err, lattice.ErrNoLink) {
		t.Fatalf("alias of an actor that is gone: got %v, want ErrNoLink", err)
	}
}

func TestBus_Handle_oneServes(t *testing.T) {
	b := lattice.NewBus()
	e := lattice.Entity{Key: "a"}
	remove, err := b.Handle(e, echo("one"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Handle(e, echo("two")); !errors.Is(err, lattice.ErrTaken) {
		t.Fatalf("got %v, want ErrTaken", err)
	}
	remove()
	remove()
	if _, err := b.Call(t.Context(), lattice.Invocation{Target: e}); !errors.Is(err, lattice.ErrNoEntity) {
		t.Fatalf("got %v, want ErrNoEntity", err)
	}
}

// Two actors that call each other would hold instances without end.
func TestBus_Call_endsCircles(t *testing.T) {
	b := lattice.NewBus()
	e := lattice.Entity{Key: "a"}
	calls := 0
	handle(t, b, e, func(ctx context.Context, inv lattice.Invocation) ([]byte, error) {
		calls++
		return b.Call(ctx, inv)
	})
	if _, err := b.Call(t.Context(), lattice.Invocation{Target: e, Operation: "Op"}); !errors.Is(err, lattice.ErrTooDeep) || calls != lattice.MaxDepth {
		t.Fatalf("%d calls, %v; want an error after some", calls, err)
	}
}

func TestBus_Links_inOrder(t *testing.T) {
	b := lattice.NewBus()
	for _, actor := range []string{"b", "a"} {
		b.PutLink(lattice.Link{Actor: actor, Contract: "c", Name: "default", Provider: "p"})
	}
	b.PutLink(lattice.Link{Actor: "a", Contract: "c", Name: "default", Provider: "q"})
	links := b.Links()
	if len(links) != 2 || links[0].Actor != "a" || links[0].Provider != "q" {
		t.Fatalf("got %+v", links)
	}
	b.DeleteLink(lattice.Link{Actor: "a", Contract: "c", Name: "default"})
	if n := len(b.Links()); n != 1 {
		t.Fatalf("%d links after a delete, want 1", n)
	}
}
