package node

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/edged-io/edged/broker"
)

// subscribes is a capability messaging of an actor.
func subscribes(actor, config string) string {
	return "[[capability]]\nname = \"messaging\"\nactor = \"" + actor + "\"\n[[capability.config]]\n" + config + "\n"
}

const keeps = "[[stream]]\nname = \"kept\"\nsubjects = [\"kept.>\"]\n"

// local returns a NATS client of the box.
func (r *rig) local() *nats.Conn {
	r.t.Helper()
	nc, err := nats.Connect("nats://"+r.broker.Addr(), nats.Timeout(patience))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(nc.Close)
	return nc
}

// A classic actor answers requests of NATS clients, gets what is published to
// its subjects, kept or not, and asks others.
func TestNode_messaging(t *testing.T) {
	r := newRig(t, unsigned)
	r.probe("a", "1", keeps+subscribes("one", `subject = "tell.>"`)+subscribes("one", `subject = "kept.>"`), "one")
	r.start()
	nc := r.local()
	reply, err := nc.Request("tell.me", []byte("echo"), patience)
	if err != nil || string(reply.Data) != "echo of tell.me" {
		t.Fatalf("got %v, %v", reply, err)
	}
	if r.tell("kept.x", "first") != 1 {
		t.Error("the first message of the stream has another number")
	}
	r.sees("a", "one", "first")
	sub, err := nc.SubscribeSync("out")
	if err != nil {
		t.Fatal(err)
	}
	answers, err := nc.Subscribe("question", func(m *nats.Msg) { _ = m.Respond([]byte("42")) })
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	r.tell("tell.me", "!send out hello")
	if m, err := sub.NextMsg(patience); err != nil || string(m.Data) != "hello" {
		t.Errorf("got %v, %v", m, err)
	}
	r.tell("tell.me", "!ask question what")
	r.sees("a", "one", "first", "answer: 42")
	if err := answers.Unsubscribe(); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	r.tell("tell.me", "!ask question what")
	r.sees("a", "one", "first", "answer: 42", "error: Messaging.Request: messaging: no such topic: request to question: nobody listens on the subject")
	r.tell("kept.x", "!send kept.y again")
	r.sees("a", "one", "first", "answer: 42", "error: Messaging.Request: messaging: no such topic: request to question: nobody listens on the subject", "again")
}

// All actors send and ask over one connection, which the server ends when a line
// is too long for it: what one of them asks must not take it from the others.
func TestNode_messaging_longSubject(t *testing.T) {
	r := newRig(t, unsigned)
	r.probe("a", "1", keeps+subscribes("one", `subject = "tell.>"`), "one")
	r.start()
	nc := r.local()
	if _, err := nc.Subscribe("question", func(m *nats.Msg) { _ = m.Respond([]byte("42")) }); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	longest := strings.Repeat("s", broker.MaxSubject)
	nobody := "error: Messaging.Request: messaging: no such topic: request to " + longest[:200] + ": nobody listens on the subject"
	tooLong := fmt.Sprintf("error: Messaging.Request: messaging: payload too large: subject and replyTo have %d bytes, at most %d", broker.MaxSubject+1, broker.MaxSubject)
	// One after the other: what core NATS brings is handled side by side.
	r.tell("tell.me", "!ask "+longest+" what")
	r.sees("a", "one", nobody)
	r.tell("tell.me", "!ask "+longest+"s what")
	r.sees("a", "one", nobody, tooLong)
	r.tell("tell.me", "!ask question what")
	r.sees("a", "one", nobody, tooLong, "answer: 42")
}

// A connection that the server has ended for good is made anew, with what was
// subscribed on it.
func TestNode_messaging_connectionLost(t *testing.T) {
	r := newRig(t, unsigned)
	r.probe("a", "1", keeps+subscribes("one", `subject = "tell.>"`), "one")
	r.start()
	conn, err := r.coreConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.Publish(strings.Repeat("s", 2*broker.MaxSubject), nil); err != nil {
		t.Fatal(err)
	}
	r.eventually("another connection", func() bool {
		now, err := r.coreConn()
		return err == nil && now != conn
	})
	reply, err := r.local().Request("tell.me", []byte("echo"), patience)
	if err != nil || string(reply.Data) != "echo of tell.me" {
		t.Errorf("got %v, %v", reply, err)
	}
	if _, problems := r.health.problems(); len(problems) != 0 {
		t.Errorf("problems %v", problems)
	}
}

// What a stream keeps waits for the actor, over restarts; a queue shares it.
func TestNode_messaging_durable(t *testing.T) {
	r := newRig(t, unsigned)
	link := "[[link]]\nactor = \"one\"\ncontract = \"wasmcloud:messaging\"\nprovider = \"messaging\"\n" +
		"values = { SUBSCRIPTION = \"kept.a, kept.b|workers\", URI = \"0.0.0.0:4222\" }\n"
	more := keeps + link + subscribes("two", "subject = \"kept.b\"\nqueue = \"workers\"")
	r.probe("a", "1", more, "one", "two")
	r.start()
	subs := r.db.Subscriptions()
	if len(subs) != 2 || subs["a-messaging-2.kept"] != "kept" {
		t.Fatalf("subscriptions %v, want one for the subject and one for the queue", subs)
	}
	for name := range subs {
		if err := r.broker.Pause(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	r.tell("kept.a", "alone")
	for range 10 {
		r.tell("kept.b", "shared")
	}
	r.stop()
	r.start()
	r.eventually("all is handled", func() bool { return len(r.seen("a", "one"))+len(r.seen("a", "two")) == 11 })
	r.tell("kept.a", "!fail nothing") // what fails is tried again
	r.eventually("it has failed, and waits", func() bool {
		return r.failed("a-messaging-2.kept") > 0 && r.stream("kept").Messages == 1
	})
	r.reload()
	if got := r.Status().Dead; got != 0 {
		t.Errorf("%d dead letters", got)
	}
}

// One actor asks another one on the same box, and gets the answer.
func TestNode_messaging_asksAnActor(t *testing.T) {
	r := newRig(t, unsigned)
	r.probe("a", "1", subscribes("one", `subject = "one"`)+subscribes("two", `subject = "two"`), "one", "two")
	r.start()
	r.eventually("both listen", func() bool {
		_, err := r.local().Request("two", []byte("echo"), time.Second)
		return err == nil
	})
	r.tell("one", "!ask two echo")
	r.sees("a", "one", "answer: echo of two")
}
