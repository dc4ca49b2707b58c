package node

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/edged-io/edged/broker"
	"github.com/edged-io/edged/internal/claims"
	"github.com/edged-io/edged/lattice"
	"github.com/edged-io/edged/providers/child"
	"github.com/edged-io/edged/sdk/go/provider"
)

// A provider of the SDK takes large payloads and answers with them, with nothing but what
// edged hub permissions prints for the box; the box makes the object store when there is
// a provider.
func TestNode_provider_largePayloads(t *testing.T) {
	leaf, admin := strictHub(t, map[string]string{"box": "plant"})
	largePayloads(t, leaf, admin, true)
}

// So does one of a classic kit, which knows nothing of what a box of edged adds to the
// line, where the box has the lists for that.
func TestNode_provider_largePayloads_classicKit(t *testing.T) {
	leaf, admin := strictHub(t, map[string]string{"box": "plant"}, (*broker.BoxPermissions).AllowClassicKits)
	largePayloads(t, leaf, admin, false)
}

// largePayloads has a provider echo large payloads. own says whether its kit takes the
// name of its inboxes from the line.
func largePayloads(t *testing.T, leaf string, admin *nats.Conn, own bool) {
	t.Helper()
	r := newBox(t, "box", unsigned+fmt.Sprintf("[hub]\nurl = \"nats-leaf://box:x@%s\"\n[lattice]\nname = \"plant\"\n", leaf))
	r.start()
	js, err := jetstream.NewWithDomain(admin, "hub", jetstream.WithDefaultTimeout(patience))
	if err != nil {
		t.Fatal(err)
	}
	key := seed(t, claims.Service).Key().String()
	l := lattice.Link{Actor: seed(t, claims.Module).Key().String(), Contract: "acme:echo", Name: "default", Provider: key}
	r.bus.SetGrant(l.Actor, lattice.Grant{Signed: true, Contracts: []string{l.Contract}})
	r.bus.PutLink(l)
	if err := r.processes.PutLink(l); err != nil {
		t.Fatal(err)
	}
	line, err := r.processes.Attach(t.Context(), child.Remote{Key: key, Contract: l.Contract, OwnInbox: own})
	if err != nil {
		t.Fatal(err)
	}
	r.eventually("the box has made the object store", func() bool {
		_, err := js.ObjectStore(t.Context(), "plant")
		return err == nil
	})
	data, err := provider.ParseHostData(string(line))
	if err != nil {
		t.Fatal(err)
	}
	if !own {
		data.Edged = nil
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- provider.Run(ctx, data, func(*provider.Host) (provider.Provider, error) { return answering{}, nil })
	}()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	want := strings.Repeat("x", 2<<20)
	r.eventually("a large payload comes back", func() bool {
		got, err := r.bus.HostCall(t.Context(), l.Actor, l.Name, l.Contract, "Echo.Echo", []byte(want))
		if err != nil {
			t.Log(err)
		}
		return err == nil && string(got) == want
	})
}

// When the object store can be made after all, that is told.
func TestNode_objects_again(t *testing.T) {
	leaf, admin := strictHub(t, map[string]string{"box": "plant"})
	js, err := jetstream.NewWithDomain(admin, "hub", jetstream.WithDefaultTimeout(patience))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "other", Subjects: []string{"$O.plant.>"}}); err != nil {
		t.Fatal(err)
	}
	r := newBox(t, "box", unsigned+fmt.Sprintf("[hub]\nurl = \"nats-leaf://box:x@%s\"\n[lattice]\nname = \"plant\"\n", leaf))
	r.start()
	if _, err := r.processes.Attach(t.Context(), child.Remote{Key: seed(t, claims.Service).Key().String(), Contract: "acme:echo"}); err != nil {
		t.Fatal(err)
	}
	r.eventually("it is told", func() bool { return strings.Contains(r.log.String(), "providers have no place for large payloads") })
	if err := js.DeleteStream(t.Context(), "other"); err != nil {
		t.Fatal(err)
	}
	r.providersChanged <- struct{}{}
	r.eventually("it is told again", func() bool {
		return strings.Contains(r.log.String(), "providers have a place for large payloads again")
	})
}
