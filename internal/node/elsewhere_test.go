package node

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/edged-io/edged/broker"
	"github.com/edged-io/edged/internal/event"
)

// mosquitto starts a broker elsewhere and returns its port.
func mosquitto(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("mosquitto")
	if err != nil {
		path = "/usr/sbin/mosquitto"
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	conf := t.TempDir() + "/mosquitto.conf"
	text := "listener " + port + " 127.0.0.1\nallow_anonymous true\nlog_dest none\nmax_queued_messages 0\n"
	if os.Geteuid() == 0 {
		text += "user root\n"
	}
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	l.Close()
	cmd := exec.Command(path, "-c", conf)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return port
}

// The actors of an app share a queue of a broker elsewhere; when the app goes its
// session there ends.
func TestNode_mqttQueue(t *testing.T) {
	port := mosquitto(t)
	r := newRig(t, unsigned)
	manifest := "specversion = \"0.2\"\nname = \"a\"\nversion = \"1\"\n"
	for _, name := range []string{"one", "two"} {
		manifest += fmt.Sprintf("[[actor]]\nname = %[1]q\nmodule = \"thermostat.wasm\"\nlimits = { memory = \"64MiB\", time = \"30s\" }\n"+
			"[[capability]]\nname = \"keyvalue\"\nactor = %[1]q\n"+
			"[[capability]]\nname = \"pubsub.mqtt\"\nactor = %[1]q\n[[capability.config]]\nurl = \"tcp://127.0.0.1:%[2]s\"\nqos = 2\nqueue = \"far/+/temperature\"\n", name, port)
	}
	r.write("apps/a/app.toml", manifest)
	r.module("a")
	r.start()
	r.eventually("the box is connected", func() bool { return strings.Contains(r.log.String(), "MQTT broker connected") })
	const n = 40
	for i := range n {
		out, err := exec.Command("mosquitto_pub", "-p", port, "-q", "1", "-t", fmt.Sprintf("far/s%d/temperature", i%4), "-m", `{"value":1}`).CombinedOutput()
		if err != nil {
			t.Fatalf("mosquitto_pub: %v: %s", err, out)
		}
	}
	r.handled("a", n)
	if one, two := r.turnsOf("a", "one"), r.turnsOf("a", "two"); one == 0 || two == 0 {
		t.Errorf("%d and %d turns", one, two)
	}
	if got := strings.Count(r.log.String(), "MQTT broker connected"); got != 1 {
		t.Errorf("%d clients for one queue", got)
	}
	if err := os.RemoveAll(r.path("apps", "a")); err != nil {
		t.Fatal(err)
	}
	r.reload()
	r.eventually("the session has ended", func() bool { return strings.Contains(r.log.String(), "session at a broker ended") })
	if p := r.Status().Problems; len(p) != 0 {
		t.Errorf("problems: %v", p)
	}
}

// farApp runs the thermostat with a broker elsewhere, from which readings come and to which alarms go.
func (r *rig) farApp(capability, url string) {
	r.t.Helper()
	r.write("apps/a/app.toml", fmt.Sprintf(`specversion = "0.2"
name = "a"
version = "1"
[[actor]]
name = "thermostat"
module = "thermostat.wasm"
limits = { memory = "64MiB", time = "30s" }
[[stream]]
name = "everything"
subjects = ["alarms.>"]
[[capability]]
name = "keyvalue"
[[capability]]
name = %q
[[capability.config]]
url = %q
qos = 2
topic = "far/+/temperature"
publish = "alarms/#"
%s`, capability, url, drives(4)))
	r.module("a")
	r.start()
	r.eventually("the box is connected", func() bool { return strings.Contains(r.log.String(), " connected\" ") })
}

// farEnds checks what is left when all was published.
func (r *rig) farEnds(outbox string) {
	r.t.Helper()
	r.eventually("the outbox is empty", func() bool {
		info, err := r.db.Stream(outbox)
		return err == nil && info.Msgs == 0 && info.Last > 0
	})
	if s := r.stream("everything"); s.Last != 0 {
		r.t.Errorf("%d messages went to the box's own stream, too", s.Last)
	}
	if err := os.RemoveAll(r.path("apps", "a")); err != nil {
		r.t.Fatal(err)
	}
	r.reload()
	if _, err := r.db.Stream(outbox); err == nil {
		r.t.Error("the outbox of an app that is gone is still there")
	}
	r.eventually("the session has ended", func() bool { return strings.Contains(r.log.String(), "session at a broker ended") })
}

func TestNode_mqttBothWays(t *testing.T) {
	port := mosquitto(t)
	r := newRig(t, unsigned)
	r.farApp("pubsub.mqtt", "tcp://127.0.0.1:"+port)
	const n = 10
	// A subscriber with a session: the broker keeps the alarms for it.
	subscribe := func(args ...string) ([]byte, error) {
		return exec.Command("mosquitto_sub", append([]string{"-p", port, "-i", "listener", "-c", "-q", "2", "-t", "alarms/#", "-W", "60"}, args...)...).Output()
	}
	if _, err := subscribe("-E"); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		out, err := exec.Command("mosquitto_pub", "-p", port, "-q", "2", "-t", "far/s/temperature", "-m", fmt.Sprintf(`{"value":%d}`, 31+i)).CombinedOutput()
		if err != nil {
			t.Fatalf("mosquitto_pub: %v: %s", err, out)
		}
	}
	out, err := subscribe("-C", fmt.Sprint(n))
	if err != nil {
		t.Fatal(err)
	}
	for i, text := range strings.Fields(string(out)) {
		if e, ok := event.Parse(nil, "", []byte(text)); !ok || e.Type != "greenhouse.alarm" || string(e.Data) != fmt.Sprintf(`{"value":%d}`, 31+i) {
			t.Errorf("got %s, want %d", text, 31+i)
		}
	}
	r.farEnds("a-pubsub-mqtt-1-out")
}

