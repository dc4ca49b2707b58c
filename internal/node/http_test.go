package node

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptrace"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/edged-io/edged/internal/claims"
)

// places is the rest of a manifest whose actor takes HTTP requests; each table
// is a place.
func places(actor string, tables ...string) string {
	b := "[[capability]]\nname = \"httpserver\"\nactor = \"" + actor + "\"\n"
	for _, t := range tables {
		b += "[[capability.config]]\n" + t + "\n"
	}
	return b
}

// httpAddress is where a place is, as addresses.json has it.
func (r *rig) httpAddress(name string) string {
	r.t.Helper()
	data, err := os.ReadFile(r.path("state", "addresses.json"))
	if err != nil {
		r.t.Fatal(err)
	}
	var at Addresses
	if err := json.Unmarshal(data, &at); err != nil {
		r.t.Fatal(err)
	}
	return at.HTTP[name]
}

func (r *rig) post(c *http.Client, url string) (status int, body string) {
	resp, err := c.Post(url, "text/plain", strings.NewReader("x"))
	if err != nil {
		r.t.Errorf("POST %s: %v", url, err)
		return 0, ""
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Errorf("POST %s: %v", url, err)
	}
	return resp.StatusCode, string(data)
}

func newClient(t *testing.T) *http.Client {
	tr := &http.Transport{}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: patience}
}

func TestHTTP(t *testing.T) {
	r := newRig(t, unsigned)
	r.probe("a", "1", places("one", `listen = "127.0.0.1:0"`, "listen = \"127.0.0.1:0\"\ntimeout = { handler = \"200ms\" }"), "one")
	r.start()
	c := newClient(t)
	url := "http://" + r.httpAddress("a-httpserver-1")
	for i, test := range []struct {
		path   string
		status int
		body   string
	}{{"/", 200, "1"}, {"/fail", 500, ""}, {"/trap", 500, ""}, {"/", 200, "2"}} { // what failed has not counted
		status, body := r.post(c, url+test.path)
		if status != test.status || test.body != "" && body != test.body {
			t.Errorf("%d: %s: %d %q, want %d %q", i, test.path, status, body, test.status, test.body)
		}
	}
	if status, _ := r.post(c, "http://"+r.httpAddress("a-httpserver-2")+"/spin"); status != 504 {
		t.Errorf("status %d after the time limit", status)
	}
	if status, body := r.post(c, "http://"+r.httpAddress("a-httpserver-2")+"/"); body != "3" {
		t.Errorf("%d %q of the other place", status, body)
	}
	contains(t, r.log.String(), "msg=ready", "a-httpserver-1:"+r.httpAddress("a-httpserver-1"), "as it was told", `message="POST /trap" outcome="answered 500"`)
	r.stop()
	r.start()
	if status, body := r.post(c, "http://"+r.httpAddress("a-httpserver-1")+"/"); body != "4" {
		t.Errorf("%d %q after a restart", status, body)
	}
}

// again has requests sent again on another connection if the one they were on was
// closed while it was idle, which a listener with other settings does and HTTP leaves
// to the client. One that came at that very moment may have been handled all the same,
// so it counts how often it wrote.
type again struct {
	http.RoundTripper
	wrote *atomic.Int64
}

func (a again) RoundTrip(r *http.Request) (*http.Response, error) {
	r.Header["X-Idempotency-Key"] = nil // not sent, but seen by the transport
	trace := &httptrace.ClientTrace{WroteRequest: func(httptrace.WroteRequestInfo) { a.wrote.Add(1) }}
	return a.RoundTripper.RoundTrip(r.WithContext(httptrace.WithClientTrace(r.Context(), trace)))
}

func (a again) CloseIdleConnections() { a.RoundTripper.(*http.Transport).CloseIdleConnections() }

