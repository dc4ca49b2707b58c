package config_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/edged-io/edged/internal/config"
)

// bridge is an app with one capability; its tables of configuration follow.
const bridge = `specversion = "0.2"
name = "a"
version = "1"
[[actor]]
name = "x"
module = "thermostat.wasm"
[[capability]]
name = %q
`

func load(t *testing.T, capability, tables string) (*config.App, error) {
	t.Helper()
	return config.LoadApp(app(t, t.TempDir(), "a", fmt.Sprintf(bridge, capability)+tables))
}

// The two configurations of the Pub/Sub study, as they are written there.
func TestLoadApp_mqttStudy(t *testing.T) {
	got, err := load(t, "pubsub.mqtt", `[[capability.config]]
url = "tcp://localhost:1883"
qos = 1
topic = "group"
delivery = "push"
on_message = "on_message"
[[capability.config]]
url = "tcp://localhost:1883"
qos = 1
queue = "user/+"
delivery = "pull"
`)
	if err != nil {
		t.Fatal(err)
	}
	topic, queue := got.MQTT[0], got.MQTT[1]
	if topic.Name != "a-pubsub-mqtt-1" || topic.Queue || topic.Topic != "group" || topic.Group != "" || topic.Outlet != nil || topic.Operation != "PubSub.OnMessage" {
		t.Errorf("topic: got %+v", topic)
	}
	if !strings.HasPrefix(queue.Name, "queue-user-any-") || !queue.Queue || !queue.Pull || topic.Pull || queue.Topic != "user/+" || queue.Group != "a" || queue.ID != "a-pubsub-mqtt-2" {
		t.Errorf("queue: got %+v", queue)
	}
	if id := queue.SessionID("d", "a"); id != "edged-d-a-2" {
		t.Errorf("session id %q", id)
	}
}

func TestLoadApp_mqttWhole(t *testing.T) {
	got, err := load(t, "pubsub.mqtt", `[[capability.config]]
url = "mqtts://broker"
client_id = "c"
session = "kept"
keep_alive = "1m"
user = "u"
password_file = "/etc/p"
ca = "/etc/ca"
cert = "/etc/cert"
key = "/etc/key"
will = { topic = "state/box", payload = "gone", qos = 2, retain = true }
qos = 2
queue = "user/#"
group = "fleet"
publish = "cloud/up/#"
retain = true
[[capability.config]]
url = "tcp://other"
session = "clean"
qos = 0
publish = "+/far"
`)
	if err != nil {
		t.Fatal(err)
	}
	m := got.MQTT[0]
	if m.URL != "mqtts://broker" || m.ClientID != "c" || m.Clean || m.KeepAlive != time.Minute || m.User != "u" || m.PasswordFile != "/etc/p" ||
		m.CA != "/etc/ca" || m.Cert != "/etc/cert" || m.Key != "/etc/key" || *m.Will != (config.Will{Topic: "state/box", Payload: "gone", QoS: 2, Retain: true}) ||
		m.QoS != 2 || m.Group != "fleet" || !m.Retain {
		t.Errorf("got %+v", m)
	}
	if m := got.MQTT[1]; !m.Clean || m.Filters != nil || m.KeepAlive != 30*time.Second || m.QoS != 0 {
		t.Errorf("got %+v", m)
	}
	same(t, "outlets", got.Outlets, []config.Outlet{
		{Stream: "a-pubsub-mqtt-1-out", Actor: "x", Link: "default", Filters: []string{"cloud.up.>", "cloud.up"}},
		{Stream: "a-pubsub-mqtt-2-out", Actor: "x", Link: "default", Filters: []string{"*.far"}},
	})
}

