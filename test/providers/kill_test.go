package providers_test

import (
	"crypto/rand"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/edged-io/edged/internal/claims"
	"github.com/edged-io/edged/lattice/wire"
	"github.com/edged-io/edged/sdk/go/msgpack"
)

// host starts a provider and calls it, as the host of one actor.
type host struct {
	t       *testing.T
	nc      *nats.Conn
	cluster claims.Seed
	data    wire.HostData
	actor   string
}

func newHost(t *testing.T, contract string, values map[string]string) *host {
	t.Helper()
	key := func(kind claims.Kind) claims.Seed {
		s, err := claims.Generate(kind)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	h := &host{t: t, cluster: key(claims.Cluster), actor: key(claims.Module).Key().String()}
	provider := key(claims.Service).Key().String()
	h.data = wire.HostData{
		Host: key(claims.Server).Key().String(), Lattice: "home", LinkName: "default", URL: startServer(t), Provider: provider,
		Seed: h.cluster.Reveal(), Issuers: []string{h.cluster.Key().String()}, TimeoutMS: 2000,
		Links: []wire.Link{{Actor: h.actor, Provider: provider, Name: "default", Contract: contract, Values: values}},
	}
	nc, err := nats.Connect(h.data.URL, nats.Timeout(patience))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	h.nc = nc
	return h
}

// start starts the provider and waits until it answers. kill ends it without a warning.
func (h *host) start(path string) (kill func()) {
	h.t.Helper()
	line, err := h.data.Line()
	if err != nil {
		h.t.Fatal(err)
	}
	cmd := exec.Command(path)
	cmd.Stdout, cmd.Stderr = h.t.Output(), h.t.Output()
	stdin, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err == nil {
		_, err = stdin.Write(line)
	}
	if err != nil {
		h.t.Fatal(err)
	}
	kill = func() {
		_ = cmd.Process.Signal(syscall.SIGKILL)
		_ = cmd.Wait()
	}
	h.t.Cleanup(kill)
	health := wire.ProviderSubject("home", h.data.Provider, "default") + wire.SuffixHealth
	for deadline := time.Now().Add(patience); ; {
		if _, err := h.nc.Request(health, nil, patience); err == nil {
			return kill
		}
		if time.Now().After(deadline) {
			h.t.Fatal("the provider does not answer")
		}
	}
}

// message is a call with an idempotency key.
func (h *host) message(operation string, request any, idempotency string) *nats.Msg {
	h.t.Helper()
	payload := marshal(h.t, request)
	i := wire.Invocation{
		Origin: wire.Entity{Key: h.actor}, Target: wire.Entity{Key: h.data.Provider, Link: "default", Contract: h.data.Links[0].Contract},
		Operation: operation, Payload: payload, Length: uint64(len(payload)), ID: rand.Text(), Host: h.data.Host,
	}
	if err := wire.Sign(&i, payload, h.cluster); err != nil {
		h.t.Fatal(err)
	}
	m := nats.NewMsg(wire.ProviderSubject("home", h.data.Provider, "default"))
	m.Data = i.Append(nil)
	m.Header["Idempotency-Key"] = []string{idempotency}
	return m
}

// call makes a call and returns the answer.
func (h *host) call(operation string, request any, idempotency string) []byte {
	h.t.Helper()
	answer, err := h.nc.RequestMsg(h.message(operation, request, idempotency), patience)
	if err != nil {
		h.t.Fatal(err)
	}
	r, err := wire.DecodeResponse(answer.Data)
	if err != nil || r.Failed {
		h.t.Fatalf("%s: %v %s", operation, err, r.Error)
	}
	return r.Payload
}

// What the SQLite provider has answered is on the disk when it is killed, and a call that
// was not answered, made again, counts once.
func TestSQLite_killed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kv.db")
	h := newHost(t, "wasmcloud:keyvalue", map[string]string{"path": path})
	type increment struct {
		Key   string `msgpack:"key"`
		Value int    `msgpack:"value"`
	}
	type got struct {
		Value  string `msgpack:"value"`
		Exists bool   `msgpack:"exists"`
	}
	program, n := example(t, "keyvalue-sqlite", "keyvalue.js"), int64(0)
	for round := range 2 {
		kill := h.start(program)
		for range 10 {
			n++
			if count := msgpack.NewDecoder(h.call("KeyValue.Increment", increment{"n", 1}, rand.Text())).Int(); count != n {
				t.Fatalf("round %d: counted %d, want %d", round, count, n)
			}
		}
		// One more is under way when the provider is killed.
		again := rand.Text()
		if err := h.nc.PublishMsg(h.message("KeyValue.Increment", increment{"n", 1}, again)); err != nil {
			t.Fatal(err)
		}
		if err := h.nc.Flush(); err != nil {
			t.Fatal(err)
		}
		kill()
		n++
		kill = h.start(program)
		if count := msgpack.NewDecoder(h.call("KeyValue.Increment", increment{"n", 1}, again)).Int(); count != n {
			t.Fatalf("round %d: made again, the call counts to %d, want %d", round, count, n)
		}
		kill()
	}
	h.start(program)
	var value got
	if err := msgpack.Unmarshal(h.call("KeyValue.Get", "n", ""), &value); err != nil || value.Value != "22" {
		t.Errorf("got %+v, %v, want 22", value, err)
	}
}
