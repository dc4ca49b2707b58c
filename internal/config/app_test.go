package config_test

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/edged-io/edged/internal/config"
)

const greenhouse = `specversion = "0.2"
name    = "greenhouse"
version = "1.4.0"

[[actor]]
name   = "thermostat"
module = "thermostat.wasm"
limits = { memory = "16MiB", time = "500ms" }

[[stream]]
name     = "telemetry"
subjects = ["sensors.>"]
uplink   = true
max_bytes = "256MiB"
on_full   = "drop-oldest"

[[capability]]
name = "pubsub.mqtt"
actor = "thermostat"
[[capability.config]]
url      = "tcp://localhost:1883"
qos      = 1
topic    = "greenhouse/+/temperature"
delivery = "push"
on_message = "on_message"

[[capability]]
name = "keyvalue"

[[capability]]
name = "gpio"
[[capability.config]]
chip = "gpiochip0"
line = 3
direction = "in"
edge  = "both"
debounce = "20ms"
topic = "greenhouse.door"
[[capability.config]]
chip = "sim0"
line = 4
direction = "out"
safe = 1

[[capability]]
name = "pubsub.local"
[[capability.config]]
topic = "sensors/#"
on_message = "Reading"

[[link]]
actor    = "thermostat"
contract = "wasmcloud:builtin:logging"
provider = "logging"

[[link]]
actor    = "thermostat"
contract = "wasmcloud:keyvalue"
provider = "keyvalue"
name     = "shared"
values   = { bucket = "plant" }

[[subscription]]
name   = "audit"
stream = "telemetry"
filter = "sensors.*.temperature"
max_in_flight = 8
ordered_by    = "none"
backoff = ["1s", "1m"]
`

// app writes a folder with a manifest and a module thermostat.wasm, and returns it.
func app(t *testing.T, dir, name, manifest string) string {
	t.Helper()
	write(t, dir, name+"/thermostat.wasm", "module")
	return filepath.Dir(write(t, dir, name+"/app.toml", manifest))
}

