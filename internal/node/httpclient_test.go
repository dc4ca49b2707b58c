package node

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/edged-io/edged/internal/claims"
	"github.com/edged-io/edged/lattice"
)

// hears is the capability by which a probe hears of its subject.
const hears = "[[capability]]\nname = \"pubsub.local\"\n[[capability.config]]\ntopic = \"tell/probe\"\n"

func asks(allow string) string {
	return hears + "[[capability]]\nname = \"httpclient\"\n[[capability.config]]\nallow = [\"" + allow + "\"]\n"
}

// An actor asks for what its manifest allows and the box does, and for nothing else.
func TestNode_httpClient(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s", r.Method, body)
	}))
	defer server.Close()
	r := newRig(t, unsigned+"[http_client]\nallow = [\"127.0.0.1\"]\n")
	r.probe("a", "1", asks(server.URL+"/ok/*"), "probe")
	r.start()
	for _, command := range []string{"!GET " + server.URL + "/ok/x", "!POST " + server.URL + "/ok/ hello", "!GET " + server.URL + "/ok/../no", "!GET " + server.URL + "/no"} {
		r.tell("tell.probe", command)
	}
	r.sees("a", "probe", "200 GET ", "200 POST hello",
		"error: HttpClient.Request: httpclient: wrong format: not a URL that may be asked for: the path has a segment . or .. in it",
		"error: HttpClient.Request: httpclient: not permitted: GET "+server.URL+": the manifest does not allow this URL")
	r.stop()

	// The box has the last word.
	r.write("edged.toml", strings.Replace(r.read("edged.toml"), `allow = ["127.0.0.1"]`, `deny = ["127.0.0.1"]`, 1))
	r.start()
	r.tell("tell.probe", "!GET "+server.URL+"/ok/x")
	r.eventually("the request is refused", func() bool {
		lines := r.seen("a", "probe")
		return strings.HasSuffix(lines[len(lines)-1], "the box lets no app reach this server")
	})
}

func (r *rig) read(name string) string {
	r.t.Helper()
	b, err := os.ReadFile(r.path(name))
	if err != nil {
		r.t.Fatal(err)
	}
	return string(b)
}

// A request that is made again with its message has the same key.
func TestNode_httpClient_again(t *testing.T) {
	var mu sync.Mutex // guards keys
	var keys []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if keys = append(keys, r.Header.Get("Idempotency-Key")); len(keys) == 1 {
			fmt.Fprint(w, "again")
		}
	}))
	defer server.Close()
	r := newRig(t, unsigned+"[http_client]\nallow = [\"127.0.0.1\"]\n")
	r.probe("a", "1", asks(server.URL+"/*"), "probe")
	r.start()
	r.tell("tell.probe", "!post-twice "+server.URL+"/ hello")
	r.sees("a", "probe", "posted")
	r.tell("tell.probe", "!post-twice "+server.URL+"/ hello")
	r.sees("a", "probe", "posted", "posted")
	mu.Lock()
	defer mu.Unlock()
	if len(keys) != 3 || keys[0] == "" || keys[0] != keys[1] || keys[1] == keys[2] {
		t.Errorf("keys are %q, want the first two alike and the third another", keys)
	}
}

// A signed actor uses what its claims give it, at each call; the link alone is not
// enough, and neither is the claim.
func TestNode_claimsAtEachCall(t *testing.T) {
	account := seed(t, claims.Account)
	r := newRig(t, trusting(account))
	module, err := os.ReadFile(probe)
	if err != nil {
		t.Fatal(err)
	}
	links := hears
	for _, name := range []string{"numbergen", "logging", "httpclient"} {
		links += "[[capability]]\nname = \"" + name + "\"\n"
	}
	write := func(version string, caps ...string) {
		t.Helper()
		identity, err := account.Identity("probe")
		if err != nil {
			t.Fatal(err)
		}
		signed, err := claims.SignModule(module, claims.Claims[claims.ModuleClaims]{
			Subject: identity.Key().String(), Wascap: claims.ModuleClaims{Caps: caps},
		}, account)
		if err != nil {
			t.Fatal(err)
		}
		r.write("apps/a/app.toml", probes("a", version, links, "probe"))
		r.write("apps/a/probe.wasm", string(signed))
		if _, err := claims.SignApp(r.path("apps", "a"), "a", version, account); err != nil {
			t.Fatal(err)
		}
	}
	write("1", "wasmcloud:keyvalue", "edged:pubsub", "wasmcloud:builtin:numbergen", "wasmcloud:messaging")
	r.start()
	for _, call := range []string{
		"wasmcloud:builtin:numbergen NumberGen.Random32", // given, built in
		"wasmcloud:builtin:logging Logging.WriteLog",     // not given, built in
		"wasmcloud:httpclient HttpClient.Request",        // not given, linked
		"wasmcloud:messaging Messaging.Publish",          // given, not linked
		"wasmcloud:blobstore Blobstore.GetObject",        // neither
	} {
		r.tell("tell.probe", "!call "+call)
	}
	const not = "error: %s: Invocation not authorized: missing %s for %s"
	refused := func(operation, what, contract string) string {
		if what == "link definition" {
			contract += " on default" // the lattice
		}
		return fmt.Sprintf(not, operation, what, contract)
	}
	var want []string
	want = append(want, "called wasmcloud:builtin:numbergen")
	for _, x := range [][3]string{
		{"Logging.WriteLog", "capability claim", "wasmcloud:builtin:logging"},
		{"HttpClient.Request", "capability claim", "wasmcloud:httpclient"},
		{"Messaging.Publish", "link definition", "wasmcloud:messaging"},
		{"Blobstore.GetObject", "link definition", "wasmcloud:blobstore"},
	} {
		want = append(want, refused(x[0], x[1], x[2]), "called "+x[2])
	}
	r.sees("a", "probe", want...)

	// Nobody calls it by a contract that it may not use.
	write("2", "wasmcloud:keyvalue")
	if err := r.Reload(t.Context()); !errors.Is(err, lattice.ErrNotGranted) || !strings.Contains(err.Error(), "actor probe would be called: missing capability claim for edged:pubsub") {
		t.Errorf("without edged:pubsub: got %v", err)
	}

	// New claims hold from the next call on.
	write("3", "wasmcloud:keyvalue", "edged:pubsub", "wasmcloud:builtin:logging")
	r.reload()
	r.tell("tell.probe", "!call wasmcloud:builtin:numbergen NumberGen.Random32")
	r.sees("a", "probe", append(want, refused("NumberGen.Random32", "capability claim", "wasmcloud:builtin:numbergen"), "called wasmcloud:builtin:numbergen")...)
}
