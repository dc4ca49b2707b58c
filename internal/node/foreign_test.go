package node

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/edged-io/edged/internal/claims"
	"github.com/edged-io/edged/internal/config"
	"github.com/edged-io/edged/lattice/rpc"
	"github.com/edged-io/edged/lattice/wire"
	"github.com/edged-io/edged/sdk/go/msgpack"
)

// far is a provider that somebody else wrote and runs: all that it has is a NATS
// connection and a key.
type far struct {
	t    *testing.T
	nc   *nats.Conn
	sub  *nats.Subscription
	key  string
	call func(inv *wire.Invocation) ([]byte, error)

	mu    sync.Mutex // guards what follows
	links []string   // what it was told of links
	keys  []string   // by which repeats are recognised
	calls []string   // contract, origin and operation
}

// newFar makes one that serves call under a key. It takes its place with serve.
func newFar(t *testing.T, call func(inv *wire.Invocation) ([]byte, error)) *far {
	t.Helper()
	return &far{t: t, key: seed(t, claims.Service).Key().String(), call: call}
}

// serve connects it with a box that runs.
func (f *far) serve(r *rig) {
	f.t.Helper()
	f.nc = r.latticeClient()
	subject := wire.ProviderSubject("default", f.key, "default")
	var err error
	f.sub, err = f.nc.QueueSubscribe(subject, wire.ProviderQueue, f.take)
	if err == nil { // one subscription, so that they come in order
		_, err = f.nc.Subscribe(subject+".linkdefs.*", func(m *nats.Msg) { f.told(m.Subject[len(m.Subject)-3:], m.Data) })
	}
	if err == nil {
		err = f.nc.Flush()
	}
	if err != nil {
		f.t.Fatal(err)
	}
}

func (f *far) told(what string, data []byte) {
	l, err := wire.DecodeLink(data)
	if err != nil || l.Provider != f.key {
		f.t.Errorf("link %x: %+v, %v", data, l, err)
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.links = append(f.links, fmt.Sprintf("%s %s %s %s %v", what, l.Actor, l.Contract, l.Name, l.Values))
}

func (f *far) take(m *nats.Msg) {
	inv, err := wire.DecodeInvocation(m.Data)
	if err == nil {
		_, err = wire.Check(&inv, inv.Payload, time.Now())
	}
	if err == nil && (inv.Target.Key != f.key || inv.Target.Link != "default") {
		err = fmt.Errorf("it is for %+v", inv.Target)
	}
	answer := wire.Response{ID: inv.ID}
	if err == nil {
		f.mu.Lock()
		f.keys = append(f.keys, m.Header.Get(rpc.HeaderIdempotency))
		f.calls = append(f.calls, inv.Target.Contract+" "+inv.Origin.Key+" "+inv.Operation)
		f.mu.Unlock()
		answer.Payload, err = f.call(&inv)
	}
	if err != nil {
		answer.Failed, answer.Error = true, err.Error()
	}
	answer.Length = uint64(len(answer.Payload))
	if err := m.Respond(answer.Append(nil)); err != nil {
		f.t.Error(err)
	}
}

func (f *far) linksAre(r *rig, want ...string) {
	r.t.Helper()
	var got []string
	r.eventually(fmt.Sprintf("the provider is told of %d links", len(want)), func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		got = slices.Compact(slices.Clone(f.links)) // one that is told twice is no news
		return len(got) >= len(want)
	})
	if !slices.Equal(got, want) {
		r.t.Errorf("the provider was told\n%q, want\n%q", got, want)
	}
}

// memory serves key-value state from a map.
func memory() func(inv *wire.Invocation) ([]byte, error) {
	var mu sync.Mutex
	state := make(map[string]string)
	return func(inv *wire.Invocation) ([]byte, error) {
		mu.Lock()
		defer mu.Unlock()
		d := msgpack.NewDecoder(inv.Payload)
		key, value, by := "", "", int64(0)
		if d.Kind() == msgpack.Str {
			key = d.Str()
		}
		for range d.Map() {
			switch d.Str() {
			case "key":
				key = d.Str()
			case "value":
				if d.Kind() == msgpack.Int {
					by = d.Int()
				} else {
					value = d.Str()
				}
			default:
				d.Skip()
			}
		}
		switch inv.Operation {
		case "KeyValue.Get":
			v, ok := state[key]
			b := msgpack.AppendString(msgpack.AppendMapHeader(nil, 2), "value")
			return msgpack.AppendBool(msgpack.AppendString(msgpack.AppendString(b, v), "exists"), ok), nil
		case "KeyValue.Set":
			state[key] = value
			return nil, nil
		case "KeyValue.Increment":
			n, _ := strconv.ParseInt(state[key], 10, 32)
			state[key] = strconv.FormatInt(n+by, 10)
			return msgpack.AppendInt(nil, n+by), nil
		}
		return nil, fmt.Errorf("method not handled: %s", inv.Operation)
	}
}

