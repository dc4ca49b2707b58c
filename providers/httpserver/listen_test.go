package httpserver

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/edged-io/edged/lattice"
	"github.com/edged-io/edged/store"
)

// named answers with its name.
func named(name string) func(context.Context, request) ([]byte, error) {
	return func(context.Context, request) ([]byte, error) { return reply(200, name), nil }
}

// freePort is one that nobody listens on right now.
func freePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestRoutes(t *testing.T) {
	r := newRig(t)
	at := freePort(t)
	r.actor("a", named("a"))
	r.actor("b", named("b"))
	r.actor("c", named("c"))
	links := []lattice.Link{
		linkAt("a", at, ""), linkAt("b", at, `"routes":["GET /b/","/items/{id}"]`), linkAt("c", at, `"hosts":["c.example"],"routes":["GET /","POST /x"]`),
	}
	if err := r.SetLinks(t.Context(), links); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		method, host, path, want string
		status                   int
	}{
		{"GET", "", "/", "a", 200}, {"GET", "", "/b/x", "b", 200}, {"POST", "", "/b/x", "a", 200}, {"DELETE", "", "/items/1", "b", 200},
		{"GET", "", "/items/1/2", "a", 200}, {"GET", "c.example", "/y", "c", 200}, {"GET", "C.Example:80", "/y", "c", 200}, {"POST", "c.example", "/x", "c", 200},
		{"POST", "c.example", "/y", "a", 200}, {"HEAD", "c.example", "/y", "", 200}, {"GET", "", "/b", "", 307}, {"GET", "", "/x/../y", "", 307},
	} {
		req, err := http.NewRequest(test.method, "http://"+at+test.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if test.host != "" {
			req.Host = test.host
		}
		a := do(t, client(t), req)
		if a.StatusCode != test.status || test.status == 200 && a.body != test.want {
			t.Errorf("%s %s%s: %d %q, want %d %q", test.method, test.host, test.path, a.StatusCode, a.body, test.status, test.want)
		}
	}
	if err := r.SetLinks(t.Context(), []lattice.Link{linkAt("b", at, `"routes":["POST /b"]`)}); err != nil {
		t.Fatal(err)
	}
	if a := ask(t, "GET", "http://"+at+"/", ""); a.StatusCode != 404 || a.body != `{"error":"there is nothing at this path"}`+"\n" || a.Header.Get("Content-Type") != "application/json" {
		t.Errorf("status %d without a route, %q", a.StatusCode, a.body)
	}
	if a := ask(t, "GET", "http://"+at+"/b", ""); a.StatusCode != 405 || a.Header.Get("Allow") != "POST" || a.body != `{"error":"this method is not allowed here"}`+"\n" {
		t.Errorf("status %d with another method, Allow %q, %q", a.StatusCode, a.Header.Get("Allow"), a.body)
	}
	if a := ask(t, "HEAD", "http://"+at+"/", ""); a.StatusCode != 404 || a.body != "" {
		t.Errorf("HEAD: status %d without a route, %q", a.StatusCode, a.body)
	}
}

// Links are set all or nothing.
func TestSetLinks_refused(t *testing.T) {
	r := newRig(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	url := r.serve("", named("a"))
	before := r.addr("a-1")
	other := func(doc string) []lattice.Link {
		return []lattice.Link{link("a", ""), linkAt("b", freePort(t), ""), linkAt("c", taken.Addr().String(), doc)}
	}
	for _, test := range []struct {
		links []lattice.Link
		want  string
	}{
		{other(""), "listen on " + taken.Addr().String() + ": "},
		{other(`"color":"red"`), `link default of actor c to httpserver: config_json: unknown field "color"`},
		{[]lattice.Link{linkAt("a", before, ""), linkAt("b", before, "")}, `b-1: route "/" on ` + before + " is also one of a-1"},
		{[]lattice.Link{linkAt("a", before, ""), linkAt("b", before, `"routes":["/b"],"max_connections":1`)}, "the listener on " + before + " is also that of a-1, with another max_connections"},
		{[]lattice.Link{linkAt("a", before, `"tls":{"cert_file":"/nowhere/c","priv_key_file":"/nowhere/k"}`)}, "certificate: stat /nowhere/c"},
	} {
		if err := r.SetLinks(t.Context(), test.links); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("got %v, want %q", err, test.want)
		}
		if a := ask(t, "GET", url+"/", ""); a.body != "a" || r.addr("a-1") != before || len(r.Listeners()) != 1 {
			t.Errorf("%d %q at %+v after %q", a.StatusCode, a.body, r.Listeners(), test.want)
		}
	}
}

