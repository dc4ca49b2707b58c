package node

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	goruntime "runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/edged-io/edged/internal/claims"
	"github.com/edged-io/edged/lattice/wire"
	"github.com/edged-io/edged/providers/child"
)

// provide is a provider, for the test binary that is started as one: it greets each
// actor as the link with that one says.
func provide() int {
	line, err := bufio.NewReader(os.Stdin).ReadBytes('\n')
	if err != nil {
		return 1
	}
	h, err := wire.ParseHostData(line)
	if err != nil {
		return 1
	}
	nc, err := nats.Connect(h.URL, nats.Timeout(patience))
	if err != nil {
		return 1
	}
	var mu sync.Mutex
	greetings := map[string]string{}
	for _, l := range h.Links {
		greetings[l.Actor] = l.Values["greeting"]
	}
	ended := make(chan struct{})
	own := wire.ProviderSubject(h.Lattice, h.Provider, h.LinkName)
	handlers := map[string]nats.MsgHandler{
		wire.SuffixPut: func(m *nats.Msg) {
			l, _ := wire.DecodeLink(m.Data)
			mu.Lock()
			defer mu.Unlock()
			if _, known := greetings[l.Actor]; !known {
				greetings[l.Actor] = l.Values["greeting"]
			}
		},
		wire.SuffixDelete: func(m *nats.Msg) {
			l, _ := wire.DecodeLink(m.Data)
			mu.Lock()
			defer mu.Unlock()
			delete(greetings, l.Actor)
		},
		wire.SuffixHealth:   func(m *nats.Msg) { _ = m.Respond((&wire.Health{Healthy: true}).Append(nil)) },
		wire.SuffixShutdown: func(m *nats.Msg) { _ = m.Respond([]byte("shutting down")); close(ended) },
		"": func(m *nats.Msg) {
			inv, _ := wire.DecodeInvocation(m.Data)
			mu.Lock()
			greeting, linked := greetings[inv.Origin.Key]
			mu.Unlock()
			r := wire.Response{ID: inv.ID, Payload: []byte(os.Getenv("PREFIX") + greeting + " " + string(inv.Payload))}
			if !linked {
				r.Failed, r.Error = true, "not linked"
			}
			r.Length = uint64(len(r.Payload))
			_ = m.Respond(r.Append(nil))
		},
	}
	for suffix, h := range handlers {
		if _, err := nc.Subscribe(own+suffix, h); err != nil {
			return 1
		}
	}
	if err := nc.Flush(); err != nil {
		return 1
	}
	<-ended
	_ = nc.Flush()
	return 0
}

// greeter is the program of such a provider.
func greeter(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return "#!/bin/sh\nexec '" + self + "' provider\n"
}

// greeting is the rest of the manifest of an app with a probe, one, that is greeted.
func greeting(name, provider, text string) string {
	return fmt.Sprintf(`
[[capability]]
name = "pubsub.local"
[[capability.config]]
topic = %q
delivery = "push"
[[provider]]
name = "greeter"
%s
[[link]]
actor = "one"
contract = "acme:greeter"
provider = "greeter"
values = { greeting = %q }
`, name, provider, text)
}

const execGreeter = "exec = \"greet\"\ncontract = \"acme:greeter\""

