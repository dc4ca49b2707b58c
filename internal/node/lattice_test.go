package node

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/edged-io/edged/broker"
	"github.com/edged-io/edged/internal/claims"
	"github.com/edged-io/edged/lattice/wire"
)

// What works when every call goes through its encoding works from elsewhere, too.
// make encoded runs all tests of this package so.
func TestNode_encoded(t *testing.T) {
	t.Setenv("EDGED_ENCODE", "1")
	t.Run("swap", TestNode_Reload_swapUnderLoad)
	t.Run("http", TestHTTP)
	t.Run("keys", TestNode_Status_keys)
}

// newBox is newRig for a box among others.
func newBox(t *testing.T, id, more string) *rig {
	t.Helper()
	r := newRig(t, more)
	text, err := os.ReadFile(r.file)
	if err != nil {
		t.Fatal(err)
	}
	r.write("edged.toml", strings.Replace(string(text), "press-7", id, 1))
	return r
}

// signedProbe writes an app with a signed probe, which may use those contracts, and
// which reads what comes in under its name; it returns the key.
func (r *rig) signedProbe(app string, caps ...string) string {
	r.t.Helper()
	module, err := os.ReadFile(probe)
	if err != nil {
		r.t.Fatal(err)
	}
	key := seed(r.t, claims.Module).Key().String()
	wasm, err := claims.SignModule(module, claims.Claims[claims.ModuleClaims]{
		Subject: key, Wascap: claims.ModuleClaims{Name: app, Caps: append(caps, "wasmcloud:keyvalue", "edged:pubsub")},
	}, seed(r.t, claims.Account))
	if err != nil {
		r.t.Fatal(err)
	}
	r.write("apps/"+app+"/app.toml", probes(app, "1", fmt.Sprintf("[[capability]]\nname = \"pubsub.local\"\n[[capability.config]]\ntopic = %q\ndelivery = \"push\"\n", app), "one"))
	r.write("apps/"+app+"/probe.wasm", string(wasm))
	return key
}

// latticeClient connects with the login that the box leaves for local programs.
func (r *rig) latticeClient() *nats.Conn {
	r.t.Helper()
	var login struct{ URL, User, Password string }
	b, err := os.ReadFile(r.path("state", "lattice.json"))
	if err == nil {
		err = json.Unmarshal(b, &login)
	}
	if err != nil {
		r.t.Fatal(err)
	}
	nc, err := nats.Connect(login.URL, nats.UserInfo(login.User, login.Password), nats.Timeout(patience))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(nc.Close)
	return nc
}

// invoke calls an actor as a program elsewhere does.
func invoke(t *testing.T, nc *nats.Conn, cluster claims.Seed, lattice, key, operation, payload string) wire.Response {
	t.Helper()
	return invokeAs(t, nc, cluster, lattice, seed(t, claims.Module).Key().String(), key, operation, payload)
}

// invokeAs is invoke by an actor with a key.
func invokeAs(t *testing.T, nc *nats.Conn, cluster claims.Seed, lattice, origin, key, operation, payload string) wire.Response {
	t.Helper()
	return request(t, nc, wire.ActorSubject(lattice, key), signedCall(t, cluster, origin, key, operation, payload))
}

// signedCall is a genuine invocation, encoded.
func signedCall(t *testing.T, cluster claims.Seed, origin, key, operation, payload string) []byte {
	t.Helper()
	signer, err := cluster.Signer()
	if err != nil {
		t.Fatal(err)
	}
	inv := wire.Invocation{
		Origin: wire.Entity{Key: origin}, Target: wire.Entity{Key: key}, Operation: operation,
		Payload: []byte(payload), Length: uint64(len(payload)), ID: rand36(t), Host: seed(t, claims.Server).Key().String(),
	}
	if err := wire.Sign(&inv, inv.Payload, signer); err != nil {
		t.Fatal(err)
	}
	return inv.Append(nil)
}

