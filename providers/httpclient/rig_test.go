package httpclient_test

import (
	"context"
	"encoding/binary"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/edged-io/edged/internal/outbound"
	"github.com/edged-io/edged/lattice"
	"github.com/edged-io/edged/providers/httpclient"
	"github.com/edged-io/edged/sdk/go/msgpack"
	"github.com/edged-io/edged/store"
)

// rig is a provider, a server it may ask, and a name server whose names are under
// .test.
type rig struct {
	*httpclient.Provider
	t      *testing.T
	db     *store.DB
	server *httptest.Server
	names  *nameServer

	mu   sync.Mutex // guards seen
	seen []*http.Request
}

// newRig begins with the server on loopback as the only one that actors may reach, by
// address; change changes the options.
func newRig(t *testing.T, handler http.HandlerFunc, change func(*httpclient.Options)) *rig {
	t.Helper()
	db, err := store.Open(store.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	r := &rig{t: t, db: db, names: startNames(t)}
	if handler == nil {
		handler = func(http.ResponseWriter, *http.Request) {}
	}
	r.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.mu.Lock()
		r.seen = append(r.seen, req.Clone(context.WithoutCancel(req.Context())))
		r.mu.Unlock()
		handler(w, req)
	}))
	t.Cleanup(r.server.Close)
	o := httpclient.Options{Store: db, Bound: bound(t, "127.0.0.0/8"), Resolver: r.names.resolver()}
	if change != nil {
		change(&o)
	}
	if r.Provider, err = httpclient.New(o); err != nil {
		t.Fatal(err)
	}
	return r
}

func bound(t *testing.T, allow string, deny ...string) outbound.Bound {
	t.Helper()
	b, err := outbound.ParseBound(strings.Fields(allow), deny)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// allow links the actor with values of pairs, and rules.
func (r *rig) allow(rules string, pairs ...string) {
	r.t.Helper()
	v := map[string]string{httpclient.ValueAllow: rules}
	for i := 0; i < len(pairs); i += 2 {
		v[pairs[i]] = pairs[i+1]
	}
	if err := r.PutLink(r.t.Context(), link(v)); err != nil {
		r.t.Fatal(err)
	}
}

func link(values map[string]string) lattice.Link {
	return lattice.Link{Actor: "a/x", Contract: httpclient.Contract, Name: "default", Provider: "httpclient", Values: values}
}

// answer is what an actor gets.
type answer struct {
	status int64
	header map[string][]string
	body   string
}

func (r *rig) ask(ctx context.Context, method, url, body string, headers ...string) (answer, error) {
	return r.raw(ctx, request(method, url, body, headers...))
}

func (r *rig) raw(ctx context.Context, payload []byte) (a answer, err error) {
	r.t.Helper()
	reply, err := r.Call(ctx, lattice.Invocation{
		Origin: lattice.Entity{Key: "a/x"}, Target: lattice.Entity{Key: "httpclient", Link: "default"},
		Contract: httpclient.Contract, Operation: httpclient.Request, Payload: payload,
	})
	if err != nil {
		return a, err
	}
	a.header = map[string][]string{}
	d := msgpack.NewDecoder(reply)
	for range d.Map() {
		switch string(d.Key()) {
		case "statusCode":
			a.status = d.Int()
		case "header":
			for range d.Map() {
				name := d.Str()
				for range d.Array() {
					a.header[name] = append(a.header[name], d.Str())
				}
			}
		case "body":
			a.body = string(d.Bin())
		default:
			r.t.Errorf("a key nobody knows")
		}
	}
	if err := d.Done(); err != nil {
		r.t.Errorf("answer: %v", err)
	}
	return a, nil
}

func request(method, url, body string, headers ...string) []byte {
	b := msgpack.AppendMapHeader(nil, 4)
	b = msgpack.AppendString(msgpack.AppendString(b, "method"), method)
	b = msgpack.AppendString(msgpack.AppendString(b, "url"), url)
	b = msgpack.AppendMapHeader(msgpack.AppendString(b, "headers"), len(headers)/2)
	for i := 0; i < len(headers); i += 2 {
		b = msgpack.AppendString(msgpack.AppendArrayHeader(msgpack.AppendString(b, headers[i]), 1), headers[i+1])
	}
	return msgpack.AppendBin(msgpack.AppendString(b, "body"), []byte(body))
}

// took returns what the server was asked.
func (r *rig) took() []*http.Request {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.seen)
}

// port is that of the server.
func (r *rig) port() string {
	_, port, _ := net.SplitHostPort(r.server.Listener.Addr().String())
	return port
}

// nameServer answers for names with the addresses of one turn after the other.
type nameServer struct {
	addr string

	mu    sync.Mutex // guards what follows
	names map[string][]netip.Addr
	asked int
}

func startNames(t *testing.T) *nameServer {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &nameServer{addr: conn.LocalAddr().String(), names: map[string][]netip.Addr{}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			if reply := s.answer(buf[:n]); reply != nil {
				_, _ = conn.WriteTo(reply, from)
			}
		}
	}()
	t.Cleanup(func() { conn.Close(); <-done })
	return s
}

func (s *nameServer) resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", s.addr)
	}}
}

// set gives a name addresses: the next is told at each question for IPv4, the last
// for ever.
func (s *nameServer) set(name string, addrs ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.names[name] = nil
	for _, a := range addrs {
		s.names[name] = append(s.names[name], netip.MustParseAddr(a))
	}
}

// answer is a DNS message (RFC 1035) with one question, answered by one address.
func (s *nameServer) answer(q []byte) []byte {
	if len(q) < 17 {
		return nil
	}
	var labels []string
	at := 12
	for at < len(q) && q[at] != 0 {
		n := int(q[at])
		labels = append(labels, string(q[at+1:at+1+n]))
		at += 1 + n
	}
	end := at + 5
	kind := binary.BigEndian.Uint16(q[at+1:])
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	name := strings.ToLower(strings.Join(labels, "."))
	all, known := s.names[name]
	reply := append([]byte{q[0], q[1], 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0}, q[12:end]...)
	if !known {
		reply[3] |= 3 // no such name
		return reply
	}
	if kind != 1 || len(all) == 0 {
		return reply
	}
	ip := all[0].As4()
	if len(all) > 1 {
		s.names[name] = all[1:]
	}
	reply[7] = 1
	return append(append(reply, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4), ip[:]...)
}