func TestNode_natsBothWays(t *testing.T) {
	hub := broker.NewHubServer(t.TempDir(), slog.New(slog.DiscardHandler))
	if err := hub.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(hub.Stop)
	js, err := jetstream.New(client(t, hub), jetstream.WithDefaultTimeout(patience))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"far", "alarms"} {
		if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: name, Subjects: []string{name + ".>"}}); err != nil {
			t.Fatal(err)
		}
	}
	r := newRig(t, unsigned)
	r.farApp("pubsub.nats", hub.ClientURL())
	const n = 10
	for i := range n {
		if _, err := js.Publish(t.Context(), "far.s.temperature", fmt.Appendf(nil, `{"value":%d}`, 31+i)); err != nil {
			t.Fatal(err)
		}
	}
	r.handled("a", n)
	alarms, err := js.Stream(t.Context(), "alarms")
	if err != nil {
		t.Fatal(err)
	}
	r.eventually("all alarms are there", func() bool {
		info, err := alarms.Info(t.Context())
		return err == nil && info.State.Msgs >= n
	})
	for i := range uint64(n) {
		m, err := alarms.GetMsg(t.Context(), i+1)
		if err != nil || string(m.Data) != fmt.Sprintf(`{"value":%d}`, 31+i) || m.Header.Get("ce-type") != "greenhouse.alarm" {
			t.Errorf("got %+v, %v", m, err)
		}
	}
	r.farEnds("a-pubsub-nats-1-out")
	far, err := js.Stream(t.Context(), "far")
	if err != nil || far.CachedInfo().State.Consumers != 0 {
		t.Errorf("the consumer is left: %v, %v", far, err)
	}
}

// The configuration of the Pub/Sub study: the actor asks for what comes to a queue of an MQTT broker.
func TestNode_mqttPull(t *testing.T) {
	port := mosquitto(t)
	r := newRig(t, unsigned)
	r.probe("a", "1", told("one")+"[[capability]]\nname = \"pubsub.mqtt\"\nactor = \"one\"\n[[capability.config]]\nurl = \"tcp://127.0.0.1:"+port+
		"\"\nqos = 1\nqueue = \"user/+\"\ndelivery = \"pull\"\n", "one")
	r.start()
	r.eventually("the box is connected", func() bool { return strings.Contains(r.log.String(), "MQTT broker connected") })
	if out, err := exec.Command("mosquitto_pub", "-p", port, "-q", "1", "-t", "user/u1", "-m", "hello").CombinedOutput(); err != nil {
		t.Fatalf("mosquitto_pub: %v: %s", err, out)
	}
	r.tell("one", "!receive user/+ 30000")
	r.sees("a", "one", "received hello")
}

// A broker that does not let the box in is a problem of the box, told in health,
// and gone when the app is.
func TestNode_mqttRefused(t *testing.T) {
	port := mosquitto(t)
	r := newRig(t, unsigned)
	r.app("a", "1", "a", fmt.Sprintf("[[capability]]\nname = \"pubsub.mqtt\"\n[[capability.config]]\nurl = \"tcp://127.0.0.1:%s\"\ntopic = \"x\"\nuser = \"u\"\npassword_file = %q\n",
		port, r.path("nothing")))
	r.start()
	r.eventually("the problem is told", func() bool {
		return strings.Contains(strings.Join(r.Status().Problems, "\n"), "mqtt a-pubsub-mqtt-1: tcp://127.0.0.1:"+port+": password: ")
	})
	r.write("nothing", "secret")
	r.eventually("it is gone", func() bool { return len(r.Status().Problems) == 0 })
	if err := os.Remove(r.path("nothing")); err != nil {
		t.Fatal(err)
	}
	r.app("a", "2", "a", "")
	r.reload()
}
