package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/edged-io/edged/internal/claims"
	"github.com/edged-io/edged/lattice"
	"github.com/edged-io/edged/lattice/rpc"
	"github.com/edged-io/edged/lattice/wire"
)

// Columns and cases of the table lattice.
const (
	rateSixteen = "calls/s, 16"
	inProcess   = "edged, in the process"
	natsRequest = "bare request and reply"
	natsProcess = "bare request and reply, another process"
	careless    = "edged, a box to a provider that does not check"
	inSession   = "edged, a box to a child process, in a session"
	withToken   = "edged, a box to a child process, a token each call"
	boxToBox    = "edged, a box to another"
)

// latticeTable compares a call within the box with one over NATS, which is signed and checked each time, and with what NATS alone
// takes for a request and its reply. Nobody but the lattice works in it: the callee answers with what it is sent.
func latticeTable(ctx context.Context, s settings) (t *table, err error) {
	t = &table{Name: "lattice", Columns: []string{callTime, callAllocs, rateOne, rateSixteen},
		Title: fmt.Sprintf("A call over the lattice, %d bytes in and out, from one goroutine and from sixteen", s.size)}
	r, err := newLatticeRig(ctx)
	if err != nil {
		return nil, err
	}
	defer r.close()
	var cases []testCase
	for _, c := range []struct {
		name string
		call echo
	}{
		{inProcess, r.caller(ctx, r.alone, r.actor)},
		{"edged, in the process, through the encoding", r.caller(ctx, r.through, r.actor)},
		{natsRequest, r.request(ctx, "bench.echo")},
		{natsProcess, r.request(ctx, "bench.process")},
		{inSession, r.caller(ctx, r.box, r.child)},
		{withToken, r.caller(ctx, r.strict, r.child)},
		{careless, r.caller(ctx, r.box, r.provider)},
		{boxToBox, r.caller(ctx, r.box, r.actor)},
	} {
		cases = append(cases, testCase{c.name, func(context.Context) (sample, error) {
			payload := bytes.Repeat([]byte{'x'}, s.size)
			one, err := callLoad([]echo{c.call}, payload, s.dur/4)
			if err != nil {
				return nil, err
			}
			many := make([]echo, 16)
			for i := range many {
				many[i] = c.call
			}
			sixteen, err := callLoad(many, payload, s.dur/4)
			if err != nil {
				return nil, err
			}
			return sample{callTime: 1e9 / one["rate"], callAllocs: one["allocs"], rateOne: one["rate"], rateSixteen: sixteen["rate"]}, nil
		}})
	}
	return t, t.interleave(ctx, s.rounds, cases)
}

// latticeRig is a server with two boxes, and a provider of a stranger.
type latticeRig struct {
	ns       *server.Server
	conns    []*nats.Conn
	nc       *nats.Conn     // of the provider and of bare requests
	stop     []func()       // in the reverse order
	actor    lattice.Entity // on the other box
	provider lattice.Entity
	child    lattice.Entity // a provider that is a process of its own
	// A box on its own, one that encodes each call, one of two, and one that has no sessions.
	alone, through, box, strict *lattice.Bus
}

