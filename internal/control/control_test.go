package control_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/edged-io/edged/internal/control"
)

// startNATS starts a server and returns what makes connections to it.
func startNATS(t *testing.T) func() *nats.Conn {
	t.Helper()
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: -1, NoLog: true, NoSigs: true})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(time.Minute) {
		t.Fatal("server is not ready")
	}
	return func() *nats.Conn {
		t.Helper()
		nc, err := nats.Connect(s.ClientURL(), nats.Timeout(time.Minute))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(nc.Close)
		return nc
	}
}

// A box is a service that runs.
type box struct {
	*control.Service
	host *fakeHost
	stop context.CancelFunc
	done chan error
}

func startBox(t *testing.T, nc *nats.Conn, id string) *box {
	t.Helper()
	b := &box{host: newFakeHost(), done: make(chan error, 1)}
	b.host.state.ID = id
	s, err := control.New(control.Options{Conn: nc, Lattice: "default", Host: b.host, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	b.Service = s
	started := events(t, nc, "wasmbus.evt.default.host_started")
	var ctx context.Context
	ctx, b.stop = context.WithCancel(t.Context())
	go func() { b.done <- s.Run(ctx) }()
	t.Cleanup(b.end(t))
	started("host_started") // and with that it has subscribed
	return b
}

// end ends a service and waits for it; it may be called twice.
func (b *box) end(t *testing.T) func() {
	return func() {
		b.stop()
		select {
		case err, ok := <-b.done:
			if ok && err != nil {
				t.Error(err)
			}
			if ok {
				close(b.done)
			}
		case <-time.After(60 * time.Second):
			t.Error("the service does not end")
		}
	}
}

// events follows a subject.
func events(t *testing.T, nc *nats.Conn, subject string) func(name string) map[string]any {
	t.Helper()
	sub, err := nc.SubscribeSync(subject)
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	return func(name string) map[string]any {
		t.Helper()
		for {
			m, err := sub.NextMsg(30 * time.Second)
			if err != nil {
				t.Fatalf("%s on %s: %v", name, subject, err)
			}
			var e struct {
				Type string
				Data map[string]any
			}
			if err := json.Unmarshal(m.Data, &e); err != nil {
				t.Fatal(err)
			}
			if e.Type == "com.wasmcloud.lattice."+name {
				return e.Data
			}
		}
	}
}

func request(t *testing.T, nc *nats.Conn, subject, body string) string {
	t.Helper()
	m, err := nc.Request(subject, []byte(body), 30*time.Second)
	if err != nil {
		t.Fatalf("%s: %v", subject, err)
	}
	return string(m.Data)
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	end := time.After(60 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// replies are the first n answers of many hosts.
func replies(t *testing.T, nc *nats.Conn, subject, body string, n int) []string {
	t.Helper()
	inbox := nc.NewInbox()
	sub, err := nc.SubscribeSync(inbox)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	if err := nc.PublishRequest(subject, inbox, []byte(body)); err != nil {
		t.Fatal(err)
	}
	var all []string
	for range n {
		m, err := sub.NextMsg(30 * time.Second)
		if err != nil {
			t.Fatalf("%s: %d answers: %v", subject, len(all), err)
		}
		all = append(all, string(m.Data))
	}
	return all
}

// A configuration goes to every host, since any of them may be asked next; one answers.
func TestService_config_everywhere(t *testing.T) {
	connect := startNATS(t)
	client := connect()
	const other = "NBXHUHG5FGYLPD6RHL2MKWMP572O6KUXCZXDZJXS4T57ZTMAKBN7C57X"
	boxes := []*box{startBox(t, connect(), hostKey), startBox(t, connect(), other)}
	set, deleted := events(t, client, "wasmbus.evt.default.config_set"), events(t, client, "wasmbus.evt.default.config_deleted")
	for _, c := range []struct{ put, body, del, name, key string }{
		{"wasmbus.ctl.v1.default.config.put.shop", `{"a":"1"}`, "wasmbus.ctl.v1.default.config.del.shop", "shop", "a"},
		{"wasmbus.ctl.default.config.put." + actorKey + ".a", "1", "wasmbus.ctl.default.config.del." + actorKey + ".a", actorKey, "a"},
	} {
		inbox, err := client.SubscribeSync(nats.NewInbox())
		if err != nil {
			t.Fatal(err)
		}
		told := func(next func(string) map[string]any, subject, body, event string) {
			t.Helper()
			if err := client.PublishRequest(subject, inbox.Subject, []byte(body)); err != nil {
				t.Fatal(err)
			}
			if _, err := inbox.NextMsg(30 * time.Second); err != nil {
				t.Fatalf("%s: %v", subject, err)
			}
			for range boxes { // each tells it once it has it; version 0's comes with one for its key
				next(event)
				if c.name == actorKey {
					next(event)
				}
			}
		}
		told(set, c.put, c.body, "config_set")
		for i, b := range boxes {
			if got := b.host.State().Config[c.name][c.key]; string(got) != "1" {
				t.Errorf("%s: host %d has %q", c.put, i, got)
			}
		}
		told(deleted, c.del, "", "config_deleted")
		for i, b := range boxes {
			if got, ok := b.host.State().Config[c.name]; ok {
				t.Errorf("%s: host %d has %q", c.del, i, got)
			}
			// An answer to this, which is later, would be behind a second one to those.
			if got := request(t, client, "wasmbus.ctl.v1.default.host.get."+b.host.State().ID, ""); !strings.Contains(got, "success") {
				t.Errorf("got %s", got)
			}
		}
		if n, _, _ := inbox.Pending(); n != 0 {
			t.Errorf("%s, %s: %d answers more than requests", c.put, c.del, n)
		}
	}
}

func TestService_Run(t *testing.T) {
	connect := startNATS(t)
	client := connect()
	next, nextScaled, nextOld := events(t, client, "wasmbus.evt.*.>"), events(t, client, "wasmbus.evt.*.actor_scaled"), events(t, client, "wasmbus.evt.*")
	const other = "N" + "BXHUHG5FGYLPD6RHL2MKWMP572O6KUXCZXDZJXS4T57ZTMAKBN7C57X"
	one := startBox(t, connect(), hostKey)
	next("host_started")
	next("host_heartbeat")
	two := startBox(t, connect(), other)
	next("host_heartbeat")

	for _, subject := range []string{"wasmbus.ctl.default.ping.hosts", "wasmbus.ctl.v1.default.host.ping"} {
		all := strings.Join(replies(t, client, subject, "", 2), " ")
		if !strings.Contains(all, hostKey) || !strings.Contains(all, other) {
			t.Errorf("%s: got %s", subject, all)
		}
	}
	for _, subject := range []string{"wasmbus.ctl.default.auction.actor", "wasmbus.ctl.v1.default.component.auction"} {
		replies(t, client, subject, `{"actor_ref":"r","component_ref":"r","component_id":"c","constraints":{}}`, 2)
	}

	// A command goes to its host, and its outcome to everybody.
	if got := request(t, client, "wasmbus.ctl.default.cmd."+hostKey+".scale", `{"actor_ref":"registry/counter:1","count":2}`); got != accepted {
		t.Errorf("got %s", got)
	}
	if got := nextScaled("actor_scaled")["max_instances"]; got != 2.0 {
		t.Errorf("got %v instances", got)
	}
	nextOld("actor_scaled")
	if got := request(t, client, "wasmbus.ctl.v1.default.host.get."+hostKey, ""); !strings.Contains(got, `"max_instances":2`) {
		t.Errorf("got %s", got)
	}
	if got := len(two.host.State().Actors); got != 0 {
		t.Errorf("%d actors run on the other host", got)
	}
	nobody := "wasmbus.ctl.default.cmd." + actorKey + ".scale"
	if _, err := client.Request(nobody, nil, 30*time.Second); err != nats.ErrNoResponders {
		t.Errorf("%s: got %v, want no responders", nobody, err)
	}

	// One host of the lattice takes what is for any.
	for _, subject := range []string{"wasmbus.ctl.default.linkdefs.put", "wasmbus.ctl.default.get.links", "wasmbus.ctl.default.get.config.x",
		"wasmbus.ctl.v1.default.link.get", "wasmbus.ctl.v1.default.claims.get", "wasmbus.ctl.v1.default.config.get.x"} {
		replies(t, client, subject, `{"actor_id":"a","provider_id":"p","contract_id":"c"}`, 1)
	}
	if got := len(one.host.State().Links) + len(two.host.State().Links); got != 1 {
		t.Errorf("%d hosts put the link", got)
	}
	// All take what is for all.
	replies(t, client, "wasmbus.ctl.default.registries.put", `{"a":{}}`, 2)
	replies(t, client, "wasmbus.ctl.v1.default.registry.put", `{"a":{}}`, 2)

	// The answer to a stop comes before the stop.
	if got := request(t, client, "wasmbus.ctl.default.cmd."+hostKey+".stop", `{"host_id":"`+hostKey+`","timeout":1500}`); got != accepted {
		t.Errorf("got %s", got)
	}
	stopped := func() *time.Duration {
		one.host.mu.Lock()
		defer one.host.mu.Unlock()
		return one.host.stop
	}
	eventually(t, "the host is stopped", func() bool { return stopped() != nil })
	if got := *stopped(); got != 1500*time.Millisecond {
		t.Errorf("got %v to stop", got)
	}
	one.end(t)()
	next("host_stopped")
	if _, err := client.Request("wasmbus.ctl.default.get."+hostKey+".inv", nil, 30*time.Second); err != nats.ErrNoResponders {
		t.Errorf("got %v from a host that stopped, want no responders", err)
	}
}

// What comes from a stream, or is the answer of the server to somebody, is no command: who may use JetStream, and not the control interface, has such
// a message sent to any subject.
func TestService_Run_unasked(t *testing.T) {
	connect := startNATS(t)
	client := connect()
	b := startBox(t, connect(), hostKey)
	for _, reply := range []string{"", "$JS.ACK.OBJ_default.c.1.1.1.1.0", "$JS.ACK._.hash.OBJ_default.c.1.1.1.1.0"} {
		for _, subject := range []string{"default.cmd." + hostKey + ".stop", "v1.default.host.stop." + hostKey, "default.linkdefs.put"} {
			body := `{"type":"io.nats.jetstream.api.v1.account_info_response","actor_id":"a","provider_id":"p","contract_id":"c"}`
			if err := client.PublishMsg(&nats.Msg{Subject: "wasmbus.ctl." + subject, Reply: reply, Data: []byte(body)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := client.Publish("wasmbus.ctl.default.registries.put", []byte(`{"a":{}}`)); err != nil {
		t.Fatal(err)
	}
	request(t, client, "wasmbus.ctl.default.get.links", "") // what was sent before was looked at before
	b.host.mu.Lock()
	stop := b.host.stop
	b.host.mu.Unlock()
	if stop != nil || len(b.host.State().Links) != 0 {
		t.Errorf("got a stop in %v, %d links", stop, len(b.host.State().Links))
	}
}

// An answer that is larger than a message is replaced by one that says so.
func TestService_Run_largeAnswer(t *testing.T) {
	connect := startNATS(t)
	client := connect()
	b := startBox(t, connect(), hostKey)
	b.host.edit(func(st *control.State) {
		st.Config = map[string]map[string][]byte{"big": {"v": make([]byte, control.MaxConfigBytes)}}
		st.Config["big"]["w"] = []byte(strings.Repeat("\x01", control.MaxConfigBytes))
	})
	if got := request(t, client, "wasmbus.ctl.default.get.config.big", ""); !strings.Contains(got, `"accepted":false`) || !strings.Contains(got, "more than a message may have") {
		t.Errorf("got %.200s", got)
	}
	if got := request(t, client, "wasmbus.ctl.v1.default.config.get.big", ""); !strings.Contains(got, `"success":false`) {
		t.Errorf("got %.200s", got)
	}
}

func TestNew_refuses(t *testing.T) {
	nc := startNATS(t)()
	for name, o := range map[string]control.Options{
		"no connection":  {Lattice: "default", Host: newFakeHost()},
		"no host":        {Lattice: "default", Conn: nc},
		"no lattice":     {Conn: nc, Host: newFakeHost()},
		"a subject":      {Conn: nc, Host: newFakeHost(), Lattice: "a.b"},
		"a version":      {Conn: nc, Host: newFakeHost(), Lattice: "v1"},
		"a bad prefix":   {Conn: nc, Host: newFakeHost(), Lattice: "default", Prefix: "a..b"},
		"a wild prefix":  {Conn: nc, Host: newFakeHost(), Lattice: "default", Prefix: "a.>"},
		"a wild lattice": {Conn: nc, Host: newFakeHost(), Lattice: ">"},
	} {
		if _, err := control.New(o); err == nil || !strings.HasPrefix(err.Error(), "control: ") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}
