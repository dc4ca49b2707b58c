package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/edged-io/edged/internal/ota"
	"github.com/edged-io/edged/lattice"
)

// compileAsTold is a compiler: what a file in the folder told says of the module, it
// does, once the file is there.
func compileAsTold(told, cache string) int {
	wasm, err := io.ReadAll(os.Stdin)
	if err != nil {
		return 1
	}
	name := filepath.Join(told, sha256Digest(wasm))
	_ = os.WriteFile(name+".began", nil, 0o600)
	var order []byte
	for end := time.Now().Add(patience); len(order) == 0; <-time.After(5 * time.Millisecond) {
		if order, _ = os.ReadFile(name); time.Now().After(end) { // it is not there yet
			return 1
		}
	}
	switch string(order) {
	case "make":
		entry, err := os.Readlink(name + ".entry")
		if err == nil {
			err = os.CopyFS(filepath.Join(cache, filepath.Base(entry)), os.DirFS(entry))
		}
		if err != nil {
			fmt.Println(err)
			return 1
		}
		return 0
	case "die":
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}
	fmt.Println("it is " + string(order))
	return 3
}

// newColdRig makes a box with the apps quick and slow whose cache is empty, and a
// compiler that has to be told.
func newColdRig(t *testing.T) *rig {
	t.Helper()
	r := newRig(t, unsigned)
	program, err := os.Executable()
	if err == nil {
		err = os.Mkdir(r.path("told"), 0o700)
	}
	if err != nil {
		t.Fatal(err)
	}
	r.app("quick", "1", "quick", "")
	r.makeEntry(thermostat)
	if err := os.RemoveAll(r.path("apps", "quick")); err != nil {
		t.Fatal(err)
	}
	r.probe("slow", "1", `[[stream]]
name = "slow"
subjects = ["slow.>"]
[[subscription]]
name = "slow-one"
stream = "slow"
actor = "one"
[[subscription]]
name = "slow-once"
stream = "slow"
actor = "two"
qos = 0
`+places("one", `listen = "127.0.0.1:0"`), "one", "two")
	r.makeEntry(probe)
	r.app("quick", "1", "quick", "")
	if err := os.Remove(r.path("state", "cache")); err != nil {
		t.Fatal(err)
	}
	r.compiler = []string{program, "compile", r.path("told")}
	r.beforeReady = func() { r.compileAgain = time.Millisecond }
	return r
}

// makeEntry runs the box, whose only module this is, with the cache of all tests, and
// notes which entry it used.
func (r *rig) makeEntry(module string) {
	r.t.Helper()
	r.start()
	r.stop()
	entries, err := os.ReadDir(codeCache)
	var last string
	var used time.Time
	for _, e := range entries {
		info, infoErr := e.Info()
		if err = errors.Join(err, infoErr); err == nil && info.ModTime().After(used) {
			last, used = e.Name(), info.ModTime()
		}
	}
	if err == nil {
		err = os.Symlink(filepath.Join(codeCache, last), r.order(module)+".entry")
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

// order is the file that tells the compiler what to do with a module.
func (r *rig) order(module string) string {
	r.t.Helper()
	wasm, err := os.ReadFile(module)
	if err != nil {
		r.t.Fatal(err)
	}
	return r.path("told", sha256Digest(wasm))
}

// compile tells the compiler what to do with a module.
func (r *rig) compile(module, order string) {
	r.t.Helper()
	name := r.order(module)
	err := os.WriteFile(name+".new", []byte(order), 0o600)
	if err == nil {
		err = os.Rename(name+".new", name)
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) compiling() (keys []string) {
	for _, a := range r.Status().Apps {
		keys = append(keys, a.Compiling...)
	}
	return keys
}

// A box with an empty cache serves at once: streams take messages, and each app
// runs when its code is there. Nothing is lost, nor attempted, meanwhile.
func TestNode_compilesWhileItServes(t *testing.T) {
	r := newColdRig(t)
	r.start()
	if got, keys := r.running(), r.compiling(); got != "quick 1, slow 1" || !slices.Equal(keys, []string{"quick/thermostat", "slow/one", "slow/two"}) {
		t.Errorf("%s run, of which %q are compiled", got, keys)
	}
	contains(t, strings.Join(r.Status().Problems, "\n"),
		"actor quick/thermostat: its code is not in the cache and is compiled now, as number 1 of 3", "actor slow/two: its code is not in the cache and is compiled now, as number 3 of 3")
	r.tell("slow.a", "first")
	answered, client, url := make(chan string, 1), newClient(t), "http://"+r.httpAddress("slow-httpserver-1")+"/"
	go func() { // received from below
		status, body := r.post(client, url)
		answered <- fmt.Sprint(status, " ", body)
	}()
	r.publish("quick.1.temperature", 1)
	r.compile(thermostat, "make")
	r.handled("quick", 1)
	r.reload()
	if lines := r.seen("slow", "one"); len(lines) > 0 {
		t.Errorf("an actor without code saw %q", lines)
	}
	r.tell("slow.a", "second")
	r.compile(probe, "make")
	r.sees("slow", "one", "first", "second")
	r.sees("slow", "two", "first", "second")
	if got := <-answered; got != "200 1" && got != "503 " { // it may have waited too long
		t.Errorf("the request got %s", got)
	}
	r.eventually("all is compiled", func() bool { return len(r.compiling()) == 0 && len(r.Status().Problems) == 0 })
	if r.late != nil {
		t.Errorf("%d actors are kept after they were compiled", len(r.late))
	}
	if n := r.Status().Dead; n > 0 {
		t.Errorf("%d dead letters", n)
	}
	r.stop()
	r.start()
	if keys := r.compiling(); len(keys) > 0 {
		t.Errorf("%q are compiled although they are in the cache", keys)
	}
}

// A call that has a deadline gets its error before that.
func TestCode_await_deadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), maxAwait/2)
		defer cancel()
		if _, err := newCode().await(ctx, maxAwait); !errors.Is(err, errBusy) || ctx.Err() != nil {
			t.Errorf("got %v, and its time is over: %v", err, ctx.Err())
		}
	})
}

