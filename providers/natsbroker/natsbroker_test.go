package natsbroker_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"

	"github.com/edged-io/edged/internal/event"
	"github.com/edged-io/edged/providers/natsbroker"
	"github.com/edged-io/edged/store"
)

// patience is how long a test waits for what must happen.
const patience = 60 * time.Second

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for end := time.After(patience); !ok(); {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("not in time: %s", what)
		}
	}
}

// elsewhere is a NATS server; it can be started again with what it held.
type elsewhere struct {
	t *testing.T
	o server.Options
	s *server.Server
}

func startServer(t *testing.T, set func(*server.Options)) *elsewhere {
	t.Helper()
	e := &elsewhere{t: t, o: server.Options{Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: t.TempDir(), NoLog: true, NoSigs: true}}
	if set != nil {
		set(&e.o)
	}
	e.start()
	t.Cleanup(func() { e.stop() })
	return e
}

func (e *elsewhere) start() {
	e.t.Helper()
	o := e.o
	s, err := server.NewServer(&o)
	if err != nil {
		e.t.Fatal(err)
	}
	s.Start()
	if !s.ReadyForConnections(patience) {
		e.t.Fatal("the server does not start")
	}
	e.s, e.o.Port = s, o.Port
}

func (e *elsewhere) stop() {
	e.s.Shutdown()
	e.s.WaitForShutdown()
}

func (e *elsewhere) url() string { return fmt.Sprintf("nats://127.0.0.1:%d", e.o.Port) }

func (e *elsewhere) connect(options ...nats.Option) (*nats.Conn, jetstream.JetStream) {
	e.t.Helper()
	nc, err := nats.Connect(e.url(), append(options, nats.Timeout(patience))...)
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(nc.Close)
	js, err := jetstream.New(nc, jetstream.WithDefaultTimeout(patience))
	if err != nil {
		e.t.Fatal(err)
	}
	return nc, js
}

func (e *elsewhere) stream(name string, subjects ...string) {
	e.t.Helper()
	_, js := e.connect()
	if _, err := js.CreateStream(e.t.Context(), jetstream.StreamConfig{Name: name, Subjects: subjects, Duplicates: 100 * time.Millisecond}); err != nil {
		e.t.Fatal(err)
	}
}

// held returns the bodies that a stream has.
func (e *elsewhere) held(name string) (got []string) {
	e.t.Helper()
	nc, js := e.connect()
	defer nc.Close()
	s, err := js.Stream(e.t.Context(), name)
	if err != nil {
		return nil
	}
	for seq := uint64(1); seq <= s.CachedInfo().State.LastSeq; seq++ {
		m, err := s.GetMsg(e.t.Context(), seq)
		if err != nil {
			e.t.Fatal(err)
		}
		got = append(got, string(m.Data))
	}
	return got
}

// box is a client with its store.
type box struct {
	t    *testing.T
	db   *store.DB
	c    *natsbroker.Client
	stop func()

	mu      sync.Mutex // guards what follows
	told    []string
	letters []string
	fail    error // of Stage
}

const outbox = "out"

// start runs a client on the store in dir; what it receives goes to the stream "in".
func start(t *testing.T, dir string, o natsbroker.Options) *box {
	t.Helper()
	b := &box{t: t}
	db, err := store.Open(store.Options{Dir: dir})
	if err == nil {
		err = errors.Join(db.EnsureStream(store.StreamConfig{Name: "in"}), db.EnsureStream(store.StreamConfig{Name: outbox}),
			db.EnsureSubscription(store.SubscriptionConfig{Name: outbox, Stream: outbox}))
	}
	if err != nil {
		t.Fatal(err)
	}
	b.db, o.Store = db, db
	if o.Name == "" {
		o.Name = "edged-press-7-a-1"
	}
	if o.Filters == nil {
		o.Outbox = &natsbroker.Outbox{Stream: outbox, Subscription: outbox}
	}
	o.Stage = b.stage
	o.DeadLetter = func(_ context.Context, m store.Message, reason string, _ error) error {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.letters = append(b.letters, fmt.Sprintf("%s %s %d", reason, m.Subject, len(m.Data)))
		return nil
	}
	o.Health = func(err error) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.told = append(b.told, fmt.Sprint(err))
	}
	o.MinBackoff, o.MaxBackoff = 5*time.Millisecond, 100*time.Millisecond
	if b.c, err = natsbroker.New(o); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- b.c.Run(ctx) }()
	b.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("run: %v", err)
		}
		if err := db.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	t.Cleanup(b.stop)
	return b
}

