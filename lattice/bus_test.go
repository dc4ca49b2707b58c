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

// PROTOCOL 1.7: a built-in contract, then a link, then a key, then an alias,
// each with the claims it needs and the errors classic hosts give.
func TestBus_HostCall_resolves(t *testing.T) {
	away := "M" + strings.Repeat("A", 55)
	b := lattice.NewBus()
	handle(t, b, lattice.Entity{Key: "logging"}, echo("logging"))
	handle(t, b, lattice.Entity{Key: "store"}, echo("store"))
	handle(t, b, lattice.Entity{Key: "MPONG"}, echo("pong"))
	handle(t, b, lattice.Entity{Key: "app/plain"}, echo("plain"))
	b.Builtin("wasmcloud:builtin:logging", lattice.Entity{Key: "logging"})
	b.SetGrant("free", lattice.Grant{})
	b.SetGrant("app/plain", lattice.Grant{})
	b.SetGrant("bound", lattice.Grant{Signed: true, Contracts: []string{"", "wasmcloud:keyvalue"}})
	b.SetGrant("MPONG", lattice.Grant{Signed: true, Alias: "wasmcloud/ponger"})
	// Aliases that look like something else come last.
	b.SetGrant("greedy", lattice.Grant{Alias: "wasmcloud:keyvalue"})
	b.SetGrant("greedier", lattice.Grant{Alias: away})
	for _, actor := range []string{"free", "bound"} {
		b.PutLink(lattice.Link{Actor: actor, Contract: "wasmcloud:keyvalue", Name: "default", Provider: "store"})
		b.PutLink(lattice.Link{Actor: actor, Contract: "edged:gpio", Name: "default", Provider: "store"})
		b.PutLink(lattice.Link{Actor: actor, Contract: "wasmcloud:builtin:logging", Name: "default", Provider: "store"})
	}
	// A link may even have the name of an actor: links come first.
	b.PutLink(lattice.Link{Actor: "free", Contract: "app/plain", Name: "linked", Provider: "store"})
	tests := []struct{ actor, binding, namespace, want string }{
		{"free", "default", "wasmcloud:builtin:logging", "store store/default wasmcloud:builtin:logging Op free"},
		{"free", "", "wasmcloud:builtin:logging", "store store/default wasmcloud:builtin:logging Op free"},
		{"free", "anything", "wasmcloud:builtin:logging", "logging logging wasmcloud:builtin:logging Op free"},
		{"free", "default", "wasmcloud:keyvalue", "store store/default wasmcloud:keyvalue Op free"},
		{"free", "", "wasmcloud:keyvalue", "store store/default wasmcloud:keyvalue Op free"},
		{"free", "", "MPONG", "pong MPONG  Op free"},
		{"free", "default", "MPONG", "pong MPONG  Op free"},
		{"free", "", "wasmcloud/ponger", "pong MPONG  Op free"},
		{"free", "whatever", "wasmcloud/ponger", "pong MPONG  Op free"},
		{"free", "", "app/plain", "plain app/plain  Op free"},
		{"free", "linked", "app/plain", "store store/linked app/plain Op free"},
		{"bound", "default", "wasmcloud:keyvalue", "store store/default wasmcloud:keyvalue Op bound"},
		{"bound", "", "wasmcloud/ponger", "pong MPONG  Op bound"},

		{"free", "", away, "call Op of " + away + ": nobody serves it"},
		{"free", "default", "wasmcloud:blobstore", "Invocation not authorized: missing link definition for wasmcloud:blobstore on home"},
		{"free", "", "", "Invocation not authorized: missing link definition for  on home"},
		{"bound", "default", "edged:gpio", "Invocation not authorized: missing capability claim for edged:gpio"},
		{"bound", "default", "wasmcloud:builtin:logging", "Invocation not authorized: missing capability claim for wasmcloud:builtin:logging"},
		{"bound", "default", "wasmcloud:messaging", "Invocation not authorized: missing link definition for wasmcloud:messaging on home"},
		{"stranger", "default", "wasmcloud:keyvalue", "Invocation not authorized: unknown actor stranger"},
	}
	b.SetLattice("home")
	for _, test := range tests {
		reply, err := b.HostCall(t.Context(), test.actor, test.binding, test.namespace, "Op", nil)
		got := string(reply)
		if err != nil {
			got = err.Error()
		}
		if got != test.want {
			t.Errorf("%s calls %q under %q: got %q, want %q", test.actor, test.namespace, test.binding, got, test.want)
		}
	}
	// Under another name than that of a link, an alias is what is left.
	if _, err := b.HostCall(t.Context(), "free", "other", "wasmcloud:keyvalue", "Op", nil); !errors.Is(err, lattice.ErrNoEntity) {
		t.Errorf("greedy alias: got %v, want ErrNoEntity of an actor that nobody serves", err)
	}
}

func TestBus_Conflicts(t *testing.T) {
	b := lattice.NewBus()
	b.SetGrant("free", lattice.Grant{})
	for _, key := range []string{"M1", "M2", "M3"} {
		handle(t, b, lattice.Entity{Key: key}, echo(key))
		b.SetGrant(key, lattice.Grant{Alias: "ponger"})
	}
	reaches := func(want string) {
		t.Helper()
		if reply, err := b.HostCall(t.Context(), "free", "", "ponger", "Op", nil); err != nil || !strings.HasPrefix(string(reply), want) {
			t.Errorf("got %s, %v, want %s", reply, err, want)
		}
	}
	reaches("M1")
	if c := b.Conflicts(); len(c) != 1 || c[0].Alias != "ponger" || c[0].Holder != "M1" || strings.Join(c[0].Others, " ") != "M2 M3" {
		t.Errorf("got %+v", c)
	}
	b.SetGrant("M1", lattice.Grant{Alias: "ponger", Signed: true}) // an update keeps its place
	reaches("M1")
	b.DeleteGrant("M1")
	reaches("M2")
	b.SetGrant("M2", lattice.Grant{Alias: "other"})
	reaches("M3")
	if c := b.Conflicts(); len(c) != 0 {
		t.Errorf("got %+v, want none", c)
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