func TestLoadApp_mqttFaults(t *testing.T) {
	_, err := load(t, "pubsub.mqtt", `[[capability.config]]
url = "tcp://u:p@broker?x"
client_id = "a b"
keep_alive = "1ms"
password_file = "secret"
ca = "ca.pem"
cert = "/c"
will = { topic = "a/+", qos = 3, x = 1 }
topic = "$share/g/a"
queue = "b"
group = "g h"
retain = true
[[capability.config]]
url = "tcp://broker"
ca = "/ca"
session = "clean"
qos = 2
publish = "a/#"
on_message = "x"
[[capability.config]]
url = "tcp://other"
publish = "a/b"
group = "g"
[[capability.config]]
url = "tcp://other"
topic = "a"
group = "g"
[[capability.config]]
url = "tcp://other"
[[capability.config]]
url = "tcp://other"
queue = "a"
delivery = "pick"
user = "\u0007"
[[capability.config]]
url = "tcp://other"
queue = "a"
will = 1
publish = "#/a"
`)
	wantFaults(t, err,
		"10: capability[0].config[0].url: must not have a query or fragment",
		"11: capability[0].config[0].client_id: want at most 128",
		"12: capability[0].config[0].keep_alive: too small, at least 1s",
		`13: capability[0].config[0].password_file: want the absolute path of a file on the box, got "secret"`,
		`14: capability[0].config[0].ca: want the absolute path of a file on the box, got "ca.pem"`,
		"15: capability[0].config[0].cert: cert and key belong together",
		"16: capability[0].config[0].will.qos: too large, at most 2",
		`16: capability[0].config[0].will.topic: "a/+"`,
		"16: capability[0].config[0].will.x: unknown key",
		`17: capability[0].config[0].topic: "$share/g/a": topics that begin with $ are the broker's; a shared subscription is a queue`,
		"18: capability[0].config[0].queue: want a topic, which each receiver gets, or a queue, which its receivers share, not both",
		"19: capability[0].config[0].group: is for a queue",
		"20: capability[0].config[0].retain: is for what is published",
		"22: capability[0].config[1].url: with ca or cert it must be one with TLS: ssl, tls, mqtts, wss",
		`24: capability[0].config[1].session: with qos = 2 it must be "kept"`,
		"27: capability[0].config[1].on_message: is for what is received",
		`30: capability[0].config[2].publish: "a/b" is in part what actor "x" publishes to another broker, through stream "a-pubsub-mqtt-2-out"`,
		"31: capability[0].config[2].group: is for what is received",
		"35: capability[0].config[3].group: is for a queue",
		"36: capability[0].config[4].topic: required, or a queue",
		`41: capability[0].config[5].delivery: is "pick", want push`,
		"42: capability[0].config[5].user: want at most 256 bytes without control characters",
		`45: capability[0].config[6].queue: queue of actor x in queue-a-`,
		"46: capability[0].config[6].will: want a table, got 1",
		`47: capability[0].config[6].publish: "#/a"`,
	)
}

func TestLoadApp_nats(t *testing.T) {
	got, err := load(t, "pubsub.nats", `[[capability.config]]
url = "tls://broker:4222"
credentials = "/etc/c"
ca = "/etc/ca"
jetstream_domain = "d"
qos = 2
topic = "user.*"
publish = "cloud/#"
[[capability.config]]
url = "nats://other"
qos = 0
queue = "user/+"
nkey_file = "/etc/n"
`)
	if err != nil {
		t.Fatal(err)
	}
	n := got.NATS[0]
	if n.URL != "tls://broker:4222" || n.Credentials != "/etc/c" || n.CA != "/etc/ca" || n.Domain != "d" || n.QoS != 2 || n.Name != "a-pubsub-nats-1" ||
		n.Outlet == nil || n.Filters[0] != "user.*" || n.ConsumerName("press", "a") != "edged-press-a-1" {
		t.Errorf("got %+v", n)
	}
	if q := got.NATS[1]; !q.Queue || q.Group != "a" || q.NKeyFile != "/etc/n" || q.QoS != 0 {
		t.Errorf("got %+v", q)
	}
	same(t, "outlets", got.Outlets, []config.Outlet{{Stream: "a-pubsub-nats-1-out", Actor: "x", Link: "default", Filters: []string{"cloud.>", "cloud"}}})
	_, err = load(t, "pubsub.nats", `[[capability.config]]
url = "mqtt://broker"
credentials = "c"
user = "u"
jetstream_domain = "a b"
topic = "a..b"
[[capability.config]]
url = "ws://broker"
ca = "/ca"
topic = "wasmbus.>"
publish = "a b"
`)
	wantFaults(t, err,
		"9: capability[0].config[0]: credentials, user and nkey_file are three ways",
		"10: capability[0].config[0].url: scheme must be one of nats, tls, ws, wss",
		"11: capability[0].config[0].credentials: want the absolute path",
		"13: capability[0].config[0].jetstream_domain: must match",
		`14: capability[0].config[0].topic: "a..b"`,
		"16: capability[0].config[1].url: with ca or cert it must be one with TLS: nats, tls, wss",
		`18: capability[0].config[1].topic: "wasmbus.>" is reserved`,
		`19: capability[0].config[1].publish: "a b"`,
	)
}
