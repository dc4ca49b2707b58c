package e2e

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"
)

func TestSensorToHub_killsAndCuts(t *testing.T) {
	t.Run("mosquitto", func(t *testing.T) { killsAndCuts(t, startMosquitto(t)) })
	t.Run("listener", func(t *testing.T) { killsAndCuts(t, "") })
}

const messages = 5000

// killsAndCuts lets a sensor with a session send through a box that is killed
// again and again, on a line that is cut, and looks at what has arrived.
func killsAndCuts(t *testing.T, broker string) {
	d := newDrill(t, broker)
	steps := d.steps()
	d.r.Shuffle(len(steps), func(i, j int) { steps[i], steps[j] = steps[j], steps[i] })
	for i, s := range steps {
		began := time.Now()
		d.sensor.allow(messages / 2 / len(steps)) // the other half is for what takes longer
		s.do()
		acked, _ := d.sensor.state()
		t.Logf("%2d %-40s %5d acknowledged, took %s", i+1, s.name, acked, time.Since(began).Round(10*time.Millisecond))
	}
	d.box.up()
	d.sensor.allow(messages)
	eventually(t, "the sensor is rid of its messages", d.sensor.caughtUp)
	d.arrived() // at the box, where they come by way of a broker
	d.box.drained(uplinked...)
	sameLane(t, d.hub.lane(d.box.device, "telemetry"), d.sensor.all)
	sameCounts(t, d.box, d.hub.lane(d.box.device, "alarms"), d.sensor.all)
	d.hub.proves(d.box, uplinked...)
	t.Logf("%d kills, %d of them in windows, %d cuts, %d connections of the sensor", d.kills, d.windows, d.cuts, d.sensor.lives)
	if d.kills < 10 || d.windows < 3 || d.cuts < 3 {
		t.Errorf("not enough has happened")
	}
	d.box.kill()
}

// drill is all that takes part.
type drill struct {
	t      *testing.T
	r      *rand.Rand
	broker string
	hub    *hub
	line   *proxy
	box    *box
	sensor *publisher

	pushed               int
	kills, windows, cuts int
}

type step struct {
	name string
	do   func() // begins and ends with the box down
}

func newDrill(t *testing.T, broker string) *drill {
	d := &drill{t: t, r: seeded(t), broker: broker, hub: newHub(t)}
	d.line = newProxy(t, d.hub.leafAddr())
	d.box = newBox(t, "press-7", d.line.addr())
	d.box.install(app{version: "1", module: built.counter1, broker: broker})
	addr := func() string { return broker }
	if broker == "" {
		addr = func() string { return d.box.addresses().MQTT }
	}
	d.sensor = newPublisher(t, addr, readings(d.r, messages), 64)
	p := d.box.up()
	if broker != "" && !d.box.says(p, "MQTT broker connected") { // from now on it keeps what is for the box
		t.Fatal("the box has no session with the broker")
	}
	d.sensor.run()
	d.box.kill()
	return d
}

func (d *drill) steps() []step {
	var all []step
	add := func(name string, do func()) { all = append(all, step{name, do}) }
	for range 3 {
		add("kill while it starts", func() { p := d.box.start(); d.killSoon(p, 400*time.Millisecond) })
		add("kill at any time", func() { p := d.box.up(); d.killSoon(p, 600*time.Millisecond) })
	}
	for _, w := range []struct {
		point string
		most  int
		push  bool
	}{
		{"store-before-sync", 20, false},
		{"store-after-sync", 20, false}, // and before any acknowledgement
		{"deliver-before-commit", 60, false},
		{"deliver-after-commit", 60, false},
		{"uplink-after-hub-ack", 2, false}, // during a drain
		{"swap-configured", 1, true},
		{"swap-after-commit", 1, true},
	} {
		n := 1 + d.r.IntN(w.most)
		if w.point == "swap-configured" {
			n = 2 // the first one is the boot
		}
		failpoint := fmt.Sprintf("%s:%d", w.point, n)
		add("window "+failpoint, func() { d.window(failpoint, w.push) })
	}
	add("reset the link", d.reset)
	add("stop the hub", d.stopHub)
	add("black hole", d.blackHole)
	return all
}

