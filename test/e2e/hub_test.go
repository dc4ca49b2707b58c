package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// hub is a NATS server with JetStream, domain "hub", which syncs each message. A
// box reaches it by a line of its own.
type hub struct {
	t          *testing.T
	dir        string
	net        *netns // nil for that of the tests
	wary       bool   // it misses pings soon
	port, leaf int    // once it has run
	ns         *server.Server
}

// newHub starts a hub and lets edged make what a fleet needs there.
func newHub(t *testing.T) *hub { return newHubWith(t, &hub{}) }

// newHubWith starts one in the network that h names, which it listens to everywhere.
func newHubWith(t *testing.T, h *hub) *hub {
	t.Helper()
	h.t, h.dir, h.port, h.leaf = t, t.TempDir(), server.RANDOM_PORT, server.RANDOM_PORT
	t.Cleanup(h.stop)
	h.start()
	h.init()
	return h
}

func (h *hub) start() {
	h.t.Helper()
	o := &server.Options{
		ServerName: "hub", Host: "127.0.0.1", Port: h.port, NoLog: true, NoSigs: true,
		JetStream: true, JetStreamDomain: "hub", StoreDir: h.dir, SyncAlways: true,
	}
	o.LeafNode.Host, o.LeafNode.Port = "127.0.0.1", h.leaf
	if h.net != nil {
		o.LeafNode.Host = "0.0.0.0"
	}
	if h.wary { // a box that fell silent is still sent calls until its pings are missed
		o.PingInterval, o.MaxPingsOut = time.Second, 2
	}
	ns, err := server.NewServer(o)
	if err != nil {
		h.t.Fatal(err)
	}
	_ = h.net.in(func() error { // Start has made the listeners when it returns
		ns.Start()
		return nil
	})
	if !ns.ReadyForConnections(time.Minute) {
		h.t.Fatal("the hub is not ready")
	}
	h.ns, h.port, h.leaf = ns, o.Port, o.LeafNode.Port
}

func (h *hub) stop() {
	if h.ns != nil {
		h.ns.Shutdown()
		h.ns.WaitForShutdown()
		h.ns = nil
	}
}

// replace puts an empty hub in the place of this one.
func (h *hub) replace() {
	h.t.Helper()
	h.stop()
	h.dir = h.t.TempDir()
	h.start()
	h.init()
}

func (h *hub) url() string      { return fmt.Sprintf("nats://127.0.0.1:%d", h.port) }
func (h *hub) leafAddr() string { return fmt.Sprintf("127.0.0.1:%d", h.leaf) }

func (h *hub) init() {
	h.t.Helper()
	if err := h.net.in(func() error {
		if out, code := edged(h.t, "hub", "init", "--server", h.url()); code != 0 {
			return fmt.Errorf("edged hub init: exit code %d\n%s", code, out)
		}
		return nil
	}); err != nil {
		h.t.Fatal(err)
	}
}

func (h *hub) js() jetstream.JetStream {
	h.t.Helper()
	nc, err := nats.Connect(h.url(), nats.SetCustomDialer(h.net), nats.Timeout(patience))
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(nc.Close)
	js, err := jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(1<<20), jetstream.WithDefaultTimeout(patience))
	if err != nil {
		h.t.Fatal(err)
	}
	return js
}

// publish has the hub keep messages for boxes.
func (h *hub) publish(subject string, bodies ...string) {
	h.t.Helper()
	js := h.js()
	for _, body := range bodies {
		if _, err := js.Publish(h.t.Context(), subject, []byte(body)); err != nil {
			h.t.Fatalf("publish to %s: %v", subject, err)
		}
	}
}

// laneMessage is a message as the hub holds it.
type laneMessage struct {
	subject string // on the box
	body    string
	epoch   string
	seq     uint64
}

// lane returns what the hub holds of a stream of a box, in order.
func (h *hub) lane(device, stream string) []laneMessage {
	h.t.Helper()
	ctx := h.t.Context()
	prefix := "edge.up." + device + "." + stream + "."
	c, err := h.js().OrderedConsumer(ctx, "EDGE_UP", jetstream.OrderedConsumerConfig{FilterSubjects: []string{prefix + ">"}})
	if err != nil {
		h.t.Fatal(err)
	}
	info, err := c.Info(ctx)
	if err != nil {
		h.t.Fatal(err)
	}
	var all []laneMessage
	for uint64(len(all)) < info.NumPending {
		m, err := c.Next(jetstream.FetchMaxWait(patience))
		if err != nil {
			h.t.Fatalf("lane %s of %s: message %d of %d: %v", stream, device, len(all)+1, info.NumPending, err)
		}
		seq, err := strconv.ParseUint(m.Headers().Get("Edged-Seq"), 10, 64)
		if err != nil {
			h.t.Errorf("message without a sequence on %s: %v", m.Subject(), m.Headers())
		}
		all = append(all, laneMessage{m.Subject()[len(prefix):], string(m.Data()), m.Headers().Get("Edged-Epoch"), seq})
	}
	return all
}

// proves has edged compare what the hub holds of a box with what the box knows: it
// must be able to tell that of every message.
func (h *hub) proves(b *box, lanes ...string) {
	h.t.Helper()
	var all struct {
		Items []struct {
			Stream, Result      string
			Read, Proven, Newer int
			Findings, Unproven  []any
		}
	}
	_, state := comes(func() (bool, string) {
		out, err := exec.Command(built.edged, "hub", "verify", "--server", h.url(), "--device", b.device, "--json").Output()
		all.Items = nil
		if err := errors.Join(err, json.Unmarshal(out, &all)); err != nil {
			return true, fmt.Sprintf("%v\n%s", err, out)
		}
		for _, r := range all.Items {
			if r.Newer > 0 { // the box notes what the hub has acknowledged after a moment
				return false, string(out)
			}
		}
		return true, string(out)
	})
	for _, r := range all.Items {
		if r.Result != "same" || r.Proven != r.Read || len(r.Findings)+len(r.Unproven) > 0 {
			h.t.Errorf("edged hub verify, stream %s:\n%s", r.Stream, state)
		}
	}
	if len(all.Items) != len(lanes) {
		h.t.Errorf("edged hub verify: got %d lanes, want %v\n%s", len(all.Items), lanes, state)
	}
}
