package node

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/edged-io/edged/internal/claims"
	"github.com/edged-io/edged/internal/control"
	"github.com/edged-io/edged/lattice"
	"github.com/edged-io/edged/lattice/metadata"
)

// linked waits until a box has a link with that speed, "" for no link.
func (r *rig) linkedAt(actor, contract, speed string) {
	r.t.Helper()
	r.eventually(fmt.Sprintf("the link of %s for %s has speed %q", actor, contract, speed), func() bool {
		got := ""
		for _, l := range r.host().State().Links {
			if r.held().key(l.Actor) == actor && l.Contract == contract {
				got = r.host().State().LinkValues(l)["speed"]
			}
		}
		l, _ := r.bus.Link(actor, contract, "default")
		return got == speed && l.Values["speed"] == speed
	})
}

// What is put at one box of a lattice is known to the others, also what was put while there was no hub, and what is deleted at one is gone from all.
func TestShare(t *testing.T) {
	hub := startHub(t)
	atHub := fromFiles + unsigned + "[hub]\nurl = \"nats-leaf://" + hub.LeafAddr() + "\"\n"
	ours, key, pump := seed(t, claims.Account), seed(t, claims.Module), seed(t, claims.Service).Key().String()
	id := key.Key().String()
	a, b := newBox(t, "a", atHub), newBox(t, "b", atHub)
	ref := b.probeModule("probe.wasm", ours, key, 4)
	a.probe("plant", "1", "[[link]]\nactor = \"one\"\ncontract = \"acme:pump\"\nprovider = \""+pump+"\"\nvalues = { speed = \"app\" }\n", "one")
	appKey := seed(t, claims.Module) // its actor is signed, or nobody elsewhere could speak of it
	a.must(os.Remove(a.path("apps/plant/probe.wasm")))
	a.probeModule("apps/plant/probe.wasm", ours, appKey, 1)
	a.start()
	b.start()
	ctx := t.Context()
	link := func(actor, speed string) control.Link {
		return control.Link{Link: lattice.Link{Actor: actor, Contract: "acme:pump", Name: "default", Provider: pump, Values: map[string]string{"speed": speed}}}
	}
	// From one to the other, changed there, and deleted by the first.
	a.must(a.host().PutLink(ctx, link(id, "1")))
	b.linkedAt(id, "acme:pump", "1")
	a.must(b.host().PutLink(ctx, link(id, "2")))
	a.linkedAt(id, "acme:pump", "2")
	// Of the app, while it is there.
	b.linkedAt(appKey.Key().String(), "acme:pump", "app")

	// A link of what runs at b is put at a, by key, and acts at b, which knows the actor by an id.
	a.must(b.host().ScaleActor(ctx, control.ActorScale{ID: "watch", Ref: ref, Max: 1, Limits: map[string]string{"memory": "64MiB", "time": "30s"}}))
	for contract, l := range map[string]control.Link{
		"httpserver": {Link: lattice.Link{Values: map[string]string{"address": "127.0.0.1:0"}}},
		"keyvalue":   {Link: lattice.Link{Values: map[string]string{"bucket": "b"}}},
	} {
		l.Actor, l.Contract, l.Name, l.Provider = id, "wasmcloud:"+contract, "default", contract
		a.must(a.host().PutLink(ctx, l))
	}
	place := "control-" + id + "-httpserver-1"
	b.eventually("it serves", func() bool {
		_, ok := b.bus.Link(id, "wasmcloud:keyvalue", "default")
		return ok && b.httpAddress(place) != ""
	})
	if status, _ := b.post(newClient(t), "http://"+b.httpAddress(place)+"/"); status != http.StatusOK {
		t.Errorf("status %d", status)
	}
	a.eventually("its claims are known", func() bool { return hasClaims(a.host().State().Claims, id) })

	// What cannot be done here is told, and the rest goes on.
	a.must(a.host().PutLink(ctx, control.Link{Link: lattice.Link{Actor: id, Contract: "edged:gpio", Name: "default", Provider: "gpio",
		Values: map[string]string{"chip": "none", "line": "1", "direction": "in"}}}))
	b.eventually("it is told", func() bool { return len(b.Status().Problems) > 0 })
	contains(t, fmt.Sprint(b.Status().Problems), "link "+id+" edged:gpio default", "elsewhere")
	if n := strings.Count(b.log.String(), "can not be followed"); n > 10 {
		t.Errorf("it was tried %d times, with nothing that had changed", n)
	}
	a.must(a.host().DeleteLink(ctx, lattice.Link{Actor: id, Contract: "edged:gpio", Name: "default"}))
	b.eventually("it is well again", func() bool { return len(b.Status().Problems) == 0 })

	// The values of a configuration are those of the link.
	a.must(b.host().SetConfig(ctx, "c", map[string][]byte{"speed": []byte("3")}))
	configured := link("watch", "")
	configured.SourceConfig = []string{"c"}
	a.must(b.host().PutLink(ctx, configured))
	a.linkedAt(id, "acme:pump", "3")
	a.must(b.host().SetConfig(ctx, "c", map[string][]byte{"speed": []byte("4")}))
	a.linkedAt(id, "acme:pump", "4")
	if l, _ := b.bus.Link(id, "acme:pump", "default"); l.Values["speed"] != "4" {
		t.Errorf("link %+v", l)
	}

	// Apart, each goes on with what it had; together again, each has what the other did.
	b.stop()
	a.must(a.host().DeleteLink(ctx, lattice.Link{Actor: id, Contract: "wasmcloud:httpserver", Name: "default"}))
	a.must(a.host().PutLink(ctx, link(id, "5")))
	a.stop()
	a.write("edged.toml", fromFiles+"[device]\nid = \"a\"\n[nats]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"\"\n"+unsigned)
	a.must(os.RemoveAll(a.path("apps", "plant")))
	a.start()
	a.linkedAt(id, "acme:pump", "5")
	a.must(a.host().PutLink(ctx, link(id, "6")))
	a.stop()
	a.write("edged.toml", "[device]\nid = \"a\"\n[nats]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"\"\n"+atHub)
	b.start()
	a.start()
	b.linkedAt(id, "acme:pump", "6")
	b.linkedAt(appKey.Key().String(), "acme:pump", "")
	b.eventually("it serves no more", func() bool { return b.httpAddress(place) == "" })
	if l, ok := b.bus.Link(id, "wasmcloud:keyvalue", "default"); !ok || l.Provider != "keyvalue" {
		t.Errorf("link %+v", l)
	}

	a.must(b.host().DeleteLink(ctx, lattice.Link{Actor: id, Contract: "acme:pump", Name: "default"}))
	a.linkedAt(id, "acme:pump", "")
	for _, box := range []*rig{a, b} {
		if p := box.Status().Problems; len(p) != 0 {
			t.Errorf("problems %v", p)
		}
		box.eventually("nothing is left to tell", func() bool { return len(box.held().Deleted) == 0 })
	}
}

