package config_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/edged-io/edged/internal/config"
)

func TestLoadApps(t *testing.T) {
	dir := t.TempDir()
	if apps, err := config.LoadApps(filepath.Join(dir, "none")); err != nil || apps != nil {
		t.Errorf("a folder that does not exist: got %v, %v", apps, err)
	}
	app(t, dir, "b", greenhouse)
	app(t, dir, "a", "specversion='0.2'\nname='a'\nversion='1'")
	app(t, dir, ".staging", "broken")
	write(t, dir, "notes/readme.txt", "no app")
	write(t, dir, "app.toml", "not in a folder")
	apps, err := config.LoadApps(dir)
	if err != nil || len(apps) != 2 || apps[0].Name != "a" || apps[1].Name != "greenhouse" {
		t.Fatalf("got %v, %v", apps, err)
	}
	app(t, dir, "c", "broken")
	apps, err = config.LoadApps(dir)
	wantFaults(t, err, "1: not TOML")
	if len(apps) != 2 {
		t.Errorf("got %d apps beside a broken one", len(apps))
	}
}

func TestCheckApps(t *testing.T) {
	dir := t.TempDir()
	one, err := config.LoadApp(app(t, dir, "one", greenhouse))
	if err != nil {
		t.Fatal(err)
	}
	if f := config.CheckApps([]*config.App{one}); f != nil {
		t.Errorf("one app: %v", f)
	}
	two, err := config.LoadApp(app(t, dir, "two", strings.Replace(greenhouse, `name    = "greenhouse"`, `name = "other"`, 1)))
	if err != nil {
		t.Fatal(err)
	}
	wantFaults(t, config.CheckApps([]*config.App{one, two}),
		`1: gpio line "gpiochip0/3" is also in`,
		`1: gpio line "sim0/4" is also in`,
		`1: stream "telemetry" is also in`,
		`1: subject "sensors.>" of stream telemetry overlaps "sensors.>" of stream telemetry in`,
		`1: subscription "audit" is also in`,
	)
	twin := *one
	twin.Dir = filepath.Join(dir, "twin")
	if f := config.CheckApps([]*config.App{one, &twin}); !strings.Contains(f.Error(), `app "greenhouse" is also in`) {
		t.Errorf("got %v", f)
	}
}

// queues is an app whose two actors receive from a queue.
const queues = `specversion = "0.2"
name = "%s"
version = "1"
[[actor]]
name = "a"
module = "thermostat.wasm"
[[actor]]
name = "b"
module = "thermostat.wasm"
[[capability]]
name = "pubsub.local"
actor = "a"
[[capability.config]]
queue = "jobs/+"
[[capability]]
name = "pubsub.local"
actor = "b"
[[capability.config]]
topic = "news"
[[capability.config]]
queue = "jobs.*"
`

func TestCheckApps_queueIsShared(t *testing.T) {
	dir := t.TempDir()
	var apps []*config.App
	for _, name := range []string{"one", "two"} {
		a, err := config.LoadApp(app(t, dir, name, fmt.Sprintf(queues, name)))
		if err != nil {
			t.Fatal(err)
		}
		apps = append(apps, a)
	}
	if f := config.CheckApps(apps); f != nil {
		t.Error(f)
	}
	name := config.QueueName("", "jobs.*")
	for _, a := range apps {
		for _, i := range []int{0, 2} {
			s := a.Local[i].Source
			if s.Name != name || !s.Queue {
				t.Errorf("got %+v, want a source called %s", s, name)
			}
			same(t, "feeds", config.Feeds(apps, s), []config.Feed{{Subscription: name, Stream: name, Filter: "jobs.*"}})
		}
		// What is no queue counts as before.
		if got, want := a.Local[1].Name, a.Name+"-pubsub-local-2"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if other := config.QueueName("tcp://broker", "jobs.*"); other == name || other == config.QueueName("tcp://broker", "jobs.>") {
		t.Errorf("another queue has the name %s too", other)
	}
	thief, err := config.LoadApp(app(t, dir, "thief", strings.ReplaceAll(greenhouse, `"telemetry"`, `"`+name+`"`)))
	if err != nil {
		t.Fatal(err)
	}
	wantFaults(t, config.CheckApps(append(apps, thief)), `1: stream "`+name+`" is also in queue jobs.*`)
}

func TestLoadApp_queueFaults(t *testing.T) {
	manifest := strings.Replace(fmt.Sprintf(queues, "a"), `topic = "news"`, "topic = \"news\"\nqueue = \"news\"", 1)
	manifest = strings.Replace(manifest, `queue = "jobs/+"`, "on_message = \"x\"\n[[capability.config]]\nqueue = \"a\"\n[[capability.config]]\nqueue = \"a\"\n[[capability.config]]\nqueue = \"a b\"", 1)
	_, err := config.LoadApp(app(t, t.TempDir(), "a", manifest))
	wantFaults(t, err,
		"13: capability[0].config[0].topic: required, or a queue",
		`18: capability[0].config[2].queue: queue of actor a "a" is there already, in line 16`,
		`20: capability[0].config[3].queue: "a b": not a legal filter`,
		"26: capability[1].config[0].queue: want a topic, which each receiver gets, or a queue",
	)
}

func TestCheck(t *testing.T) {
	dir := t.TempDir()
	file := write(t, dir, "edged.toml", "[device]\nid = 'x'\nzz = 1\n")
	app(t, dir, "apps/g", greenhouse)
	app(t, dir, "apps/bad", strings.Replace(greenhouse, `name    = "greenhouse"`, "colour = 'red'", 1))
	err := config.Check(file)
	wantFaults(t, err, "1: name: required", "2: colour: unknown key", "3: device.zz: unknown key")
	want := fmt.Sprintf("%s:2: colour: unknown key", filepath.Join(dir, "apps", "bad", "app.toml"))
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want a line %s", err, want)
	}
	if _, err := os.Stat(filepath.Join(dir, "state")); !os.IsNotExist(err) {
		t.Errorf("the state directory was touched: %v", err)
	}
}

func TestCheckApps_oneSubscriptionForAQueue(t *testing.T) {
	dir := t.TempDir()
	load := func(name, more string) *config.App {
		a, err := config.LoadApp(app(t, dir, name, "specversion = \"0.2\"\nname = \""+name+"\"\nversion = \"1\"\n[[actor]]\nname = \"a\"\nmodule = \"thermostat.wasm\"\n"+more))
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	capability := "[[capability]]\nname = \"pubsub.local\"\n[[capability.config]]\nqueue = \"jobs\"\n"
	one := load("one", capability)
	for _, other := range []string{"qos = 0\n", "delivery = \"pull\"\n"} {
		wantFaults(t, config.CheckApps([]*config.App{one, load("two", capability+other)}), `1: queue "jobs" has another delivery or qos in another app`)
	}
	pushes := load("pushes", "[[stream]]\nname = \"s\"\nsubjects = [\"s\"]\n[[subscription]]\nname = \"p\"\nstream = \"s\"\npush = \"kept.x\"\n")
	keeps := load("keeps", "[[stream]]\nname = \"kept\"\nsubjects = [\"kept.>\"]\n")
	wantFaults(t, config.CheckApps([]*config.App{pushes, keeps}), `1: subscription p pushes to "kept.x", which stream kept in`)
}