// An app brings a provider that is a program; it serves its actor, follows the
// manifest, and ends with the app.
func TestNode_provider_exec(t *testing.T) {
	r := newRig(t, unsigned)
	r.write("apps/a/greet", greeter(t)) // without a mode to run
	r.probe("a", "1", greeting("a", execGreeter, "hello"), "one")
	r.start()
	r.tell("a", "!echo acme:greeter you")
	r.sees("a", "one", "echo: hello you")
	all := r.processes.Running()
	if len(all) != 1 || all[0].App != "a" || all[0].Name != "greeter" || all[0].Contract != "acme:greeter" {
		t.Fatalf("providers %+v", all)
	}
	was := all[0]
	// Another link value is told to the process that runs.
	r.probe("a", "2", greeting("a", execGreeter, "good day"), "one")
	r.reload()
	r.eventually("the new greeting", func() bool {
		r.tell("a", "!echo acme:greeter you")
		seen := r.seen("a", "one")
		return seen[len(seen)-1] == "echo: good day you"
	})
	if now := r.processes.Running()[0]; now.PID != was.PID {
		t.Error("it was started again for a link")
	}
	// Another environment is another process, of the same key.
	r.probe("a", "3", greeting("a", execGreeter+"\nenv = { PREFIX = \"> \" }", "good day"), "one")
	r.reload()
	r.eventually("the new process", func() bool {
		r.tell("a", "!echo acme:greeter you")
		seen := r.seen("a", "one")
		return seen[len(seen)-1] == "echo: > good day you"
	})
	now := r.processes.Running()[0]
	if now.PID == was.PID || now.Key != was.Key {
		t.Errorf("%+v, then %+v", was, now)
	}
	r.stop()
	if syscall.Kill(now.PID, 0) == nil {
		if stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", now.PID)); err == nil && !bytes.Contains(stat, []byte(") Z ")) {
			t.Error("it outlives the box")
		}
	}
	r.start()
	r.eventually("it serves after a start", func() bool { return r.processes.Running()[0].Health == child.Healthy })
	if key := r.processes.Running()[0].Key; key != was.Key {
		t.Errorf("key %s after a start, %s before", key, was.Key)
	}
	if err := os.RemoveAll(r.path("apps", "a")); err != nil {
		t.Fatal(err)
	}
	r.reload()
	if all := r.processes.Running(); len(all) != 0 {
		t.Errorf("left %+v", all)
	}
}

// A provider that can not be started keeps an app out, and the one before goes on.
func TestNode_provider_refused(t *testing.T) {
	r := newRig(t, unsigned)
	r.write("apps/a/greet", greeter(t))
	r.probe("a", "1", greeting("a", execGreeter, "hello"), "one")
	r.start()
	for name, provider := range map[string]string{
		"not a program":    "exec = \"probe.wasm\"\ncontract = \"acme:greeter\"",
		"not there":        "exec = \"/no/such/greeter\"\ncontract = \"acme:greeter\"",
		"no archive":       "file = \"greet\"",
		"no user":          execGreeter + "\nlimits = { user = \"nobody here\" }",
		"another contract": "exec = \"greet\"\ncontract = \"acme:other\"",
	} {
		r.probe("a", "2", greeting("a", provider, "hello"), "one")
		if err := r.Reload(t.Context()); err == nil {
			t.Errorf("%s: it runs", name)
		}
		if got := r.running(); got != "a 1" {
			t.Fatalf("%s: runs %s", name, got)
		}
	}
	r.tell("a", "!echo acme:greeter you")
	r.sees("a", "one", "echo: hello you")
}

// An archive has to be signed by whom the box trusts, whoever has signed the app.
func TestNode_provider_archive(t *testing.T) {
	ours, theirs := seed(t, claims.Account), seed(t, claims.Account)
	r := newRig(t, trusting(ours))
	program := r.write("greet", greeter(t))
	key := seed(t, claims.Service).Key().String()
	for app, by := range map[string]claims.Seed{"good": ours, "foreign": theirs} {
		r.probe(app, "1", greeting(app, "file = \"greeter.par\"", "hello"), "one")
		f, err := os.Create(r.path("apps", app, "greeter.par"))
		if err != nil {
			t.Fatal(err)
		}
		c := claims.Claims[claims.ProviderClaims]{Subject: key, Wascap: claims.ProviderClaims{Name: "G", Contract: "acme:greeter", Vendor: "Acme", Rev: 4}}
		err = claims.WriteArchive(f, c, map[string]string{claims.Targets(goruntime.GOOS, goruntime.GOARCH)[0]: program}, by)
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
		r.sign(app, ours, time.Time{}, time.Time{})
	}
	r.start()
	if got := r.running(); got != "good 1" {
		t.Fatalf("runs %s", got)
	}
	contains(t, strings.Join(r.Status().Problems, "\n"), "app foreign: ", claims.ErrUnknownIssuer.Error())
	r.tell("good", "!echo acme:greeter you")
	r.sees("good", "one", "echo: hello you")
	if s := r.processes.Running()[0]; s.Key != key || s.Revision != 4 {
		t.Errorf("status %+v", s)
	}
}

