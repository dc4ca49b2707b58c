package node

import (
	"testing"
)

// What waits in an inbox is not lost when a new version has another table in its
// place: who receives the topic now has it, in order, and before what comes.
func TestNode_inboxChangesPlace(t *testing.T) {
	r := newRig(t, unsigned)
	r.probe("a", "1", told("one"), "one")
	r.start()
	r.tell("one", "!fail nothing 0") // tried again and again
	r.tell("one", "second")
	r.tell("one", "third")
	r.eventually("it has failed", func() bool { return r.failed("a-pubsub-local-1") > 0 })
	r.probe("a", "2", told("two")+told("one"), "one", "two")
	r.reload()
	r.tell("one", "fourth")
	r.eventually("it fails in its new place", func() bool { return r.failed("a-pubsub-local-2") > 0 })
	letters := r.letters()
	if len(letters) != 3 || letters[0].Seq != 1 || letters[0].ReplayTo != "a-pubsub-local-2" || letters[0].Subscription != "a-pubsub-local-1" {
		t.Fatalf("dead letters %+v", letters)
	}
	r.drop(letters[0].ID)
	r.sees("a", "one", "second", "third", "fourth")
	if got := r.letters(); len(got) != 0 {
		t.Errorf("dead letters %+v", got)
	}
}

// A topic that nobody receives any more leaves dead letters.
func TestNode_inboxChangesTopic(t *testing.T) {
	r := newRig(t, unsigned)
	r.probe("a", "1", told("one"), "one")
	r.start()
	r.tell("one", "!fail nothing 0")
	r.tell("one", "second")
	r.eventually("it has failed", func() bool { return r.failed("a-pubsub-local-1") > 0 })
	r.stop()
	r.probe("a", "2", pubsubLocal("one", `topic = "other"`), "one")
	r.start()
	letters := r.letters()
	if len(letters) != 2 || letters[1].Subject != "one" || letters[1].ReplayTo != "" {
		t.Fatalf("dead letters %+v", letters)
	}
	r.tell("other", "!receive nothing 0")
	r.eventually("what comes is handled", func() bool { return len(r.seen("a", "one")) > 0 })
	if n, status := r.replay(DeadLetterChoice{IDs: []uint64{letters[1].ID}, To: "a-pubsub-local-1"}); n != 1 || status != 200 {
		t.Errorf("replayed %d, %d", n, status)
	}
	r.eventually("what nobody received is handled by who was named", func() bool { return len(r.letters()) == 1 })
}

// When the old version comes back, so does what waited for the new one.
func TestNode_inboxChangesPlace_andBack(t *testing.T) {
	r := newRig(t, unsigned)
	r.probe("a", "1", told("one"), "one")
	r.start()
	r.tell("one", "!fail nothing 0")
	r.tell("one", "second")
	r.eventually("it has failed", func() bool { return r.failed("a-pubsub-local-1") > 0 })
	r.probe("a", "2", told("two")+told("one"), "one", "two")
	r.reload()
	r.probe("a", "3", told("one"), "one")
	r.reload()
	letters := r.letters()
	if len(letters) != 2 || letters[0].ReplayTo != "a-pubsub-local-1" || letters[1].ReplayTo != "a-pubsub-local-1" {
		t.Fatalf("dead letters %+v", letters)
	}
	r.drop(letters[0].ID)
	r.sees("a", "one", "second")
}