func TestLoadApp(t *testing.T) {
	dir := app(t, t.TempDir(), "g", greenhouse)
	got, err := config.LoadApp(dir)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(greenhouse))
	if want := "sha256:" + hex.EncodeToString(sum[:]); got.Digest != want || got.Name != "greenhouse" || got.Version != "1.4.0" || got.Dir != dir {
		t.Errorf("got %+v", got)
	}
	same(t, "actors", got.Actors, []config.Actor{{Name: "thermostat", Module: "thermostat.wasm", Limits: limits(16<<20, 500*time.Millisecond)}})
	same(t, "streams", got.Streams, []config.Stream{{Name: "telemetry", Subjects: []string{"sensors.>"}, Uplink: true, MaxBytes: 256 << 20, DropOldest: true, Dedupe: 65536}})
	same(t, "links", got.Links, []config.Link{
		{Actor: "thermostat", Contract: config.ContractPubSub, Provider: "pubsub", Name: "default", Values: map[string]string{}},
		{Actor: "thermostat", Contract: config.ContractKeyValue, Provider: "keyvalue", Name: "default", Values: map[string]string{"bucket": "greenhouse"}},
		{Actor: "thermostat", Contract: config.ContractGPIO, Provider: "gpio", Name: "default", Values: map[string]string{"lines": "gpiochip0/3 sim0/4"}},
		{Actor: "thermostat", Contract: config.ContractLogging, Provider: "logging", Name: "default", Values: map[string]string{}},
		{Actor: "thermostat", Contract: config.ContractKeyValue, Provider: "keyvalue", Name: "shared", Values: map[string]string{"bucket": "plant"}},
	})
	if len(got.MQTT) != 1 || got.MQTT[0].URL != "tcp://localhost:1883" || got.MQTT[0].Topic != "greenhouse/+/temperature" || got.MQTT[0].QoS != 1 {
		t.Errorf("mqtt: got %+v", got.MQTT)
	}
	same(t, "mqtt source", got.MQTT[0].Source, config.Source{Name: "greenhouse-pubsub-mqtt-1", Topic: "greenhouse/+/temperature", QoS: 1, Actor: "thermostat", Filters: []string{"greenhouse.*.temperature"}, Operation: "PubSub.OnMessage"})
	if id := got.MQTT[0].SessionID("press-7", got.Name); id != "edged-press-7-greenhouse-1" {
		t.Errorf("session id %q", id)
	}
	same(t, "local", got.Local, []config.LocalSource{{Source: config.Source{Name: "greenhouse-pubsub-local-1", Topic: "sensors/#", QoS: 1, Actor: "thermostat", Filters: []string{"sensors.>", "sensors"}, Operation: "Reading"}}})
	same(t, "gpio", got.GPIO, []config.GPIOLine{
		{Actor: "thermostat", Link: "default", Chip: "gpiochip0", Line: 3, Rising: true, Falling: true, Debounce: 20 * time.Millisecond, Subject: "greenhouse.door", Pull: "none"},
		{Actor: "thermostat", Link: "default", Chip: "sim0", Line: 4, Output: true, Safe: 1},
	})
	same(t, "subscriptions", got.Subscriptions, []config.Subscription{{
		Name: "audit", Stream: "telemetry", Filter: "sensors.*.temperature", Actor: "thermostat", Operation: "PubSub.OnMessage", QoS: 1, Start: config.Start{At: "first"},
		MaxInFlight: 8, OrderedBy: "none", MaxDeliver: 10, AckWait: 30 * time.Second, Backoff: []time.Duration{time.Second, time.Minute},
	}})
	same(t, "feeds", config.Feeds([]*config.App{got}, got.Local[0].Source), []config.Feed{
		{Subscription: "greenhouse-pubsub-local-1.telemetry", Stream: "telemetry", Filter: "sensors.>"},
		{Subscription: "greenhouse-pubsub-local-1.parent", Stream: "greenhouse-pubsub-local-1", Filter: "sensors"},
	})
	same(t, "feeds", config.Feeds([]*config.App{got}, got.MQTT[0].Source), []config.Feed{
		{Subscription: "greenhouse-pubsub-mqtt-1", Stream: "greenhouse-pubsub-mqtt-1", Filter: "greenhouse.*.temperature"},
	})
}

// limits are the default ones, but for two.
func limits(memory int64, time time.Duration) config.ActorLimits {
	l := config.DefaultLimits()
	l.Memory, l.Time = memory, time
	return l
}

func same(t *testing.T, what string, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s: got\n%+v\nwant\n%+v", what, got, want)
	}
}

func TestLoadApp_defaults(t *testing.T) {
	got, err := config.LoadApp(app(t, t.TempDir(), "a", `
specversion = "0.2"
name = "a"
version = "1"
[[actor]]
name = "x"
module = "thermostat.wasm"
[[stream]]
name = "s"
subjects = ["s"]
[[subscription]]
name = "q"
stream = "s"
`))
	if err != nil {
		t.Fatal(err)
	}
	same(t, "actors", got.Actors, []config.Actor{{Name: "x", Module: "thermostat.wasm", Limits: config.DefaultLimits()}})
	same(t, "streams", got.Streams, []config.Stream{{Name: "s", Subjects: []string{"s"}, MaxBytes: 256 << 20, Dedupe: 65536}})
	same(t, "subscriptions", got.Subscriptions, []config.Subscription{{
		Name: "q", Stream: "s", Filter: ">", Actor: "x", Operation: "PubSub.OnMessage", QoS: 1, Start: config.Start{At: "first"}, MaxInFlight: 64, OrderedBy: "subject", MaxDeliver: 10, AckWait: 30 * time.Second,
		Backoff: []time.Duration{100 * time.Millisecond, 500 * time.Millisecond, 2 * time.Second, 10 * time.Second, 30 * time.Second, time.Minute},
	}})
}

