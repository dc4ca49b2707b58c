package httpserver

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/edged-io/edged/internal/httpsettings"
	"github.com/edged-io/edged/lattice"
	"github.com/edged-io/edged/store"
)

// place is a link: requests that belong to one actor.
type place struct {
	httpsettings.Place
	p     *Provider
	actor string
	app   string
	room  chan struct{} // a token for each request that is with the actor
}

// placeOf reads a link. A place that is there already is the same one.
func (p *Provider) placeOf(l lattice.Link) (*place, error) {
	values := maps.Clone(l.Values)
	name, app := values[ValueName], values[ValueApp]
	delete(values, ValueName)
	delete(values, ValueApp)
	if name == "" {
		name = l.Actor + "/" + l.Name
	}
	s, err := httpsettings.FromValues(values)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	have := p.places[name]
	p.mu.Unlock()
	if have != nil && have.actor == l.Actor && have.app == app && reflect.DeepEqual(have.Settings, s) {
		return have, nil
	}
	return &place{
		Place: httpsettings.Place{Name: name, Settings: s}, p: p, actor: l.Actor, app: app, room: make(chan struct{}, s.MaxRequests),
	}, nil
}

// refusedBody is how long the body of a request that was refused may go on.
const refusedBody = time.Second

// ServeHTTP answers a request of any place of the listener.
func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	r.Context().Value(connKey{}).(*conn).owe(false)
	p := f.l.p
	rc := http.NewResponseController(w)
	_ = rc.SetWriteDeadline(time.Now().Add(httpsettings.Default().WriteTimeout)) // there is one for HTTP on sockets
	if r.ContentLength != 0 {                                                    // a body that nobody reads is not waited for
		_ = rc.SetReadDeadline(time.Now().Add(refusedBody))
	}
	if f.crowded() {
		w.Header().Set("Connection", "close")
	}
	x := &exchange{p: p, l: f.l, w: w, r: r, rc: rc, began: time.Now(), app: "-"}
	p.metrics.inFlight.Inc()
	x.serve()
	p.metrics.inFlight.Dec()
	took := time.Since(x.began)
	p.metrics.done(x.app, x.status, took)
	if p.log.Enabled(r.Context(), slog.LevelDebug) { // the query may hold secrets
		p.log.Debug("request", "app", x.app, "method", r.Method, "host", r.Host, "path", r.URL.EscapedPath(), "status", x.status,
			"bytes", x.sent, "took", took, "remote", r.RemoteAddr)
	}
}

// exchange is a request and its answer.
type exchange struct {
	p     *Provider
	l     *listener
	w     http.ResponseWriter
	r     *http.Request
	rc    *http.ResponseController
	began time.Time

	app    string
	held   int // bytes of the budget of bodies
	status int // that was sent; 499 for a client that has gone
	sent   int // bytes of the body
}

// find returns who gets the request, were its method that one.
func (x *exchange) find(method string) http.Handler {
	asked := *x.r
	asked.Method, asked.Host = method, strings.ToLower(asked.Host)
	h, _ := x.l.table.Load().mux.Handler(&asked)
	return h
}

// route finds the place of the request, or answers it.
func (x *exchange) route() *place {
	h := x.find(x.r.Method)
	if pl, ok := h.(*place); ok {
		x.app = pl.app
		return pl
	}
	rec := &recorder{ResponseWriter: x.w, status: http.StatusOK}
	h.ServeHTTP(rec, x.r) // no such place, another method, or the path in its normal form
	switch rec.status {
	case http.StatusNotFound:
		x.refuse(rec.status, "there is nothing at this path")
	case http.StatusMethodNotAllowed: // the header says which are
		x.refuse(rec.status, "this method is not allowed here")
	default:
		x.status, x.sent = rec.status, rec.sent
	}
	return nil
}

// recorder knows what was answered, and keeps the words of ServeMux for errors to
// itself.
type recorder struct {
	http.ResponseWriter
	status, sent int
}

func (r *recorder) WriteHeader(status int) {
	if r.status = status; status < http.StatusBadRequest {
		r.ResponseWriter.WriteHeader(status)
	}
}

func (r *recorder) Write(b []byte) (int, error) {
	if r.status >= http.StatusBadRequest {
		return len(b), nil
	}
	r.sent += len(b)
	return r.ResponseWriter.Write(b)
}

// ServeHTTP is there for ServeMux, which routes; exchange serves.
func (pl *place) ServeHTTP(http.ResponseWriter, *http.Request) {}

