package rpc_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/edged-io/edged/internal/claims"
	"github.com/edged-io/edged/lattice"
	"github.com/edged-io/edged/lattice/rpc"
	"github.com/edged-io/edged/lattice/wire"
)

// twoBoxes are in one lattice and trust each other.
func twoBoxes(t testing.TB, change func(*server.Options)) (a, b *box) {
	url := startServer(t, change)
	cluster := seed(t, claims.Cluster)
	same := func(o *rpc.Options) { o.Cluster = cluster }
	return startBox(t, url, same), startBox(t, url, same)
}

func TestLattice_Call_actorElsewhere(t *testing.T) {
	a, b := twoBoxes(t, nil)
	var from atomic.Value
	key := b.serve(t, func(ctx context.Context, inv lattice.Invocation) ([]byte, error) {
		from.Store(inv)
		return echo(ctx, inv)
	})
	caller := newKey(t, claims.Module)
	a.bus.SetGrant(caller, lattice.Grant{})
	for _, payload := range []string{"hello", ""} {
		reply, err := a.bus.HostCall(t.Context(), caller, "", key, "A.B", []byte(payload))
		if err != nil || string(reply) != "A.B "+payload {
			t.Fatalf("got %q, %v", reply, err)
		}
	}
	if inv := from.Load().(lattice.Invocation); inv.Origin.Key != caller || inv.Target.Key != key || inv.Contract != "" {
		t.Errorf("arrived as %+v", inv)
	}
	// It moves to the box of the caller.
	b.bus.Remove(lattice.Entity{Key: key})
	if err := b.conn.Flush(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); ; {
		_, err := a.bus.HostCall(t.Context(), caller, "", key, "A.B", nil)
		if errors.Is(err, lattice.ErrNoEntity) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("got %v, want ErrNoEntity", err)
		}
	}
	a.serveAs(t, key, echo)
	if _, err := a.bus.HostCall(t.Context(), caller, "", key, "A.B", nil); err != nil {
		t.Fatal(err)
	}
}

func TestLattice_Call_errorsAreTold(t *testing.T) {
	a, b := twoBoxes(t, nil)
	key := b.serve(t, func(context.Context, lattice.Invocation) ([]byte, error) { return nil, errors.New("no milk today") })
	_, err := a.bus.Call(t.Context(), lattice.Invocation{Target: lattice.Entity{Key: key}, Operation: "A.B"})
	var answer *rpc.Error
	if !errors.As(err, &answer) || answer.Text != "no milk today" {
		t.Errorf("got %v", err)
	}
	for _, target := range []lattice.Entity{{Key: newKey(t, claims.Module)}, {Key: newKey(t, claims.Service), Link: "default"}, {Key: "keyvalue", Link: "default"}, {Key: "app/name"},
		{Key: newKey(t, claims.Service), Link: "a.>"}} {
		if _, err := a.bus.Call(t.Context(), lattice.Invocation{Target: target, Operation: "A.B"}); !errors.Is(err, lattice.ErrNoEntity) {
			t.Errorf("%s: got %v, want ErrNoEntity", target, err)
		}
	}
}

// A provider in another process, as a stranger writes it from the protocol.
func TestLattice_Call_provider(t *testing.T) {
	a := startBox(t, startServer(t, nil), nil)
	key := newKey(t, claims.Service)
	got := make(chan wire.Invocation, 1)
	sub, err := a.conn.QueueSubscribe(wire.ProviderSubject("home", key, "other"), wire.ProviderQueue, func(m *nats.Msg) {
		i, err := wire.DecodeInvocation(m.Data)
		if err == nil {
			_, err = wire.Check(&i, i.Payload, time.Now())
		}
		if err != nil {
			t.Error(err)
		}
		i.Trace["header"] = m.Header["traceparent"][0]
		got <- i
		r := wire.Response{ID: i.ID, Payload: i.Payload, Length: i.Length}
		_ = m.Respond(r.Append(nil))
		_ = m.Respond(r.Append(nil)) // as one does that has subscribed twice
	})
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Unsubscribe()
	caller := newKey(t, claims.Module)
	a.bus.SetGrant(caller, lattice.Grant{})
	a.bus.PutLink(lattice.Link{Actor: caller, Contract: "wasmcloud:keyvalue", Name: "other", Provider: key})
	const trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	ctx := lattice.WithTrace(t.Context(), trace, "")
	for range 2 {
		reply, err := a.bus.HostCall(ctx, caller, "other", "wasmcloud:keyvalue", "KeyValue.Get", []byte("k"))
		if err != nil || string(reply) != "k" {
			t.Fatalf("got %q, %v", reply, err)
		}
		i := <-got
		want := wire.Entity{Key: key, Link: "other", Contract: "wasmcloud:keyvalue"}
		if i.Target != want || i.Origin != (wire.Entity{Key: caller}) || i.Host != a.host || i.Trace["traceparent"] != trace || i.Trace["header"] != trace || len(i.ID) != 36 {
			t.Errorf("sent %+v", i)
		}
	}
}