func TestLoadApp_references(t *testing.T) {
	const digest = "sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
	dir := app(t, t.TempDir(), "good", `specversion = "0.2"
name = "a"
version = "1"
[[actor]]
name = "x"
oci = "ghcr.io/acme/x:1.0"
[[actor]]
name = "y"
digest = "`+digest+`"
`)
	got, err := config.LoadApp(dir)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "actors", got.Actors, []config.Actor{{Name: "x", Ref: "ghcr.io/acme/x:1.0", Limits: config.DefaultLimits()}, {Name: "y", Ref: digest, Limits: config.DefaultLimits()}})
	dir = app(t, t.TempDir(), "bad", `specversion = "0.2"
name = "a"
version = "1"
[[actor]]
name = "x"
[[actor]]
name = "y"
oci = "x:1.0"
[[actor]]
name = "z"
oci = "`+digest+`"
[[actor]]
name = "u"
oci = "/srv/x.wasm"
[[actor]]
name = "v"
digest = "ghcr.io/acme/x@`+digest+`"
[[actor]]
name = "w"
module = "thermostat.wasm"
oci = "ghcr.io/acme/x:1.0"
`)
	_, err = config.LoadApp(dir)
	wantFaults(t, err,
		"4: actor[0].module: required, or digest or oci",
		"8: actor[1].oci: not a reference",
		"11: actor[2].oci: want HOST/NAME:TAG",
		"14: actor[3].oci: want HOST/NAME:TAG",
		"17: actor[4].digest: want sha256:",
		"21: actor[5].oci: there is a module or digest already",
	)
}

func TestLoadApp_allFaultsAtOnce(t *testing.T) {
	dir := app(t, t.TempDir(), "bad", `specversion = "0.3"
name = "green house"
version = 1

[[actor]]
name = "a"
module = "../other/x.wasm"
digest = "sha256:00"
limits = { memory = "5GiB", time = 5, calls = 0, speed = 1, instances = 2, min_instances = 3 }

[[actor]]
name = "a"
module = "missing.wasm"

[[stream]]
name = "s"
subjects = ["x.>", "x.y", "$JS.x", "a b"]
durability = "batch:5"
on_full = "explode"
priority = 10

[[stream]]
name = "s"
subjects = []
durability = "none"

[[capability]]
name = "keyvalue"

[[capability]]
name = "teleport"
actor = "a"

[[capability]]
name = "pubsub.nats"
actor = "b"

[[capability]]
name = "pubsub.mqtt"
actor = "a"
[[capability.config]]
url = "http://localhost"
qos = 3
topic = "a/#/b"
delivery = "pull"
queue = "q"
[[capability.config]]
url = "tcp://u:p@localhost:1883"
qos = "1"
client_id = "a b"

[[capability]]
name = "gpio"
actor = "a"
[[capability.config]]
chip = "gpiochip0"
line = 3
direction = "in"
topic = "door"
safe = 1
[[capability.config]]
chip = "gpiochip0"
line = 3
direction = "out"
edge = "both"

[[link]]
actor = "a"
contract = "wasmcloud:httpserver"
provider = "keyvalue"

[[link]]
actor = "a"
contract = "wasmcloud:keyvalue"
provider = "VAHNM37G4ARHZ3CYHB3L5SZTTPFWNQLHWO4QVYBUDSDIKULKAQHEDTBR"

[[link]]
actor = "a"
contract = "wasmcloud:keyvalue"
provider = "keyvalue"
values = { bucket = 5, URL = "redis://127.0.0.1:6379", other = "x" }

[[subscription]]
name = "q"
stream = "t"
actor = "a"
ordered_by = "size"
max_deliver = 0
backoff = ["1s", "x"]

[[subscription]]
name = "q"
stream = "s"
actor = "a"
filter = "z.>"

[[provider]]
name = "modbus"
`)
	_, err := config.LoadApp(dir)
	wantFaults(t, err,
		`1: specversion: is "0.3", want 0.2`,
		"2: name: must match",
		"3: version: want a string, got 1",
		"7: actor[0].module: want a file in the folder of the app",
		"8: actor[0].digest: not a reference: digest",
		"9: actor[0].limits.calls: too small, at least 1",
		"9: actor[0].limits.memory: too large, at most 4GiB",
		"9: actor[0].limits.min_instances: is 3, and limits.instances is 2",
		"9: actor[0].limits.speed: unknown key",
		`9: actor[0].limits.time: want a duration like "500ms", got 5`,
		`12: actor[1].name: actor "a" is there already, in line 6`,
		`13: actor[1].module: file "missing.wasm": no such file`,
		`17: stream[0].subjects[1]: "x.y" overlaps "x.>" in line 17`,
		`17: stream[0].subjects[2]: "$JS.x" is reserved`,
		"17: stream[0].subjects[3]: not a legal subject",
		`18: stream[0].durability: is "batch:5", want batch: with a duration from 1ms to 1m0s`,
		`19: stream[0].on_full: is "explode", want reject or drop-oldest`,
		"20: stream[0].priority: too large, at most 9",
		`23: stream[1].name: stream "s" is there already`,
		"24: stream[1].subjects: must not be empty",
		`25: stream[1].durability: is "none", want synced, memory or batch:`,
		"27: capability[0].actor: required, since the app has 2 actors",
		`31: capability[1].name: unknown capability "teleport"`,
		`36: capability[2].actor: the app has no actor "b"`,
		`42: capability[3].config[0].url: scheme must be`,
		`43: capability[3].config[0].qos: too large, at most 2`,
		`44: capability[3].config[0].topic: "a/#/b": not a legal filter`,
		"46: capability[3].config[0].queue: want a topic, which each receiver gets, or a queue",
		"47: capability[3].config[1].topic: required, or a queue",
		"48: capability[3].config[1].url: must not hold a user or password",
		`49: capability[3].config[1].qos: want an integer, got "1"`,
		"50: capability[3].config[1].client_id: want at most 128 printable",
		"55: capability[4].config[0].edge: required, since there is a topic",
		"60: capability[4].config[0].safe: is for outputs",
		"63: capability[4].config[1].line: gpiochip0/3 is in use already, in line 57",
		"65: capability[4].config[1].edge: is for inputs",
		`69: link[0].contract: keyvalue serves "wasmcloud:keyvalue", not`,
		`75: link[1].provider: unknown provider "VAHNM37G4ARHZ3CYHB3L5SZTTPFWNQLHWO4QVYBUDSDIKULKAQHEDTBR", want keyvalue,`,
		"81: link[2].values.URL: not enforced by this version: state is in the box, and in no Redis: leave it out",
		"81: link[2].values.bucket: want a string, got 5",
		"81: link[2].values.other: unknown key",
		`85: subscription[0].stream: the app has no stream "t"`,
		`87: subscription[0].ordered_by: is "size", want none or subject or key`,
		"88: subscription[0].max_deliver: too small, at least 1",
		"89: subscription[0].backoff[1]: want a duration",
		`92: subscription[1].name: subscription "q" is there already`,
		`95: subscription[1].filter: matches nothing that stream "s" holds`,
		"97: provider[0].file: required, or digest or oci",
	)
}