// serve answers the request.
func (x *exchange) serve() {
	if x.r.Method == http.MethodConnect || !strings.HasPrefix(x.r.URL.Path, "/") {
		x.refuse(http.StatusBadRequest, "want a path that begins with /")
		return
	}
	if strings.ToUpper(x.r.Method) != x.r.Method {
		x.refuse(http.StatusNotImplemented, "methods are written in upper case")
		return
	}
	if isPreflight(x.r) {
		if pl, ok := x.find(x.r.Header.Get("Access-Control-Request-Method")).(*place); ok && pl.CORS != nil {
			x.app = pl.app
			(*cors)(pl.CORS).preflight(x)
			return
		}
	}
	pl := x.route()
	if pl == nil {
		return
	}
	if pl.ReadOnly && x.r.Method != http.MethodGet && x.r.Method != http.MethodHead {
		x.w.Header().Set("Allow", "GET, HEAD")
		x.refuse(http.StatusMethodNotAllowed, "only GET and HEAD are allowed here")
		return
	}
	defer func() { x.drop(x.held) }()
	body, err := x.read(pl)
	if err != nil {
		x.failed(pl, err)
		return
	}
	ctx, cancel := context.WithTimeoutCause(x.r.Context(), pl.HandlerTimeout, errHandlerTime)
	defer cancel()
	for {
		inside, err := x.p.gates.enter(ctx, pl.actor)
		if err != nil {
			x.failed(pl, err)
			return
		}
		if inside {
			break
		}
		if pl = x.route(); pl == nil { // the app has changed meanwhile
			return
		}
	}
	r, err := x.handle(ctx, pl, body)
	x.p.gates.leave(pl.actor)
	if err != nil {
		x.failed(pl, err)
		return
	}
	x.answer(pl, r)
}

// Why a request is refused.
var (
	errHandlerTime = errors.New("no answer in time")
	errCrowded     = errors.New("too many requests are with the actor")
)

// handle lets the actor answer, in a turn. What comes back was committed.
func (x *exchange) handle(ctx context.Context, pl *place, body []byte) (r response, err error) {
	select {
	case pl.room <- struct{}{}:
		defer func() { <-pl.room }()
	default:
		return r, errCrowded
	}
	ctx = lattice.WithTrace(ctx, x.r.Header.Get(lattice.TraceParent), strings.Join(x.r.Header.Values(lattice.TraceState), ","))
	payload := appendRequest(make([]byte, 0, sizeOfRequest(x.r)+len(body)), x.r, body)
	answered := 0
	err = x.p.o.Store.Do(ctx, func(ctx context.Context, _ *store.Turn) error {
		x.drop(answered) // of an attempt that lost
		answered = 0
		reply, err := x.p.o.Call(ctx, lattice.Invocation{
			Target: lattice.Entity{Key: pl.actor}, Contract: Contract, Operation: HandleRequest, Payload: payload,
		})
		if err != nil {
			return err
		}
		// An answer that can not be sent fails the turn: whoever asked is told so. One for which
		// there is no room now is of that kind, since its client may take it slowly.
		if r, err = decodeResponse(reply); err != nil {
			return err
		}
		if n := len(reply); n > firstBuffer { // small ones get through where large ones do not
			if err := x.hold(n); err != nil {
				return err
			}
			answered = n
		}
		return nil
	})
	x.drop(x.held - answered) // of the request
	return r, err
}

// answer sends what the actor answered.
func (x *exchange) answer(pl *place, r response) {
	h := x.w.Header()
	if _, own := r.header["Content-Type"]; !own {
		h["Content-Type"] = nil // nothing is guessed from the body
	}
	for name, values := range r.header {
		h[name] = values
	}
	get := x.r.Method == http.MethodGet || x.r.Method == http.MethodHead
	if pl.CacheControl != "" && get && r.status < 400 && h.Get("Cache-Control") == "" {
		h.Set("Cache-Control", pl.CacheControl)
	}
	if pl.CORS != nil {
		(*cors)(pl.CORS).allow(x)
	}
	body := r.body
	switch {
	case r.status == http.StatusNoContent || r.status == http.StatusNotModified || r.status == http.StatusResetContent:
		body = nil
	case x.r.Method != http.MethodHead || len(body) > 0: // of what GET would answer
		h.Set("Content-Length", strconv.Itoa(len(body)))
	}
	x.send(pl.WriteTimeout, r.status, body)
}

// send writes the answer. What a client does not take in time is lost.
func (x *exchange) send(within time.Duration, status int, body []byte) {
	_ = x.rc.SetWriteDeadline(time.Now().Add(within))
	x.status = status
	x.w.WriteHeader(status)
	if x.r.Method == http.MethodHead || len(body) == 0 {
		return
	}
	n, err := x.w.Write(body)
	x.sent = n
	if err != nil {
		x.status = statusGone
	}
}

// refuse answers with a status and a few words.
func (x *exchange) refuse(status int, words string) { x.refuseAs(status, words, "") }

func (x *exchange) refuseAs(status int, words, id string) {
	var b bytes.Buffer
	if err := json.NewEncoder(&b).Encode(struct {
		Error string `json:"error"`
		ID    string `json:"id,omitempty"`
	}{words, id}); err != nil {
		panic("httpserver: " + err.Error()) // strings can be JSON
	}
	h := x.w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(b.Len()))
	h.Set("Cache-Control", "no-store")
	x.send(httpsettings.Default().WriteTimeout, status, b.Bytes())
}
