package broker_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/edged-io/edged/broker"
	"github.com/edged-io/edged/store"
)

const nextOf = "$JS.API.CONSUMER.MSG.NEXT.telemetry."

// puller is a NATS client that asks for messages.
type puller struct {
	*nats.Conn
	t   testing.TB
	sub *nats.Subscription
}

func newPuller(t testing.TB, nc *nats.Conn) *puller {
	t.Helper()
	sub, err := nc.SubscribeSync(nc.NewRespInbox())
	if err != nil {
		t.Fatal(err)
	}
	return &puller{nc, t, sub}
}

func (p *puller) ask(subscription, request string) {
	p.t.Helper()
	if err := p.PublishRequest(nextOf+subscription, p.sub.Subject, []byte(request)); err != nil {
		p.t.Fatal(err)
	}
	if err := p.Flush(); err != nil {
		p.t.Fatal(err)
	}
}

func (p *puller) next() *nats.Msg {
	p.t.Helper()
	m, err := p.sub.NextMsg(patience)
	if err != nil {
		p.t.Fatal(err)
	}
	return m
}

// want checks a message's subject as it was stored, its body, and which attempt
// it is.
func (p *puller) want(subject, data string, attempt uint64) *nats.Msg {
	p.t.Helper()
	m := p.next()
	if status := m.Header.Get("Status"); status != "" {
		p.t.Fatalf("got status %s %s, want message %s", status, m.Header.Get("Description"), subject)
	}
	meta, err := m.Metadata()
	if err != nil {
		p.t.Fatalf("reply %q: %v", m.Reply, err)
	}
	if got := m.Header.Get("Nats-Subject"); got != subject || string(m.Data) != data || meta.NumDelivered != attempt {
		p.t.Fatalf("got %s %q attempt %d, want %s %q attempt %d", got, m.Data, meta.NumDelivered, subject, data, attempt)
	}
	return m
}

