package providertest

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"

	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/edged-io/edged/internal/claims"
	"github.com/edged-io/edged/lattice/wire"
	"github.com/edged-io/edged/sdk/go/msgpack"
)

// session is the host in one run of the suite.
type session struct {
	ctx     context.Context
	o       Options
	conn    *nats.Conn
	js      jetstream.JetStream
	host    string // key of the host
	cluster claims.Seed
	signer  claims.Signer
	key     string // of the provider
	subject string // of its calls, and the root of its other subjects
	actor   string // is linked for most of the time
	second  string // is linked and unlinked
	foreign string // is never linked
	program *program
	output  *tail
	results []Result

	unknown string         // what the provider says to an operation that it does not have
	replies chan *nats.Msg // to the shutdown of another host

	mu     sync.Mutex // guards what follows
	called int        // calls that the provider has made of actors
	fault  error      // what was wrong with the first that was wrong
}

func newSession(ctx context.Context, o Options) (*session, error) {
	conn, err := nats.Connect(o.URL, nats.Name("edged provider test"), nats.Timeout(10*time.Second))
	if err != nil {
		return nil, fmt.Errorf("connect to NATS: %w", err)
	}
	s := &session{ctx: ctx, o: o, conn: conn, replies: make(chan *nats.Msg, 16)}
	if err := s.prepare(); err != nil {
		conn.Close()
		return nil, err
	}
	return s, nil
}

func (s *session) prepare() (err error) {
	if s.js, err = jetstream.New(s.conn); err != nil {
		return err
	}
	for _, k := range []struct {
		kind claims.Kind
		to   *string
	}{{claims.Server, &s.host}, {claims.Service, &s.key}, {claims.Module, &s.actor}, {claims.Module, &s.second}, {claims.Module, &s.foreign}} {
		seed, err := claims.Generate(k.kind)
		if err != nil {
			return err
		}
		*k.to = seed.Key().String()
	}
	if s.cluster, err = claims.Generate(claims.Cluster); err != nil {
		return err
	}
	if s.signer, err = s.cluster.Signer(); err != nil {
		return err
	}
	s.subject = wire.ProviderSubject(s.o.Lattice, s.key, s.o.LinkName)
	s.output = &tail{to: s.o.Output}
	for _, actor := range []string{s.actor, s.second, s.foreign} {
		subject := wire.ActorSubject(s.o.Lattice, actor)
		if _, err := s.conn.QueueSubscribe(subject, subject, func(m *nats.Msg) { s.answerActor(actor, m) }); err != nil {
			return err
		}
	}
	return s.conn.Flush()
}

func (s *session) close() {
	if s.program != nil {
		s.program.stop()
	}
	s.conn.Close()
}

// hostData is the line for the provider.
func (s *session) hostData(links []wire.Link) (string, error) {
	line, err := wire.HostData{
		Host: s.host, Lattice: s.o.Lattice, LinkName: s.o.LinkName, URL: s.o.URL, Provider: s.key, Seed: s.cluster.Reveal(),
		Instance: newID(), Links: links, Issuers: []string{s.cluster.Key().String()}, Config: s.o.Config,
		TimeoutMS: s.o.Timeout.Milliseconds(), LogLevel: "info",
	}.Line()
	return strings.TrimSpace(string(line)), err
}

// launch has the provider started.
func (s *session) launch(ending string, links []wire.Link) error {
	line, err := s.hostData(links)
	if err != nil {
		return err
	}
	if len(s.o.Command) == 0 {
		s.o.Ready(line)
		return nil
	}
	s.program, err = startProgram(s.ctx, s.o.Command, line, ending, s.output)
	return err
}

// stop ends the program if it still runs.
func (s *session) stop() error {
	if s.program != nil {
		s.program.stop()
		s.program = nil
	}
	return nil
}

// died says how the program has ended, "" if it runs or is not ours.
func (s *session) died() string {
	if s.program == nil {
		return ""
	}
	select {
	case <-s.program.exited:
		text := fmt.Sprintf("the program has ended (%v)", cmp.Or(s.program.cmd.ProcessState.String(), "no state"))
		if last := s.output.String(); last != "" {
			text += ", saying: " + last
		}
		return text
	default:
		return ""
	}
}