func newLatticeRig(ctx context.Context) (r *latticeRig, err error) {
	r = &latticeRig{alone: lattice.NewBus(), through: lattice.NewBus(), box: lattice.NewBus(), strict: lattice.NewBus()}
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	if r.ns, err = server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true}); err != nil {
		return r, err
	}
	r.ns.Start()
	if !r.ns.ReadyForConnections(10 * time.Second) {
		return r, errors.New("the NATS server does not start")
	}
	var seeds [6]claims.Seed
	for i, kind := range []claims.Kind{claims.Cluster, claims.Server, claims.Module, claims.Service, claims.Service, claims.Cluster} {
		if seeds[i], err = claims.Generate(kind); err != nil {
			return r, err
		}
	}
	cluster, host := seeds[0], seeds[1].Key()
	r.actor = lattice.Entity{Key: seeds[2].Key().String()}
	r.provider = lattice.Entity{Key: seeds[3].Key().String(), Link: "default"}
	r.child = lattice.Entity{Key: seeds[4].Key().String(), Link: "default"}
	h := func(_ context.Context, inv lattice.Invocation) ([]byte, error) { return inv.Payload, nil }
	r.alone.Replace(r.actor, h)
	r.through.Replace(r.actor, h)
	r.through.SetThrough(rpc.Through(host, cluster))
	served := lattice.NewBus()
	served.Replace(r.actor, h)
	for _, bus := range []*lattice.Bus{served, r.box, r.strict} {
		nc, err := r.connect()
		if err != nil {
			return r, err
		}
		// The memory of what was seen before would fill up, and does not matter.
		l, err := rpc.New(rpc.Options{Conn: nc, Lattice: "bench", Host: host, Cluster: cluster, Bus: bus})
		if err != nil {
			return r, err
		}
		if bus == r.box {
			l.ShareSeed(r.child.Key, r.child.Link, seeds[5])
		}
		running, cancel := context.WithCancel(ctx)
		done := make(chan error, 1)
		go func() { done <- l.Run(running) }()
		r.stop = append(r.stop, func() { cancel(); <-done })
	}
	if r.nc, err = r.connect(); err != nil {
		return r, err
	}
	subject := wire.ProviderSubject("bench", r.provider.Key, r.provider.Link)
	if _, err := r.nc.Subscribe(subject, answerUnchecked); err != nil {
		return r, err
	}
	if _, err := r.nc.Subscribe("bench.echo", func(m *nats.Msg) { _ = m.Respond(m.Data) }); err != nil {
		return r, err
	}
	stop, err := startProvider(r.ns.ClientURL(), r.child.Key, r.actor.Key, seeds[5], cluster)
	if stop != nil {
		r.stop = append(r.stop, stop)
	}
	return r, errors.Join(err, r.nc.Flush(), r.ready(ctx))
}

// ready returns when the boxes and the process have begun.
func (r *latticeRig) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for _, call := range []echo{r.caller(ctx, r.box, r.actor), r.caller(ctx, r.box, r.child), r.caller(ctx, r.strict, r.child), r.request(ctx, "bench.process")} {
		for {
			_, err := call([]byte("x"))
			if err == nil {
				break
			}
			if !errors.Is(err, lattice.ErrNoEntity) && !errors.Is(err, nats.ErrNoResponders) || ctx.Err() != nil {
				return err
			}
		}
	}
	return nil
}

func (r *latticeRig) connect() (*nats.Conn, error) {
	nc, err := nats.Connect(r.ns.ClientURL())
	if err == nil {
		r.conns = append(r.conns, nc)
	}
	return nc, err
}

func (r *latticeRig) close() {
	for _, stop := range slices.Backward(r.stop) {
		stop()
	}
	for _, nc := range r.conns {
		nc.Close()
	}
	if r.ns != nil {
		r.ns.Shutdown()
		r.ns.WaitForShutdown()
	}
}

func (r *latticeRig) caller(ctx context.Context, bus *lattice.Bus, target lattice.Entity) echo {
	return func(payload []byte) ([]byte, error) {
		return bus.Call(ctx, lattice.Invocation{Origin: lattice.Entity{Key: r.actor.Key}, Target: target, Contract: "wasmcloud:keyvalue", Operation: "Bench.Echo", Payload: payload})
	}
}

func (r *latticeRig) request(ctx context.Context, subject string) echo {
	return func(payload []byte) ([]byte, error) {
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second) // as the lattice does
		defer cancel()
		m, err := r.nc.RequestWithContext(ctx, subject, payload)
		if err != nil {
			return nil, err
		}
		return m.Data, nil
	}
}

// answerUnchecked is a provider that, as those of the original Go kit, believes what it is sent.
func answerUnchecked(m *nats.Msg) {
	i, err := wire.DecodeInvocation(m.Data)
	r := wire.Response{ID: i.ID, Payload: i.Payload, Length: uint64(len(i.Payload))}
	if err != nil {
		r.Failed, r.Error = true, err.Error()
	}
	_ = m.Respond(r.Append(nil))
}
