package broker

import (
	"fmt"
	"net"
	"net/url"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// newTestCluster is a hub of three servers. The box's line goes to the first.
func newTestCluster(t *testing.T) []*testHub {
	t.Helper()
	var routes []*url.URL
	for range 3 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		routes = append(routes, &url.URL{Scheme: "nats-route", Host: l.Addr().String()})
		l.Close()
	}
	hubs := make([]*testHub, len(routes))
	for i, r := range routes {
		port := 0
		if _, err := fmt.Sscanf(r.Port(), "%d", &port); err != nil {
			t.Fatal(err)
		}
		hubs[i] = newTestHub(t, func(o *server.Options) {
			o.ServerName = fmt.Sprintf("hub-%d", i)
			o.Cluster = server.ClusterOpts{Name: "hub", Host: "127.0.0.1", Port: port}
			o.Routes = routes
		})
	}
	waitFor(t, "the cluster to have a leader", func() (bool, string) {
		for _, h := range hubs {
			if h.ns.JetStreamIsLeader() {
				return len(h.ns.JetStreamClusterPeers()) == 3, fmt.Sprint(h.ns.JetStreamClusterPeers())
			}
		}
		return false, "none"
	})
	return hubs
}

// TestUplink_Cluster_leadersChange drains into a stream of three replicas while
// its leader steps down and servers stop.
func TestUplink_Cluster_leadersChange(t *testing.T) {
	hubs := newTestCluster(t)
	h := hubs[0]
	nc := h.client(nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond))
	waitFor(t, "hub init", func() (bool, string) {
		_, err := InitHub(t.Context(), nc, HubInitOptions{Replicas: 3})
		return err == nil, fmt.Sprint(err)
	})
	b := startBox(t, h, "a", t.TempDir(), boxOptions{streams: map[string]string{"telemetry": "s.>"}, local: commands.local})
	js, err := jetstream.New(nc, jetstream.WithDefaultTimeout(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	sent, commanded := 0, 0
	step := func(what string, do func()) {
		t.Log(what)
		for range 500 {
			sent++
			b.putAsync("telemetry", "s.x", fmt.Sprintf("m-%d", sent))
		}
		b.flush()
		do()
		waitFor(t, "a command to be taken", func() (bool, string) {
			_, err := js.Publish(t.Context(), "edge.down.device.a.cmd.x", fmt.Appendf(nil, "m%d", commanded+1))
			return err == nil, fmt.Sprint(err)
		})
		commanded++
	}
	stepDown := func(stream string) func() {
		return func() {
			_, err := nc.Request("$JS.API.STREAM.LEADER.STEPDOWN."+stream, nil, 5*time.Second)
			if err != nil {
				t.Log(err) // it may be between two leaders
			}
		}
	}
	step("leader of the lanes steps down", stepDown(streamUp))
	step("leader of the commands steps down", stepDown(streamDown))
	step("a server stops", hubs[1].stop)
	step("it comes back, and that of the box stops and comes back", func() { hubs[1].start(); h.stop(); h.start() })
	b.drained("telemetry")
	var got []laneMessage
	waitFor(t, "all in the lane", func() (bool, string) {
		var err error
		got, err = h.readLane("a", "telemetry") // the cluster may not be ready yet
		return err == nil && len(got) >= sent, fmt.Sprint(len(got), err)
	})
	checkLane(t, got, "m", sent)
	if s := b.lane("telemetry"); s.Lost != 0 || s.Refused != 0 {
		t.Errorf("got %+v, want nothing lost or refused", s)
	}
	waitFor(t, "the commands", func() (bool, string) {
		got := b.received("cmd")
		return len(got) >= commanded, fmt.Sprint(got)
	})
	// A publish whose answer got lost is repeated by this test, so commands may come
	// twice, one behind the other.
	if got, want := fmt.Sprint(firsts(b.received("cmd"))), fmt.Sprint(numbers("m", 1, commanded)); got != want {
		t.Errorf("commands: got %s, want %s", got, want)
	}
}