func (b *box) stage(t *store.Turn, m store.Message) error {
	b.mu.Lock()
	fail := b.fail
	b.mu.Unlock()
	if fail != nil {
		return fail
	}
	_, err := t.Publish("in", m)
	return err
}

func (b *box) setFail(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fail = err
}

func (b *box) health() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.told) == 0 {
		return ""
	}
	return b.told[len(b.told)-1]
}

func (b *box) connected() {
	b.t.Helper()
	eventually(b.t, "connected", func() bool { return b.c.Stats().Connected })
}

func (b *box) stored() (got []string) {
	b.t.Helper()
	if err := b.db.Read("in", 1, 1<<20, 1<<30, func(m store.Message) error { got = append(got, string(m.Data)); return nil }); err != nil {
		b.t.Fatal(err)
	}
	return got
}

// put fills the outbox, in one turn; messages go to subjects in turn.
func (b *box) put(from, to int, subjects ...string) {
	b.t.Helper()
	err := b.db.Do(b.t.Context(), func(_ context.Context, turn *store.Turn) error {
		for i := from; i < to; i++ {
			if _, err := turn.Publish(outbox, store.Message{Subject: subjects[i%len(subjects)], Data: fmt.Append(nil, i)}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *box) empty() {
	b.t.Helper()
	eventually(b.t, "the outbox is empty", func() bool {
		info, err := b.db.Stream(outbox)
		return err == nil && info.Msgs == 0
	})
}

func numbers(n int) (all []string) {
	for i := range n {
		all = append(all, fmt.Sprint(i))
	}
	return all
}

func TestClient_qos0(t *testing.T) {
	e := startServer(t, func(o *server.Options) { o.JetStream = false })
	nc, _ := e.connect()
	sub, err := nc.SubscribeSync("up.>")
	if err != nil {
		t.Fatal(err)
	}
	var boxes []*box
	for i := range 2 {
		b := start(t, t.TempDir(), natsbroker.Options{URL: e.url(), Name: fmt.Sprint("box", i), Filters: []string{"user.>", "user"}, Group: "plant"})
		b.connected()
		boxes = append(boxes, b)
	}
	const n = 100
	for i := range n {
		if err := nc.Publish("user.a", fmt.Append(nil, i)); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the boxes have all together", func() bool { return len(boxes[0].stored())+len(boxes[1].stored()) == n })
	if a := len(boxes[0].stored()); a == 0 || a == n {
		t.Errorf("%d of %d messages at the first box", a, n)
	}
	out := start(t, t.TempDir(), natsbroker.Options{URL: e.url()})
	out.put(0, n, "up.a")
	out.empty()
	for i := range n {
		m, err := sub.NextMsg(patience)
		if err != nil || string(m.Data) != fmt.Sprint(i) {
			t.Fatalf("got %v, %v, want %d", m, err, i)
		}
	}
}

// A durable consumer keeps what comes while the box, or the server, is away; each message is stored once and in order, also when it comes again.
func TestClient_Receive_durable(t *testing.T) {
	for _, qos := range []byte{1, 2} {
		e := startServer(t, nil)
		e.stream("users", "user.>")
		dir := t.TempDir()
		o := natsbroker.Options{URL: e.url(), QoS: qos, Filters: []string{"user.>"}, AckWait: 500 * time.Millisecond}
		b := start(t, dir, o)
		b.connected()
		_, js := e.connect()
		sent := 0
		send := func(n int) {
			for range n {
				if _, err := js.Publish(t.Context(), "user.a", fmt.Append(nil, sent)); err != nil {
					t.Fatal(err)
				}
				sent++
			}
		}
		send(100)
		eventually(t, "100 stored", func() bool { return len(b.stored()) == 100 })
		b.stop()
		send(50)
		b = start(t, dir, o)
		eventually(t, "150 stored", func() bool { return len(b.stored()) == 150 })
		b.setFail(store.ErrFull)
		send(50)
		eventually(t, "several attempts", func() bool { return b.c.Stats().Connects > 2 })
		b.setFail(nil)
		eventually(t, "200 stored", func() bool { return len(b.stored()) == 200 })
		e.stop()
		eventually(t, "the loss is noticed", func() bool { return !b.c.Stats().Connected })
		e.start()
		_, js = e.connect()
		send(50)
		eventually(t, "250 stored", func() bool { return len(b.stored()) == 250 })
		if got := b.stored(); !slices.Equal(got, numbers(250)) {
			t.Errorf("got %v", got)
		}
		b.stop()
	}
}

// What was stored, and could not be acknowledged, is recognised when it comes again.
func TestClient_Receive_repeats(t *testing.T) {
	e := startServer(t, nil)
	e.stream("users", "user.>")
	dir := t.TempDir()
	o := natsbroker.Options{URL: e.url(), QoS: 2, Filters: []string{"user.>"}, AckWait: 300 * time.Millisecond}
	stopped := make(chan struct{})
	var once sync.Once
	first := o
	first.Failpoint = func(point string) {
		if point == natsbroker.FailpointReceived {
			once.Do(func() { e.stop(); close(stopped) }) // the first acknowledgement finds nobody
		}
	}
	b := start(t, dir, first)
	b.connected()
	nc, js := e.connect()
	for i := range 20 {
		m := &nats.Msg{Subject: "user.a", Data: fmt.Append(nil, i), Header: nats.Header{"X": {"y"}, "Nats-Rollup": {"none of ours"}}}
		m.Header.Del("Nats-Rollup")
		if i%2 == 0 {
			m.Header.Set("Nats-Msg-Id", fmt.Sprint("id", i))
		}
		if _, err := js.PublishMsgAsync(m); err != nil {
			t.Fatal(err)
		}
	}
	_ = nc.Flush()
	<-stopped
	b.stop()
	e.start()
	there := len(e.held("users"))
	b = start(t, dir, o)
	eventually(t, "all came, some again", func() bool { return len(b.stored()) == there && b.c.Stats().Received > 0 })
	_, js = e.connect()
	if _, err := js.Publish(t.Context(), "user.a", []byte("last")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the last came", func() bool { return slices.Contains(b.stored(), "last") })
	consumer, err := js.Consumer(t.Context(), "users", "edged-press-7-a-1")
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "all are acknowledged", func() bool {
		info, err := consumer.Info(t.Context())
		return err == nil && info.NumAckPending == 0 && info.NumPending == 0
	})
	if got := b.stored(); len(got) != there+1 {
		t.Errorf("%d messages stored, want %d: %v", len(got), there+1, got)
	}
}

// Two boxes of a group share a durable consumer.
func TestClient_Receive_group(t *testing.T) {
	e := startServer(t, nil)
	e.stream("users", "user.>")
	var boxes []*box
	for i := range 2 {
		b := start(t, t.TempDir(), natsbroker.Options{URL: e.url(), Name: fmt.Sprint("box", i), QoS: 1, Filters: []string{"user.*"}, Group: "plant"})
		b.connected()
		boxes = append(boxes, b)
	}
	_, js := e.connect()
	const n = 200
	for i := range n {
		if _, err := js.Publish(t.Context(), "user.a", fmt.Append(nil, i)); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the boxes have all together", func() bool { return len(boxes[0].stored())+len(boxes[1].stored()) >= n })
	all := slices.Concat(boxes[0].stored(), boxes[1].stored())
	slices.Sort(all)
	if a := len(boxes[0].stored()); len(slices.Compact(all)) != n || a == 0 || a == n {
		t.Errorf("%d different messages, %d at the first box", len(all), a)
	}
}

func TestClient_Receive_neverIsADeadLetter(t *testing.T) {
	e := startServer(t, nil)
	e.stream("users", "user.>")
	b := start(t, t.TempDir(), natsbroker.Options{URL: e.url(), QoS: 1, Filters: []string{"user.>"}, MaxMessage: 100})
	b.connected()
	_, js := e.connect()
	for _, body := range []string{strings.Repeat("x", 200), "good"} {
		if _, err := js.Publish(t.Context(), "user.a", []byte(body)); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the good one is stored", func() bool { return slices.Equal(b.stored(), []string{"good"}) })
	b.mu.Lock()
	defer b.mu.Unlock()
	if !slices.Equal(b.letters, []string{"too-large user.a 200"}) {
		t.Errorf("dead letters: %v", b.letters)
	}
}

// What is published comes there once and in the order of its subject, whatever breaks and whenever.
func TestClient_Publish_onceOverOutages(t *testing.T) {
	e := startServer(t, nil)
	e.stream("ups", "up.>")
	dir := t.TempDir()
	sent := 0
	for round := range 6 {
		var hits atomic.Int64
		broken := make(chan struct{})
		b := start(t, dir, natsbroker.Options{URL: e.url(), QoS: 2, Failpoint: func(point string) {
			// The server has it, and the box does not get to know: its disk is gone with the process.
			if point == natsbroker.FailpointPublished && hits.Add(1) == int64(5+round) {
				e.stop()
				close(broken)
			}
		}})
		b.put(sent, sent+40, "up.a", "up.b", "up.c")
		sent += 40
		<-broken
		b.stop()
		e.start()
	}
	b := start(t, dir, natsbroker.Options{URL: e.url(), QoS: 2})
	b.empty()
	got := e.held("ups")
	if len(got) != sent {
		t.Errorf("%d messages there, want %d", len(got), sent)
	}
	next := map[int]int{0: 0, 1: 1, 2: 2}
	for _, s := range got {
		var n int
		_, _ = fmt.Sscan(s, &n)
		if next[n%3] != n {
			t.Fatalf("got %d, want %d", n, next[n%3])
		}
		next[n%3] += 3
	}
}

// Beyond the time in which the server recognises repeats, the last message of a subject is looked up.
func TestClient_Publish_afterTheWindow(t *testing.T) {
	e := startServer(t, nil)
	e.stream("ups", "up.>")
	dir := t.TempDir()
	o := natsbroker.Options{URL: e.url(), QoS: 2}
	b := start(t, dir, o)
	b.put(0, 1, "up.a")
	b.empty()
	b.stop()
	o.URL = "nats://127.0.0.1:1"
	b = start(t, dir, o)
	b.put(1, 2, "up.a")
	b.stop()
	before := copyDir(t, dir) // as after a crash before the outbox knew
	o.URL = e.url()
	b = start(t, dir, o)
	b.empty()
	b.stop()
	_, js := e.connect()
	if _, err := js.Publish(t.Context(), "up.probe", nil, jetstream.WithMsgID("probe")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the window is over", func() bool {
		ack, err := js.Publish(t.Context(), "up.probe", nil, jetstream.WithMsgID("probe"))
		return err == nil && !ack.Duplicate
	})
	b = start(t, before, o)
	b.empty()
	if got := e.held("ups"); !slices.Equal(got, []string{"0", "1", "", ""}) {
		t.Errorf("got %q", got)
	}
}

func copyDir(t *testing.T, dir string) string {
	t.Helper()
	to := t.TempDir()
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return to
}

func TestClient_Publish_refused(t *testing.T) {
	e := startServer(t, func(o *server.Options) { o.MaxPayload = 1000 })
	b := start(t, t.TempDir(), natsbroker.Options{URL: e.url(), QoS: 1})
	b.put(0, 3, "up.a")
	eventually(t, "the lack of a stream is told", func() bool {
		return strings.HasSuffix(b.health(), "no stream there holds up.a: create one, or use qos = 0")
	})
	e.stream("ups", "up.>")
	b.empty()
	eventually(t, "all is well", func() bool { return b.health() == "<nil>" })
	header, data, err := event.Event{ID: "1", Source: "s", Type: "t", Data: []byte("x")}.Binary()
	if err != nil {
		t.Fatal(err)
	}
	err = b.db.Do(t.Context(), func(_ context.Context, turn *store.Turn) error {
		_, err := turn.Publish(outbox, store.Message{Subject: "up.a", Data: []byte(strings.Repeat("x", 2000))})
		_, err2 := turn.Publish(outbox, store.Message{Subject: "up.a", Header: header, Data: data})
		return errors.Join(err, err2)
	})
	if err != nil {
		t.Fatal(err)
	}
	b.empty()
	if got := e.held("ups"); len(got) != 4 || got[3] != "x" || b.db.DeadLetterCount() != 1 {
		t.Errorf("got %v, %d dead letters", got, b.db.DeadLetterCount())
	}
}

func TestClient_conditions(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	key, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	seed, _ := key.Seed()
	public, _ := key.PublicKey()
	e := startServer(t, func(o *server.Options) {
		o.Users = []*server.User{{Username: "press", Password: "secret"}}
		o.Nkeys = []*server.NkeyUser{{Nkey: public}}
		o.JetStream = false
	})
	good, wrong := write("good", "secret\n"), write("wrong", "x")
	for name, c := range map[string]struct {
		o    natsbroker.Options
		want string
	}{
		"user":         {natsbroker.Options{Login: natsbroker.Login{User: "press", PasswordFile: good}}, "<nil>"},
		"nkey":         {natsbroker.Options{Login: natsbroker.Login{NKeyFile: write("seed", string(seed))}}, "<nil>"},
		"password":     {natsbroker.Options{Login: natsbroker.Login{User: "press", PasswordFile: wrong}}, "check credentials, user"},
		"no file":      {natsbroker.Options{Login: natsbroker.Login{User: "press", PasswordFile: good + "-"}}, "no such file"},
		"no nkey":      {natsbroker.Options{Login: natsbroker.Login{NKeyFile: wrong}}, "nkey file"},
		"no creds":     {natsbroker.Options{Login: natsbroker.Login{Credentials: wrong}}, "check credentials"},
		"no jetstream": {natsbroker.Options{QoS: 1, Filters: []string{"a.>"}, Login: natsbroker.Login{User: "press", PasswordFile: good}}, "need JetStream there"},
		"ca":           {natsbroker.Options{Login: natsbroker.Login{CA: wrong, User: "press", PasswordFile: good}}, "check ca"},
	} {
		t.Run(name, func(t *testing.T) {
			c.o.URL = e.url()
			b := start(t, t.TempDir(), c.o)
			eventually(t, "told "+c.want, func() bool { return strings.Contains(b.health(), c.want) })
			b.stop()
			if strings.Contains(b.health(), "secret") {
				t.Errorf("told a secret: %s", b.health())
			}
		})
	}
	js := startServer(t, nil)
	js.stream("one", "a.x")
	js.stream("two", "a.y")
	for filter, want := range map[string]string{"b.>": "no stream there holds b.>", "a.>": "several streams there hold subjects of a.> (one, two)"} {
		b := start(t, t.TempDir(), natsbroker.Options{URL: js.url(), QoS: 1, Filters: []string{filter}})
		eventually(t, "told "+want, func() bool { return strings.HasPrefix(b.health(), want) })
		b.stop()
	}
}

func TestLeave(t *testing.T) {
	e := startServer(t, nil)
	e.stream("users", "user.>")
	o := natsbroker.Options{URL: e.url(), QoS: 1, Filters: []string{"user.>"}}
	b := start(t, t.TempDir(), o)
	b.connected()
	b.stop()
	_, js := e.connect()
	if _, err := js.Consumer(t.Context(), "users", "edged-press-7-a-1"); err != nil {
		t.Fatal(err)
	}
	o.Name, o.Store, o.Stage = "edged-press-7-a-1", b.db, b.stage
	o.DeadLetter = func(context.Context, store.Message, string, error) error { return nil }
	if err := natsbroker.Leave(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if _, err := js.Consumer(t.Context(), "users", "edged-press-7-a-1"); !errors.Is(err, jetstream.ErrConsumerNotFound) {
		t.Errorf("got %v, want the consumer gone", err)
	}
	e.stop()
	if err := natsbroker.Leave(t.Context(), o); err == nil {
		t.Error("left a server that is not there")
	}
}

func TestNew_refused(t *testing.T) {
	for _, o := range []natsbroker.Options{
		{}, {URL: "http://h", Name: "a", Store: new(store.DB)}, {URL: "nats://", Name: "a", Store: new(store.DB)}, {URL: "nats://h", Name: "a b", Store: new(store.DB)},
		{URL: "nats://h", Name: "a"}, {URL: "nats://h", Name: "a", Store: new(store.DB), Filters: []string{"a"}},
		{URL: "nats://h", Name: "a", Store: new(store.DB), QoS: 3},
		{URL: "nats://h", Name: "a", Store: new(store.DB), Login: natsbroker.Login{User: "u", NKeyFile: "n"}},
		{URL: "nats://h", Name: "a", Store: new(store.DB), Login: natsbroker.Login{Cert: "c"}},
	} {
		if _, err := natsbroker.New(o); err == nil {
			t.Errorf("%+v: accepted", o)
		}
	}
}
