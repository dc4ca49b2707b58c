package node

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/edged-io/edged/store"
)

// told is a capability by which an actor gets commands on a subject.
func told(actor string) string {
	return pubsubLocal(actor, "topic = \""+actor+"\"")
}

func pubsubLocal(actor, config string) string {
	return "[[capability]]\nname = \"pubsub.local\"\nactor = \"" + actor + "\"\n[[capability.config]]\n" + config + "\n"
}

func kept(name, more string) string {
	return "[[stream]]\nname = \"" + name + "\"\nsubjects = [\"" + name + ".>\"]\n" + more + "\n"
}

// An actor asks for the events of a topic when it wants them. What it took
// comes again if it fails.
func TestNode_pull(t *testing.T) {
	r := newRig(t, unsigned)
	r.probe("a", "1", kept("work", "")+told("one")+pubsubLocal("one", "topic = \"work/#\"\ndelivery = \"pull\""), "one")
	r.start()
	r.tell("one", "!receive work/# 0")
	r.sees("a", "one", "nothing")
	for _, text := range []string{"first", "second", "third"} {
		r.tell("work.x", text)
	}
	r.tell("one", "!receive work/# 10000")
	r.sees("a", "one", "nothing", "received first")
	r.tell("one", "!fail work/# 10000") // tried again and again
	r.eventually("it has failed", func() bool { return r.failed("a-pubsub-local-1") > 0 })
	r.tell("work.x", "fourth")
	r.probe("a", "2", kept("work", "")+pubsubLocal("one", "topic = \"work/#\"\ndelivery = \"pull\"")+told("one"), "one")
	r.reload() // the command that fails is for the new place of its topic, until it is dropped
	for _, d := range r.letters() {
		r.drop(d.ID)
	}
	r.tell("one", "!stream work/#")
	r.eventually("it has all", func() bool { return slices.Contains(r.seen("a", "one"), "streamed 3") })
	r.tell("one", "!receive nothing 0")
	r.eventually("it may not", func() bool {
		seen := r.seen("a", "one")
		return strings.HasPrefix(seen[len(seen)-2], "error: PubSub.Receive: pubsub: not permitted: receive from \"nothing\"")
	})
	r.eventually("the stream is empty", func() bool { return r.stream("work").Messages == 0 })
}