// nearApp writes an app with a probe, signed for those contracts unless there are none,
// that is told things on the subject of its name; it returns the key of the actor.
func (r *rig) nearApp(name, more string, caps ...string) string {
	r.t.Helper()
	module, err := os.ReadFile(probe)
	if err != nil {
		r.t.Fatal(err)
	}
	key := name + "/one"
	if len(caps) > 0 {
		key = seed(r.t, claims.Module).Key().String()
		module, err = claims.SignModule(module, claims.Claims[claims.ModuleClaims]{
			Subject: key, Wascap: claims.ModuleClaims{Name: name, Caps: append(caps, config.ContractPubSub)},
		}, seed(r.t, claims.Account))
		if err != nil {
			r.t.Fatal(err)
		}
	}
	r.write("apps/"+name+"/app.toml", fmt.Sprintf("specversion = \"0.2\"\nname = %q\nversion = \"1\"\n[[actor]]\nname = \"one\"\nmodule = \"probe.wasm\"\n"+
		"limits = { memory = \"64MiB\", time = \"30s\" }\n[[capability]]\nname = \"pubsub.local\"\n[[capability.config]]\ntopic = %[1]q\n%s", name, more))
	r.write("apps/"+name+"/probe.wasm", string(module))
	return key
}

func farLink(contract, provider, values string) string {
	return fmt.Sprintf("[[link]]\nactor = \"one\"\ncontract = %q\nprovider = %q\nvalues = { %s }\n", contract, provider, values)
}

// TestNode_foreignKeyValue has somebody else's provider in place of the built-in one,
// for the same module: state goes there and comes from there, and it is told of its
// links as they come, change and go.
func TestNode_foreignKeyValue(t *testing.T) {
	for name, caps := range map[string][]string{"unsigned": nil, "signed": {config.ContractKeyValue}} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, unsigned)
			f := newFar(t, memory())
			r.start()
			f.serve(r)
			key := r.nearApp("press", farLink(config.ContractKeyValue, f.key, `URL = "redis://far:6379"`), caps...)
			r.reload()
			put := "put " + key + " wasmcloud:keyvalue default map[URL:redis://far:6379]"
			f.linksAre(r, put)
			r.tell("press", "first")
			r.tell("press", "second")
			seen := func() string {
				inv := wire.Invocation{Operation: "KeyValue.Get", Payload: msgpack.AppendString(nil, "seen")}
				b, err := f.call(&inv)
				if err != nil {
					t.Fatal(err)
				}
				d := msgpack.NewDecoder(b)
				d.Map()
				d.Skip()
				return d.Str()
			}
			r.eventually("the provider has both notes", func() bool { return seen() == "first\nsecond\n" })
			if spaces := r.db.Spaces("kv/"); len(spaces) > 0 {
				t.Errorf("state is on the box: %+v", spaces)
			}
			f.mu.Lock()
			want := []string{"Get", "Set", "Get", "Set"}
			for i, call := range f.calls {
				if call != "wasmcloud:keyvalue "+key+" KeyValue."+want[i%4] {
					t.Errorf("call %d is %s", i, call)
				}
			}
			if slices.Contains(f.keys, "") || len(slices.Compact(slices.Sorted(slices.Values(f.keys)))) != len(f.keys) {
				t.Errorf("idempotency keys %q", f.keys)
			}
			f.mu.Unlock()

			app := r.path("apps", "press", "app.toml")
			r.write("apps/press/app.toml", strings.ReplaceAll(mustRead(t, app), "redis://far:6379", "redis://other:6379"))
			r.reload()
			other := strings.ReplaceAll(put, "far", "other")
			f.linksAre(r, put, "del"+put[3:], other)
			r.write("apps/press/app.toml", strings.Split(mustRead(t, app), "[[link]]")[0]+"[[capability]]\nname = \"keyvalue\"\n")
			r.reload()
			f.linksAre(r, put, "del"+put[3:], other, "del"+other[3:])
			r.tell("press", "third")
			r.eventually("the built-in provider is back in its place", func() bool { return len(r.seenIn("press")) == 1 })
		})
	}
}