// A message whose actor calls one that is being compiled waits, as one for that actor
// does, also where a single attempt is all that it has.
func TestNode_compilesCallee(t *testing.T) {
	r := newColdRig(t)
	more := ""
	for _, how := range []string{"need", "need-or-retry"} {
		more += kept(how, "") + "[[subscription]]\nname = \"a-" + how + "\"\nstream = \"" + how + "\"\nactor = \"" + how + "\"\nmax_deliver = 1\n"
	}
	r.probe("a", "1", more, "need", "need-or-retry") // the first to be compiled
	r.beforeReady = func() { r.maxAwait = time.Millisecond }
	r.compile(probe, "make")
	r.start()
	for _, how := range []string{"need", "need-or-retry"} {
		r.tell(how+".x", "!"+how+" quick/thermostat Actor.HealthRequest")
	}
	r.eventually("both were tried, and tried again", func() bool {
		return strings.Count(r.log.String(), "handlers can not go on") == 2
	})
	if s := r.Status(); s.Dead > 0 || strings.Contains(strings.Join(s.Problems, "\n"), "a/need") {
		t.Errorf("%d dead letters, problems %q", s.Dead, s.Problems)
	}
	r.compile(thermostat, "make")
	r.sees("a", "need", "got it")
	r.sees("a", "need-or-retry", "got it")
}

// Others of a queue group get its messages until an actor can answer, and nobody in the
// lattice hears of the actor before.
func TestNode_compilesMemberOfAGroup(t *testing.T) {
	r := newColdRig(t)
	r.probe("slow", "1", subscribes("one", "subject = \"ask\"\nqueue = \"workers\""), "one")
	r.compile(thermostat, "make")
	r.start()
	var heard atomic.Bool
	stop := r.bus.Watch(func(e lattice.Entity, _ bool) {
		if e.Key == "slow/one" {
			heard.Store(true)
		}
	})
	defer stop()
	nc := r.local()
	if _, err := nc.QueueSubscribe("ask", "workers", func(m *nats.Msg) { _ = m.Respond([]byte("other")) }); err != nil {
		t.Fatal(err)
	}
	ask := func() string {
		t.Helper()
		reply, err := nc.Request("ask", []byte("echo"), patience)
		if err != nil {
			t.Fatal(err)
		}
		return string(reply.Data)
	}
	r.eventually("the other one answers", func() bool { return ask() == "other" })
	for range 20 {
		if got := ask(); got != "other" {
			t.Fatalf("got %q", got)
		}
	}
	if heard.Load() {
		t.Error("the lattice has heard of an actor that can not answer")
	}
	r.compile(probe, "make")
	r.eventually("the actor has its share", func() bool { return ask() == "echo of ask" })
	if !heard.Load() {
		t.Error("the lattice has not heard of the actor")
	}
}

// A compiler that was killed for its memory is tried again, and messages wait.
func TestNode_compilesAgain(t *testing.T) {
	r := newColdRig(t)
	r.compile(thermostat, "make")
	r.compile(probe, "die")
	r.start()
	r.tell("slow.a", "first")
	r.publish("quick.1.temperature", 1)
	r.handled("quick", 1)
	r.eventually("it is told", func() bool {
		return strings.Contains(strings.Join(r.Status().Problems, "\n"), "actor slow/one: actor one of app slow: load actor slow/one: the compiler was killed")
	})
	r.compile(probe, "make")
	r.sees("slow", "one", "first")
	r.eventually("all is well", func() bool { return len(r.Status().Problems) == 0 })
}