func TestLoadApp_linkValues(t *testing.T) {
	manifest := `specversion = "0.2"
name = "a"
version = "1"
[[actor]]
name = "x"
module = "thermostat.wasm"
[[link]]
actor = "x"
contract = "edged:pubsub"
provider = "pubsub.mqtt"
values = { url = "mqtts://broker", topic = "a/#", qos = "0", client_id = "c" }
[[link]]
actor = "x"
contract = "edged:gpio"
provider = "gpio"
name = "relay"
values = { chip = "sim0", line = "7", direction = "out", safe = "high" }
`
	_, err := config.LoadApp(app(t, t.TempDir(), "a", manifest))
	wantFaults(t, err, `17: link[1].values.safe: want an integer, got "high"`)
	got, err := config.LoadApp(app(t, t.TempDir(), "a", strings.Replace(manifest, "high", "1", 1)))
	if err != nil {
		t.Fatal(err)
	}
	if m := got.MQTT[0]; m.QoS != 0 || m.ClientID != "c" || m.SessionID("d", "a") != "c" {
		t.Errorf("got %+v", m)
	}
	same(t, "gpio", got.GPIO, []config.GPIOLine{{Actor: "x", Link: "relay", Chip: "sim0", Line: 7, Output: true, Safe: 1}})
}

