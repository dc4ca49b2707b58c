package provider

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/edged-io/edged/sdk/go/msgpack"
	"github.com/edged-io/edged/sdk/go/provider/internal/wire"
)

const (
	maxCalls = 64          // that are served at once; more wait
	maxLinks = 1024        // changes that wait for their turn
	grace    = time.Second // for calls under way when the provider is to stop
)

var errStopping = errors.New("the provider is being stopped, and has not begun with the call")

// Host is the host of a provider, and the lattice behind it. Its methods may be called
// from any goroutine.
type Host struct {
	HostData
	Log     *slog.Logger // to standard error
	conn    *nats.Conn
	objects *wire.Objects
	serves  Provider
	calls   chan *nats.Msg // for goroutines that are free
	servers int            // such goroutines; for take alone
	ending  chan struct{}  // closed when they are to end
	serving sync.WaitGroup // them

	sessions *wire.Sessions

	mu      sync.RWMutex // guards what follows
	links   map[string]Link
	refused map[string]error // why PutLink refused, by actor
}

// Run serves until ctx ends or the host says to stop, and returns nil then. make is
// called once, before anything is served; what it returns is closed at the end if it is
// an io.Closer. NATS that is not there yet, or goes away, is waited for.
func Run(ctx context.Context, data HostData, make func(*Host) (Provider, error)) error {
	h, err := connect(data)
	if err == nil {
		defer h.conn.Close()
		h.serves, err = make(h)
	}
	if err == nil {
		err = h.run(ctx)
		if c, ok := h.serves.(io.Closer); ok {
			err = errors.Join(err, c.Close())
		}
	}
	if err != nil {
		return fmt.Errorf("provider %s: %w", data.Key, err)
	}
	return nil
}

func connect(data HostData) (h *Host, err error) {
	options := []nats.Option{nats.Name("provider " + data.Key), nats.MaxReconnects(-1), nats.RetryOnFailedConnect(true)}
	if data.UserJWT != "" {
		options = append(options, nats.UserJWTAndSeed(data.UserJWT, data.UserSeed))
	}
	keep := wire.MayMake
	if e := data.Edged; e != nil {
		keep = wire.MayNot
		if e.Objects {
			keep = wire.MayUse
		}
		if e.Inbox != "" {
			options = append(options, nats.CustomInboxPrefix(e.Inbox))
		}
	}
	if data.URL == "" {
		data.URL = nats.DefaultURL
	}
	var level slog.Level
	_ = level.UnmarshalText([]byte(data.LogLevel)) // what it does not know is info
	h = &Host{
		HostData: data, Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})), calls: make(chan *nats.Msg), ending: make(chan struct{}),
		links: make(map[string]Link), refused: make(map[string]error), sessions: wire.NewSessions(data.InvocationSeed),
	}
	if h.conn, err = nats.Connect(data.URL, options...); err != nil {
		return nil, err
	}
	h.objects, err = wire.NewObjects(h.conn, data.Lattice, data.Domain, keep)
	return h, err
}

func (h *Host) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for _, l := range h.Links {
		h.putLink(ctx, l)
	}
	root := "wasmbus.rpc." + h.Lattice + "." + h.Key + "." + h.LinkName
	changes := make(chan *nats.Msg, maxLinks) // both kinds through one, so that they stay in order
	stops := make(chan *nats.Msg, maxLinks)
	calls, err := h.conn.QueueSubscribe(root, "rpc", func(m *nats.Msg) { h.take(ctx, m) })
	taken := make(chan struct{}) // closed when no more calls come
	if err == nil {
		calls.SetClosedHandler(func(string) { close(taken) })
	}
	_, err1 := h.conn.ChanSubscribe(root+".linkdefs.put", changes)
	_, err2 := h.conn.ChanSubscribe(root+".linkdefs.del", changes)
	_, err3 := h.conn.Subscribe(root+".health", func(m *nats.Msg) { _ = m.Respond(h.health(ctx)) })
	_, err4 := h.conn.ChanSubscribe(root+".shutdown", stops)
	if err := errors.Join(err, err1, err2, err3, err4); err != nil {
		return fmt.Errorf("subscribe: %w", err)
	}
	var stop *nats.Msg
	for stop == nil && ctx.Err() == nil {
		select {
		case m := <-changes:
			h.change(ctx, m, m.Subject == root+".linkdefs.put")
		case m := <-stops:
			if h.isMine(m) {
				stop = m
			}
		case <-ctx.Done():
		}
	}
	late := time.AfterFunc(grace, cancel)
	defer late.Stop()
	// Others of the queue group take what comes from now on. What is here already is
	// answered, as it waits for nobody else.
	if h.conn.IsConnected() {
		_ = calls.Drain()
		select {
		case <-taken:
		case <-time.After(2 * grace): // NATS went away meanwhile
		}
	}
	_ = calls.Unsubscribe() // fails for one that has been drained
	close(h.ending)
	h.serving.Wait()
	if stop != nil {
		_ = stop.Respond([]byte("shutting down")) // the host may be gone; that is no reason to stay
	}
	_ = h.conn.FlushTimeout(grace)
	return nil
}

