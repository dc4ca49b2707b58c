package broker

import (
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// testHub is a NATS server with JetStream, domain "hub", that can be stopped and
// started again. Boxes reach it through gate, which can cut the line.
type testHub struct {
	t    testing.TB
	dir  string
	opts func(*server.Options)
	gate *testGate
	ns   *server.Server
	leaf string
}

func newTestHub(t testing.TB, opts func(*server.Options)) *testHub {
	t.Helper()
	h := &testHub{t: t, dir: t.TempDir(), opts: opts, gate: newTestGate(t)}
	h.start()
	t.Cleanup(h.stop)
	return h
}

func (h *testHub) start() {
	h.t.Helper()
	o := &server.Options{
		ServerName: "hub", Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true,
		JetStream: true, JetStreamDomain: "hub", StoreDir: h.dir,
	}
	o.LeafNode.Host, o.LeafNode.Port = "127.0.0.1", server.RANDOM_PORT
	if h.opts != nil {
		h.opts(o)
	}
	ns, err := server.NewServer(o)
	if err != nil {
		h.t.Fatal(err)
	}
	ns.Start()
	if !ns.ReadyForConnections(time.Minute) {
		h.t.Fatal("the hub is not ready")
	}
	h.ns = ns
	h.leaf = fmt.Sprintf("127.0.0.1:%d", o.LeafNode.Port)
	h.gate.aim(h.leaf)
}

func (h *testHub) stop() {
	if h.ns != nil {
		h.gate.aim("")
		h.ns.Shutdown()
		h.ns.WaitForShutdown()
		h.ns = nil
	}
}

// client connects to the hub directly, as a program in the cloud does.
func (h *testHub) client(opts ...nats.Option) *nats.Conn {
	h.t.Helper()
	nc, err := nats.Connect(h.ns.ClientURL(), append(opts, nats.Timeout(time.Minute))...)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(nc.Close)
	return nc
}

func (h *testHub) js(opts ...nats.Option) jetstream.JetStream {
	h.t.Helper()
	js, err := jetstream.New(h.client(opts...), jetstream.WithDefaultTimeout(time.Minute))
	if err != nil {
		h.t.Fatal(err)
	}
	return js
}

// init makes the streams.
func (h *testHub) init(opts ...nats.Option) {
	h.t.Helper()
	nc := h.client(opts...)
	defer nc.Close()
	if _, err := InitHub(h.t.Context(), nc, HubInitOptions{}); err != nil {
		h.t.Fatal(err)
	}
}

type laneMessage struct {
	subject string
	epoch   string
	seq     uint64
	data    string
	header  nats.Header
}

// lane returns what EDGE_UP holds of a lane, in order.
func (h *testHub) lane(device, stream string, opts ...nats.Option) []laneMessage {
	h.t.Helper()
	all, err := h.readLane(device, stream, opts...)
	if err != nil {
		h.t.Fatal(err)
	}
	return all
}

// rawLane is lane with what others wrote into it, which has no epoch.
func (h *testHub) rawLane(device, stream string) []laneMessage {
	h.t.Helper()
	all, err := h.readAll(device, stream)
	if err != nil {
		h.t.Fatal(err)
	}
	return all
}

func (h *testHub) readLane(device, stream string, opts ...nats.Option) ([]laneMessage, error) {
	h.t.Helper()
	all, err := h.readAll(device, stream, opts...)
	for _, m := range all {
		if m.seq == 0 {
			return nil, fmt.Errorf("message without a sequence on %s: %v", m.subject, m.header)
		}
	}
	return all, err
}

func (h *testHub) readAll(device, stream string, opts ...nats.Option) ([]laneMessage, error) {
	h.t.Helper()
	js := h.js(opts...)
	ctx := h.t.Context()
	prefix := lanePrefix(device, stream)
	c, err := js.OrderedConsumer(ctx, streamUp, jetstream.OrderedConsumerConfig{FilterSubjects: []string{prefix + ">"}})
	if err != nil {
		return nil, err
	}
	info, err := c.Info(ctx)
	if err != nil {
		return nil, err
	}
	var all []laneMessage
	for uint64(len(all)) < info.NumPending {
		batch, err := c.Fetch(min(1000, int(info.NumPending)-len(all)), jetstream.FetchMaxWait(time.Minute))
		if err != nil {
			return nil, err
		}
		for m := range batch.Messages() {
			seq, _ := strconv.ParseUint(m.Headers().Get(headerSeq), 10, 64)
			all = append(all, laneMessage{m.Subject()[len(prefix):], m.Headers().Get(headerEpoch), seq, string(m.Data()), m.Headers()})
		}
		if batch.Error() != nil {
			return nil, batch.Error()
		}
	}
	return all, nil
}