func TestLoadApp_twoLinks(t *testing.T) {
	_, err := config.LoadApp(app(t, t.TempDir(), "a", strings.Replace(greenhouse, `name     = "shared"`, "", 1)))
	wantFaults(t, err, `56: link[1]: actor "thermostat" has a link "default" for wasmcloud:keyvalue already`)
}

func TestLoadApp_moduleOutside(t *testing.T) {
	dir := t.TempDir()
	outside := write(t, dir, "outside.wasm", "x")
	folder := app(t, dir, "a", strings.Replace(greenhouse, "thermostat.wasm", "link.wasm", 1))
	if err := os.Symlink(outside, filepath.Join(folder, "link.wasm")); err != nil {
		t.Fatal(err)
	}
	_, err := config.LoadApp(folder)
	wantFaults(t, err, `7: actor[0].module: file "link.wasm": path escapes from parent`)
	_, err = config.LoadApp(app(t, dir, "b", strings.Replace(greenhouse, `"thermostat.wasm"`, `"."`, 1)))
	wantFaults(t, err, "7: actor[0].module: want a file")
	write(t, dir, "c/sub/x", "")
	_, err = config.LoadApp(app(t, dir, "c", strings.Replace(greenhouse, `"thermostat.wasm"`, `"sub"`, 1)))
	wantFaults(t, err, `7: actor[0].module: "sub" is not a file`)
}

func TestLoadApp_missing(t *testing.T) {
	dir := t.TempDir()
	_, err := config.LoadApp(filepath.Join(dir, "none"))
	wantFaults(t, err, "1: cannot be read: no such file")
	_, err = config.LoadApp(dir)
	wantFaults(t, err, "1: cannot be read: no such file")
	_, err = config.LoadApp(app(t, dir, "wasm", "\x00asm\x01\x00\x00\x00"))
	wantFaults(t, err, "1: not TOML")
	_, err = config.LoadApp(app(t, dir, "empty", "\n"))
	wantFaults(t, err, "1: name: required", "1: specversion: required", "1: version: required")
}

// wordy is an app whose actor uses wasmcloud:messaging, configured by a table.
func wordy(config string) string {
	return "specversion = \"0.2\"\nname = \"a\"\nversion = \"1\"\n[[actor]]\nname = \"x\"\nmodule = \"thermostat.wasm\"\n[[capability]]\nname = \"messaging\"\n[[capability.config]]\n" + config
}

func TestLoadApp_messaging(t *testing.T) {
	json := `'{"subscriptions":["a.b","c.*|g"],"cluster_uris":["127.0.0.1:4222"]}'`
	b64 := `"eyJzdWJzY3JpcHRpb25zIjpbImEuYiIsImMuKnxnIl19"`
	for _, table := range []string{
		"subject = \"a.b\"\n[[capability.config]]\nsubject = \"c.*\"\nqueue = \"g\"\n",
		"SUBSCRIPTION = \"a.b, c.*|g\"\nURI = \"nats://0.0.0.0:4222\"\n",
		"config_json = " + json + "\n", "config_b64 = " + b64 + "\n",
	} {
		got, err := config.LoadApp(app(t, t.TempDir(), "a", wordy(table)))
		if err != nil {
			t.Errorf("%s: %v", table, err)
			continue
		}
		same(t, "messaging", got.Messaging, []config.MessagingSource{
			{Source: config.Source{Name: "a-messaging-1", Topic: "a.b", Actor: "x", Filters: []string{"a.b"}, QoS: 1}},
			{Source: config.Source{Name: config.QueueName("group g", "c.*"), Topic: "c.*", Actor: "x", Filters: []string{"c.*"}, QoS: 1, Queue: true}, Group: "g"},
		})
		if l := got.Links; len(l) != 1 || l[0].Contract != "wasmcloud:messaging" || l[0].Provider != "messaging" {
			t.Errorf("links %+v", l)
		}
	}
}