// While versions come and go, and one that can not come, no request fails, and
// each counts as often as it was sent.
func TestHTTP_updateDropsNothing(t *testing.T) {
	r := newRig(t, unsigned)
	r.write("edged.toml", "[device]\nid = \"press-7\"\n[nats]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"\"\n"+unsigned)
	r.probe("other", "1", places("one", `listen = "127.0.0.1:0"`), "one")
	r.start()
	// A port of the box's choice, and then the same one for all versions.
	at := r.httpAddress("other-httpserver-1")
	if err := os.RemoveAll(r.path("apps", "other")); err != nil {
		t.Fatal(err)
	}
	r.reload()
	if r.httpAddress("other-httpserver-1") != "" {
		t.Error("a place that is gone has an address")
	}
	version := func(n int, more string) {
		r.probe("a", strconv.Itoa(n), places("one", "listen = \""+at+"\"\n"+more), "one")
	}
	version(1, "")
	r.reload()
	var sent, wrote atomic.Int64
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() { // waited for below
		defer close(stopped)
		c := newClient(t)
		c.Transport = again{c.Transport, &wrote}
		for i, last := 0, int64(0); ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			if i%3 == 0 {
				c.CloseIdleConnections() // a new connection is as good
			}
			before := wrote.Load()
			status, body := r.post(c, "http://"+at+"/")
			count, err := strconv.ParseInt(body, 10, 64)
			if most := last + wrote.Load() - before; err != nil || status != 200 || count <= last || count > most {
				t.Errorf("request %d: %d %q, want a count from %d to %d", sent.Load(), status, body, last+1, most)
			}
			last = count
			sent.Add(1)
		}
	}()
	for n := 2; n <= 6; n++ {
		before := sent.Load()
		r.eventually("requests come", func() bool { return sent.Load() > before+5 })
		switch n {
		case 3: // not even a part of what is refused is seen
			version(n, `routes = ["/"]`+"\n[[capability.config]]\nlisten = \"127.0.0.1:0\"\ntls = { cert = \"/nowhere/cert\", key = \"/nowhere/key\" }")
			if err := r.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "/nowhere/cert") {
				t.Errorf("got %v", err)
			}
		case 4:
			version(n, "max_connections = 100")
			if err := r.applyApp(t.Context(), r.path("apps", "a")); err != nil {
				t.Error(err)
			}
		default:
			version(n, "")
			r.reload()
		}
	}
	before := sent.Load()
	r.eventually("requests come", func() bool { return sent.Load() > before+5 })
	close(stop)
	<-stopped
	if got := r.running(); got != "a 6" {
		t.Errorf("%s runs", got)
	}
}

// An app that may not listen, or whose actor has no claim for it, is left out;
// the others run.
func TestHTTP_notAllowed(t *testing.T) {
	account, module := seed(t, claims.Account), seed(t, claims.Module)
	r := newRig(t, unsigned+"[http]\nlisten = [\"127.0.0.1:*\"]\n")
	r.probe("good", "1", places("one", `listen = "127.0.0.1:0"`), "one")
	r.probe("outside", "1", places("one", `listen = "[::1]:0"`), "one")
	wasm, err := claims.SignModule(quiet, claims.Claims[claims.ModuleClaims]{Subject: module.Key().String()}, account)
	if err != nil {
		t.Fatal(err)
	}
	r.probe("claimless", "1", places("one", `listen = "127.0.0.1:0"`), "one")
	_ = os.Remove(r.path("apps", "claimless", "probe.wasm"))
	r.write("apps/claimless/probe.wasm", string(wasm))
	r.start()
	if got := r.running(); got != "good 1" {
		t.Errorf("%s runs", got)
	}
	contains(t, strings.Join(r.Status().Problems, "\n"), `"[::1]:0" is not in http.listen of the device file`, "actor one would be called: missing capability claim for wasmcloud:httpserver")
	if status, body := r.post(newClient(t), "http://"+r.httpAddress("good-httpserver-1")+"/"); status != 200 {
		t.Errorf("%d %q", status, body)
	}
}
