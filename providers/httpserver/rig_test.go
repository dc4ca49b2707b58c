package httpserver

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/edged-io/edged/internal/logbuffer"
	"github.com/edged-io/edged/lattice"
	"github.com/edged-io/edged/sdk/go/msgpack"
	"github.com/edged-io/edged/store"
)

const patience = 60 * time.Second

// request is what an actor gets.
type request struct {
	method, path, query string
	header              map[string][]string
	body                string
	fields              []string
}

func decodeRequest(t testing.TB, payload []byte) (r request) {
	t.Helper()
	d := msgpack.NewDecoder(payload)
	for range d.Map() {
		key := d.Str()
		r.fields = append(r.fields, key)
		switch key {
		case "method":
			r.method = d.Str()
		case "path":
			r.path = d.Str()
		case "queryString":
			r.query = d.Str()
		case "header":
			r.header = make(map[string][]string)
			for range d.Map() {
				name := d.Str()
				for range d.Array() {
					r.header[name] = append(r.header[name], d.Str())
				}
			}
		case "body":
			r.body = string(d.Bin())
		default:
			t.Errorf("unknown field %s", key)
			d.Skip()
		}
	}
	if err := d.Done(); err != nil {
		t.Errorf("request: %v", err)
	}
	return r
}

// reply is what an actor answers; header names and values take turns.
func reply(status int, body string, header ...string) []byte {
	b := msgpack.AppendMapHeader(nil, 3)
	b = msgpack.AppendInt(msgpack.AppendString(b, "statusCode"), int64(status))
	b = msgpack.AppendMapHeader(msgpack.AppendString(b, "header"), len(header)/2)
	for i := 0; i+1 < len(header); i += 2 {
		b = msgpack.AppendString(msgpack.AppendArrayHeader(msgpack.AppendString(b, header[i]), 1), header[i+1])
	}
	return msgpack.AppendBin(msgpack.AppendString(b, "body"), []byte(body))
}

// rig is a provider with actors that are functions.
type rig struct {
	*Provider
	t        testing.TB
	db       *store.DB
	log      logbuffer.Buffer
	registry *prometheus.Registry

	mu     sync.Mutex // guards actors
	actors map[string]func(context.Context, request) ([]byte, error)

	cancel context.CancelFunc
	ended  chan struct{}
}

// newRig makes a provider that does not run yet.
func newRig(t testing.TB, edit ...func(*Options)) *rig {
	t.Helper()
	db, err := store.Open(store.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, db: db, registry: prometheus.NewRegistry(), actors: make(map[string]func(context.Context, request) ([]byte, error)), ended: make(chan struct{})}
	o := Options{
		Store: db, Logger: slog.New(slog.NewTextHandler(&r.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Registerer: r.registry, ActorName: func(key string) string { return "lab/" + key },
		Call: func(ctx context.Context, inv lattice.Invocation) ([]byte, error) {
			if inv.Operation != "HttpServer.HandleRequest" || inv.Origin != (lattice.Entity{}) {
				t.Errorf("call of %s by %v", inv.Operation, inv.Origin)
			}
			r.mu.Lock()
			actor := r.actors[inv.Target.Key]
			r.mu.Unlock()
			if actor == nil {
				return nil, lattice.ErrNoEntity
			}
			return actor(ctx, decodeRequest(t, inv.Payload))
		},
	}
	for _, e := range edit {
		e(&o)
	}
	r.Provider = New(o)
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	t.Cleanup(func() {
		r.stop()
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	r.run(ctx)
	return r
}

func (r *rig) run(ctx context.Context) {
	go func() { // stop waits
		defer close(r.ended)
		if err := r.Run(ctx); err != nil {
			r.t.Errorf("Run: %v", err)
		}
	}()
	<-r.Ready()
}

func (r *rig) stop() {
	r.cancel()
	<-r.ended
}

// actor makes key answer so.
func (r *rig) actor(key string, fn func(context.Context, request) ([]byte, error)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.actors[key] = fn
}

// link is a place of an actor; doc is the rest of its settings document.
func link(actor, doc string) lattice.Link {
	return linkAt(actor, "127.0.0.1:0", doc)
}

func linkAt(actor, listen, doc string) lattice.Link {
	if doc != "" {
		doc = "," + doc
	}
	return lattice.Link{
		Actor: actor, Contract: Contract, Name: "default", Provider: "httpserver",
		Values: map[string]string{"config_json": fmt.Sprintf(`{"address":%q%s}`, listen, doc), ValueName: actor + "-1", ValueApp: actor},
	}
}

// serve links an actor and returns the URL of its place.
func (r *rig) serve(doc string, fn func(context.Context, request) ([]byte, error)) string {
	r.t.Helper()
	r.actor("a", fn)
	if err := r.SetLinks(r.t.Context(), []lattice.Link{link("a", doc)}); err != nil {
		r.t.Fatal(err)
	}
	return "http://" + r.addr("a-1")
}

func (r *rig) addr(name string) string {
	r.t.Helper()
	for _, l := range r.Listeners() {
		if l.Name == name && l.Addr != "" {
			return l.Addr
		}
	}
	r.t.Fatalf("%s is not listened: %+v", name, r.Listeners())
	return ""
}

// client is one that reuses nothing of other tests.
func client(t testing.TB) *http.Client {
	tr := &http.Transport{DisableCompression: true}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: patience, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

type answer struct {
	*http.Response
	body string
}

func do(t testing.TB, c *http.Client, req *http.Request) answer {
	t.Helper()
	resp, err := c.Do(req)
	if err != nil { // maybe not in the goroutine of the test
		t.Errorf("%s %s: %v", req.Method, req.URL, err)
		return answer{&http.Response{Header: make(http.Header), TLS: &tls.ConnectionState{PeerCertificates: []*x509.Certificate{{}}}}, ""}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Errorf("%s %s: %v", req.Method, req.URL, err)
	}
	return answer{resp, string(body)}
}

func ask(t testing.TB, method, url, body string, header ...string) answer {
	t.Helper()
	var r io.Reader
	if body != "" {
		r = strings.NewReader(body)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, url, r)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	return do(t, client(t), req)
}

// raw sends bytes and returns all that comes back until the other side hangs up.
func raw(t testing.TB, url, text string) string {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	all, err := io.ReadAll(bufio.NewReader(c))
	if err != nil && !strings.Contains(err.Error(), "reset") {
		t.Fatalf("after %q: %v", all, err)
	}
	return string(all)
}

// eventually waits until ok.
func (r *rig) eventually(what string, ok func() bool) {
	r.t.Helper()
	for end := time.Now().Add(patience); !ok(); {
		if time.Now().After(end) {
			r.t.Fatalf("in vain: %s\n%s", what, r.log.String())
		}
		select {
		case <-time.After(2 * time.Millisecond):
		case <-r.t.Context().Done():
		}
	}
}

func echo(_ context.Context, r request) ([]byte, error) {
	return reply(200, r.method+" "+r.path+"?"+r.query+" "+r.body), nil
}

var errActor = errors.New("secret of the actor")

// gathered returns the values of gauges and counters, by name and labels.
func (r *rig) gathered() map[string]float64 {
	all, err := r.registry.Gather()
	if err != nil {
		r.t.Fatal(err)
	}
	values := make(map[string]float64)
	for _, f := range all {
		for _, m := range f.GetMetric() {
			key := f.GetName()
			for _, l := range m.GetLabel() {
				key += " " + l.GetValue()
			}
			values[key] = m.GetGauge().GetValue() + m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return values
}
