package node

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/edged-io/edged/internal/claims"
	"github.com/edged-io/edged/lattice"
	"github.com/edged-io/edged/lattice/wire"
)

// The W3C trace context of an HTTP request goes with the calls that its actor makes:
// to another actor on the box, from there to one elsewhere in the lattice, and to an
// HTTP server.
func TestNode_trace(t *testing.T) {
	const parent, state = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "vendor=x,other=y"
	seen := make(chan [2]string, 4)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		seen <- [2]string{r.Header.Get(lattice.TraceParent), r.Header.Get(lattice.TraceState)}
	}))
	defer server.Close()
	r := newRig(t, unsigned+"[http_client]\nallow = [\"127.0.0.1\"]\n")
	r.probe("a", "1", places("one", `listen = "127.0.0.1:0"`)+fmt.Sprintf("[[capability]]\nname = \"httpclient\"\n[[capability.config]]\nallow = [%q]\n", server.URL+"/*"), "one")
	r.start()
	nc := r.latticeClient()
	elsewhere := seed(t, claims.Module).Key().String()
	if _, err := nc.Subscribe(wire.ActorSubject("default", elsewhere), func(m *nats.Msg) {
		inv, err := wire.DecodeInvocation(m.Data)
		if err != nil {
			t.Error(err)
		}
		seen <- [2]string{inv.Trace[lattice.TraceParent], inv.Trace[lattice.TraceState]}
		seen <- [2]string{m.Header.Get(lattice.TraceParent), m.Header.Get(lattice.TraceState)}
		answer := wire.Response{ID: inv.ID, Payload: inv.Payload, Length: inv.Length}
		_ = m.Respond(answer.Append(nil))
	}); err != nil {
		t.Fatal(err)
	}
	if err := nc.FlushTimeout(patience); err != nil {
		t.Fatal(err)
	}
	for path, times := range map[string]int{"/echo/" + elsewhere: 2, "/get/" + strings.TrimPrefix(server.URL, "http://") + "/": 1} {
		req, err := http.NewRequestWithContext(t.Context(), "POST", "http://"+r.httpAddress("a-httpserver-1")+path, strings.NewReader("x"))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set(lattice.TraceParent, parent)
		req.Header.Add(lattice.TraceState, "vendor=x")
		req.Header.Add(lattice.TraceState, "other=y")
		resp, err := newClient(t).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != 200 {
			t.Errorf("POST %s: got %d %q, %v", path, resp.StatusCode, body, err)
			continue
		}
		for range times {
			if got := <-seen; got != [2]string{parent, state} {
				t.Errorf("POST %s: the trace context is %q", path, got)
			}
		}
	}
}