// letters returns the dead letters.
func (r *rig) letters() (all []store.DeadLetter) {
	r.t.Helper()
	err := r.db.DeadLetters(func(d store.DeadLetter) error {
		all = append(all, d)
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return all
}

// drop drops a dead letter.
func (r *rig) drop(id uint64) {
	r.t.Helper()
	err := r.db.Do(r.t.Context(), func(_ context.Context, t *store.Turn) error {
		t.DropDeadLetter(id)
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
}

// failed returns how many attempts of a subscription failed.
func (r *rig) failed(subscription string) uint64 {
	for _, s := range r.subscriptions() {
		if s.Name == subscription {
			return s.Failed
		}
	}
	return 0
}

// Actors share what they ask for from a queue, and what no stream keeps too.
func TestNode_pullQueue(t *testing.T) {
	r := newRig(t, unsigned)
	queue := "queue = \"user/+\"\nqos = 1\ndelivery = \"pull\""
	r.probe("a", "1", told("one")+told("two")+pubsubLocal("one", queue)+pubsubLocal("two", queue), "one", "two")
	r.start()
	for i := range 6 {
		r.tell(fmt.Sprintf("user.u%d", i), fmt.Sprint(i))
	}
	for range 3 {
		r.tell("one", "!receive user/+ 10000")
		r.tell("two", "!receive user/+ 10000")
	}
	var all []string
	r.eventually("both have theirs", func() bool {
		all = append(r.seen("a", "one"), r.seen("a", "two")...)
		return len(all) == 6
	})
	slices.Sort(all)
	if want := []string{"received 0", "received 1", "received 2", "received 3", "received 4", "received 5"}; !slices.Equal(all, want) {
		t.Errorf("got %q", all)
	}
}

// NATS clients get what is pushed to a subject, and pull.
func TestNode_natsClients(t *testing.T) {
	r := newRig(t, unsigned)
	r.probe("a", "1", kept("work", "")+"[[subscription]]\nname = \"pushed\"\nstream = \"work\"\npush = \"outside\"\n"+
		"[[subscription]]\nname = \"pulled\"\nstream = \"work\"\ndelivery = \"pull\"\n", "one")
	r.start()
	nc := r.local()
	sub, err := nc.SubscribeSync("outside")
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	r.tell("work.x", "hello")
	m, err := sub.NextMsg(patience)
	if err != nil || string(m.Data) != "hello" {
		t.Fatalf("got %v, %v", m, err)
	}
	if err := m.Respond([]byte("+ACK")); err != nil {
		t.Fatal(err)
	}
	if m, err = nc.Request("$JS.API.CONSUMER.MSG.NEXT.work.pulled", []byte("1"), patience); err != nil || string(m.Data) != "hello" {
		t.Fatalf("got %v, %v", m, err)
	}
	if r.stream("work").Messages != 1 {
		t.Error("the message went before it was acknowledged")
	}
	if err := m.Ack(); err != nil {
		t.Fatal(err)
	}
	r.eventually("all have it", func() bool { return r.stream("work").Messages == 0 })
}

// What is at risk in a batch is shown, until it is on disk; a stream in memory is
// at risk always, and gone with the process.
func TestNode_durability(t *testing.T) {
	r := newRig(t, unsigned)
	r.probe("a", "1", kept("batch", "durability = \"batch:1m\"")+kept("memory", "durability = \"memory\"\npriority = 7")+kept("synced", ""), "one")
	r.start()
	for _, name := range []string{"batch", "memory", "synced"} {
		for range 3 {
			if r.tell(name+".x", "text") == 0 {
				t.Errorf("stream %s keeps nothing", name)
			}
		}
	}
	for name, want := range map[string]StreamStatus{
		"batch":  {Durability: "batch:1m0s"},
		"memory": {Durability: "memory", AtRisk: RiskStatus{Messages: 3}, Priority: 7},
		"synced": {Durability: "synced"},
	} {
		got := r.stream(name)
		if got.Durability != want.Durability || got.Priority != want.Priority || got.Messages != 3 {
			t.Errorf("%s: %+v", name, got)
		}
		if name != "batch" && got.AtRisk.Messages != want.AtRisk.Messages || got.AtRisk.Messages > 3 || got.AtRisk.Bytes > got.Bytes {
			t.Errorf("%s: at risk %+v", name, got.AtRisk)
		}
	}
	r.stop()
	r.start()
	if got := r.stream("batch"); got.Messages != 3 || got.AtRisk.Messages != 0 {
		t.Errorf("batch after an orderly end: %+v", got)
	}
	if got := r.stream("memory"); got.Messages != 0 || got.Reasons["restart"] != 3 {
		t.Errorf("memory after a restart: %+v", got)
	}
}

// At most once is at most once: what fails is not tried again.
func TestNode_atMostOnce(t *testing.T) {
	r := newRig(t, unsigned)
	r.probe("a", "1", pubsubLocal("one", "topic = \"work\"\nqos = 0\non_message = \"Strict\""), "one")
	r.start()
	r.tell("work", "bad")
	r.tell("work", "good")
	r.sees("a", "one", "good")
	if got := r.Status().Dead; got != 0 {
		t.Errorf("%d dead letters", got)
	}
}

// A message that fails holds back its own key, and no other of its subject.
func TestNode_orderedByKey(t *testing.T) {
	r := newRig(t, unsigned)
	sub := "[[subscription]]\nname = \"keyed\"\nstream = \"work\"\nordered_by = \"key\"\nactor = \"one\"\non_message = \"Strict\"\nbackoff = [\"1h\"]\n"
	r.probe("a", "1", kept("work", "")+sub+told("two"), "one", "two")
	r.start()
	for _, text := range []string{"a:1", "bad:1", "b:1", "bad:2", "a:2", "b:2"} {
		r.tell("two", "!key work/x "+text)
	}
	r.eventually("the other keys go on", func() bool { return len(r.seen("a", "one")) == 4 })
	for _, key := range []string{"a", "b"} {
		seen := slices.DeleteFunc(r.seen("a", "one"), func(text string) bool { return !strings.HasPrefix(text, key) })
		if !slices.Equal(seen, []string{key + ":1", key + ":2"}) {
			t.Errorf("key %s: seen %q", key, seen)
		}
	}
	r.eventually("one key waits", func() bool {
		for _, s := range r.subscriptions() {
			if s.Name == "keyed" {
				return s.Failed == 1 && s.Delivered == 4
			}
		}
		return false
	})
}

// A subscription begins where the manifest says, once, and an ephemeral one
// each time.
func TestNode_start(t *testing.T) {
	r := newRig(t, unsigned)
	sub := func(name, actor, more string) string {
		return "[[subscription]]\nname = \"" + name + "\"\nstream = \"work\"\nactor = \"" + actor + "\"\n" + more + "\n"
	}
	r.probe("a", "1", kept("work", ""), "one", "two", "three", "four")
	r.start()
	for i := range 4 {
		r.tell("work.x", fmt.Sprint(i+1))
	}
	r.probe("a", "2", kept("work", "")+sub("first", "one", "")+sub("new", "two", "start = \"new\"")+
		sub("seq", "three", "start = \"seq:3\"")+sub("last", "four", "start = \"last\"\ndurable = false"), "one", "two", "three", "four")
	r.reload()
	r.tell("work.x", "5")
	r.sees("a", "one", "1", "2", "3", "4", "5")
	r.sees("a", "two", "5")
	r.sees("a", "three", "3", "4", "5")
	r.sees("a", "four", "4", "5")
	r.stop()
	r.start()
	r.tell("work.x", "6")
	r.sees("a", "one", "1", "2", "3", "4", "5", "6")
	r.sees("a", "two", "5", "6")
	r.eventually("nothing is left", func() bool { return r.stream("work").Messages == 0 })
}

// What an actor delays waits in its stream, and is shown there.
func TestNode_delayed(t *testing.T) {
	r := newRig(t, unsigned)
	r.probe("a", "1", kept("work", "")+told("one"), "one")
	r.start()
	r.tell("one", "!delay work/x later")
	r.eventually("it is parked", func() bool { return r.stream("work").Delayed == 1 })
	r.tell("one", "!delay nowhere later")
	r.sees("a", "one", "error: PubSub.Publish: pubsub: no such topic: publish to \"nowhere\": no stream keeps it until it is due")
	if got := r.stream("work"); got.Messages != 0 || got.Last != 0 {
		t.Errorf("it is in its stream already: %+v", got)
	}
}

// A new filter holds from the position on, limits that shrank hold at once, and
// neither loses what it need not.
func TestNode_Reload_changesStreams(t *testing.T) {
	r := newRig(t, unsigned)
	sub := func(filter string) string {
		return "[[subscription]]\nname = \"s\"\nstream = \"work\"\nactor = \"one\"\nfilter = \"" + filter + "\"\n"
	}
	r.probe("a", "1", kept("work", "")+sub("work.a"), "one")
	r.start()
	r.tell("work.a", "a1")
	r.tell("work.b", "b1")
	r.sees("a", "one", "a1")
	r.eventually("the position is beyond both", func() bool { return r.stream("work").Messages == 0 })
	if err := r.broker.Pause(t.Context(), "s"); err != nil {
		t.Fatal(err)
	}
	r.tell("work.a", "a2")
	r.tell("work.b", "b2")
	r.probe("a", "2", kept("work", "")+sub("work.b"), "one")
	r.reload()
	r.tell("work.a", "a3")
	r.tell("work.b", "b3")
	r.sees("a", "one", "a1", "b2", "b3")
	if err := r.broker.Pause(t.Context(), "s"); err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		r.tell("work.b", fmt.Sprint(i))
	}
	r.probe("a", "3", kept("work", "max_msgs = 4")+"[[subscription]]\nname = \"s\"\nstream = \"work\"\nactor = \"one\"\n", "one")
	r.reload()
	r.eventually("all that is kept is handled", func() bool { s := r.stream("work"); return s.Messages == 0 && s.Last == 16 })
	got := r.stream("work")
	if seen := uint64(len(r.seen("a", "one"))); seen-3+got.Dropped != 10 {
		t.Errorf("%d of 10 were handled, %d dropped (%v)", seen-3, got.Dropped, got.Reasons)
	}
}

// Every receiver of a request by a turn that failed gets its message again, in
// order.
func TestNode_pull_givesBack(t *testing.T) {
	r := newRig(t, unsigned)
	r.probe("a", "1", kept("work", "")+pubsubLocal("one", "topic = \"work/#\"\ndelivery = \"pull\""), "one")
	r.start()
	for i := range 5 {
		r.tell("work.x", fmt.Sprint(i))
	}
	take := func(ctx context.Context) (got []string) {
		messages, err := streams{r.Node}.Receive(ctx, []string{"a-pubsub-local-1.work", "a-pubsub-local-1.parent"}, 3, patience)
		if err != nil {
			t.Error(err)
		}
		for _, m := range messages {
			got = append(got, string(m.Data))
		}
		return got
	}
	ctx, turn := r.turn()
	if got := take(ctx); !slices.Equal(got, []string{"0", "1", "2"}) {
		t.Errorf("got %q", got)
	}
	turn.Discard()
	ctx, turn = r.turn()
	if got := take(ctx); !slices.Equal(got, []string{"0", "1", "2"}) {
		t.Errorf("got %q", got)
	}
	if err := turn.Commit(); err != nil {
		t.Fatal(err)
	}
	ctx, turn = r.turn()
	if got := take(ctx); !slices.Equal(got, []string{"3", "4"}) {
		t.Errorf("got %q", got)
	}
	turn.Discard()
}

// A stream that is full is a problem that is named, until there is room.
func TestNode_fullStream(t *testing.T) {
	r := newRig(t, unsigned)
	r.probe("a", "1", kept("work", "max_msgs = 3")+kept("gives", "max_msgs = 3\non_full = \"drop-oldest\""), "one")
	r.start()
	for range 3 {
		r.tell("work.x", "text")
		r.tell("gives.x", "text")
		r.tell("gives.x", "text")
	}
	contains(t, strings.Join(r.Status().Problems, "\n"), "stream work: it holds 3 messages of max_msgs 3: publishers are refused")
	if got := len(r.Status().Problems); got != 1 {
		t.Errorf("%d problems: %q", got, r.Status().Problems)
	}
	if got := r.stream("gives"); got.Dropped != 3 || got.Reasons["full"] != 3 {
		t.Errorf("the stream that gives way: %+v", got)
	}
	r.probe("a", "2", kept("work", "max_msgs = 3")+"[[subscription]]\nname = \"reader\"\nstream = \"work\"\n"+kept("gives", "max_msgs = 3"), "one")
	r.reload()
	r.eventually("there is room", func() bool { return len(r.Status().Problems) == 1 }) // gives rejects now
	contains(t, r.Status().Problems[0], "stream gives:")
}

// A manifest that leaves out a stream with messages loses none of them, nor does
// one that leaves out who was to get them; when both come back, they go on.
func TestNode_Reload_streamGoesAndComes(t *testing.T) {
	r := newRig(t, unsigned)
	with := kept("work", "") + "[[subscription]]\nname = \"s\"\nstream = \"work\"\nactor = \"one\"\n"
	r.probe("a", "1", with, "one")
	r.start()
	r.tell("work.x", "1")
	r.sees("a", "one", "1")
	r.eventually("it is done with", func() bool { return r.stream("work").Messages == 0 })
	if err := r.broker.Pause(t.Context(), "s"); err != nil {
		t.Fatal(err)
	}
	r.tell("work.x", "2")
	r.tell("work.x", "3")
	r.probe("a", "2", "", "one")
	r.reload()
	if r.tell("work.x", "nobody keeps it") != 0 {
		t.Error("a stream that is not declared takes messages")
	}
	if got := r.stream("work"); got.Messages != 2 || !got.Undeclared {
		t.Errorf("the stream without its app: %+v", got)
	}
	r.stop()
	r.start()
	if got := r.stream("work"); got.Messages != 2 || !got.Undeclared {
		t.Errorf("after a restart: %+v", got)
	}
	r.probe("a", "3", with, "one")
	r.reload()
	r.sees("a", "one", "1", "2", "3")
	if r.tell("work.x", "4") != 4 {
		t.Error("the stream does not go on with its numbers")
	}
}

// A queue with another filter is another queue: who was to get what waits in the
// old one is gone, and it is kept until somebody removes it.
func TestNode_Reload_queueChangesItsFilter(t *testing.T) {
	r := newRig(t, unsigned)
	r.probe("a", "1", pubsubLocal("one", "queue = \"jobs/+\""), "one")
	r.start()
	old := r.apps["a"].config.Local[0].Name
	if err := r.broker.Pause(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	r.tell("jobs.x", "1")
	r.probe("a", "2", pubsubLocal("one", "queue = \"jobs/#\""), "one")
	r.reload()
	r.tell("jobs.x.y", "2")
	r.sees("a", "one", "2")
	if got := r.stream(old); got.Messages != 1 || !got.Undeclared {
		t.Errorf("the inbox of the old queue: %+v", got)
	}
	if err := r.endStream(t.Context(), old, false); err == nil {
		t.Error("removed with what it holds")
	}
	if err := r.endStream(t.Context(), old, true); err != nil {
		t.Error(err)
	}
	r.tell("jobs.x.y", "3")
	r.sees("a", "one", "2", "3")
}