func (s *session) link(actor string) wire.Link {
	values := s.o.Values
	if values == nil {
		values = map[string]string{}
	}
	return wire.Link{Actor: actor, Provider: s.key, Name: s.o.LinkName, Contract: s.o.Contract, Values: values}
}

// put and del tell the provider of a link.
func (s *session) put(actor string) error { return s.change(wire.SuffixPut, actor) }
func (s *session) del(actor string) error { return s.change(wire.SuffixDelete, actor) }

func (s *session) change(suffix, actor string) error {
	l := s.link(actor)
	return s.conn.Publish(s.subject+suffix, l.Append(nil))
}

// invocation is a call by an actor, without a token.
func (s *session) invocation(actor string, c Call) wire.Invocation {
	return wire.Invocation{
		Origin:    wire.Entity{Key: actor},
		Target:    wire.Entity{Key: s.key, Link: s.o.LinkName, Contract: s.o.Contract},
		Operation: c.Operation, Payload: c.Payload, Length: uint64(len(c.Payload)), ID: newID(), Host: s.host,
	}
}

// signed is a call by an actor, as its host sends it.
func (s *session) signed(actor string, c Call) wire.Invocation {
	i := s.invocation(actor, c)
	if err := wire.Sign(&i, c.Payload, s.signer); err != nil {
		panic(fmt.Sprintf("a cluster key signs: %v", err))
	}
	return i
}

// outcome is what became of a call.
type outcome struct {
	raw      []byte
	response wire.Response
	err      error // why there is no response: one of the two below, or what is wrong with it
}

var (
	errSilent = errors.New("no answer")
	errNobody = errors.New("nobody listens (no responders)")
)

func (o outcome) String() string {
	switch {
	case o.err != nil:
		return o.err.Error()
	case o.response.Failed:
		return fmt.Sprintf("the error %q", o.response.Error)
	default:
		return fmt.Sprintf("an answer of %d bytes", len(o.response.Payload))
	}
}

// ask sends an envelope to the provider and waits for the answer.
func (s *session) ask(envelope []byte) outcome { return s.askWithin(s.o.Timeout, envelope) }

func (s *session) askWithin(d time.Duration, envelope []byte) outcome {
	m, err := s.requestWithin(d, s.subject, envelope)
	if err != nil {
		return outcome{err: err}
	}
	r, err := wire.DecodeResponse(m.Data)
	if err != nil {
		err = fmt.Errorf("an answer that makes no sense: %w", err)
	}
	return outcome{m.Data, r, err}
}

// call makes a call for an actor.
func (s *session) call(actor string, c Call) outcome {
	i := s.signed(actor, c)
	return s.ask(i.Append(nil))
}

// request asks on a subject. The error is errSilent or errNobody.
func (s *session) request(subject string, data []byte) (*nats.Msg, error) {
	return s.requestWithin(s.o.Timeout, subject, data)
}

func (s *session) requestWithin(d time.Duration, subject string, data []byte) (*nats.Msg, error) {
	ctx, cancel := context.WithTimeout(s.ctx, d)
	defer cancel()
	m, err := s.conn.RequestWithContext(ctx, subject, data)
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		return nil, errNobody
	case err != nil:
		return nil, fmt.Errorf("%w within %s", errSilent, d)
	}
	return m, nil
}

// noSuch is an operation that no contract has.
var noSuch = Call{Operation: "Edged.NoSuchOperation", Payload: msgpack.AppendNil(nil)}

// probe is the call by which checks see whether the provider takes calls.
func (s *session) probe() Call {
	if len(s.o.Calls) > 0 {
		return s.o.Calls[0]
	}
	if c, ok := probes[s.o.Contract]; ok {
		return c
	}
	return noSuch
}

// probes are calls of known contracts that change nothing.
var probes = map[string]Call{
	"wasmcloud:keyvalue": {Operation: "KeyValue.Contains", Payload: msgpack.AppendString(nil, "edged-provider-test")},
}