// killSoon kills the box at a random moment.
func (d *drill) killSoon(p *process, most time.Duration) {
	within(d.r, most, p.exited)
	d.box.kill()
	d.kills++
}

// window lets the box kill itself at a point. Messages go on until it has come there.
func (d *drill) window(failpoint string, push bool) {
	p := d.box.start("EDGED_FAILPOINT=" + failpoint)
	if push {
		d.push()
	}
	eventually(d.t, "the box comes to "+failpoint, func() (bool, string) {
		select {
		case <-p.exited:
			return true, ""
		default:
		}
		idle, state := d.sensor.caughtUp()
		if !idle || !d.box.log.has("msg=ready ") {
			return false, state
		}
		if push {
			d.sensor.allow(2)
		} else {
			d.sensor.allow(20)
		}
		return d.spent(), state
	})
	select {
	case <-p.exited:
		d.box.wasKilled(p)
		d.windows++
	default: // nothing will bring it there any more
		d.t.Logf("the box did not come to %s", failpoint)
		d.box.kill()
	}
	d.kills++
}

// spent says that all messages have gone through the box.
func (d *drill) spent() bool {
	if acked, _ := d.sensor.state(); acked < messages {
		return false
	}
	out, code := edged(d.t, "status", "--config", d.box.config(), "--json") // it may be gone by now
	if code != 0 {
		return false
	}
	st := parseStatus(d.t, out).stream("telemetry")
	return st.Last >= messages && st.Bytes == 0
}

// push has the box change to another version, for which it needs the link.
func (d *drill) push() {
	d.pushed++
	a := app{version: fmt.Sprint(1 + d.pushed), module: built.counter2, broker: d.broker}
	if d.pushed%2 == 0 {
		a.module = built.counter1
	}
	dir := filepath.Join(d.t.TempDir(), "counter")
	a.write(d.t, dir)
	out, code := edged(d.t, "push", "--server", d.hub.url(), "--device", d.box.device, "--wait", "0", dir)
	if code != 0 {
		d.t.Fatalf("edged push: exit code %d\n%s", code, out)
	}
}

// linked waits until the process has a link to the hub.
func (d *drill) linked(p *process) {
	d.t.Helper()
	if !d.box.says(p, "link to the hub is up") {
		d.t.Fatal("the box ended")
	}
}

func (d *drill) reset() {
	p := d.box.up()
	d.linked(p)
	for range 3 {
		within(d.r, 300*time.Millisecond, p.exited)
		d.line.reset()
		d.cuts++
	}
	d.killSoon(p, 2*time.Second)
}

// stopHub kills the box while the hub is away, and once more when it is back.
func (d *drill) stopHub() {
	d.linked(d.box.up())
	d.hub.stop()
	d.cuts++
	d.killSoon(d.box.process(), 600*time.Millisecond)
	p := d.box.up()
	within(d.r, 300*time.Millisecond, p.exited)
	d.hub.start()
	d.linked(p)
	d.killSoon(p, 600*time.Millisecond)
}

// blackHole lasts until the box has given the link up.
func (d *drill) blackHole() {
	p := d.box.up()
	d.linked(p)
	d.line.swallow()
	d.cuts++
	d.sensor.allow(100)
	if !d.box.says(p, "link to the hub is down") {
		d.t.Fatal("the box ended")
	}
	d.sensor.allow(100)
	within(d.r, 2*time.Second, p.exited) // it tries again, into the hole
	d.line.heal()
	eventually(d.t, "the link is up again", func() (bool, string) {
		n := d.box.log.count("link to the hub is up")
		return n > 1, fmt.Sprintf("was up %d times", n)
	})
	d.killSoon(p, 600*time.Millisecond)
}

// arrived waits until the box has taken over what the sensor's broker has for it.
func (d *drill) arrived() {
	comes(func() (bool, string) {
		return d.box.status().stream("telemetry").Last >= len(d.sensor.all), ""
	})
	if last := d.box.status().stream("telemetry").Last; last != len(d.sensor.all) {
		d.t.Errorf("the box stored %d messages, %d were sent", last, len(d.sensor.all))
	}
}