// A module that turns out to be faulty takes its app with it, as at a boot from the
// cache. What the app has on disk stays.
func TestNode_compilesFaulty(t *testing.T) {
	r := newColdRig(t)
	r.compile(thermostat, "make")
	r.start()
	r.tell("slow.a", "first")
	r.compile(probe, "faulty")
	r.eventually("the app is left out", func() bool { return r.running() == "quick 1" })
	r.eventually("it is told", func() bool {
		return strings.Join(r.Status().Problems, "\n") == "app slow: actor one of app slow: load actor slow/one: it is faulty"
	})
	if r.db.Subscriptions()["slow-one"] != "slow" || r.stream("slow").Messages != 1 {
		t.Errorf("left of it are %v and %+v", r.db.Subscriptions(), r.stream("slow"))
	}
	r.publish("quick.1.temperature", 1)
	r.handled("quick", 1)
	r.compile(probe, "make")
	r.reload()
	r.sees("slow", "one", "first")
}

// An app that is taken away while it is compiled, or waits for it, is gone.
func TestNode_compilesNoMore(t *testing.T) {
	r := newColdRig(t)
	r.probe("waits", "1", "", "one")
	r.start()
	if err := os.RemoveAll(r.path("apps", "waits")); err != nil {
		t.Fatal(err)
	}
	r.reload()
	r.compile(thermostat, "make")
	r.eventually("the next one is compiled", func() bool {
		_, err := os.Stat(r.order(probe) + ".began")
		return err == nil
	})
	if got := strings.Join(r.Status().Problems, "\n"); strings.Contains(got, "waits") || !strings.Contains(got, "actor slow/one") {
		t.Errorf("the problems are %s", got)
	}
	if err := os.RemoveAll(r.path("apps", "slow")); err != nil {
		t.Fatal(err)
	}
	r.reload()
	if got := r.running(); got != "quick 1" {
		t.Errorf("%s run", got)
	}
	r.publish("quick.1.temperature", 1)
	r.handled("quick", 1)
	r.eventually("nothing is compiled", func() bool { return len(r.compiling()) == 0 && len(r.Status().Problems) == 0 })
}

// A queue is served by the receivers that have their code, and rests once there are
// none: what is delivered at most once is not lost with one that has none.
func TestNode_compilesReceiver(t *testing.T) {
	r := newColdRig(t)
	queue := "queue = \"jobs/+/temperature\"\nqos = 0"
	r.probe("slow", "1", kept("jobs", "")+pubsubLocal("one", queue), "one")
	r.write("apps/quick/app.toml", "specversion = \"0.2\"\nname = \"quick\"\nversion = \"1\"\n[[actor]]\nname = \"thermostat\"\nmodule = \"thermostat.wasm\"\n"+
		"limits = { memory = \"64MiB\", time = \"30s\" }\n[[capability]]\nname = \"keyvalue\"\n"+pubsubLocal("thermostat", queue))
	r.compile(thermostat, "make")
	r.start()
	r.eventually("one has its code", func() bool { return slices.Equal(r.compiling(), []string{"slow/one"}) })
	for i := range 6 {
		r.publish("jobs.s.temperature", i)
	}
	r.handled("quick", 6)
	if err := os.RemoveAll(r.path("apps", "quick")); err != nil {
		t.Fatal(err)
	}
	r.reload()
	r.tell("jobs.s.temperature", "first")
	r.tell("jobs.s.temperature", "second")
	r.stop()
	if !r.compiles.Load() { // or messages whose actors call it while the box ends would be blamed for that
		t.Error("all code is said to be there")
	}
	r.compile(probe, "make")
	r.start()
	r.sees("slow", "one", "first", "second")
}

// A release that was pushed is compiled before its trial, which a power cut meanwhile
// would count against it.
func TestNode_compilesBeforeTrial(t *testing.T) {
	r := newColdRig(t)
	r.compile(thermostat, "make")
	if err := os.Rename(r.path("apps", "slow"), r.path("pushed")); err != nil {
		t.Fatal(err)
	}
	r.start()
	s := ota.Staged{App: "slow", Version: "1", Dir: r.path("pushed")}
	ctx, cancel := context.WithCancel(t.Context())
	admitted := make(chan error, 1)
	go func() { admitted <- r.admitUpdate(ctx, s) }() // received from below
	r.eventually("it is compiled", func() bool {
		_, err := os.Stat(r.order(probe) + ".began")
		return err == nil
	})
	cancel() // something newer is desired
	if err := <-admitted; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	r.compile(probe, "faulty")
	if err := r.admitUpdate(t.Context(), s); err == nil || err.Error() != "actor one of app slow: load actor slow/one: it is faulty" {
		t.Errorf("got %v", err)
	}
	r.compile(probe, "make")
	r.must(r.admitUpdate(t.Context(), s))
	r.compile(probe, "not to be compiled again")
	r.must(r.applyUpdate(t.Context(), s))
	r.tell("slow.a", "first")
	r.sees("slow", "one", "first")
}
