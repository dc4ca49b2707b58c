package ota_test

import (
	"context"
	"net/url"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/edged-io/edged/internal/ota"
)

const (
	domain = "hub"
	device = "press-7"
)

// testHub is a NATS server with JetStream and a leaf node listener.
type testHub struct {
	server *server.Server
	conn   *nats.Conn
	js     jetstream.JetStream
	leaf   *url.URL
	port   int
}

// startHub starts a hub on the leaf port given, 0 for any.
func startHub(t *testing.T, dir string, port int) *testHub {
	t.Helper()
	return startHubWith(t, dir, port, nil)
}

func startHubWith(t *testing.T, dir string, port int, change func(*server.Options)) *testHub {
	t.Helper()
	o := &server.Options{
		Host: "127.0.0.1", Port: -1, NoLog: true, NoSigs: true, ServerName: "hub",
		JetStream: true, JetStreamDomain: domain, StoreDir: dir,
	}
	o.LeafNode.Host, o.LeafNode.Port = "127.0.0.1", port
	if port == 0 {
		o.LeafNode.Port = -1
	}
	if change != nil {
		change(o)
	}
	s := startServer(t, o)
	if port == 0 {
		port = o.LeafNode.Port
	}
	h := &testHub{server: s, conn: connect(t, s.ClientURL(), nats.UserInfo("operator", "secret")), port: port}
	h.leaf = &url.URL{Scheme: "nats-leaf", Host: "127.0.0.1:" + itoa(port)}
	js, err := jetstream.New(h.conn, jetstream.WithDefaultTimeout(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	h.js = js
	return h
}

func startServer(t *testing.T, o *server.Options) *server.Server {
	t.Helper()
	s, err := server.NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(time.Minute) {
		t.Fatal("server is not ready")
	}
	return s
}

func (h *testHub) stop() {
	h.conn.Close()
	h.server.Shutdown()
	h.server.WaitForShutdown()
}

// startBox starts a leaf node without JetStream and returns a connection to it.
func startBox(t *testing.T, leaf *url.URL) *nats.Conn {
	t.Helper()
	o := &server.Options{Host: "127.0.0.1", Port: -1, NoLog: true, NoSigs: true, ServerName: "box"}
	o.LeafNode.ReconnectInterval = 50 * time.Millisecond
	o.LeafNode.Remotes = []*server.RemoteLeafOpts{{URLs: []*url.URL{leaf}}}
	return connect(t, startServer(t, o).ClientURL())
}

func connect(t *testing.T, u string, opts ...nats.Option) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect(u, append(opts, nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond), nats.Timeout(time.Minute))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("still not: %s", what)
		}
	}
}

func TestEnsureHub_leavesWhatIsThere(t *testing.T) {
	h := startHub(t, t.TempDir(), 0)
	ctx := t.Context()
	if _, err := h.js.CreateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: ota.DesiredBucket, History: 7}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := ota.EnsureHub(ctx, h.conn, "", 1); err != nil {
			t.Fatal(err)
		}
	}
	kv, err := h.js.KeyValue(ctx, ota.DesiredBucket)
	if err != nil {
		t.Fatal(err)
	}
	st, err := kv.Status(ctx)
	if err != nil || st.History() != 7 {
		t.Errorf("history became %d, %v", st.History(), err)
	}
	for _, name := range []string{ota.ReportedBucket, ota.DesiredBucket} {
		if _, err := h.js.KeyValue(ctx, name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := h.js.ObjectStore(ctx, ota.ArtifactsBucket); err != nil {
		t.Error(err)
	}
}

func TestStatusOf_nothingYet(t *testing.T) {
	h := startHub(t, t.TempDir(), 0)
	if _, err := ota.StatusOf(t.Context(), h.conn, "", device); err == nil {
		t.Error("a hub without buckets has a status")
	}
	if err := ota.EnsureHub(t.Context(), h.conn, "", 1); err != nil {
		t.Fatal(err)
	}
	s, err := ota.StatusOf(t.Context(), h.conn, "", device)
	if err != nil || s.Desired != nil || s.Reported != nil {
		t.Errorf("got %+v, %v", s, err)
	}
}

// glob lists what matches below dir.
func glob(t *testing.T, elem ...string) []string {
	t.Helper()
	m, err := filepath.Glob(filepath.Join(elem...))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// The box's leaf connection is allowed what Permissions says and nothing else here.
func TestPermissions_areEnough(t *testing.T) {
	h := startHubWith(t, t.TempDir(), 0, func(o *server.Options) {
		publish, subscribe := ota.Permissions(domain, device)
		o.Users = []*server.User{{Username: "operator", Password: "secret"}, {Username: "box", Password: "secret", Permissions: &server.Permissions{
			Publish: &server.SubjectPermission{Allow: publish}, Subscribe: &server.SubjectPermission{Allow: subscribe},
		}}}
	})
	h.leaf.User = url.UserPassword("box", "secret")
	conn := startBox(t, h.leaf)
	b := startAgent(t, conn, t.TempDir(), func(o *ota.Options) { o.Poll = time.Hour }) // the watch must do
	one := push(t, h, app(t, "app.toml", "v1", "x.wasm", large("n")), "1")
	wantCommitted(t, h, one)
	wantCommitted(t, h, push(t, h, app(t, "app.toml", "v2", "x.wasm", large("n")), "2"))
	b.stop()
	// Another box's key is out of reach.
	o := pushOptions(app(t, "app.toml", "v1"), "1")
	o.Device = "press-8"
	if _, err := ota.Push(t.Context(), h.conn, o); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if s, err := ota.StatusOf(ctx, conn, domain, "press-8"); err == nil {
		t.Errorf("got the status of another box: %+v", s)
	}
}
