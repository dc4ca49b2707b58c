package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// What is published for a box while it is off reaches its actor once, in order,
// also when the box is killed in the middle.
func TestDownlink_onceWhileAway(t *testing.T) {
	r := seeded(t)
	h := newHub(t)
	b := newBox(t, "press-7", newProxy(t, h.leafAddr()).addr()).warm()
	b.install(app{version: "1", module: built.counter1})
	var want []string
	send := func(n int) {
		t.Helper()
		var bodies []string
		for range n {
			body := fmt.Sprintf("c%d", len(want)+1)
			want, bodies = append(want, body), append(bodies, body)
		}
		h.publish("edge.down.device.press-7.cmd", bodies...)
		h.publish("edge.down.device.press-8.cmd", "another's")
	}
	took := func() {
		t.Helper()
		var got string
		eventually(t, "the actor has all commands", func() (bool, string) {
			got = b.report("commands")["commands"]
			return strings.Count(got, " ")+1 >= len(want), got
		})
		if got != strings.Join(want, " ") {
			t.Errorf("the actor was given\n%s, want\n%s", got, strings.Join(want, " "))
		}
	}
	send(10) // the box was never there
	b.up()
	took()
	b.kill()
	send(40)
	b.up()
	took()
	b.kill()
	for _, point := range []string{"downlink-before-ack:1", "store-before-sync:6", "deliver-before-commit:9", "deliver-after-commit:7"} {
		send(20)
		p := b.start("EDGED_FAILPOINT=" + point)
		eventually(t, "the box comes to "+point, func() (bool, string) {
			select {
			case <-p.exited:
				return true, ""
			default:
				return false, "it runs on"
			}
		})
		b.wasKilled(p)
	}
	for range 4 {
		send(20)
		p := b.up()
		within(r, 500*time.Millisecond, p.exited)
		b.kill()
	}
	b.up()
	took()
	b.drained("cmd")
	b.kill()
}
