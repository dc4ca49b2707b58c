package rpc_test

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/edged-io/edged/internal/claims"
	"github.com/edged-io/edged/lattice"
	"github.com/edged-io/edged/lattice/wire"
)

// knowing is a provider that knows of sessions. It echoes, and fails what is "fail".
type knowing struct {
	key      string
	sessions atomic.Pointer[wire.Sessions]
	tokens   atomic.Int64 // calls with a token, and in a session
	sealed   atomic.Int64
	unknown  atomic.Int64
}

func startKnowing(t *testing.T, url string, seed claims.Seed) *knowing {
	t.Helper()
	p := &knowing{key: newKey(t, claims.Service)}
	p.sessions.Store(wire.NewSessions(wire.NewSessionKey(seed)))
	nc := connect(t, url)
	_, err := nc.QueueSubscribe(wire.ProviderSubject("home", p.key, "default"), "rpc", func(m *nats.Msg) { p.serve(t, m) })
	if err == nil {
		err = nc.FlushTimeout(patience)
	}
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *knowing) serve(t *testing.T, m *nats.Msg) {
	inv, err := wire.DecodeInvocation(m.Data)
	if err != nil {
		t.Error(err)
	}
	out := &nats.Msg{Header: nats.Header{}}
	r := wire.Response{ID: inv.ID, Payload: inv.Payload, Length: inv.Length}
	if string(inv.Payload) == "fail" {
		r = wire.Response{ID: inv.ID, Failed: true, Error: "as it was told"}
	}
	switch sessions := p.sessions.Load(); {
	case !wire.InSession(&inv):
		p.tokens.Add(1)
		if m.Header.Get(wire.HeaderSession) == wire.SessionAsk {
			out.Header[wire.HeaderSession] = []string{sessions.New()}
		}
	case sessions.Check(&inv, inv.Payload) != nil:
		p.unknown.Add(1)
		r = wire.Response{ID: inv.ID, Failed: true, Error: "no such session"}
		out.Header[wire.HeaderSession] = []string{wire.SessionUnknown}
	default:
		p.sealed.Add(1)
		out.Header[wire.HeaderSession] = []string{"known"}
	}
	out.Data = r.Append(nil)
	_ = m.RespondMsg(out)
}

// A provider that has a seed of the host's is called with few tokens. One that forgets,
// as when it starts anew, is called again with a token; each call is handled once.
func TestLattice_ShareSeed(t *testing.T) {
	url, own := startServer(t, nil), seed(t, claims.Cluster)
	a := startBox(t, url, nil)
	p := startKnowing(t, url, own)
	call := func(payload string) error {
		reply, err := a.bus.Call(t.Context(), lattice.Invocation{Target: lattice.Entity{Key: p.key, Link: "default"}, Contract: "c:x", Operation: "A.B", Payload: []byte(payload)})
		if err == nil && string(reply) != payload {
			t.Errorf("got %q, want %q", reply, payload)
		}
		return err
	}
	count := func(what string, tokens, sealed, unknown int64) {
		t.Helper()
		if got := [3]int64{p.tokens.Swap(0), p.sealed.Swap(0), p.unknown.Swap(0)}; got != [3]int64{tokens, sealed, unknown} {
			t.Errorf("%s: %v with a token, in a session, and in one that is not known; want %v", what, got, [3]int64{tokens, sealed, unknown})
		}
	}
	must := func(n int) {
		t.Helper()
		for range n {
			if err := call("x"); err != nil {
				t.Fatal(err)
			}
		}
	}
	must(2)
	count("nothing shared", 2, 0, 0)
	a.ShareSeed(p.key, "default", own)
	must(5)
	count("shared", 1, 4, 0)
	if err := call("fail"); err == nil || err.Error() != "as it was told" {
		t.Errorf("got %v", err)
	}
	must(1)
	count("after a failure", 0, 2, 0)
	p.sessions.Store(wire.NewSessions(wire.NewSessionKey(own)))
	must(3)
	count("after a restart of the provider", 2, 1, 1) // again with a token, one that asks, one in the new session

	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range 50 {
				if err := call("y"); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	count("from sixteen goroutines", 0, 800, 0)
	a.UnshareSeed(p.key, "default")
	must(1)
	count("not shared any more", 1, 0, 0)

	// With another seed, as when somebody else has taken the provider's place, all calls
	// still work.
	a.ShareSeed(p.key, "default", seed(t, claims.Cluster))
	must(4)
	count("another seed", 4, 0, 2)
}

// A classic provider, which knows nothing of sessions, is called with tokens as ever.
func TestLattice_ShareSeed_classic(t *testing.T) {
	url := startServer(t, nil)
	a := startBox(t, url, nil)
	key, nc, tokens := newKey(t, claims.Service), connect(t, url), 0
	_, err := nc.Subscribe(wire.ProviderSubject("home", key, "default"), func(m *nats.Msg) {
		inv, err := wire.DecodeInvocation(m.Data)
		if _, err2 := wire.Check(&inv, inv.Payload, time.Time{}); err != nil || err2 != nil {
			t.Error(err, err2)
		}
		tokens++
		_ = m.Respond((&wire.Response{ID: inv.ID}).Append(nil))
	})
	if err == nil {
		err = nc.FlushTimeout(patience)
	}
	if err != nil {
		t.Fatal(err)
	}
	a.ShareSeed(key, "default", seed(t, claims.Cluster))
	for range 3 {
		if _, err := a.bus.Call(t.Context(), lattice.Invocation{Target: lattice.Entity{Key: key, Link: "default"}, Operation: "A.B"}); err != nil {
			t.Fatal(err)
		}
	}
	if tokens != 3 {
		t.Errorf("%d tokens for 3 calls", tokens)
	}
}