// accepted says whether a probe was taken: it succeeded or, where no operation is known
// that does, failed in the way of an operation that is not there.
func (s *session) accepted(o outcome) bool {
	if o.err != nil {
		return false
	}
	if s.probe().Operation == noSuch.Operation {
		return !o.response.Failed || s.unknown != "" && s.plain(o.response.Error) == s.unknown
	}
	return !o.response.Failed
}

// plain takes out of a text what differs from call to call.
func (s *session) plain(text string) string {
	return strings.NewReplacer(s.actor, "ACTOR", s.second, "ACTOR", s.foreign, "ACTOR").Replace(text)
}

// until repeats ok until it is true, the time is over, or the program has ended.
func (s *session) until(d time.Duration, ok func() bool) bool {
	deadline := time.NewTimer(d)
	defer deadline.Stop()
	var ended chan struct{}
	if s.program != nil {
		ended = s.program.exited
	}
	for pause := 2 * time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		if ok() {
			return true
		}
		next := time.NewTimer(pause)
		select {
		case <-next.C:
		case <-deadline.C:
			next.Stop()
			return ok()
		case <-ended:
			next.Stop()
			return false
		case <-s.ctx.Done():
			next.Stop()
			return false
		}
	}
}

// answerActor is an actor that is called by the provider. It takes whatever comes.
func (s *session) answerActor(actor string, m *nats.Msg) {
	i, err := s.checkCall(actor, m)
	s.mu.Lock()
	s.called++
	if s.fault == nil {
		s.fault = err
	}
	s.mu.Unlock()
	r := wire.Response{ID: i.ID, Text: true}
	if err != nil {
		r.Failed, r.Error = true, err.Error()
	}
	_ = m.Respond(r.Append(nil)) // the provider may be gone
}

// checkCall holds a call of an actor to what hosts check.
func (s *session) checkCall(actor string, m *nats.Msg) (wire.Invocation, error) {
	i, err := wire.DecodeInvocation(m.Data)
	if err != nil {
		return i, err
	}
	payload := i.Payload
	if i.Chunked() {
		if payload, err = s.object(i.Object()); err != nil {
			return i, fmt.Errorf("payload in the object store: %w", err)
		}
	}
	issuer, err := wire.Check(&i, payload, time.Now())
	switch {
	case err != nil:
		return i, err
	case issuer != s.cluster.Key():
		return i, fmt.Errorf("signed by %s, not with the invocation_seed", issuer)
	case i.Target.Key != actor:
		return i, fmt.Errorf("the target is %s, sent to %s", i.Target.Key, actor)
	case i.Origin.Key != s.key || i.Origin.Link != s.o.LinkName || i.Origin.Contract != s.o.Contract:
		return i, fmt.Errorf("the origin is %+v, not this provider through its link", i.Origin)
	case i.Host != s.host:
		return i, fmt.Errorf("host_id is %s, not that of the host data", i.Host)
	case m.Reply == "":
		return i, errors.New("no reply subject")
	}
	return i, nil
}

// object reads and deletes a payload.
func (s *session) object(name string) ([]byte, error) {
	bucket, err := s.js.ObjectStore(s.ctx, s.o.Lattice)
	if err != nil {
		return nil, err
	}
	payload, err := bucket.GetBytes(s.ctx, name)
	if err == nil {
		err = bucket.Delete(s.ctx, name)
	}
	return payload, err
}

// newID makes a random UUID (RFC 9562, version 4).
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails, as crypto/rand promises
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	h := hex.EncodeToString(b[:])
	return strings.Join([]string{h[:8], h[8:12], h[12:16], h[16:20], h[20:]}, "-")
}

// members reads an answer as it is on the wire: the raw value of each key.
func members(raw []byte) (map[string][]byte, error) {
	d := msgpack.NewDecoder(raw)
	if d.Kind() != msgpack.Map {
		return nil, errors.New("the answer is not a map with the names of its fields")
	}
	m := make(map[string][]byte)
	for range d.Map() {
		if d.Kind() != msgpack.Str {
			return nil, errors.New("a key of the answer is not a str")
		}
		key := d.Str()
		m[key] = bytes.Clone(d.Raw())
	}
	return m, d.Done()
}
