package e2e

import (
	"fmt"
	"testing"
)

// feed lets a sensor send n more of the readings and waits until the box has
// acknowledged them.
func feed(t *testing.T, s *publisher, n int) {
	t.Helper()
	s.allow(n)
	eventually(t, "the box acknowledges", s.caughtUp)
}

func sensorOf(t *testing.T, b *box, n int) *publisher {
	s := newPublisher(t, func() string { return b.addresses().MQTT }, readings(seeded(t), n), 64)
	s.run()
	return s
}

// counted waits until the actor has had n readings.
func counted(t *testing.T, b *box, n int) {
	t.Helper()
	eventually(t, fmt.Sprintf("the actor has %d readings", n), func() (bool, string) {
		sum := 0
		for _, state := range b.report("sensor:s0", "sensor:s1", "sensor:s2", "sensor:s3", "sensor:s4", "sensor:s5", "sensor:s6", "sensor:s7") {
			var count, last int
			if k, _ := fmt.Sscanf(state, "%d %d", &count, &last); k == 2 {
				sum += count
			}
		}
		return sum == n, fmt.Sprint(sum)
	})
}

func TestBox_withoutHub(t *testing.T) {
	b := newBox(t, "press-7", "").warm()
	b.install(app{version: "1", module: built.counter1})
	b.up()
	s := sensorOf(t, b, 800)
	feed(t, s, 400)
	b.kill()
	b.up()
	feed(t, s, 400)
	counted(t, b, 800)
	sameCounts(t, b, alarmsOf(s.all), s.all)
	if st := b.status(); st.Link != "down" || st.Dead != 0 || len(st.Problems) != 0 {
		t.Errorf("status %+v", st)
	}
	b.kill()
}

// alarmsOf returns the alarms that readings raise, for a box that has no hub to hold them.
func alarmsOf(all []reading) (alarms []laneMessage) {
	count := make(map[string]int)
	for _, m := range all {
		count[m.sensor]++
		if n := count[m.sensor]; n%10 == 0 {
			alarms = append(alarms, laneMessage{subject: "alarms." + m.sensor, body: fmt.Sprintf("%s/%d/%d", m.sensor, n, n)})
		}
	}
	return alarms
}

// A box whose hub is nowhere to be seen starts and works; when there is one at
// last, it gets all, and so it does each time that it was away.
func TestBox_hubComesAndGoes(t *testing.T) {
	h := newHub(t)
	line := newProxy(t, "")
	b := newBox(t, "press-7", line.addr()).warm()
	b.install(app{version: "1", module: built.counter1})
	b.up()
	s := sensorOf(t, b, 2000)
	feed(t, s, 400)
	b.kill()
	b.up() // still without
	feed(t, s, 100)
	counted(t, b, 500)
	if lane := h.lane("press-7", "telemetry"); len(lane) != 0 {
		t.Fatalf("%d messages on the hub already", len(lane))
	}
	line.aim(h.leafAddr())
	b.drained(uplinked...)
	sameLane(t, h.lane("press-7", "telemetry"), s.all[:500])
	for range 3 {
		s.allow(250) // the hub goes while they come
		h.stop()
		b.linkIs("down")
		feed(t, s, 250)
		h.start()
	}
	b.drained(uplinked...)
	sameLane(t, h.lane("press-7", "telemetry"), s.all)
	sameCounts(t, b, h.lane("press-7", "alarms"), s.all)
	b.kill()
}

// Another, empty hub gets everything that is still held, from the oldest on.
func TestBox_anotherHub(t *testing.T) {
	h := newHub(t)
	line := newProxy(t, h.leafAddr())
	b := newBox(t, "press-7", line.addr()).warm()
	b.install(app{version: "1", module: built.counter1, hold: true})
	b.up()
	s := sensorOf(t, b, 900)
	synced := func(n int) {
		t.Helper()
		eventually(t, "the hub has all", func() (bool, string) {
			st := b.status().stream("telemetry")
			return st.Acked == n, fmt.Sprintf("%+v", st)
		})
	}
	feed(t, s, 300)
	synced(300)
	sameLane(t, h.lane("press-7", "telemetry"), s.all[:300])
	h.stop()
	b.linkIs("down")
	feed(t, s, 300)
	h.replace()
	eventually(t, "the other hub has all", func() (bool, string) {
		n := len(h.lane("press-7", "telemetry"))
		return n >= 600, fmt.Sprint(n)
	})
	synced(600)
	b.kill()
	h.replace() // and once more, while the box is off
	b.up()
	feed(t, s, 300)
	synced(900)
	eventually(t, "the third hub has all", func() (bool, string) {
		n := len(h.lane("press-7", "telemetry"))
		return n >= 900, fmt.Sprint(n)
	})
	sameLane(t, h.lane("press-7", "telemetry"), s.all)
	b.kill()
}