// PutLink and DeleteLink are changes of one link. What is gone is not listened
// on any more, and the rest is not touched.
func TestPutLink(t *testing.T) {
	r := newRig(t)
	r.actor("a", named("a"))
	r.actor("b", named("b"))
	for _, actor := range []string{"a", "b"} {
		if err := r.PutLink(t.Context(), link(actor, "")); err != nil {
			t.Fatal(err)
		}
	}
	a, b := r.addr("a-1"), r.addr("b-1")
	if a == b {
		t.Fatalf("two places with port 0 share %s", a)
	}
	if err := r.DeleteLink(t.Context(), link("a", "")); err != nil {
		t.Fatal(err)
	}
	r.eventually("nobody listens on "+a, func() bool {
		c, err := net.Dial("tcp", a)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	if got := ask(t, "GET", "http://"+b+"/", ""); got.body != "b" || r.addr("b-1") != b {
		t.Errorf("got %d %q", got.StatusCode, got.body)
	}
	if err := r.DeleteLink(t.Context(), link("a", "")); err != nil {
		t.Errorf("a link that is not there: %v", err)
	}
	if _, err := r.Call(t.Context(), lattice.Invocation{Operation: "HttpServer.Listen"}); err == nil {
		t.Error("an actor called something")
	}
}

// From one address to a wider one with the same port, and back.
func TestSetLinks_overlap(t *testing.T) {
	r := newRig(t)
	r.actor("a", named("a"))
	at := freePort(t)
	_, port, _ := net.SplitHostPort(at)
	for _, listen := range []string{at, "0.0.0.0:" + port, at} {
		if err := r.SetLinks(t.Context(), []lattice.Link{linkAt("a", listen, "")}); err != nil {
			t.Fatal(err)
		}
		if a := ask(t, "GET", "http://"+at+"/", ""); a.body != "a" {
			t.Errorf("%s: %d %q", listen, a.StatusCode, a.body)
		}
	}
}

// 0.0.0.0 is every address of IPv4 and none of IPv6, where another place may be.
func TestSetLinks_families(t *testing.T) {
	r := newRig(t)
	r.actor("a", named("a"))
	r.actor("b", named("b"))
	_, port, _ := net.SplitHostPort(freePort(t))
	if err := r.SetLinks(t.Context(), []lattice.Link{linkAt("a", "0.0.0.0:"+port, "")}); err != nil {
		t.Fatal(err)
	}
	for _, l := range r.Listeners() {
		if l.Addr != "0.0.0.0:"+port {
			t.Errorf("listens on %s", l.Addr)
		}
	}
	if c, err := net.Dial("tcp6", "[::1]:"+port); err == nil {
		c.Close()
		t.Error("listens in IPv6")
	}
	l, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		return // no IPv6 here
	}
	l.Close()
	if err := r.SetLinks(t.Context(), []lattice.Link{linkAt("a", "0.0.0.0:"+port, ""), linkAt("b", "[::1]:"+port, "")}); err != nil {
		t.Fatal(err)
	}
	for at, want := range map[string]string{"127.0.0.1": "a", "[::1]": "b"} {
		if a := ask(t, "GET", "http://"+at+":"+port+"/", ""); a.body != want {
			t.Errorf("%s: %d %q", at, a.StatusCode, a.body)
		}
	}
}

// An address that is not there yet is tried again, and told.
func TestRun_listensLater(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := taken.Addr().String()
	var told atomic.Int64
	db, err := store.Open(store.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	p := New(Options{Store: db, Changed: func() { told.Add(1) }, Call: func(context.Context, lattice.Invocation) ([]byte, error) { return reply(200, "late"), nil }})
	if err := p.SetLinks(t.Context(), []lattice.Link{linkAt("a", at, "")}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	defer func() { cancel(); <-ended }()
	<-p.Ready()
	if l := p.Listeners(); len(l) != 1 || l[0].Addr != "" || !strings.Contains(l[0].Error, "listen on "+at) || told.Load() != 1 {
		t.Fatalf("%+v, told %d times", l, told.Load())
	}
	taken.Close()
	for end := time.Now().Add(patience); p.Listeners()[0].Addr == ""; {
		if time.Now().After(end) {
			t.Fatalf("%+v", p.Listeners())
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-t.Context().Done():
		}
	}
	if a := ask(t, "GET", "http://"+at+"/", ""); a.body != "late" {
		t.Errorf("%d %q", a.StatusCode, a.body)
	}
}

// While actors change, requests wait and go to who is there then; a client sees
// nothing of it.
func TestPause_noRequestFails(t *testing.T) {
	r := newRig(t)
	at := freePort(t)
	r.actor("a", named("0"))
	if err := r.SetLinks(t.Context(), []lattice.Link{linkAt("a", at, "")}); err != nil {
		t.Fatal(err)
	}
	var inside, late atomic.Int64
	var clients sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	for i := range 4 {
		c := client(t)
		if i%2 == 0 {
			c.Transport.(*http.Transport).DisableKeepAlives = true
		}
		clients.Go(func() {
			for ctx.Err() == nil {
				resp, err := c.Post("http://"+at+"/", "", strings.NewReader("x"))
				if err != nil {
					t.Errorf("a request failed: %v", err)
					return
				}
				if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != 200 {
					t.Errorf("status %d, %v", resp.StatusCode, err)
				}
				resp.Body.Close()
			}
		})
	}
	for version := 1; version <= 30; version++ {
		resume, err := r.Pause(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		if inside.Load() != 0 {
			t.Errorf("version %d: somebody is inside", version)
		}
		r.actor("a", nil) // whoever is called now has no actor
		if version%3 == 0 {
			if err := r.SetLinks(t.Context(), nil); err != nil { // undone below
				t.Fatal(err)
			}
		}
		if err := r.SetLinks(t.Context(), []lattice.Link{linkAt("a", at, fmt.Sprintf(`"max_requests":%d`, 100+version))}); err != nil {
			t.Fatal(err)
		}
		r.actor("a", func(context.Context, request) ([]byte, error) {
			inside.Add(1)
			defer inside.Add(-1)
			late.Store(int64(version))
			return reply(200, fmt.Sprint(version)), nil
		})
		resume()
		r.eventually("the new version is asked", func() bool { return late.Load() == int64(version) })
	}
	cancel()
	clients.Wait()
}

// Listeners go on with other settings of their own; requests that are there end.
func TestListener_otherSettings(t *testing.T) {
	r := newRig(t)
	at := freePort(t)
	h := newHold()
	r.actor("a", h.handle)
	if err := r.SetLinks(t.Context(), []lattice.Link{linkAt("a", at, "")}); err != nil {
		t.Fatal(err)
	}
	done := make(chan answer, 1)
	go func() { done <- ask(t, "GET", "http://"+at+"/old", "") }()
	<-h.in
	if err := r.SetLinks(t.Context(), []lattice.Link{linkAt("a", at, `"max_connections":7`)}); err != nil {
		t.Fatal(err)
	}
	r.actor("a", named("new"))
	if a := ask(t, "GET", "http://"+at+"/", ""); a.body != "new" {
		t.Errorf("%d %q", a.StatusCode, a.body)
	}
	close(h.out)
	if a := <-done; a.body != "held /old" {
		t.Errorf("%d %q", a.StatusCode, a.body)
	}
}

// The first request of a connection that was accepted under the settings of before
// is answered, whether it has begun or not. Idle ones are closed.
func TestListener_otherSettings_firstRequest(t *testing.T) {
	r := newRig(t)
	at := freePort(t)
	r.actor("a", named("a"))
	if err := r.SetLinks(t.Context(), []lattice.Link{linkAt("a", at, "")}); err != nil {
		t.Fatal(err)
	}
	var conns [3]net.Conn // that is idle, has begun a request, and has said nothing
	for i, text := range []string{"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "GET / HT", ""} {
		c, err := net.Dial("tcp", at)
		if err == nil {
			_, err = io.WriteString(c, text)
		}
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		conns[i] = c
	}
	idle := bufio.NewReader(conns[0])
	if resp, err := http.ReadResponse(idle, nil); err != nil || resp.StatusCode != 200 {
		t.Fatalf("got %v, %v", resp, err)
	} else if _, err := io.ReadAll(resp.Body); err != nil {
		t.Fatal(err)
	}
	l := r.listeners()[0]
	r.eventually("all are accepted", func() bool { return len(l.front.room) == len(conns) })
	if err := r.SetLinks(t.Context(), []lattice.Link{linkAt("a", at, `"max_connections":7`)}); err != nil {
		t.Fatal(err)
	}
	if _, err := idle.ReadByte(); err != io.EOF { // the server of before is ending
		t.Errorf("an idle connection: %v", err)
	}
	for i, text := range []string{"TP/1.1\r\nHost: x\r\n\r\n", "GET / HTTP/1.1\r\nHost: x\r\n\r\n"} {
		c := conns[i+1]
		if _, err := io.WriteString(c, text); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil || resp.StatusCode != 200 || !resp.Close {
			t.Errorf("connection %d: got %v, %v", i+1, resp, err)
		}
	}
}

// A pause ends when nobody is inside, or with its context.
func TestPause_waits(t *testing.T) {
	r := newRig(t)
	h := newHold()
	url := r.serve("", h.handle)
	first := make(chan answer, 1)
	go func() { first <- ask(t, "GET", url+"/1", "") }()
	<-h.in
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("enough"))
	if _, err := r.Pause(ctx, "a", "other"); err == nil || !strings.Contains(err.Error(), "enough") {
		t.Fatalf("got %v", err)
	}
	paused := make(chan func(), 1)
	go func() {
		resume, err := r.Pause(t.Context(), "a", "other")
		if err != nil {
			t.Error(err)
		}
		paused <- resume
	}()
	r.eventually("the gate is shut", func() bool {
		r.gates.mu.Lock()
		defer r.gates.mu.Unlock()
		return r.gates.byActor["a"].shut > 0
	})
	second := make(chan answer, 1)
	go func() { second <- ask(t, "GET", url+"/2", "") }()
	close(h.out)
	if a := <-first; a.body != "held /1" {
		t.Errorf("%d %q", a.StatusCode, a.body)
	}
	resume := <-paused
	select {
	case a := <-second:
		t.Errorf("%d %q while paused", a.StatusCode, a.body)
	case <-h.in:
		t.Error("called while paused")
	default:
	}
	resume()
	if a := <-second; a.body != "held /2" {
		t.Errorf("%d %q", a.StatusCode, a.body)
	}
	r.gates.mu.Lock()
	defer r.gates.mu.Unlock()
	if len(r.gates.byActor) != 0 {
		t.Errorf("gates are left: %v", r.gates.byActor)
	}
}

// A request whose place is gone after the pause is told so; one that waits too
// long as well.
func TestPause_placeGone(t *testing.T) {
	r := newRig(t)
	at := freePort(t)
	r.actor("a", named("a"))
	r.actor("b", named("b"))
	both := []lattice.Link{linkAt("a", at, `"routes":["/a"],"timeout_ms":20`), linkAt("b", at, `"routes":["/b"]`)}
	if err := r.SetLinks(t.Context(), both); err != nil {
		t.Fatal(err)
	}
	resume, err := r.Pause(t.Context(), "a", "b")
	if err != nil {
		t.Fatal(err)
	}
	if a := ask(t, "GET", "http://"+at+"/a", ""); a.StatusCode != 504 {
		t.Errorf("status %d after its time", a.StatusCode)
	}
	done := make(chan answer, 1)
	go func() { done <- ask(t, "GET", "http://"+at+"/b", "") }()
	r.eventually("the request has come", func() bool { return r.gathered()["edged_httpserver_requests_in_flight"] > 0 })
	if err := r.SetLinks(t.Context(), both[:1]); err != nil {
		t.Fatal(err)
	}
	resume()
	if a := <-done; a.StatusCode != 404 {
		t.Errorf("status %d", a.StatusCode)
	}
}

// When the box ends, requests that are there come to their end, and what hangs
// is cut off.
func TestRun_ends(t *testing.T) {
	r := newRig(t)
	h, stuck := newHold(), newHold()
	url := r.serve("", func(ctx context.Context, q request) ([]byte, error) {
		switch q.path {
		case "/stuck":
			return stuck.handle(ctx, q)
		case "/idle":
			return reply(200, ""), nil
		}
		return h.handle(ctx, q)
	})
	idle := dial(t, url)
	fmt.Fprint(idle, "GET /idle HTTP/1.1\r\nHost: h\r\n\r\n")
	kept := bufio.NewReader(idle)
	if a, err := http.ReadResponse(kept, nil); err != nil || a.Close {
		t.Fatalf("answer %+v, %v", a, err)
	}
	first, second := make(chan answer, 1), make(chan answer, 1)
	go func() { first <- ask(t, "GET", url+"/", "") }()
	go func() { second <- ask(t, "GET", url+"/stuck", "") }()
	<-h.in
	<-stuck.in
	r.cancel()
	r.eventually("nobody is accepted", func() bool {
		c, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	if _, err := kept.ReadByte(); !errors.Is(err, io.EOF) { // no connection is kept from here on
		t.Errorf("an idle connection goes on: %v", err)
	}
	close(h.out)
	if a := <-first; a.StatusCode != 200 || !a.Close {
		t.Errorf("status %d, close %v", a.StatusCode, a.Close)
	}
	if a := <-second; a.StatusCode != 503 || a.Header.Get("Retry-After") == "" {
		t.Errorf("status %d for what hangs", a.StatusCode)
	}
	<-r.ended
}

// Who asks for the addresses while listeners get other settings waits for nobody.
func TestListeners_whileTheyChange(t *testing.T) {
	r := newRig(t)
	r.actor("a", named("a"))
	at := freePort(t)
	changed, asked := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(changed)
		for i := range 300 {
			if err := r.SetLinks(t.Context(), []lattice.Link{linkAt("a", at, fmt.Sprintf(`"max_connections":%d`, 100+i))}); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	go func() {
		defer close(asked)
		for {
			select {
			case <-changed:
				return
			default:
				_ = r.Listeners()
			}
		}
	}()
	select {
	case <-asked:
	case <-time.After(time.Minute):
		t.Fatal("a change of settings, or who asks for the addresses, does not end")
	}
}