func TestLoadApp_messagingFaults(t *testing.T) {
	for table, want := range map[string]string{
		`subject = "a b"`:                            `10: capability[0].config[0].subject: not a legal subject: "a b"`,
		`subject = ">"`:                              `10: capability[0].config[0].subject: ">" is reserved`,
		`queue = "g"`:                                `10: capability[0].config[0].queue: is for a subject`,
		`SUBSCRIPTION = "a|"`:                        `10: capability[0].config[0].SUBSCRIPTION: "a|" has no queue after the |`,
		`SUBSCRIPTION = "a,,b"`:                      `10: capability[0].config[0].SUBSCRIPTION: not a legal subject: ""`,
		`SUBSCRIPTION = "a|x y"`:                     `10: capability[0].config[0].SUBSCRIPTION: not the name of a queue group: "x y"`,
		`SUBSCRIPTION = "a,a"`:                       `10: capability[0].config[0].SUBSCRIPTION: subscription of actor x "a|" is there already, in line 10`,
		`URI = "nats://cloud:4222"`:                  `10: capability[0].config[0].URI: "nats://cloud:4222" is not this box`,
		`CLIENT_SEED = "SUAA"`:                       `10: capability[0].config[0].CLIENT_SEED: not enforced by this version`,
		`config_json = "{"`:                          `10: capability[0].config[0].config_json: unexpected EOF`,
		`config_json = '{"auth_jwt":"x"}'`:           `10: capability[0].config[0].config_json: auth_jwt is not enforced`,
		`config_json = '{"cluster_uris":["far:1"]}'`: `10: capability[0].config[0].config_json: "far:1" is not this box`,
		`config_json = '{"subscriptions":"a"}'`:      `10: capability[0].config[0].config_json: subscriptions: JSON string where a list of strings belongs`,
		`config_json = '{"subscriptions":[1]}'`:      `10: capability[0].config[0].config_json: subscriptions: JSON number where a string belongs`,
		`config_json = '{"ping_interval_sec":1.5}'`:  `10: capability[0].config[0].config_json: ping_interval_sec: JSON number 1.5 where an integer belongs`,
		`config_json = '[]'`:                         `10: capability[0].config[0].config_json: the document: JSON array where an object belongs`,
		`config_json = '{"other":1}'`:                `10: capability[0].config[0].config_json: unknown field "other"`,
		`config_json = '{"subscriptions":["a"],"subscriptions":["b"]}'`: `10: capability[0].config[0].config_json: the key "subscriptions" is there twice`,
		`config_b64 = "!"`: `10: capability[0].config[0].config_b64: not base64`,
	} {
		_, err := config.LoadApp(app(t, t.TempDir(), "a", wordy(table)))
		wantFaults(t, err, want)
	}
}

const flows = `specversion = "0.2"
name = "a"
version = "1"
[[actor]]
name = "x"
module = "thermostat.wasm"
[[stream]]
name = "s"
subjects = ["s.>"]
durability = "batch:50ms"
priority = 9
dedupe = 0
[[stream]]
name = "m"
subjects = ["m.>"]
durability = "memory"
`

func TestLoadApp_streamsAndSubscriptions(t *testing.T) {
	got, err := config.LoadApp(app(t, t.TempDir(), "a", flows+`[[subscription]]
name = "pushed"
stream = "s"
push = "alerts.out"
ordered_by = "key"
start = "new"
durable = false
[[subscription]]
name = "pulled"
stream = "s"
delivery = "pull"
start = "seq:17"
[[subscription]]
name = "mine"
stream = "m"
delivery = "pull"
actor = "x"
start = "2026-01-31T08:00:00+02:00"
[[subscription]]
name = "once"
stream = "m"
qos = 0
start = "last"
[[capability]]
name = "pubsub.local"
[[capability.config]]
queue = "user/+"
qos = 2
delivery = "pull"
`))
	if err != nil {
		t.Fatal(err)
	}
	same(t, "streams", got.Streams, []config.Stream{
		{Name: "s", Subjects: []string{"s.>"}, MaxBytes: 256 << 20, BatchFor: 50 * time.Millisecond, Priority: 9},
		{Name: "m", Subjects: []string{"m.>"}, MaxBytes: 256 << 20, Memory: true, Dedupe: 65536},
	})
	for i, want := range []config.Subscription{
		{Name: "pushed", Push: "alerts.out", QoS: 1, Start: config.Start{At: "new"}, Ephemeral: true, OrderedBy: "key"},
		{Name: "pulled", Pull: true, QoS: 1, Start: config.Start{At: "seq", Seq: 17}, OrderedBy: "subject"},
		{Name: "mine", Pull: true, Actor: "x", QoS: 1, Start: config.Start{At: "time", Time: time.Date(2026, 1, 31, 6, 0, 0, 0, time.UTC)}, OrderedBy: "subject"},
		{Name: "once", Actor: "x", Operation: "PubSub.OnMessage", Start: config.Start{At: "last"}, OrderedBy: "subject"},
	} {
		s := got.Subscriptions[i]
		if !s.Start.Time.Equal(want.Start.Time) {
			t.Errorf("%s begins at %s", s.Name, s.Start.Time)
		}
		want.Start.Time = s.Start.Time
		want.Stream, want.Filter, want.MaxInFlight, want.MaxDeliver, want.AckWait, want.Backoff = s.Stream, s.Filter, s.MaxInFlight, s.MaxDeliver, s.AckWait, s.Backoff
		same(t, "subscription", s, want)
	}
	same(t, "source", got.Local[0].Source, config.Source{
		Name: config.QueueName("", "user.*"), Topic: "user/+", Actor: "x", Filters: []string{"user.*"}, Queue: true, Pull: true, QoS: 2,
	})
}