func TestLattice_Call_oddAnswers(t *testing.T) {
	a := startBox(t, startServer(t, nil), func(o *rpc.Options) { o.Timeout = 50 * time.Millisecond })
	for name, test := range map[string]struct {
		answer func(i wire.Invocation) []byte
		want   error
	}{
		"garbage":     {func(wire.Invocation) []byte { return []byte("garbage") }, rpc.ErrAnswer},
		"another":     {func(wire.Invocation) []byte { return (&wire.Response{ID: "x"}).Append(nil) }, rpc.ErrAnswer},
		"none":        {func(wire.Invocation) []byte { return nil }, lattice.ErrTimeout},
		"not there":   {func(i wire.Invocation) []byte { return (&wire.Response{ID: i.ID, Length: 9}).Append(nil) }, nil},
		"far too big": {func(i wire.Invocation) []byte { return (&wire.Response{ID: i.ID, Length: 1 << 62}).Append(nil) }, rpc.ErrTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			key := newKey(t, claims.Service)
			sub, err := a.conn.Subscribe(wire.ProviderSubject("home", key, "default"), func(m *nats.Msg) {
				i, err := wire.DecodeInvocation(m.Data)
				if err != nil {
					t.Error(err)
				}
				if answer := test.answer(i); answer != nil {
					_ = m.Respond(answer)
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			defer sub.Unsubscribe()
			for deadline := time.Now().Add(patience); ; { // one that comes late is a timeout
				_, err = a.bus.Call(t.Context(), lattice.Invocation{Target: lattice.Entity{Key: key}, Operation: "A.B"})
				if !errors.Is(err, lattice.ErrTimeout) || test.want == lattice.ErrTimeout || time.Now().After(deadline) {
					break
				}
			}
			if err == nil || test.want != nil && !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
		})
	}
}

// PROTOCOL 3.4 and 3.7, and what old hosts and tools send.
func TestLattice_serve_checks(t *testing.T) {
	friend := seed(t, claims.Cluster)
	b := startBox(t, startServer(t, nil), func(o *rpc.Options) { o.Issuers = []claims.Key{friend.Key()} })
	key := b.serve(t, echo)
	provider := wire.Entity{Key: newKey(t, claims.Service), Link: "default", Contract: "wasmcloud:httpserver"}
	resign := func(i *wire.Invocation, s claims.Seed) {
		if err := wire.Sign(i, i.Payload, s); err != nil {
			t.Fatal(err)
		}
	}
	for name, test := range map[string]struct {
		before, after func(*wire.Invocation)
		want          string // in the error, "" for none
	}{
		"plain":                 {},
		"self-call":             {before: func(i *wire.Invocation) { i.Origin = i.Target }},
		"vanity host":           {before: func(i *wire.Invocation) { i.Host = "NAWASHVALZUZPZNXPIF6HGQ4OMJYLXQ4B2WZZ5AMBCXKWEQPYXDOIWMA" }},
		"host is a cluster":     {before: func(i *wire.Invocation) { i.Host = b.cluster.Key().String() }},
		"no content_length":     {before: func(i *wire.Invocation) { i.Length = 0 }},
		"provider":              {before: func(i *wire.Invocation) { i.Origin = provider }},
		"target as old kits":    {before: func(i *wire.Invocation) { i.Target.Link, i.Target.Contract = "default", "wasmcloud:httpserver" }},
		"friend":                {after: func(i *wire.Invocation) { resign(i, friend) }},
		"contract not claimed":  {before: func(i *wire.Invocation) { i.Origin = provider; i.Origin.Contract = "wasmcloud:messaging" }, want: "required capability claim wasmcloud:messaging"},
		"contract not told":     {before: func(i *wire.Invocation) { i.Origin = provider; i.Origin.Contract = "" }, want: "required capability claim (its contract_id is empty)"},
		"control tool":          {before: func(i *wire.Invocation) { i.Origin = wire.Entity{Key: "__TOOL__"} }},
		"stranger":              {after: func(i *wire.Invocation) { resign(i, seed(t, claims.Cluster)) }, want: "is not trusted"},
		"no token":              {after: func(i *wire.Invocation) { i.Token = "" }, want: "Anti-forgery check failed: not a valid token"},
		"other payload":         {after: func(i *wire.Invocation) { i.Payload, i.Length = []byte("x"), 1 }, want: "Anti-forgery check failed"},
		"other target":          {before: func(i *wire.Invocation) { i.Target.Key = newKey(t, claims.Module) }, want: "the target is"},
		"other target unsigned": {after: func(i *wire.Invocation) { i.Target.Key = newKey(t, claims.Module) }, want: "for another target"},
		"other origin":          {after: func(i *wire.Invocation) { i.Origin = provider }, want: "of another origin"},
		"host is no key":        {before: func(i *wire.Invocation) { i.Host = "N" }, want: "host_id"},
		"chunk that is missing": {after: func(i *wire.Invocation) { i.Length, i.Payload = 5, nil }, want: "payload of 5 bytes"},
		"chunk that is huge":    {after: func(i *wire.Invocation) { i.Length, i.Payload = 1<<63, nil }, want: "too large"},
		"stranger with a chunk": {after: func(i *wire.Invocation) { resign(i, seed(t, claims.Cluster)); i.Length, i.Payload = 5, nil }, want: "is not trusted"},
	} {
		t.Run(name, func(t *testing.T) {
			i := b.signed(t, key, []byte("hello"), test.before)
			if test.after != nil {
				test.after(&i)
			}
			r := b.ask(t, key, i.Append(nil))
			switch {
			case r.ID != i.ID:
				t.Errorf("answer to %q, asked %q", r.ID, i.ID)
			case test.want == "" && (r.Failed || string(r.Payload) != "A.B hello" || r.Length != 9):
				t.Errorf("got %+v", r)
			case test.want != "" && !strings.Contains(r.Error, test.want):
				t.Errorf("got %+v, want %s", r, test.want)
			}
		})
	}
	for name, envelope := range map[string][]byte{"nothing": {}, "garbage": []byte("garbage"), "map": {0x80}} {
		if r := b.ask(t, key, envelope); !strings.HasPrefix(r.Error, "Failed to deserialize invocation") {
			t.Errorf("%s: got %+v", name, r)
		}
	}
	// The kits of providers read a str, those of hosts a bin.
	for want, origin := range map[string]wire.Entity{"\xa3msg\xa9A.B hello": provider, "\xa3msg\xc4\x09A.B hello": {Key: key}} {
		i := b.signed(t, key, []byte("hello"), func(i *wire.Invocation) { i.Origin = origin })
		m, err := b.conn.Request(wire.ActorSubject("home", key), i.Append(nil), patience)
		if err != nil || !bytes.Contains(m.Data, []byte(want)) || bytes.Contains(m.Data, []byte("error")) {
			t.Errorf("got %q, %v, want %q in it", m.Data, err, want)
		}
	}
}

func TestLattice_serve_repeats(t *testing.T) {
	url := startServer(t, nil)
	for replay, want := range map[time.Duration]string{0: "seen before", -1: ""} {
		b := startBox(t, url, func(o *rpc.Options) { o.Replay = replay })
		key := b.serve(t, echo)
		i := b.signed(t, key, []byte("hello"), nil)
		if r := b.ask(t, key, i.Append(nil)); r.Failed {
			t.Fatalf("got %+v", r)
		}
		if r := b.ask(t, key, i.Append(nil)); r.Failed != (want != "") || !strings.Contains(r.Error, want) {
			t.Errorf("replay %d: got %+v, want %q", replay, r, want)
		}
	}
}

// A provider with a key of its own speaks for itself alone, and where it is linked.
func TestLattice_TrustProvider(t *testing.T) {
	b := startBox(t, startServer(t, nil), nil)
	key, other := b.serve(t, echo), b.serve(t, echo)
	provider := wire.Entity{Key: newKey(t, claims.Service), Link: "web", Contract: "wasmcloud:httpserver"}
	b.bus.PutLink(lattice.Link{Actor: key, Contract: provider.Contract, Name: "web", Provider: provider.Key})
	own := seed(t, claims.Cluster)
	if err := b.TrustProvider(own.Key(), provider.Key); err != nil {
		t.Fatal(err)
	}
	if err := b.TrustProvider(seed(t, claims.Account).Key(), provider.Key); !errors.Is(err, claims.ErrKey) {
		t.Errorf("got %v, want ErrKey", err)
	}
	ask := func(actor, want string, change func(*wire.Entity)) {
		t.Helper()
		i := b.signed(t, actor, []byte("x"), func(i *wire.Invocation) {
			if i.Origin = provider; change != nil {
				change(&i.Origin)
			}
		})
		if err := wire.Sign(&i, i.Payload, own); err != nil {
			t.Fatal(err)
		}
		if r := b.ask(t, actor, i.Append(nil)); r.Failed != (want != "") || !strings.Contains(r.Error, want) {
			t.Errorf("got %+v, want %q", r, want)
		}
	}
	ask(key, "", nil)
	ask(other, "has no link", nil)
	ask(key, "has no link", func(e *wire.Entity) { e.Link = "default" })
	ask(key, "trusted as provider", func(e *wire.Entity) { e.Key = newKey(t, claims.Service) })
	ask(key, "trusted as provider", func(e *wire.Entity) { *e = wire.Entity{Key: other} })
	b.DistrustProvider(own.Key())
	ask(key, "is not trusted", nil)
}

// An actor on two boxes shares its calls, and each is made once. When one of the
// boxes goes away in the middle, no caller is left without an answer.
func TestLattice_queueGroup(t *testing.T) {
	url := startServer(t, nil)
	cluster := seed(t, claims.Cluster)
	same := func(o *rpc.Options) { o.Cluster = cluster }
	a, b, c := startBox(t, url, same), startBox(t, url, same), startBox(t, url, same)
	key := newKey(t, claims.Module)
	var calls [2]atomic.Int64
	for i, x := range []*box{b, c} {
		x.serveAs(t, key, func(ctx context.Context, inv lattice.Invocation) ([]byte, error) {
			calls[i].Add(1)
			return echo(ctx, inv)
		})
	}
	const n = 400
	var refused atomic.Int64
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for j := range n / 4 {
				if i == 0 && j == n/8 {
					b.stop()
				}
				_, err := a.bus.Call(t.Context(), lattice.Invocation{Target: lattice.Entity{Key: key}, Operation: "A.B"})
				var answer *rpc.Error
				if errors.As(err, &answer) && strings.Contains(answer.Text, "try again") { // by a box that ends, on a slow machine
					refused.Add(1)
				} else if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if x, y := calls[0].Load(), calls[1].Load(); x == 0 || y == 0 || x+y+refused.Load() != n {
		t.Errorf("got %d and %d calls, want %d, some on each", x, y, n)
	}
}

func TestLattice_largePayloads(t *testing.T) {
	a, b := twoBoxes(t, nil)
	key := b.serve(t, func(_ context.Context, inv lattice.Invocation) ([]byte, error) { return inv.Payload, nil })
	for _, size := range []int{wire.ChunkBytes, wire.ChunkBytes + 1, 3 << 20} {
		payload := bytes.Repeat([]byte("0123456789abcdef"), size/16+1)[:size]
		reply, err := a.bus.Call(t.Context(), lattice.Invocation{Target: lattice.Entity{Key: key}, Operation: "A.B", Payload: payload})
		if err != nil || !bytes.Equal(reply, payload) {
			t.Fatalf("%d bytes: got %d, %v", size, len(reply), err)
		}
	}
	js, err := jetstream.New(a.conn, jetstream.WithDefaultTimeout(patience))
	if err != nil {
		t.Fatal(err)
	}
	bucket, err := js.ObjectStore(t.Context(), "home")
	if err != nil {
		t.Fatal(err)
	}
	if left, err := bucket.List(t.Context()); !errors.Is(err, jetstream.ErrNoObjectsFound) {
		t.Errorf("left in the object store: %v, %v", left, err)
	}
	// Peers of old put less into the store already.
	i := b.signed(t, key, []byte("hello"), nil)
	if _, err := bucket.PutBytes(t.Context(), i.ID, i.Payload); err != nil {
		t.Fatal(err)
	}
	i.Payload = nil
	if r := b.ask(t, key, i.Append(nil)); string(r.Payload) != "hello" {
		t.Errorf("got %+v", r)
	}
	// What lies there is held against the token, too, and stays if it is another.
	i = b.signed(t, key, []byte("hello"), nil)
	if _, err := bucket.PutBytes(t.Context(), i.ID, []byte("HELLO")); err != nil {
		t.Fatal(err)
	}
	i.Payload = nil
	if r := b.ask(t, key, i.Append(nil)); !strings.Contains(r.Error, "over another payload") {
		t.Errorf("got %+v", r)
	}
	if _, err := bucket.GetInfo(t.Context(), i.ID); err != nil {
		t.Errorf("an object that is not the payload: %v", err)
	}
}

// A server that lets less through than peers agree on.
func TestLattice_largePayloads_narrowServer(t *testing.T) {
	a, b := twoBoxes(t, func(o *server.Options) { o.MaxPayload = 256 << 10 })
	key := b.serve(t, func(_ context.Context, inv lattice.Invocation) ([]byte, error) { return inv.Payload, nil })
	payload := make([]byte, 300<<10)
	reply, err := a.bus.Call(t.Context(), lattice.Invocation{Target: lattice.Entity{Key: key}, Operation: "A.B", Payload: payload})
	if err != nil || !bytes.Equal(reply, payload) {
		t.Errorf("got %d bytes, %v", len(reply), err)
	}
}

func TestLattice_largePayloads_withoutJetStream(t *testing.T) {
	a, b := twoBoxes(t, func(o *server.Options) { o.JetStream = false; o.MaxPayload = 2 << 20 })
	key := b.serve(t, func(_ context.Context, inv lattice.Invocation) ([]byte, error) {
		return make([]byte, 10*len(inv.Payload)), nil
	})
	call := func(n int) ([]byte, error) {
		return a.bus.Call(t.Context(), lattice.Invocation{Target: lattice.Entity{Key: key}, Operation: "A.B", Payload: make([]byte, n)})
	}
	if reply, err := call(100 << 10); err != nil || len(reply) != 1000<<10 {
		t.Errorf("what fits into a message: got %d bytes, %v", len(reply), err)
	}
	if _, err := call(3 << 20); !errors.Is(err, rpc.ErrTooLarge) || !errors.Is(err, rpc.ErrNoJetStream) {
		t.Errorf("request: got %v", err)
	}
	var answer *rpc.Error
	if _, err := call(300 << 10); !errors.As(err, &answer) || !strings.Contains(answer.Text, "no JetStream") {
		t.Errorf("answer: got %v", err)
	}
}

// More than there is room for is refused, and told so.
func TestLattice_serve_bound(t *testing.T) {
	b := startBox(t, startServer(t, nil), func(o *rpc.Options) { o.MaxCalls = 1; o.MaxBytes = 10 })
	begun, end := make(chan struct{}), make(chan struct{})
	key := b.serve(t, func(ctx context.Context, inv lattice.Invocation) ([]byte, error) {
		close(begun)
		<-end
		return echo(ctx, inv)
	})
	first := make(chan wire.Response, 1)
	envelopes := make([][]byte, 3)
	for n := range envelopes {
		i := b.signed(t, key, make([]byte, 5*n), nil)
		envelopes[n] = i.Append(nil)
	}
	i := b.signed(t, key, make([]byte, 11), nil)
	go func() { first <- b.ask(t, key, envelopes[0]) }()
	<-begun
	if r := b.ask(t, key, envelopes[1]); !strings.Contains(r.Error, "try again later") {
		t.Errorf("got %+v", r)
	}
	if r := b.ask(t, key, i.Append(nil)); !strings.Contains(r.Error, "too large") {
		t.Errorf("got %+v", r)
	}
	close(end)
	if r := <-first; r.Failed {
		t.Errorf("got %+v", r)
	}
}

// What has begun when the lattice ends is answered.
func TestLattice_Run_endsInOrder(t *testing.T) {
	a, b := twoBoxes(t, nil)
	other := b.serve(t, echo)
	key := b.serve(t, func(ctx context.Context, inv lattice.Invocation) ([]byte, error) {
		go b.stop()
		for ctx.Err() == nil {
			if _, err := a.bus.Call(ctx, lattice.Invocation{Target: lattice.Entity{Key: other}, Operation: "A.B"}); errors.Is(err, lattice.ErrNoEntity) {
				break // it takes no more
			}
		}
		return echo(ctx, inv)
	})
	reply, err := a.bus.Call(t.Context(), lattice.Invocation{Target: lattice.Entity{Key: key}, Operation: "A.B"})
	if err != nil || string(reply) != "A.B " {
		t.Errorf("got %q, %v", reply, err)
	}
}

// Nobody has the host publish in its name where that means something.
func TestLattice_serve_replySubjects(t *testing.T) {
	b := startBox(t, startServer(t, nil), nil)
	var calls atomic.Int32
	key := b.serve(t, func(ctx context.Context, inv lattice.Invocation) ([]byte, error) {
		calls.Add(1)
		return echo(ctx, inv)
	})
	all, err := b.conn.SubscribeSync(">")
	if err != nil {
		t.Fatal(err)
	}
	bad := []string{"wasmbus.rpc.home.V1.default.linkdefs.put", "$KV.LATTICEDATA_home.LINKDEF_x", "$JS.API.STREAM.DELETE.x", "edge.up.box.alarms.x", "edge.down.all.x"}
	good := []string{"_INBOX.x", "edge.rpc.home.box.x", "replies.of.a.kit"}
	for _, reply := range append(bad, good...) {
		i := b.signed(t, key, []byte("x"), nil)
		if err := b.conn.PublishRequest(wire.ActorSubject("home", key), reply, i.Append(nil)); err != nil {
			t.Fatal(err)
		}
	}
	answered := make(map[string]bool)
	for len(answered) < len(good) {
		m, err := all.NextMsg(patience)
		if err != nil {
			t.Fatalf("answered: %v, %v", answered, err)
		}
		if m.Reply == "" {
			answered[m.Subject] = true
		}
	}
	for _, subject := range good {
		if !answered[subject] {
			t.Errorf("%s was not answered, but %v", subject, answered)
		}
	}
	if n := int(calls.Load()); n != len(good) {
		t.Errorf("%d calls, want %d", n, len(good))
	}
}

// An operator sees that something is refused, once, and how often; nobody sees
// what only the two ends should know.
func TestLattice_serve_tells(t *testing.T) {
	var log bytes.Buffer
	registry := prometheus.NewRegistry()
	b := startBox(t, startServer(t, nil), func(o *rpc.Options) {
		o.Logger, o.Registerer = slog.New(slog.NewTextHandler(&log, nil)), registry
	})
	key := b.serve(t, echo)
	good, bad := b.signed(t, key, []byte("hello"), nil), b.signed(t, key, []byte("hello"), nil)
	bad.Payload = []byte("hallo")
	for _, i := range []wire.Invocation{bad, bad, good} {
		b.ask(t, key, i.Append(nil))
	}
	b.ask(t, key, []byte("garbage"))
	b.stop()
	if text := log.String(); strings.Count(text, "invocation refused") != 1 || strings.Count(text, "accepted again") != 1 ||
		strings.Contains(text, "hallo") || strings.Contains(text, bad.Token) {
		t.Errorf("log:\n%s", text)
	}
	got := make(map[string]float64)
	all, err := registry.Gather()
	if err != nil || len(all) != 1 {
		t.Fatalf("%d metrics, %v", len(all), err)
	}
	for _, m := range all[0].GetMetric() {
		got[m.GetLabel()[0].GetValue()+" "+m.GetLabel()[1].GetValue()] = m.GetCounter().GetValue()
	}
	if got["in ok"] != 1 || got["in refused"] != 2 || got["in malformed"] < 1 {
		t.Errorf("got %v", got)
	}
}

func TestNew_refuses(t *testing.T) {
	conn := connect(t, startServer(t, nil))
	whole := rpc.Options{Conn: conn, Lattice: "home", Host: seed(t, claims.Server).Key(), Cluster: seed(t, claims.Cluster), Bus: lattice.NewBus()}
	for name, change := range map[string]func(*rpc.Options){
		"conn":    func(o *rpc.Options) { o.Conn = nil },
		"lattice": func(o *rpc.Options) { o.Lattice = "a.b" },
		"host":    func(o *rpc.Options) { o.Host = o.Cluster.Key() },
		"cluster": func(o *rpc.Options) { o.Cluster = claims.Seed{} },
		"issuer":  func(o *rpc.Options) { o.Issuers = []claims.Key{o.Host} },
	} {
		o := whole
		change(&o)
		if _, err := rpc.New(o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := rpc.New(whole); err != nil {
		t.Error(err)
	}
}