// A link that was changed on both sides while they were apart is what the lattice has, and a problem of the box until somebody there has decided.
func TestShare_conflict(t *testing.T) {
	hub := startHub(t)
	with := "[hub]\nurl = \"nats-leaf://" + hub.LeafAddr() + "\"\n"
	a, b := newBox(t, "a", unsigned+with), newBox(t, "b", unsigned+with)
	id, ctx := seed(t, claims.Module).Key().String(), t.Context()
	link := func(contract, speed string) control.Link {
		provider := claims.NamedKey(claims.Service, contract).String()
		return control.Link{Link: lattice.Link{Actor: id, Contract: contract, Name: "default", Provider: provider, Values: map[string]string{"speed": speed}}}
	}
	a.start()
	b.start()
	for _, contract := range []string{"acme:pump", "acme:fan", "acme:lamp"} {
		a.must(a.host().PutLink(ctx, link(contract, "1")))
		b.linkedAt(id, contract, "1")
	}
	a.stop()
	device := "[device]\nid = \"a\"\n[nats]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"\"\n" + unsigned
	a.write("edged.toml", device)
	a.start() // without the hub
	for _, contract := range []string{"acme:pump", "acme:fan"} {
		a.must(a.host().PutLink(ctx, link(contract, "here")))
		a.must(b.host().PutLink(ctx, link(contract, "there")))
		a.linkedAt(id, contract, "here")
	}
	a.must(a.host().DeleteLink(ctx, link("acme:lamp", "").Link))
	a.must(b.host().PutLink(ctx, link("acme:lamp", "there")))
	b.eventually("the lattice has what b has put", func() bool { return b.metadata.Status().Synced })
	a.stop()
	a.write("edged.toml", device+with)
	a.start()
	for _, contract := range []string{"acme:pump", "acme:fan", "acme:lamp"} {
		a.linkedAt(id, contract, "there")
		a.eventually("the change of "+contract+" that is lost is told", func() bool {
			return strings.Contains(fmt.Sprint(a.Status().Problems), "link "+id+" "+contract+" default: somebody else changed it")
		})
	}
	// Each way to decide.
	a.must(a.host().PutLink(ctx, link("acme:pump", "here")))
	a.must(a.host().PutLink(ctx, link("acme:fan", "there")))
	a.must(a.host().DeleteLink(ctx, link("acme:lamp", "").Link))
	b.linkedAt(id, "acme:pump", "here")
	b.linkedAt(id, "acme:fan", "there")
	b.linkedAt(id, "acme:lamp", "")
	a.eventually("nothing is left to decide", func() bool { return len(a.Status().Problems) == 0 })
}

