package e2e

import (
	"fmt"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// A box that is killed at each point on the way out brings each alarm to the subscribers of a broker elsewhere once, in order.
func TestElsewhere_killedAnywhere(t *testing.T) {
	broker := startMosquitto(t)
	_, port, err := net.SplitHostPort(broker)
	if err != nil {
		t.Fatal(err)
	}
	// The broker keeps the alarms for a subscriber with a session.
	subscriber := func(args ...string) []string {
		args = append([]string{"-p", port, "-i", "subscriber", "-c", "-q", "2", "-t", "alarms/#", "-W", "120"}, args...)
		out, err := exec.Command(program(t, "mosquitto_sub"), args...).CombinedOutput()
		if err != nil {
			t.Fatalf("mosquitto_sub: %v: %s", err, out)
		}
		return strings.Fields(string(out))
	}
	subscriber("-E")
	b := newBox(t, "press-7", "").warm()
	b.install(app{version: "1", module: built.counter1, broker: broker, more: fmt.Sprintf(`
[[capability]]
name = "pubsub.mqtt"
[[capability.config]]
url = "tcp://%s"
qos = 2
publish = "alarms/#"
`, broker)})
	p := b.up()
	if !b.says(p, "client=edged-press-7-counter-1") {
		t.Fatal("the box has no session with the broker")
	}
	b.kill()
	sent := 0
	send := func(n int) {
		var lines strings.Builder
		for range n {
			sent++
			fmt.Fprintf(&lines, "{\"n\":%d}\n", sent)
		}
		cmd := exec.Command(program(t, "mosquitto_pub"), "-p", port, "-q", "2", "-t", "sensors/s/temperature", "-l")
		cmd.Stdin = strings.NewReader(lines.String())
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("mosquitto_pub: %v: %s", err, out)
		}
	}
	for _, point := range []string{"publish-stored", "publish-sent", "pubrec", "pubrel-stored", "pubrel-sent", "completed"} {
		send(70)
		p := b.start("EDGED_FAILPOINT=mqtt-" + point + ":3")
		select {
		case <-p.exited:
		case <-time.After(2 * time.Minute):
			t.Fatalf("the box does not come to mqtt-%s", point)
		}
	}
	b.up()
	send(10)
	got := subscriber("-C", fmt.Sprint(sent/10))
	var want []string
	for n := 10; n <= sent; n += 10 {
		want = append(want, fmt.Sprintf("%q", fmt.Sprintf("s/%d/%d", n, n)))
	}
	for i, event := range got {
		if i >= len(want) || !strings.Contains(event, want[i]) {
			t.Fatalf("alarm %d is %s", i, event)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d alarms, want %d", len(got), len(want))
	}
	b.kill()
}