// request sends an invocation, and returns its answer.
func request(t *testing.T, nc *nats.Conn, subject string, invocation []byte) wire.Response {
	t.Helper()
	m, err := nc.Request(subject, invocation, patience)
	if err != nil {
		t.Fatalf("call on %s: %v", subject, err)
	}
	r, err := wire.DecodeResponse(m.Data)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func rand36(t *testing.T) string { return seed(t, claims.User).Key().String()[:36] }

// A program on the box that has the login and the cluster key calls an actor, which
// answers after its turn is on disk; the box is the same to it after a restart.
func TestNode_lattice_callFromOutside(t *testing.T) {
	r := newRig(t, unsigned+"[lattice]\nname = \"plant\"\n")
	key := r.signedProbe("a")
	r.start()
	for _, name := range []string{"host.seed", "cluster.seed"} {
		if info, err := os.Stat(r.path("state", name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	cluster, ok := claims.SeedFile(r.path("state", "cluster.seed"))
	if !ok || cluster.Kind() != claims.Cluster {
		t.Fatal("cluster.seed is not the seed of a cluster")
	}
	nc := r.latticeClient()
	if got := invoke(t, nc, cluster, "plant", key, "Probe.Echo", "hello"); got.Failed || string(got.Payload) != "hello" {
		t.Errorf("got %+v", got)
	}
	if got := invoke(t, nc, cluster, "plant", key, "Probe.Note", "from elsewhere"); got.Failed {
		t.Errorf("got %+v", got)
	}
	if got := r.seen("a", "one"); len(got) != 1 || got[0] != "from elsewhere" {
		t.Errorf("the actor kept %q", got)
	}
	if got := invoke(t, nc, seed(t, claims.Cluster), "plant", key, "Probe.Echo", "hello"); !got.Failed || !strings.Contains(got.Error, "Anti-forgery check failed") {
		t.Errorf("foreign cluster: got %+v", got)
	}
	host := r.identity.host.Key()
	r.stop()
	r.start()
	if got := r.identity.host.Key(); got != host {
		t.Errorf("after a restart the box is %s, was %s", got, host)
	}
	if got := invoke(t, r.latticeClient(), cluster, "plant", key, "Probe.Echo", "again"); got.Failed || string(got.Payload) != "again" {
		t.Errorf("after a restart: got %+v", got)
	}
}

// The device file decides whether an invocation may come again.
func TestNode_lattice_repeats(t *testing.T) {
	for line, want := range map[string]string{"": "Anti-forgery check failed: the invocation was seen before", "allow_repeats = true\n": ""} {
		r := newRig(t, unsigned+"[lattice]\n"+line)
		key := r.signedProbe("a")
		r.start()
		nc, call := r.latticeClient(), signedCall(t, r.identity.cluster, seed(t, claims.Module).Key().String(), key, "Probe.Echo", "hello")
		if got := request(t, nc, wire.ActorSubject("default", key), call); got.Failed {
			t.Errorf("%q: got %+v", line, got)
		}
		if got := request(t, nc, wire.ActorSubject("default", key), call); got.Failed != (want != "") || got.Error != want {
			t.Errorf("%q: repeated, got %+v, want %q", line, got, want)
		}
	}
}

// An actor on one box calls one on another through the hub. Who is not trusted there
// is refused, and says so.
func TestNode_lattice_betweenBoxes(t *testing.T) {
	hub := startHub(t)
	atHub := unsigned + "[hub]\nurl = \"nats-leaf://" + hub.LeafAddr() + "\"\n"
	callee := newBox(t, "callee", atHub)
	key := callee.signedProbe("b")
	callee.start()

	stranger := newBox(t, "stranger", atHub)
	stranger.signedProbe("a")
	stranger.start()
	stranger.eventually("the other box is in reach", func() bool {
		stranger.tell("a", "!echo "+key+" hello")
		return strings.Contains(strings.Join(stranger.seen("a", "one"), "\n"), "Anti-forgery check failed")
	})
	stranger.stop()

	caller := newBox(t, "caller", atHub)
	caller.write("shared.seed", callee.identity.cluster.Reveal())
	caller.write("edged.toml", mustRead(t, caller.file)+"[lattice]\ncluster_seed_file = \"shared.seed\"\n")
	caller.signedProbe("a")
	caller.start()
	caller.eventually("the other box has answered", func() bool {
		caller.tell("a", "!echo "+key+" hello")
		return strings.Contains(strings.Join(caller.seen("a", "one"), "\n"), "echo: hello")
	})
	if got := callee.identity.host.Key(); got == caller.identity.host.Key() {
		t.Errorf("both boxes are %s", got)
	}
	// Nobody is there any more: an error, and not silence.
	callee.stop()
	caller.eventually("the call fails", func() bool {
		caller.tell("a", "!echo "+key+" hello")
		return strings.Contains(strings.Join(caller.seen("a", "one"), "\n"), "error: ")
	})
}

func mustRead(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// A box whose seed is damaged starts as another, says so, and keeps what was left.
func TestNode_lattice_damagedSeed(t *testing.T) {
	r := newRig(t, unsigned)
	r.write("state/host.seed", "nonsense")
	r.start()
	contains(t, r.log.String(), "the file with the key of the box in the lattice is damaged", "host.seed.damaged")
	if s, ok := claims.SeedFile(r.path("state", "host.seed")); !ok || s.Key() != r.identity.host.Key() {
		t.Error("the new key is not kept")
	}
	if got := mustRead(t, r.path("state", "host.seed.damaged")); got != "nonsense" {
		t.Errorf("aside is %q", got)
	}
}

// What names a handled message has the store in it: another store hands out the same
// numbers again.
func TestNode_handledHere(t *testing.T) {
	names := make(map[string]bool)
	for range 2 {
		r := newRig(t, unsigned)
		for range 2 {
			r.start()
			ctx := withHandled(t.Context(), broker.Message{Stream: "s", Seq: 7})
			names[r.handledHere(ctx)] = true
			if got := r.handledHere(t.Context()); got != "" {
				t.Errorf("no message: got %q", got)
			}
			r.stop()
		}
	}
	if len(names) != 2 {
		t.Errorf("two stores give %d names: %v", len(names), names)
	}
}