// A link of the lattice that can not be followed is tried again when something changes, and not all the time.
func TestShare_notAllTheTime(t *testing.T) {
	ours, key := seed(t, claims.Account), seed(t, claims.Module)
	id := key.Key().String()
	r := newRig(t, fromFiles+trusting(ours))
	ref := r.probeModule("probe.wasm", ours, key, 1)
	r.start()
	r.must(r.host().ScaleActor(t.Context(), control.ActorScale{ID: id, Ref: ref, Max: 1}))
	r.must(r.metadata.PutLink(lattice.Link{
		Actor: id, Contract: "edged:gpio", Name: "default", Provider: "gpio", Values: map[string]string{"chip": "none", "line": "1", "direction": "in"},
	}))
	r.shareSoon()
	r.eventually("it is told", func() bool { return strings.Contains(fmt.Sprint(r.Status().Problems), "can not be followed") })
	const changes = 10
	for i := range changes {
		r.must(r.host().SetLabels(t.Context(), map[string]string{"n": fmt.Sprint(i)}))
	}
	if n := strings.Count(r.log.String(), "a link of the lattice can not be followed"); n > 2*changes {
		t.Errorf("it was tried %d times", n)
	}
}

// An actor elsewhere is reached by its call alias for as long as the lattice has its claims.
func TestShare_claims(t *testing.T) {
	hub := startHub(t)
	r := newRig(t, "[hub]\nurl = \"nats-leaf://"+hub.LeafAddr()+"\"\n")
	r.start()
	key := seed(t, claims.Module).Key().String()
	r.must(r.metadata.PutClaims(metadata.Claims{Subject: key, Issuer: "A", CallAlias: "acme/pump"}))
	r.shareSoon()
	r.eventually("the alias is known, also to the hub", func() bool { return r.bus.Aliased("acme/pump") == key && r.metadata.Status().Synced })
	js, err := jetstream.NewWithDomain(r.link, r.o.Device.Hub.JetStreamDomain, jetstream.WithDefaultTimeout(patience))
	r.must(err)
	kv, err := js.KeyValue(t.Context(), "LATTICEDATA_default")
	r.must(err)
	r.must(kv.Delete(t.Context(), "CLAIMS_"+key))
	r.eventually("the alias is forgotten", func() bool { return r.bus.Aliased("acme/pump") == "" })
}

// A box that gets into another lattice takes along what was put on it.
func TestShare_anotherLattice(t *testing.T) {
	hub := startHub(t)
	r := newRig(t, fromFiles+unsigned+"[hub]\nurl = \"nats-leaf://"+hub.LeafAddr()+"\"\n[lattice]\nname = \"plant\"\n")
	actor, pump := seed(t, claims.Module).Key().String(), seed(t, claims.Service).Key().String()
	values := map[string][]byte{"speed": []byte("1")}
	r.start()
	r.eventually("the box remembers its lattice", func() bool {
		h, err := loadHeld(r.db)
		return err == nil && h.Lattice == "plant"
	})
	r.must(r.host().SetConfig(t.Context(), "pump", values))
	r.must(r.host().PutLink(t.Context(), control.Link{Link: lattice.Link{Actor: actor, Contract: "acme:pump", Name: "default", Provider: pump, Values: map[string]string{"speed": "1"}}}))
	shared := func() bool {
		return len(r.configs.All()) == 1 && len(r.held().Told) == 1 && len(r.metadata.Links()) == 1
	}
	r.eventually("the lattice has both", shared)
	r.stop()
	text, err := os.ReadFile(r.file)
	r.must(err)
	r.write("edged.toml", strings.Replace(string(text), `"plant"`, `"other"`, 1))
	r.start()
	r.eventually("the other lattice has both", shared)
	r.linkedAt(actor, "acme:pump", "1")
	if got := r.held().Config; len(got) != 1 || string(got["pump"]["speed"]) != "1" {
		t.Errorf("configurations %q", got)
	}
	r.stop()
	r.start()
	if h := r.held(); h.Lattice != "other" || len(h.Told) != 1 || len(h.Links) != 1 {
		t.Errorf("it has %+v after a restart", h)
	}
}