// isMine says whether it is the own host that says to stop. Old ones say nothing.
func (h *Host) isMine(m *nats.Msg) bool {
	var from struct {
		HostID string `json:"host_id"`
	}
	err := json.Unmarshal(m.Data, &from)
	return len(m.Data) == 0 || err == nil && (from.HostID == h.HostID || from.HostID == "")
}

func (h *Host) health(ctx context.Context) []byte {
	state := struct {
		Healthy bool   `msgpack:"healthy"`
		Message string `msgpack:"message,omitempty"`
	}{Healthy: true}
	if c, ok := h.serves.(HealthChecker); ok {
		if err := c.Health(ctx); err != nil {
			state.Healthy, state.Message = false, err.Error()
		}
	}
	b, _ := msgpack.Marshal(state) // it has a form
	return b
}

// change puts or deletes a link.
func (h *Host) change(ctx context.Context, m *nats.Msg, put bool) {
	var l Link
	if err := msgpack.Unmarshal(m.Data, &l); err != nil || l.Actor == "" {
		h.Log.Debug("a change of a link makes no sense", "subject", m.Subject, "err", err)
		return
	}
	if put {
		h.putLink(ctx, l)
		return
	}
	h.mu.Lock()
	old, linked := h.links[l.Actor]
	delete(h.links, l.Actor)
	delete(h.refused, l.Actor)
	h.mu.Unlock()
	if !linked {
		return
	}
	if err := h.serves.DeleteLink(ctx, old); err != nil {
		h.Log.Warn("link deleted with an error", "actor", l.Actor, "err", err)
	}
}

// putLink takes no notice of a link that is known: hosts repeat them.
func (h *Host) putLink(ctx context.Context, l Link) {
	if _, err := h.link(l.Actor); err == nil {
		return
	}
	err := h.serves.PutLink(ctx, l)
	h.mu.Lock()
	defer h.mu.Unlock()
	if err != nil {
		h.refused[l.Actor] = fmt.Errorf("link of actor %s was refused: %w", l.Actor, err)
		h.Log.Error("link refused", "actor", l.Actor, "err", err)
		return
	}
	delete(h.refused, l.Actor)
	h.links[l.Actor] = l
}

func (h *Host) link(actor string) (Link, error) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	if l, ok := h.links[actor]; ok {
		return l, nil
	}
	if err := h.refused[actor]; err != nil {
		return Link{}, err
	}
	return Link{}, fmt.Errorf("actor %s is not linked to this provider", actor)
}

// take has a call served by a goroutine that is free, or by a new one while there is room.
// They stay: a new one would have to grow its stack for each call.
func (h *Host) take(ctx context.Context, m *nats.Msg) {
	select {
	case h.calls <- m:
		return
	default:
	}
	if h.servers < maxCalls {
		h.servers++
		h.serving.Go(func() {
			for m != nil {
				h.answer(ctx, m)
				select {
				case m = <-h.calls:
				case <-h.ending:
					m = nil
				}
			}
		})
		return
	}
	select {
	case h.calls <- m:
	case <-ctx.Done():
		h.answer(ctx, m)
	}
}

