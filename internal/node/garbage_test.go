package node

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	goruntime "runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/edged-io/edged/broker"
	"github.com/edged-io/edged/internal/claims"
	"github.com/edged-io/edged/lattice/wire"
)

// hostile makes messages that no honest host sends.
type hostile struct {
	rand    *rand.Rand
	good    []byte // an invocation that was handled already
	forgers []func() []byte
}

func newHostile(t *testing.T, key string, cluster claims.Seed) *hostile {
	t.Helper()
	h := &hostile{rand: rand.New(rand.NewPCG(1, 2))}
	make := func(by claims.Seed, change func(*wire.Invocation)) []byte {
		signer, err := by.Signer()
		if err != nil {
			t.Fatal(err)
		}
		payload := []byte("hello")
		inv := wire.Invocation{
			Origin: wire.Entity{Key: seed(t, claims.Module).Key().String()}, Target: wire.Entity{Key: key}, Operation: "Probe.Note",
			Payload: payload, Length: uint64(len(payload)), ID: rand36(t), Host: seed(t, claims.Server).Key().String(),
		}
		if err := wire.Sign(&inv, payload, signer); err != nil {
			t.Fatal(err)
		}
		if change != nil {
			change(&inv)
		}
		return inv.Append(nil)
	}
	h.good = make(cluster, nil)
	stranger := seed(t, claims.Cluster)
	for _, forged := range [][]byte{
		make(stranger, nil),
		make(cluster, func(i *wire.Invocation) { i.Payload = []byte("other"); i.Length = 5 }),
		make(cluster, func(i *wire.Invocation) { i.Target.Key = seed(t, claims.Module).Key().String() }),
		make(cluster, func(i *wire.Invocation) { i.Operation = "Probe.Echo" }),
		make(cluster, func(i *wire.Invocation) { i.Length = 1 << 40 }), // as if the payload were elsewhere
		make(cluster, func(i *wire.Invocation) { i.Length = 1 << 63 }),
		make(stranger, func(i *wire.Invocation) { i.Payload, i.Length = nil, 8<<20 }),
		make(cluster, func(i *wire.Invocation) { i.Token = strings.Repeat("a.", 4000) }),
		make(cluster, func(i *wire.Invocation) { i.Host = "" }),
	} {
		h.forgers = append(h.forgers, func() []byte { return forged })
	}
	h.forgers = append(h.forgers,
		func() []byte { return h.good }, // again
		func() []byte { return nil },
		func() []byte { return bytes.Repeat([]byte{0x91}, 4096) },                                           // arrays in arrays
		func() []byte { return []byte{0xdf, 0xff, 0xff, 0xff, 0xff} },                                       // a map of four billion
		func() []byte { return []byte("\x81\xa3msg\xc6\xff\xff\xff\xff") },                                  // a payload of four gigabytes
		func() []byte { return bytes.Repeat([]byte{0x81, 0xa1, 'a'}, 30<<10) },                              // maps in maps
		func() []byte { return []byte(strings.Repeat("[", 10000)) },                                         // for readers of JSON
		func() []byte { return []byte(`{"actor_ref":"` + strings.Repeat("x", 10000) + `"}`) },               // the same
		func() []byte { b := bytes.Clone(h.good); return b[:h.rand.IntN(len(b))] },                          // cut off
		func() []byte { b := bytes.Clone(h.good); b[h.rand.IntN(len(b))] ^= 1 << h.rand.IntN(8); return b }, // a bit flipped
		func() []byte {
			b := bytes.Repeat([]byte{0}, h.rand.IntN(2000))
			for i := range b {
				b[i] = byte(h.rand.Uint32())
			}
			return b
		},
	)
	return h
}

func (h *hostile) next() []byte { return h.forgers[h.rand.IntN(len(h.forgers))]() }