// What is wrong with a provider is wrong with the box.
func TestNode_provider_health(t *testing.T) {
	r := newRig(t, unsigned)
	r.write("apps/a/greet", "#!/bin/sh\necho no such device >&2\nexit 1\n")
	r.probe("a", "1", greeting("a", execGreeter, "hello"), "one")
	r.start()
	r.eventually("the problem is shown", func() bool {
		return strings.Contains(strings.Join(r.Status().Problems, "\n"), `provider greeter default: exit status 1: "no such device"`)
	})
	r.write("apps/a/greet", greeter(t))
	r.reload()
	r.eventually("it is gone", func() bool { return len(r.Status().Problems) == 0 })
	if err := syscall.Kill(r.processes.Running()[0].PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	r.eventually("it was started again", func() bool { return r.processes.Running()[0].Restarts > 0 })
	r.eventually("and is well", func() bool { return r.processes.Running()[0].Health == child.Healthy && len(r.Status().Problems) == 0 })
}

// ask sends a request to the socket of the box.
func (r *rig) ask(method, path string, body, reply any) int {
	r.t.Helper()
	c := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return DialSocket(ctx, SocketPath(r.path("state")))
	}}}
	defer c.CloseIdleConnections()
	b, err := json.Marshal(body)
	if err != nil {
		r.t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(r.t.Context(), method, "http://box"+path, bytes.NewReader(b))
	if err != nil {
		r.t.Fatal(err)
	}
	resp, err := c.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(reply); err != nil {
		r.t.Fatal(err)
	}
	return resp.StatusCode
}

// A provider that somebody else starts serves an app that names it, with the line of
// before when the box starts again.
func TestNode_provider_attach(t *testing.T) {
	r := newRig(t, unsigned)
	addr := freeAddress(t) // of the same port over both starts
	text, err := os.ReadFile(r.file)
	if err != nil {
		t.Fatal(err)
	}
	r.write("edged.toml", strings.Replace(string(text), "[nats]\nlisten = \"127.0.0.1:0\"", "[nats]\nlisten = \""+addr+"\"", 1))
	key := seed(t, claims.Service).Key().String()
	r.probe("a", "1", greeting("a", "remote = \""+key+"\"\ncontract = \"acme:greeter\"", "hello"), "one")
	r.start()
	var got struct {
		Line, Error string
	}
	if status := r.ask("POST", "/providers", AttachRequest{Key: key, Contract: "acme:greeter"}, &got); status != 200 || got.Error != "" {
		t.Fatal(status, got.Error)
	}
	cmd := exec.Command("/bin/sh", r.write("greet", greeter(t)))
	cmd.Stdin = strings.NewReader(got.Line)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = cmd.Process.Kill(), cmd.Wait() })
	well := func() bool { all := r.processes.Running(); return len(all) == 1 && all[0].Health == child.Healthy }
	r.eventually("it is there", well)
	r.tell("a", "!echo acme:greeter you")
	r.sees("a", "one", "echo: hello you")
	r.stop()
	r.start()
	r.eventually("it is there again", well)
	r.tell("a", "!echo acme:greeter again")
	r.sees("a", "one", "echo: hello you", "echo: hello again")
	var list list[ProviderStatus]
	if status := r.ask("GET", "/providers", nil, &list); status != 200 || len(list.Items) != 1 || !list.Items[0].Remote || list.Items[0].State != "running" {
		t.Errorf("got %d, %+v", status, list)
	}
	if status := r.ask("POST", "/providers", AttachRequest{Key: "x"}, &got); status != 400 {
		t.Errorf("a bad key: %d", status)
	}
	if status := r.ask("DELETE", "/providers/"+key+"/default", nil, &got); status != 200 {
		t.Errorf("detach: %d %s", status, got.Error)
	}
	if status := r.ask("DELETE", "/providers/"+key+"/default", nil, &got); status != 404 {
		t.Errorf("detach again: %d", status)
	}
}

// freeAddress is one that nobody listens on.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