func TestLoadApp_subscriptionFaults(t *testing.T) {
	for table, want := range map[string]string{
		`push = "s.out"`:                          `20: subscription[0].push: "s.out" belongs to stream "s"`,
		`push = "a.*"`:                            `20: subscription[0].push: not a legal subject: "a.*"`,
		`push = "$JS.API"`:                        `20: subscription[0].push: "$JS.API" is reserved`,
		"push = \"o\"\nactor = \"x\"":             "21: subscription[0].actor: is for a subscription that calls an actor",
		"push = \"o\"\non_message = \"x\"":        "21: subscription[0].on_message: is for a subscription that calls an actor",
		"push = \"o\"\ndelivery = \"pull\"":       "21: subscription[0].delivery: want pull, or push to a subject",
		"delivery = \"pull\"\non_message = \"x\"": `21: subscription[0].on_message: is for delivery = "push"`,
		"delivery = \"pull\"\nactor = \"y\"":      `21: subscription[0].actor: the app has no actor "y"`,
		`delivery = "post"`:                       `20: subscription[0].delivery: is "post", want push or pull`,
		"qos = 0\nmax_deliver = 3":                "21: subscription[0].max_deliver: is for qos 1 and 2",
		"qos = 0\nbackoff = [\"1s\"]":             "21: subscription[0].backoff: is for qos 1 and 2",
		`qos = 3`:                                 "20: subscription[0].qos: too large, at most 2",
		`start = "seq:0"`:                         `20: subscription[0].start: is "seq:0", want first, last, new, seq:`,
		`start = "yesterday"`:                     `20: subscription[0].start: is "yesterday", want first`,
		`durable = "no"`:                          `20: subscription[0].durable: want true or false`,
	} {
		_, err := config.LoadApp(app(t, t.TempDir(), "a", flows+"[[subscription]]\nname = \"n\"\nstream = \"s\"\n"+table+"\n"))
		wantFaults(t, err, want)
	}
	for table, want := range map[string]string{
		"queue = \"q\"\n[[capability.config]]\nqueue = \"q.x\"\nqos = 7":                                "23: capability[0].config[1].qos: too large, at most 2",
		"topic = \"q\"\ndelivery = \"pull\"\non_message = \"x\"":                                        `22: capability[0].config[0].on_message: is for delivery = "push"`,
		"topic = \"q\"\ndelivery = \"pull\"\n[[capability.config]]\ntopic = \"q\"\ndelivery = \"pull\"": `23: capability[0].config[1].topic: pull of actor x "q" is there already, in line 20`,
	} {
		_, err := config.LoadApp(app(t, t.TempDir(), "a", flows+"[[capability]]\nname = \"pubsub.local\"\n[[capability.config]]\n"+table+"\n"))
		wantFaults(t, err, want)
	}
}
