package lattice_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/edged-io/edged/lattice"
)

func TestBus_SetRemote_isForWhatIsNotHere(t *testing.T) {
	b := lattice.NewBus()
	b.SetGrant("free", lattice.Grant{})
	away := "M" + strings.Repeat("A", 55)
	b.PutLink(lattice.Link{Actor: "free", Contract: "c", Name: "default", Provider: "V"})
	handle(t, b, lattice.Entity{Key: "here"}, echo("here"))
	b.SetRemote(echo("remote"))
	for _, test := range []struct{ namespace, want string }{
		{away, "remote " + away},
		{"c", "remote V/default c"},
	} {
		reply, err := b.HostCall(t.Context(), "free", "", test.namespace, "Op", nil)
		if err != nil || !strings.HasPrefix(string(reply), test.want) {
			t.Errorf("%s: got %s, %v", test.namespace, reply, err)
		}
	}
	inv := lattice.Invocation{Target: lattice.Entity{Key: "here"}, Operation: "Op"}
	if reply, err := b.Call(t.Context(), inv); err != nil || !strings.HasPrefix(string(reply), "here") {
		t.Errorf("got %s, %v", reply, err)
	}
	inv.Target.Key = away
	if _, err := b.CallHere(t.Context(), inv); !errors.Is(err, lattice.ErrNoEntity) {
		t.Errorf("what came from elsewhere: got %v, want ErrNoEntity", err)
	}
	b.SetRemote(nil)
	if _, err := b.Call(t.Context(), inv); !errors.Is(err, lattice.ErrNoEntity) {
		t.Errorf("on its own: got %v, want ErrNoEntity", err)
	}
}

func TestBus_SetRemoteActor_isReachedByItsAlias(t *testing.T) {
	b := lattice.NewBus()
	b.SetGrant("free", lattice.Grant{})
	b.SetRemote(echo("remote"))
	reaches := func(want string) {
		t.Helper()
		reply, err := b.HostCall(t.Context(), "free", "", "ponger", "Op", nil)
		if want == "" {
			if !errors.Is(err, lattice.ErrNoLink) {
				t.Errorf("got %s, %v, want ErrNoLink", reply, err)
			}
		} else if err != nil || !strings.HasPrefix(string(reply), want) {
			t.Errorf("got %s, %v, want %s", reply, err, want)
		}
	}
	b.SetRemoteActor("MAWAY", lattice.Grant{Alias: "ponger"})
	reaches("remote MAWAY")
	handle(t, b, lattice.Entity{Key: "MHERE"}, echo("here"))
	b.SetGrant("MHERE", lattice.Grant{Alias: "ponger"})
	reaches("here MHERE")
	if c := b.Conflicts(); len(c) != 1 || c[0].Holder != "MHERE" || strings.Join(c[0].Others, " ") != "MAWAY" {
		t.Errorf("got %+v", c)
	}
	// The same actor in both places is no conflict.
	b.SetRemoteActor("MHERE", lattice.Grant{Alias: "ponger"})
	b.DeleteRemoteActor("MAWAY")
	if c := b.Conflicts(); len(c) != 0 {
		t.Errorf("got %+v, want none", c)
	}
	b.DeleteGrant("MHERE")
	reaches("here MHERE") // it is still served
	b.DeleteRemoteActor("MHERE")
	reaches("")
}

func TestBus_Watch(t *testing.T) {
	b := lattice.NewBus()
	b.Replace(lattice.Entity{Key: "b"}, echo("b"))
	b.Replace(lattice.Entity{Key: "a", Link: "l"}, echo("a"))
	var heard []string
	stop := b.Watch(func(e lattice.Entity, served bool) {
		heard = append(heard, map[bool]string{true: "+", false: "-"}[served]+e.String())
	})
	remove, err := b.Handle(lattice.Entity{Key: "c"}, echo("c"))
	if err != nil {
		t.Fatal(err)
	}
	b.Replace(lattice.Entity{Key: "c"}, echo("again"))
	if _, err := b.Handle(lattice.Entity{Key: "c"}, echo("c")); !errors.Is(err, lattice.ErrTaken) {
		t.Fatalf("got %v, want ErrTaken", err)
	}
	remove()
	b.Remove(lattice.Entity{Key: "c"})
	// One that is prepared is there for who is here.
	b.Prepare(lattice.Entity{Key: "d"}, echo("d"))
	if _, err := b.Call(t.Context(), lattice.Invocation{Target: lattice.Entity{Key: "d"}, Operation: "Op"}); err != nil {
		t.Error(err)
	}
	b.Watch(func(e lattice.Entity, _ bool) {
		if e.Key == "d" {
			heard = append(heard, "late")
		}
	})()
	heard = append(heard, "prepared")
	b.Replace(lattice.Entity{Key: "d"}, echo("d"))
	stop()
	b.Remove(lattice.Entity{Key: "b"})
	if got, want := strings.Join(heard, " "), "+a/l +b +c -c prepared +d"; got != want {
		t.Errorf("heard %s, want %s", got, want)
	}
}

func TestBus_SetThrough(t *testing.T) {
	b := lattice.NewBus()
	handle(t, b, lattice.Entity{Key: "a"}, echo("a"))
	b.SetThrough(func(ctx context.Context, inv lattice.Invocation, h lattice.Handler) ([]byte, error) {
		inv.Operation = "Through"
		return h(ctx, inv)
	})
	reply, err := b.Call(t.Context(), lattice.Invocation{Target: lattice.Entity{Key: "a"}, Operation: "Op"})
	if err != nil || !strings.Contains(string(reply), "Through") {
		t.Errorf("got %s, %v", reply, err)
	}
}