// seenIn returns what a probe noted in a bucket of the box.
func (r *rig) seenIn(bucket string) (lines []string) {
	err := r.db.List("kv/"+bucket, "seen", func(_ string, value []byte) error {
		d := msgpack.NewDecoder(value)
		_, _, _, _, _ = d.Array(), d.Int(), d.Int(), d.Int(), d.Array()
		lines = strings.Split(strings.TrimSuffix(d.Str(), "\n"), "\n")
		return d.Done()
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return lines
}

// TestNode_foreignForEach: each contract that is built in can be served by somebody else,
// with a link and nothing more; without one it is the built-in provider.
func TestNode_foreignForEach(t *testing.T) {
	r := newRig(t, unsigned)
	r.start()
	fars := map[string]*far{"example:press": nil} // by contract
	for _, p := range r.builtin {
		fars[p.Contract()] = nil
	}
	delete(fars, config.ContractKeyValue) // the probe notes what comes of it there; see above
	delete(fars, config.ContractPubSub)   // and is told things there; see below
	links, caps, n := "[[capability]]\nname = \"keyvalue\"\n", []string{config.ContractKeyValue}, 0
	for contract := range fars {
		f := newFar(t, func(inv *wire.Invocation) ([]byte, error) {
			if inv.Operation != "Far.Try" {
				return nil, fmt.Errorf("method not handled: %s", inv.Operation)
			}
			return nil, nil
		})
		f.serve(r)
		fars[contract] = f
		links += farLink(contract, f.key, "")
		caps = append(caps, contract)
	}
	key := r.nearApp("press", links, caps...)
	r.reload()
	for contract := range fars {
		r.tell("press", "!call "+contract+" Far.Try")
		n++
	}
	r.eventually("all are called", func() bool { return len(r.seenIn("press")) >= n })
	for contract, f := range fars {
		f.mu.Lock()
		if want := []string{contract + " " + key + " Far.Try"}; !slices.Equal(f.calls, want) {
			t.Errorf("the provider was asked\n%q, want\n%q", f.calls, want)
		}
		f.mu.Unlock()
	}
	if n < 8 {
		t.Errorf("%d contracts", n)
	}
	if seen := strings.Join(r.seenIn("press"), "\n"); strings.Contains(seen, "error") {
		t.Error(seen)
	}
	f := fars["example:press"]
	if err := errors.Join(f.sub.Unsubscribe(), f.nc.Flush()); err != nil { // it is gone: an error, and not silence
		t.Fatal(err)
	}
	r.tell("press", "!call example:press Far.Try")
	r.eventually("the outcome", func() bool { return len(r.seenIn("press")) >= n+1 })
	if last := r.seenIn("press")[n]; !strings.Contains(last, "nobody serves it") {
		t.Errorf("of a provider that is gone: %s", last)
	}
}

// TestNode_foreignCalls: a provider that is not built in calls actors by the contracts by
// which the built-in ones do.
func TestNode_foreignCalls(t *testing.T) {
	r := newRig(t, unsigned)
	f := newFar(t, func(*wire.Invocation) ([]byte, error) { return nil, nil })
	served := map[string]string{ // operation by contract
		config.ContractHTTPServer: "HttpServer.HandleRequest", config.ContractMessaging: "MessageSubscriber.HandleMessage",
		config.ContractPubSub: "PubSub.OnMessage", config.ContractBlobStore: "ChunkReceiver.ReceiveChunk",
	}
	links := "[[capability]]\nname = \"keyvalue\"\n"
	for contract := range served {
		if contract != config.ContractPubSub { // the rest is its name under the others
			links += strings.Replace(farLink(contract, f.key, ""), "values", fmt.Sprintf("name = %q\nvalues", strings.ReplaceAll(contract, ":", "-")), 1)
		}
	}
	key := r.nearApp("press", links, append(slices.Collect(maps.Keys(served)), config.ContractKeyValue)...)
	r.start()
	f.serve(r)
	cluster, _ := claims.SeedFile(r.path("state", "cluster.seed"))
	signer, err := cluster.Signer()
	if err != nil {
		t.Fatal(err)
	}
	message := func(fields ...string) []byte {
		b := msgpack.AppendMapHeader(nil, len(fields)/2)
		for _, s := range fields {
			b = msgpack.AppendString(b, s)
		}
		return b
	}
	call := func(contract string, payload []byte) wire.Response {
		t.Helper()
		inv := wire.Invocation{
			Origin: wire.Entity{Key: f.key, Link: "default", Contract: contract}, Target: wire.Entity{Key: key}, Operation: served[contract],
			Payload: payload, Length: uint64(len(payload)), ID: rand36(t), Host: r.identity.host.Key().String(),
		}
		if err := wire.Sign(&inv, payload, signer); err != nil {
			t.Fatal(err)
		}
		m, err := f.nc.Request(wire.ActorSubject("default", key), inv.Append(nil), patience)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := wire.DecodeResponse(m.Data)
		if err != nil || answer.Failed {
			t.Errorf("%s: %+v, %v", contract, answer, err)
		}
		return answer
	}
	answer := call(config.ContractHTTPServer, message("method", "GET", "path", "/"))
	if d := msgpack.NewDecoder(answer.Payload); !strings.Contains(show(d), "200") {
		t.Errorf("answer %x", answer.Payload)
	}
	call(config.ContractMessaging, message("subject", "orders.1", "body", "by messaging"))
	call(config.ContractPubSub, message("id", "1", "source", "far", "type", "t", "data", "by pubsub"))
	call(config.ContractBlobStore, message("objectId", "o", "containerId", "c", "bytes", "by blobstore"))
	if got := strings.Join(r.seenIn("press"), ", "); got != "by messaging, by pubsub, o 0+12 false" {
		t.Errorf("the actor noted %s", got)
	}
}

func show(d *msgpack.Decoder) (all string) {
	for range d.Map() {
		all += d.Str() + " "
		if d.Kind() == msgpack.Int {
			all += strconv.FormatInt(d.Int(), 10) + " "
		} else {
			d.Skip()
		}
	}
	return all
}

// TestNode_foreignOnAnotherBox: the provider is connected with one box, and the actor
// runs on another; they meet at the hub. When the provider's box is gone, who calls gets
// an error.
func TestNode_foreignOnAnotherBox(t *testing.T) {
	hub := startHub(t)
	atHub := unsigned + "[hub]\nurl = \"nats-leaf://" + hub.LeafAddr() + "\"\n"
	theirs, mine := newBox(t, "theirs", atHub), newBox(t, "mine", atHub)
	f := newFar(t, memory())
	theirs.start()
	f.serve(theirs)
	mine.nearApp("press", farLink(config.ContractKeyValue, f.key, `URL = "redis://far:6379"`), config.ContractKeyValue)
	mine.start()
	kept := func() string {
		b, err := f.call(&wire.Invocation{Operation: "KeyValue.Get", Payload: msgpack.AppendString(nil, "seen")})
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	mine.tell("press", "over the hub") // it comes again until the other box is in reach
	mine.eventually("the provider on the other box has the note", func() bool { return strings.Contains(kept(), "over the hub\n") })
	theirs.stop()
	mine.tell("press", "too late")
	mine.eventually("the failure is told", func() bool {
		s := mine.actors()
		return len(s) == 1 && s[0].Failure != nil && strings.HasSuffix(s[0].Failure.Message, "/2") // the second one
	})
	if strings.Contains(kept(), "too late") {
		t.Error("a provider that is gone has a note")
	}
}

// TestNode_foreignPubSub: an actor that is told things by messaging publishes by somebody
// else's provider.
func TestNode_foreignPubSub(t *testing.T) {
	r := newRig(t, unsigned)
	f := newFar(t, func(*wire.Invocation) ([]byte, error) { return nil, nil })
	r.start()
	f.serve(r)
	r.nearApp("press", "")
	r.write("apps/press/app.toml", strings.Replace(mustRead(t, r.path("apps", "press", "app.toml")),
		"name = \"pubsub.local\"\n[[capability.config]]\ntopic = \"press\"\n",
		"name = \"messaging\"\n[[capability.config]]\nsubject = \"press\"\n[[capability]]\nname = \"keyvalue\"\n[[stream]]\nname = \"press\"\nsubjects = [\"press\"]\n"+
			farLink(config.ContractPubSub, f.key, ""), 1))
	r.reload()
	r.tell("press", "!publish far.away hello")
	r.tell("press", "done")
	r.eventually("both are handled", func() bool { return slices.Contains(r.seenIn("press"), "done") })
	f.mu.Lock()
	defer f.mu.Unlock()
	if want := []string{"edged:pubsub press/one PubSub.Publish"}; !slices.Equal(f.calls, want) {
		t.Errorf("the provider was asked %q, want %q", f.calls, want)
	}
}
