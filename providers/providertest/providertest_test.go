package providertest_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/edged-io/edged/providers/providertest"
	"github.com/edged-io/edged/sdk/go/provider"
)

// patience is how long a test waits for what has to come.
const patience = 60 * time.Second

// The test binary is a provider too: with an argument it serves echoes.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "echo" {
		provider.Main(func(h *provider.Host) (provider.Provider, error) { return echo{h}, nil })
		return
	}
	os.Exit(m.Run())
}

// echo serves Echo.Echo, which answers with what it got, and Echo.Back, which calls the
// actor with it.
type echo struct{ host *provider.Host }

func (echo) PutLink(_ context.Context, l provider.Link) error {
	if l.Values["refuse"] != "" {
		return errors.New("as asked for")
	}
	return nil
}

func (echo) DeleteLink(context.Context, provider.Link) error { return nil }

func (e echo) Call(ctx context.Context, inv provider.Invocation) ([]byte, error) {
	switch inv.Operation {
	case "Echo.Echo":
		return inv.Payload, nil
	case "Echo.Back":
		return e.host.Call(ctx, inv.Link, "Actor.Take", inv.Payload)
	default:
		return nil, provider.ErrUnknown
	}
}

// startServer runs a NATS server in this process.
func startServer(t testing.TB) string {
	t.Helper()
	ns, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true, JetStream: true, StoreDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	ns.Start()
	t.Cleanup(func() { ns.Shutdown(); ns.WaitForShutdown() })
	if !ns.ReadyForConnections(patience) {
		t.Fatal("server is not ready")
	}
	return ns.ClientURL()
}

// run runs the suite and returns the results by their names.
func run(t *testing.T, o providertest.Options) map[string]providertest.Result {
	t.Helper()
	o.URL = startServer(t)
	if o.Timeout == 0 {
		o.Timeout, o.Start = patience, patience
	}
	o.Output = t.Output()
	results, err := providertest.Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]providertest.Result)
	for _, r := range results {
		t.Logf("%s %s %s (%s)", r.Status, r.Check, r.Detail, r.Took.Round(time.Millisecond))
		all[r.Check] = r
	}
	return all
}

// allPass fails unless all checks are there and passed.
func allPass(t *testing.T, results map[string]providertest.Result, names ...string) {
	t.Helper()
	for _, r := range results {
		if r.Status != providertest.Pass {
			t.Errorf("%s %s: %s", r.Status, r.Check, r.Detail)
		}
	}
	for _, name := range names {
		if _, ok := results[name]; !ok {
			t.Errorf("%s was not checked", name)
		}
	}
}

func calls(operations ...string) (all []providertest.Call) {
	for _, operation := range operations {
		all = append(all, providertest.Call{Operation: operation, Payload: []byte{0xa2, 'h', 'i'}})
	}
	return all
}

func TestRun_Program(t *testing.T) {
	allPass(t, run(t, providertest.Options{Command: []string{os.Args[0], "echo"}, Calls: calls("Echo.Echo", "Echo.Back")}),
		"start", "calls-of-actors", "link-at-start", "shutdown-again", "queue-group", "large-request", "call Echo.Back")
}

// Without a call that succeeds an operation that is not there stands in.
func TestRun_NoCalls(t *testing.T) {
	allPass(t, run(t, providertest.Options{Command: []string{os.Args[0], "echo"}}), "unlinked-actor", "link-delete")
}

func TestRun_NoProvider(t *testing.T) {
	results := run(t, providertest.Options{Command: []string{"true"}})
	if r := results["start"]; r.Status != providertest.Fail || !strings.Contains(r.Detail, "exit status 0") || len(results) != 1 {
		t.Errorf("got %+v", results)
	}
	results = run(t, providertest.Options{Command: []string{"sh", "-c", "echo no config >&2; exit 7"}})
	if r := results["start"]; r.Status != providertest.Fail || !strings.Contains(r.Detail, "exit status 7, saying: no config") && !strings.Contains(r.Detail, "exit status 7), saying: no config") {
		t.Errorf("got %+v", results)
	}
	_, err := providertest.Run(t.Context(), providertest.Options{URL: startServer(t), Command: []string{"/nowhere/provider"}})
	if err == nil || !strings.Contains(err.Error(), "/nowhere/provider") {
		t.Errorf("got %v", err)
	}
}

// A link that the provider refuses is told in words to the actor.
func TestRun_LinkRefused(t *testing.T) {
	results := run(t, providertest.Options{
		Command: []string{os.Args[0], "echo"}, Calls: calls("Echo.Echo"), Values: map[string]string{"refuse": "yes"},
		Timeout: time.Second, Start: time.Second,
	})
	if r := results["link-put"]; r.Status != providertest.Fail || !strings.Contains(r.Detail, "as asked for") {
		t.Errorf("got %+v", results)
	}
}

func TestRun_Options(t *testing.T) {
	for name, o := range map[string]providertest.Options{
		"no server":  {Command: []string{"true"}},
		"no program": {URL: "nats://127.0.0.1:1"},
		"link name":  {URL: "nats://127.0.0.1:1", Command: []string{"true"}, LinkName: "a.b"},
		"lattice":    {URL: "nats://127.0.0.1:1", Command: []string{"true"}, Lattice: "*"},
	} {
		if _, err := providertest.Run(t.Context(), o); !errors.Is(err, providertest.ErrOptions) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestRun_Cancelled(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	stopped := errors.New("stopped")
	_, err := providertest.Run(ctx, providertest.Options{URL: startServer(t), Ready: func(string) { cancel(stopped) }, Start: patience})
	if !errors.Is(err, stopped) {
		t.Errorf("got %v", err)
	}
}

func TestPassed(t *testing.T) {
	pass, warn, fail := providertest.Result{Status: providertest.Pass}, providertest.Result{Status: providertest.Warn}, providertest.Result{Status: providertest.Fail}
	for n, c := range []struct {
		results []providertest.Result
		strict  bool
		want    bool
	}{
		{[]providertest.Result{pass, warn}, false, true}, {[]providertest.Result{pass, warn}, true, false},
		{[]providertest.Result{pass, fail}, false, false}, {[]providertest.Result{pass}, true, true},
	} {
		if got := providertest.Passed(c.results, c.strict); got != c.want {
			t.Errorf("case %d: got %v", n, got)
		}
	}
}