// A box to which anybody in its lattice sends garbage, on every subject that it listens
// to, does none of what it is told, answers who asks well, and stays small.
func TestNode_lattice_garbage(t *testing.T) {
	r := newRig(t, unsigned)
	key := r.signedProbe("a")
	r.start()
	cluster := r.identity.cluster
	nc := r.latticeClient()
	h := newHostile(t, key, cluster)
	if m, err := nc.Request(wire.ActorSubject("default", key), h.good, patience); err != nil {
		t.Fatal(err)
	} else if got, err := wire.DecodeResponse(m.Data); err != nil || got.Failed {
		t.Fatalf("the first time: %+v, %v", got, err)
	}
	host := r.identity.host.Key().String()
	subjects := []string{
		wire.ActorSubject("default", key), wire.ActorSubject("default", key), wire.ActorSubject("default", key), // it does most
		broker.LatticeInbox("default", "press-7") + ".x.y", broker.StatusSubject("press-7"), broker.DigestSubject("press-7"),
		"edge.status.other", "wasmbus.rpc.default." + host, "wasmbus.evt.default",
	}
	for _, verb := range []string{
		"ping.hosts", "get.claims", "get.links", "get." + host + ".inv", "auction.actor", "auction.provider", "linkdefs.put", "linkdefs.del", "registries.put",
		"cmd." + host + ".la", "cmd." + host + ".sa", "cmd." + host + ".scale", "cmd." + host + ".upd", "cmd." + host + ".lp", "cmd." + host + ".sp", "labels." + host + ".put", "config.put.x", "nonsense",
	} {
		subjects = append(subjects, "wasmbus.ctl.default."+verb)
	}
	for _, verb := range []string{"host.ping", "host.get." + host, "component.auction", "component.scale." + host, "component.update." + host, "provider.start." + host, "link.put", "link.del", "config.put.x", "label.put." + host, "nonsense"} {
		subjects = append(subjects, "wasmbus.ctl.v1.default."+verb)
	}
	var answers atomic.Int64
	if _, err := nc.Subscribe("_INBOX.garbage", func(*nats.Msg) { answers.Add(1) }); err != nil {
		t.Fatal(err)
	}
	before := measure()
	const rounds, each = 10, 1000
	large := bytes.Repeat([]byte{0xc6, 0, 0x0d, 0xbb, 0xa0}, 180<<10)
	for round := range rounds {
		for range each {
			m := &nats.Msg{Subject: subjects[h.rand.IntN(len(subjects))], Data: h.next()}
			if h.rand.IntN(4) > 0 {
				m.Reply = "_INBOX.garbage"
			}
			if h.rand.IntN(8) == 0 {
				m.Header = nats.Header{"Edged-Cause": []string{"x", strings.Repeat("y", 200)}, "traceparent": []string{"nonsense"}}
			}
			if err := nc.PublishMsg(m); err != nil {
				t.Fatal(err)
			}
		}
		if err := nc.Publish(subjects[round%len(subjects)], large); err != nil {
			t.Fatal(err)
		}
		if err := nc.FlushTimeout(patience); err != nil {
			t.Fatal(err)
		}
		// A good call may be told that there is too much now, but is answered.
		got := invoke(t, nc, cluster, "default", key, "Probe.Echo", fmt.Sprint(round))
		if got.Failed && !strings.Contains(got.Error, "too many invocations") || !got.Failed && string(got.Payload) != fmt.Sprint(round) {
			t.Fatalf("round %d: %+v", round, got)
		}
	}
	r.eventually("a good call is answered", func() bool {
		got := invoke(t, nc, cluster, "default", key, "Probe.Echo", "still here")
		return !got.Failed && string(got.Payload) == "still here"
	})
	if answers.Load() == 0 {
		t.Error("nothing was answered")
	}
	if got := r.seen("a", "one"); strings.Join(got, "\n") != "hello" {
		t.Errorf("the actor was told %q, want hello once", got)
	}
	if s := r.Status(); len(s.Problems) != 0 || r.running() != "a 1" {
		t.Errorf("%s runs, problems: %v", r.running(), s.Problems)
	}
	r.eventually("the box is as small as before", func() bool {
		now := measure()
		return now.heap < before.heap+(32<<20) && now.goroutines < before.goroutines+64
	})
	if n := strings.Count(r.log.String(), "level="); n > 400 {
		t.Errorf("%d lines in the log", n)
	}
}

type measures struct {
	heap       uint64
	goroutines int
}

func measure() measures {
	goruntime.GC()
	var m goruntime.MemStats
	goruntime.ReadMemStats(&m)
	return measures{m.HeapAlloc, goruntime.NumGoroutine()}
}
