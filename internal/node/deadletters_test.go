package node

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/edged-io/edged/store"
)

// replay asks for it as the verb does, and returns how many there were.
func (r *rig) replay(c DeadLetterChoice) (n, status int) {
	r.t.Helper()
	body, err := json.Marshal(c)
	if err != nil {
		r.t.Fatal(err)
	}
	w := httptest.NewRecorder()
	r.changeDeadLetters(r.replayDeadLetters)(w, httptest.NewRequest(http.MethodPost, "/dlq/replay", bytes.NewReader(body)))
	var l list[store.DeadLetter]
	if err := json.Unmarshal(w.Body.Bytes(), &l); err != nil {
		r.t.Fatal(err)
	}
	return len(l.Items), w.Code
}

func strict(version, operation, more string) string {
	return kept("work", "") + "[[subscription]]\nname = \"s\"\nstream = \"work\"\nactor = \"one\"\non_message = \"" + operation + "\"\nmax_deliver = 1\n" +
		"[[subscription]]\nname = \"other\"\nstream = \"work\"\nfilter = \"work.none\"\nactor = \"two\"\n" + more
}

// What an actor could not handle is handled after an update, in order and once;
// what fails again stays.
func TestNode_deadLetters_replay(t *testing.T) {
	r := newRig(t, unsigned)
	r.probe("a", "1", strict("1", "Strict", ""), "one", "two")
	r.start()
	for _, text := range []string{"ok1", "bad1", "ok2", "bad2", "bad3"} {
		r.tell("work.x", text)
	}
	dead := func(n int) {
		t.Helper()
		r.eventually("there are dead letters", func() bool { return r.Status().Dead == n })
	}
	dead(3)
	letter := func() (d store.DeadLetter) {
		t.Helper()
		if err := r.db.DeadLetters(func(o store.DeadLetter) error { d = o; return nil }); err != nil {
			t.Fatal(err)
		}
		return d
	}
	if d := letter(); d.Actor != "a/one" || d.ActorVersion != "1" || d.Subscription != "s" || d.Reason != "max-deliver" || string(d.Data) != "bad3" {
		t.Errorf("got %+v", d)
	}
	if n, status := r.replay(DeadLetterChoice{IDs: []uint64{letter().ID}}); n != 1 || status != http.StatusOK {
		t.Errorf("%d replayed, status %d", n, status)
	}
	r.eventually("it has failed again", func() bool { return letter().ReplayTo == "" && letter().Attempts > 1 })
	r.sees("a", "one", "ok1", "ok2")

	r.probe("a", "2", strict("2", "on_message", ""), "one", "two")
	r.reload()
	if n, status := r.replay(DeadLetterChoice{All: true, Subscription: "s", Reason: "max-deliver"}); n != 3 || status != http.StatusOK {
		t.Errorf("%d replayed, status %d", n, status)
	}
	r.sees("a", "one", "ok1", "ok2", "bad1", "bad2", "bad3")
	dead(0)
	r.tell("work.x", "ok3")
	r.sees("a", "one", "ok1", "ok2", "bad1", "bad2", "bad3", "ok3")
}

// Another subscription can have them, over a restart; nobody that is not there.
func TestNode_deadLetters_replayTo(t *testing.T) {
	r := newRig(t, unsigned)
	r.probe("a", "1", strict("1", "Strict", ""), "one", "two")
	r.start()
	r.tell("work.x", "bad1")
	r.eventually("there is a dead letter", func() bool { return r.Status().Dead == 1 })
	for _, c := range []DeadLetterChoice{{All: true, To: "nobody"}, {IDs: []uint64{99}}, {}, {All: true, IDs: []uint64{1}}} {
		if n, status := r.replay(c); status != http.StatusNotFound && status != http.StatusBadRequest {
			t.Errorf("%+v: %d replayed, status %d", c, n, status)
		}
	}
	if err := r.broker.Pause(t.Context(), "other"); err != nil {
		t.Fatal(err)
	}
	if n, _ := r.replay(DeadLetterChoice{All: true, To: "other"}); n != 1 {
		t.Errorf("%d replayed", n)
	}
	r.stop()
	r.start()
	r.sees("a", "two", "bad1")
	r.eventually("it has ended", func() bool { return r.Status().Dead == 0 })
	if strings.Contains(strings.Join(r.seen("a", "one"), ""), "bad") {
		t.Error("the other one had it too")
	}
}