// answer serves a call, and says what came of it.
func (h *Host) answer(ctx context.Context, m *nats.Msg) {
	e, payload, err := h.serve(ctx, m)
	a := wire.Answer{Payload: payload, ID: e.ID, Length: uint64(len(payload))}
	if err == nil && len(payload) > wire.ChunkBytes {
		a.Payload = nil
		err = h.objects.Put(ctx, e.ID+"-r", payload)
	}
	if err != nil {
		a = wire.Answer{ID: e.ID, Error: cmp.Or(err.Error(), "failed")}
	}
	b, _ := msgpack.Marshal(a) // it has a form
	reply := &nats.Msg{Data: b}
	if said := h.sessions.Say(&e, m.Header.Get(wire.HeaderSession), err); said != "" {
		reply.Header = nats.Header{wire.HeaderSession: {said}}
	}
	_ = m.RespondMsg(reply) // who does not wait gets no answer
}

// serve checks a call and has it handled.
func (h *Host) serve(ctx context.Context, m *nats.Msg) (e wire.Call, reply []byte, err error) {
	e, err = wire.ReadCall(m.Data)
	if err != nil {
		return e, nil, fmt.Errorf("invocation makes no sense: %w", err)
	}
	if ctx.Err() != nil {
		return e, nil, errStopping
	}
	check := func(payload []byte) error { return h.sessions.Check(&e, payload) }
	if !wire.InSession(&e) {
		token, err := wire.Verify(e.Token, h.Issuers, time.Now().Unix())
		if err != nil {
			return e, nil, fmt.Errorf("anti-forgery check failed: %w", err)
		}
		check = func(payload []byte) error { return token.Matches(&e, payload) }
	}
	if e.Target.Key != h.Key {
		return e, nil, fmt.Errorf("the call is for %s, this is %s", e.Target.Key, h.Key)
	}
	l, err := h.link(e.Origin.Key)
	if err != nil {
		return e, nil, err
	}
	payload := e.Payload
	if e.Length > uint64(len(payload)) {
		payload, err = h.objects.Take(ctx, e.ID, e.Length, check)
	} else {
		err = check(payload)
	}
	if err != nil {
		return e, nil, err
	}
	reply, err = h.serves.Call(ctx, Invocation{e.ID, l, e.Operation, payload, m.Header.Get("Idempotency-Key")})
	return e, reply, err
}

// Call calls an operation of the actor of a link, and returns its answer. It waits for
// as long as the host has said, or until ctx ends.
func (h *Host) Call(ctx context.Context, l Link, operation string, payload []byte) ([]byte, error) {
	reply, err := h.call(ctx, l, operation, payload)
	if err != nil {
		return nil, fmt.Errorf("call %s of %s: %w", operation, l.Actor, err)
	}
	return reply, nil
}

func (h *Host) call(ctx context.Context, l Link, operation string, payload []byte) ([]byte, error) {
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails, as crypto/rand promises
	e := wire.Call{
		Origin: wire.Entity{Key: h.Key, Link: l.Name, Contract: l.Contract}, Target: wire.Entity{Key: l.Actor}, Operation: operation,
		Payload: payload, ID: hex.EncodeToString(id[:]), Host: h.HostID, Length: uint64(len(payload)),
	}
	if err := wire.Sign(&e, payload, h.InvocationSeed); err != nil {
		return nil, err
	}
	wait := 2 * time.Second
	if h.TimeoutMs > 0 {
		wait = time.Duration(h.TimeoutMs) * time.Millisecond
	}
	if len(payload) > wire.ChunkBytes {
		if err := h.objects.Put(ctx, e.ID, payload); err != nil {
			return nil, err
		}
		e.Payload, wait = nil, wait+wire.ExtraTime
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	request, _ := msgpack.Marshal(e) // it has a form
	m, err := h.conn.RequestWithContext(ctx, "wasmbus.rpc."+h.Lattice+"."+l.Actor, request)
	if err != nil {
		return nil, err
	}
	var a wire.Answer
	switch err := msgpack.Unmarshal(m.Data, &a); {
	case err != nil:
		return nil, err
	case a.Error != "":
		return nil, errors.New(a.Error)
	case a.Length > uint64(len(a.Payload)):
		return h.objects.Take(ctx, e.ID+"-r", a.Length, func([]byte) error { return nil })
	}
	return a.Payload, nil
}
