package actors

import (
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

// What an operator sees of an actor that fails: where, in the actor's own words and functions, at which message, and
// what became of it.
func TestFailures(t *testing.T) {
	a := newActor(t, sign, wat(t, "trapper"), "trapper", mandate{caps: []string{"edged:pubsub"}})
	a.time = "2s"
	ask := newActor(t, sign, wat(t, "relay"), "relay", mandate{})
	b := startWith(t, `
[[stream]]
name = "work"
subjects = ["work.>"]
[[subscription]]
name = "work"
stream = "work"
actor = "trapper"
max_deliver = 4
backoff = ["10ms"]
`, a, ask)
	nc, err := nats.Connect(b.addr.NATS, nats.Timeout(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	m := nats.NewMsg("work.one")
	m.Header.Set("Nats-Msg-Id", "order-7")
	m.Data = []byte("x")
	if _, err := nc.RequestMsg(m, 30*time.Second); err != nil {
		t.Fatal(err)
	}
	problems := func() string { return strings.Join(b.Status().Problems, "\n") }
	b.eventually("a dead letter", func() bool { return strings.Contains(problems(), "dead letter 1") })
	has(t, "the first time", b.log.String(),
		`level=WARN msg="actor failed" part=actors actor=zoo/trapper version=1.0.0 operation=PubSub.OnMessage subject=work.one id=order-7 attempt=1 message=work/1 outcome="tried again in `,
		`err="actor zoo/trapper 1.0.0: PubSub.OnMessage: trap: out of bounds memory access: the lid is stuck"`+"\n    in open_the_box\n    __guest_call\n")
	if n := strings.Count(b.log.String(), "actor failed"); n != 1 {
		t.Errorf("told %d times", n)
	}
	has(t, "problems", problems(), "actor zoo/trapper 1.0.0: its last 4 calls failed, the last one at ",
		" with message work/1 (dead letter 1 (max-deliver)): PubSub.OnMessage: trap: out of bounds memory access: the lid is stuck")

	// Another actor gets the reason, but not the stack, and the log says who was told.
	same(t, "nested", b.call(ask.key, "Call", relayedBy("", a.key, "Other.Operation", "x")),
		"error: actor zoo/relay 1.0.0: Call: actor zoo/trapper 1.0.0: Other.Operation: trap: out of bounds memory access: the lid is stuck")
	has(t, "nested", b.log.String(), `operation=Other.Operation outcome="told to actor zoo/relay, which called it"`)

	has(t, "endless", b.call(a.key, "Wait", ""), "error: actor zoo/trapper 1.0.0: Wait: time limit exceeded (2s)")
	has(t, "where it was", b.log.String(), "\n    in wait\n    __guest_call\n")

	b.cancel()
	<-b.ended
	has(t, "the count, at the end", b.log.String(), `msg="actor keeps failing" part=actors actor=zoo/trapper version=1.0.0 operation=PubSub.OnMessage more=3 last_message=work/1 last_outcome="dead letter 1 (max-deliver)"`)
}
