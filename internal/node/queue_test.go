package node

import (
	"os"
	"strings"
	"testing"
)

// workers is an app with two actors that share a queue, and one of which gets
// the news too.
func workers(name, version string) string {
	actor := func(name string) string {
		return "[[actor]]\nname = \"" + name + "\"\nmodule = \"thermostat.wasm\"\nlimits = { memory = \"64MiB\", time = \"30s\" }\n" +
			"[[capability]]\nname = \"keyvalue\"\nactor = \"" + name + "\"\n" +
			"[[capability]]\nname = \"pubsub.local\"\nactor = \"" + name + "\"\n[[capability.config]]\nqueue = \"jobs/+/temperature\"\n"
	}
	return "specversion = \"0.2\"\nname = \"" + name + "\"\nversion = \"" + version + "\"\n" + actor("one") + actor("two")
}

func (r *rig) turnsOf(app, actor string) (n uint64) {
	for _, t := range r.Status().Turns {
		if t.App == app && t.Actor == actor {
			n += t.Turns
		}
	}
	return n
}

// Each message of a queue goes to one of its receivers, in whichever app; what
// waits is not lost when one of them is swapped or goes.
func TestNode_queue(t *testing.T) {
	r := newRig(t, unsigned)
	for _, name := range []string{"a", "b"} {
		r.write("apps/"+name+"/app.toml", workers(name, "1"))
		r.module(name)
	}
	r.start()
	const sensors, each = 4, 30
	sent := uint64(0)
	send := func() {
		for i := range sensors * each {
			r.publish("jobs.s"+string(rune('a'+i%sensors))+".temperature", i%20)
			sent++
		}
	}
	all := func() uint64 { return r.turns("a") + r.turns("b") }
	send()
	r.eventually("all were handled", func() bool { return all() == sent })
	for _, app := range []string{"a", "b"} {
		for _, actor := range []string{"one", "two"} {
			if r.turnsOf(app, actor) == 0 {
				t.Errorf("actor %s of app %s got nothing", actor, app)
			}
		}
	}
	before := r.db.Subscriptions()
	r.write("apps/a/app.toml", workers("a", "2"))
	send()
	r.reload()
	send()
	r.eventually("all were handled after an update", func() bool { return all() == sent })
	b := r.turns("b")
	if err := os.RemoveAll(r.path("apps", "b")); err != nil {
		t.Fatal(err)
	}
	r.reload()
	a := r.turns("a")
	send()
	r.eventually("the receivers that are left have all", func() bool { return r.turns("a") == a+sensors*each })
	if r.turns("b") != b {
		t.Error("an app that is gone handled messages")
	}
	after := r.db.Subscriptions()
	if len(after) != len(before) || len(after) != 1 {
		t.Errorf("subscriptions %v, before %v: want the one of the queue", after, before)
	}
	if got := r.Status().Dead; got != 0 {
		t.Errorf("%d dead letters", got)
	}
}

// What waits in the inbox of a topic is handled also when the stream that keeps
// what comes next is another one.
func TestNode_Reload_streamIsDeclaredLater(t *testing.T) {
	r := newRig(t, unsigned)
	one := strings.Replace(greenhouse("a", "1", "a", ""), `topic = "a.*.temperature"`, `topic = "x.*.temperature"`, 1)
	r.write("apps/a/app.toml", one)
	r.module("a")
	r.start()
	if err := r.broker.Pause(t.Context(), "a-pubsub-local-1"); err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		r.publish("x.s.temperature", i)
	}
	two := strings.Replace(one, `"a.>"`, `"a.>", "x.>"`, 1)
	r.write("apps/a/app.toml", two)
	r.reload()
	r.publish("x.s.temperature", 5)
	r.handled("a", 6)
	r.write("apps/a/app.toml", strings.Replace(two, `version = "1"`, `version = "3"`, 1))
	r.reload()
	if got := r.db.Subscriptions(); len(got) != 1 || got["a-pubsub-local-1.a"] != "a" {
		t.Errorf("subscriptions %v, want that of the declared stream alone", got)
	}
	if s := r.stream("a-pubsub-local-1"); s.Name != "" {
		t.Errorf("the inbox is still there: %+v", s)
	}
}
