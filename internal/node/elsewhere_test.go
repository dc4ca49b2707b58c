package node

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
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