func (p *puller) wantStatus(status string) {
	p.t.Helper()
	if m := p.next(); m.Header.Get("Status") != status {
		p.t.Fatalf("got status %q (%s) with %q, want %s", m.Header.Get("Status"), m.Header.Get("Description"), m.Data, status)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// pullBox has a pull subscription, s, of telemetry.
func pullBox(t testing.TB, sub broker.Subscription) *box {
	t.Helper()
	sub.Name, sub.Stream, sub.Pull = "s", "telemetry", true
	if sub.Backoff == nil {
		sub.Backoff = fast
	}
	b := newBox(t, broker.Options{Listen: anyPort})
	b.configure(t, []broker.Stream{telemetry}, sub)
	return b.run(t)
}

// A NATS client asks for messages and acknowledges them, as with JetStream.
func TestPull_client(t *testing.T) {
	b := pullBox(t, broker.Subscription{})
	p := newPuller(t, b.client(t))
	m := nats.NewMsg("sensors.a")
	m.Header.Set("Unit", "degree")
	m.Data = []byte("21")
	if _, err := p.RequestMsg(m, patience); err != nil {
		t.Fatal(err)
	}
	b.put(t, "sensors.b", "sensors.c")

	p.ask("s", `{"batch":2}`)
	one := p.want("sensors.a", "21", 1)
	if got := one.Header.Get("Unit"); got != "degree" {
		t.Errorf("header: got %q", got)
	}
	if meta, _ := one.Metadata(); meta.Stream != "telemetry" || meta.Consumer != "s" || meta.Sequence.Stream != 1 || meta.NumPending != 2 {
		t.Errorf("got %+v", meta)
	}
	two := p.want("sensors.b", "0", 1)
	must(t, one.Ack())
	must(t, two.AckSync()) // returns when it is on disk
	eventually(t, "both are acknowledged", func() bool { return b.floor(t, "s") == 2 })

	p.ask("s", "1")
	must(t, p.want("sensors.c", "1", 1).AckSync())
	if got := b.floor(t, "s"); got != 3 {
		t.Errorf("position: got %d, want 3 when the acknowledgement is answered", got)
	}
	p.ask("s", `{"batch":5,"no_wait":true}`)
	p.wantStatus("404")
	p.ask("s", `{"batch":5,"expires":20000000}`)
	p.wantStatus("408")
	p.ask("s", `{"batch":"many"}`)
	p.wantStatus("400")
	if _, err := p.Request(nextOf+"nobody", nil, patience); !errors.Is(err, nats.ErrNoResponders) {
		t.Errorf("a subscription that is not there: got %v", err)
	}
}

// What an acknowledgement can say.
func TestPull_answers(t *testing.T) {
	b := pullBox(t, broker.Subscription{MaxDeliver: 3, OrderedBy: "none"})
	p := newPuller(t, b.client(t))
	b.put(t, "sensors.a")
	p.ask("s", "9")
	must(t, p.want("sensors.a", "0", 1).Nak())
	must(t, p.want("sensors.a", "0", 2).NakWithDelay(time.Millisecond))
	must(t, p.want("sensors.a", "0", 3).Nak())
	eventually(t, "it is given up", func() bool { return b.db.DeadLetterCount() == 1 })
	if d := deadLetters(t, b.db)[0]; d.Reason != "max-deliver" || d.Attempts != 3 || d.Subscription != "s" {
		t.Errorf("got %+v", d)
	}

	b.put(t, "sensors.b")
	must(t, p.Publish(p.want("sensors.b", "0", 1).Reply, []byte("+TERM no such pump")))
	eventually(t, "it is rejected", func() bool { return b.db.DeadLetterCount() == 2 })
	if d := deadLetters(t, b.db)[1]; d.Reason != "rejected" || d.Error != "no such pump" {
		t.Errorf("got %+v", d)
	}

	// +NXT acknowledges and asks for the next.
	b.put(t, "sensors.c", "sensors.d")
	m := p.want("sensors.c", "0", 1)
	must(t, p.want("sensors.d", "1", 1).Ack())
	q := newPuller(t, p.Conn)
	must(t, p.PublishRequest(m.Reply, q.sub.Subject, []byte(`+NXT {"batch":1}`)))
	eventually(t, "it is acknowledged", func() bool { return b.floor(t, "s") == 4 })
	for range 4 { // p still waits for some; they take turns
		b.put(t, "sensors.e")
	}
	must(t, q.want("sensors.e", "0", 1).Ack())
}

// A message that is not answered in time comes again, and a sign of life makes
// the time begin anew.
func TestPull_ackWait(t *testing.T) {
	b := pullBox(t, broker.Subscription{AckWait: time.Second})
	p := newPuller(t, b.client(t))
	b.put(t, "sensors.a", "sensors.a")
	p.ask("s", "9")
	first := p.want("sensors.a", "0", 1)
	again := p.want("sensors.a", "0", 2)
	must(t, again.InProgress())
	must(t, first.Ack()) // an older delivery counts
	must(t, p.want("sensors.a", "1", 1).AckSync())
	if got := b.floor(t, "s"); got != 2 {
		t.Errorf("position: got %d, want 2", got)
	}
	must(t, again.AckSync()) // once more changes nothing, and is answered
}

// Several who wait take turns, and one that has gone takes nothing along.
func TestPull_waiting(t *testing.T) {
	b := pullBox(t, broker.Subscription{OrderedBy: "none"})
	nc := b.client(t)
	one, two, gone := newPuller(t, nc), newPuller(t, nc), newPuller(t, b.client(t))
	gone.ask("s", "10")
	one.ask("s", "2")
	two.ask("s", "2")
	must(t, gone.sub.Unsubscribe())
	must(t, gone.Flush())
	b.put(t, "sensors.a")
	b.put(t, "sensors.b")
	b.put(t, "sensors.c")
	b.put(t, "sensors.d")
	for _, p := range []*puller{one, two} {
		must(t, p.next().AckSync())
		must(t, p.next().AckSync())
	}
	if got := b.floor(t, "s"); got != 4 {
		t.Errorf("position: got %d, want 4: nothing is lost to who has gone", got)
	}
}

func TestPull_maxBytes(t *testing.T) {
	b := pullBox(t, broker.Subscription{})
	p := newPuller(t, b.client(t))
	put := func(subject string, size int) {
		if _, err := p.Request(subject, make([]byte, size), patience); err != nil {
			t.Fatal(err)
		}
	}
	put("sensors.a", 100)
	put("sensors.b", 1000)
	p.ask("s", `{"batch":5,"max_bytes":500}`)
	must(t, p.next().AckSync())
	p.wantStatus("409")
	p.ask("s", `{"batch":5,"max_bytes":5000}`)
	must(t, p.next().AckSync())
	if got := b.floor(t, "s"); got != 2 {
		t.Errorf("position: got %d, want 2", got)
	}
}

// Messages of one key are with one client at a time; a poison message holds back
// its own key only.
func TestPull_key(t *testing.T) {
	b := pullBox(t, broker.Subscription{OrderedBy: "key"})
	p := newPuller(t, b.client(t))
	for i, key := range []string{"k1", "k1", "k2", "k2"} {
		m := nats.NewMsg("sensors.x")
		m.Header.Set("Edged-Key", key)
		m.Data = fmt.Append(nil, i)
		if _, err := p.RequestMsg(m, patience); err != nil {
			t.Fatal(err)
		}
	}
	p.ask("s", "20")
	poison := p.want("sensors.x", "0", 1)
	must(t, p.want("sensors.x", "2", 1).Ack())
	must(t, p.want("sensors.x", "3", 1).AckSync())
	must(t, poison.Nak())
	must(t, p.want("sensors.x", "0", 2).Ack())
	must(t, p.want("sensors.x", "1", 1).AckSync())
}

// Nonsense at the ack subject changes nothing.
func TestPull_strayAcks(t *testing.T) {
	b := pullBox(t, broker.Subscription{OrderedBy: "none", MaxInFlight: 1})
	p := newPuller(t, b.client(t))
	b.put(t, "sensors.a", "sensors.b")
	p.ask("s", "2")
	first := p.want("sensors.a", "0", 1)
	for _, subject := range []string{
		"$JS.ACK.telemetry.s.1.2.2.1.0",        // never delivered
		"$JS.ACK.telemetry.s.1.99.1.1.0",       // does not exist
		"$JS.ACK.other.s.1.1.1.1.0",            // of another stream
		"$JS.ACK.telemetry.other.1.1.1.1.0",    // of another subscription
		"$JS.ACK.telemetry.s.1.x.1.1.0",        // not a number
		"$JS.ACK.telemetry.s",                  // too short
		"$JS.ACK.telemetry.s.1.1.1.1.0.0.0",    // too long
		"$JS.ACK.telemetry.%ZZ.1.1.1.1.0",      // not a name
		"$JS.ACK." + strings.Repeat("x.", 500), // nothing of the kind
	} {
		must(t, p.Publish(strings.TrimSuffix(subject, "."), []byte("+ACK")))
	}
	must(t, p.Publish(first.Reply, []byte("garbage")))
	must(t, p.Publish(first.Reply, []byte(`-NAK {"delay":"soon"}`)))
	if _, err := p.Request("$JS.ACK.telemetry.s.1.2.2.1.0", nil, 100*time.Millisecond); !errors.Is(err, nats.ErrTimeout) {
		t.Errorf("an ack of a message that was never delivered: got %v, want no answer", err)
	}
	if got := b.floor(t, "s"); got != 0 {
		t.Errorf("position: got %d, want 0", got)
	}
	must(t, first.AckSync())
	must(t, p.want("sensors.b", "1", 1).AckSync())
	eventually(t, "they are counted", func() bool { return b.Stats().Subscriptions[0].StrayAcks >= 2 })
}

// A name that could be a path, or several tokens, is a name.
func TestPull_namedLikeAPath(t *testing.T) {
	b := newBox(t, broker.Options{Listen: anyPort})
	names := []string{"../../etc/passwd", `a\b`, "with.dots and > * spaces", "%2e"}
	var subs []broker.Subscription
	for _, name := range names {
		subs = append(subs, broker.Subscription{Name: name, Stream: "telemetry", Pull: true})
	}
	b.configure(t, []broker.Stream{telemetry}, subs...)
	b.run(t)
	b.put(t, "sensors.a")
	p := newPuller(t, b.client(t))
	for i, token := range []string{"%2E%2E%2F%2E%2E%2Fetc%2Fpasswd", "a%5Cb", "with%2Edots%20and%20%3E%20%2A%20spaces", "%252e"} {
		p.ask(token, "")
		must(t, p.want("sensors.a", "0", 1).AckSync())
		if got := b.floor(t, names[i]); got != 1 {
			t.Errorf("position of %q: got %d, want 1", names[i], got)
		}
	}
}

// A message is pushed to a subject, waits while nobody is subscribed, and comes
// again until it is acknowledged.
func TestPush(t *testing.T) {
	b := newBox(t, broker.Options{Listen: anyPort})
	b.configure(t, []broker.Stream{telemetry}, broker.Subscription{
		Name: "s", Stream: "telemetry", PushTo: "jobs.print", MaxDeliver: 3, Backoff: fast, AckWait: time.Second,
	})
	b.run(t)
	b.put(t, "sensors.a", "sensors.a")
	nc := b.client(t)
	p := &puller{Conn: nc, t: t}
	var err error
	if p.sub, err = nc.QueueSubscribeSync("jobs.*", "workers"); err != nil {
		t.Fatal(err)
	}
	p.want("sensors.a", "0", 1) // swallowed
	must(t, p.want("sensors.a", "0", 2).AckSync())
	m := p.want("sensors.a", "1", 1)
	if m.Subject != "jobs.print" {
		t.Errorf("got on %s", m.Subject)
	}
	must(t, m.AckSync())
	if got := b.floor(t, "s"); got != 2 {
		t.Errorf("position: got %d, want 2", got)
	}
	if n := b.db.DeadLetterCount(); n != 0 {
		t.Errorf("got %d dead letters; waiting must not count as an attempt", n)
	}
	var ack struct{ Stream string }
	answer, err := nc.Request(m.Reply, nil, patience)
	if err != nil || json.Unmarshal(answer.Data, &ack) != nil || ack.Stream != "telemetry" {
		t.Errorf("a second ack: got %v, %v", answer, err)
	}
}

// receive has a turn of its own.
func (b *box) receive(t testing.TB, n int, end error) (got []string) {
	t.Helper()
	err := b.db.Do(t.Context(), func(ctx context.Context, _ *store.Turn) error {
		got = got[:0]
		all, err := b.Receive(ctx, "s", n, patience)
		if err != nil {
			return err
		}
		for _, d := range all {
			got = append(got, fmt.Sprintf("%d.%d", d.Seq, d.Attempt))
		}
		return end
	})
	if !errors.Is(err, end) {
		t.Error(err)
	}
	// The turn has ended, and what it gives back is on its way.
	eventually(t, "all is given back", func() bool { return b.Stats().Subscriptions[0].InFlight == 0 })
	return got
}

// What a turn receives is acknowledged by its commit, and given back in order
// otherwise.
func TestReceive(t *testing.T) {
	b := pullBox(t, broker.Subscription{MaxDeliver: 3})
	b.put(t, "sensors.a")
	b.put(t, "sensors.a")
	b.put(t, "sensors.b")
	failed := errors.New("no")
	for _, c := range []struct {
		end  error
		n    int
		want []string
	}{
		{failed, 9, []string{"1.1", "2.1", "3.1"}},
		{failed, 2, []string{"1.2", "2.2"}},
		{nil, 9, []string{"1.3", "2.3", "3.2"}},
	} {
		if got := b.receive(t, c.n, c.end); !slices.Equal(got, c.want) {
			t.Fatalf("got %v, want %v", got, c.want)
		}
	}
	if got := b.floor(t, "s"); got != 3 {
		t.Errorf("position: got %d, want 3", got)
	}
	b.put(t, "sensors.a")
	for range 3 {
		b.receive(t, 1, failed)
	}
	eventually(t, "it is given up", func() bool { return b.db.DeadLetterCount() == 1 })
	if d := deadLetters(t, b.db)[0]; d.Seq != 4 || d.Attempts != 3 || d.Reason != "max-deliver" {
		t.Errorf("got %+v", d)
	}
}

// A turn has what another one received only after that has ended.
func TestReceive_queue(t *testing.T) {
	b := pullBox(t, broker.Subscription{})
	b.put(t, "sensors.a")
	b.put(t, "sensors.a")
	b.put(t, "sensors.b")
	one, two := b.db.Begin(), b.db.Begin()
	receive := func(turn *store.Turn, n int, wait time.Duration) (got []uint64) {
		t.Helper()
		all, err := b.Receive(store.WithTurn(t.Context(), turn), "s", n, wait)
		must(t, err)
		for _, d := range all {
			got = append(got, d.Seq)
		}
		return got
	}
	if got := receive(one, 1, patience); !slices.Equal(got, []uint64{1}) {
		t.Fatalf("got %v", got)
	}
	if got := receive(two, 9, patience); !slices.Equal(got, []uint64{3}) {
		t.Fatalf("got %v", got)
	}
	if got := receive(two, 9, 0); got != nil {
		t.Fatalf("got %v", got)
	}
	if got := receive(one, 9, patience); !slices.Equal(got, []uint64{2}) { // the same turn may go on
		t.Fatalf("got %v", got)
	}
	two.Discard()
	three := b.db.Begin()
	if got := receive(three, 9, patience); !slices.Equal(got, []uint64{3}) {
		t.Fatalf("got %v", got)
	}
	must(t, one.Commit())
	must(t, three.Commit())
	if got := b.floor(t, "s"); got != 3 {
		t.Errorf("position: got %d, want 3", got)
	}
}

// A turn that loses a conflict has not failed.
func TestReceive_conflict(t *testing.T) {
	b := pullBox(t, broker.Subscription{MaxDeliver: 1})
	b.put(t, "sensors.a")
	tries := 0
	must(t, b.db.Do(t.Context(), func(ctx context.Context, turn *store.Turn) error {
		tries++
		got, err := b.Receive(ctx, "s", 1, patience)
		if err != nil || len(got) != 1 || got[0].Attempt != 1 {
			return fmt.Errorf("got %v, %w", got, err)
		}
		if _, _, err := turn.Get("counters", "n"); err != nil || tries == 3 {
			return err
		}
		other := b.db.Begin()
		must(t, other.Put("counters", "n", fmt.Append(nil, tries)))
		must(t, other.Commit())
		return nil
	}))
	if tries != 3 || b.db.DeadLetterCount() != 0 || b.floor(t, "s") != 1 {
		t.Errorf("got %d tries, %d dead letters, position %d", tries, b.db.DeadLetterCount(), b.floor(t, "s"))
	}
}

func TestReceive_errors(t *testing.T) {
	b := pullBox(t, broker.Subscription{})
	if _, err := b.Receive(t.Context(), "s", 1, 0); err == nil || !strings.Contains(err.Error(), "not in a turn") {
		t.Errorf("got %v", err)
	}
	turn := b.db.Begin()
	defer turn.Discard()
	ctx := store.WithTurn(t.Context(), turn)
	if _, err := b.Receive(ctx, "other", 1, 0); err == nil {
		t.Error("got nil")
	}
	if got, err := b.Receive(ctx, "s", 1, time.Millisecond); got != nil || err != nil {
		t.Errorf("got %v, %v", got, err)
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := b.Receive(ended, "s", 1, patience); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// Who waits goes on waiting when the subscription is changed.
func TestReceive_configured(t *testing.T) {
	b := pullBox(t, broker.Subscription{})
	got := make(chan []string, 1)
	go func() { // ends below
		defer close(got)
		got <- b.receive(t, 1, nil)
	}()
	b.configure(t, []broker.Stream{telemetry}, broker.Subscription{Name: "s", Stream: "telemetry", Pull: true, MaxInFlight: 3})
	b.put(t, "sensors.a")
	if got := <-got; !slices.Equal(got, []string{"1.1"}) {
		t.Errorf("got %v", got)
	}
}

// At most once: a message is acknowledged before its receiver has it.
func TestSubscription_AtMostOnce(t *testing.T) {
	var j journal
	b := newBox(t, broker.Options{Listen: anyPort})
	subs := []broker.Subscription{
		{Name: "s", Stream: "telemetry", AtMostOnce: true, Pull: true},
		{Name: "push", Stream: "telemetry", AtMostOnce: true, PushTo: "jobs"},
		{Name: "deliver", Stream: "telemetry", AtMostOnce: true, MaxDeliver: 1, Deliver: func(ctx context.Context, m broker.Message, attempt int) error {
			pos, err := b.db.Position("deliver")
			j.add("%d.%d %v %v", m.Seq, attempt, pos.Floor >= m.Seq || slices.Contains(pos.Above, m.Seq), err)
			must(t, store.TurnFrom(ctx).Put("state", m.Subject, nil))
			return errors.New("no")
		}},
	}
	b.configure(t, []broker.Stream{telemetry}, subs...)
	b.run(t)
	pushed, err := b.client(t).SubscribeSync("jobs")
	must(t, err)
	b.put(t, "sensors.a", "sensors.b")
	eventually(t, "both were handed out", func() bool { return len(j.all()) == 2 })
	if got, want := slices.Sorted(slices.Values(j.all())), []string{"1.1 true <nil>", "2.1 true <nil>"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for range 2 {
		if _, err := pushed.NextMsg(patience); err != nil {
			t.Fatal(err)
		}
	}
	if got := b.receive(t, 9, errors.New("no")); !slices.Equal(got, []string{"1.1", "2.1"}) {
		t.Errorf("got %v", got)
	}
	eventually(t, "all is removed", func() bool { return len(stored(t, b.db, "telemetry")) == 0 })
	if n := b.db.DeadLetterCount(); n != 0 {
		t.Errorf("got %d dead letters", n)
	}
}

// A client that asks for what is there gets it before it is told that there is no
// more, also when each message is acknowledged first.
func TestSubscription_AtMostOnce_noWait(t *testing.T) {
	b := newBox(t, broker.Options{Listen: anyPort})
	b.configure(t, []broker.Stream{telemetry}, broker.Subscription{Name: "s", Stream: "telemetry", AtMostOnce: true, Pull: true})
	b.run(t)
	b.put(t, "sensors.a", "sensors.a", "sensors.b")
	eventually(t, "all is there", func() bool { return len(stored(t, b.db, "telemetry")) == 3 })
	nc := b.client(t)
	inbox, err := nc.SubscribeSync(nats.NewInbox())
	must(t, err)
	must(t, nc.PublishRequest("$JS.API.CONSUMER.MSG.NEXT.telemetry.s", inbox.Subject, []byte(`{"batch":9,"no_wait":true}`)))
	for n := 0; ; n++ {
		m, err := inbox.NextMsg(patience)
		must(t, err)
		if status := m.Header.Get("Status"); status == "" {
			continue
		} else if status != "404" || n != 3 {
			t.Errorf("got status %s after %d messages, want 404 after 3", status, n)
		}
		return
	}
}

func natsMsg(subject string, header ...string) *nats.Msg {
	m := nats.NewMsg(subject)
	for i := 0; i < len(header); i += 2 {
		m.Header.Set(header[i], header[i+1])
	}
	return m
}
