package config

import (
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/edged-io/edged/internal/topic"
)

// Elsewhere is what the box has at a broker elsewhere: a subscription, a way for what an actor publishes, or both.
type Elsewhere struct {
	Source // without filters if nothing is received
	// ID is <app>-<capability>-<n>, n from 1 within app and capability, "." as "-".
	ID  string
	n   int
	URL string
	QoS byte // of what is received, and of what is published

	// Group is who shares a queue, by default the app; "" where there is none. One client of the box receives for all sources with its name.
	Group string

	User string
	// Files on the box: the password of User, certificates of authorities, the certificate of the box and its key. "" for none. Nothing says that they
	// are there.
	PasswordFile, CA, Cert, Key string

	// Outlet takes what is published; nil for nothing. It is one of App.Outlets.
	Outlet *Outlet
}

// MQTTSource is what the box has at an MQTT broker. Its topic is an MQTT topic filter.
type MQTTSource struct {
	Elsewhere
	ClientID  string // "" for the default; see SessionID
	Clean     bool   // the session ends with the connection
	KeepAlive time.Duration
	Retain    bool // of what is published
	Will      *Will
}

// Will is what an MQTT broker publishes when the box has gone without a word.
type Will struct {
	Topic, Payload string
	QoS            byte
	Retain         bool
}

// SessionID returns the client id at the broker, by which the broker keeps the session: the one of the manifest, or edged-<device>-<app>-<n>.
func (s *MQTTSource) SessionID(device, app string) string {
	if s.ClientID != "" {
		return s.ClientID
	}
	return "edged-" + device + "-" + app + "-" + strconv.Itoa(s.n)
}

// elsewhereConfig is what a table of pubsub.mqtt and one of pubsub.nats have in common.
type elsewhereConfig struct {
	url, topic, queue, group, publish, onMessage string
	delivery                                     string
	qos                                          int
	user, passwordFile, ca, cert, key            string
	schemes, secure                              []string // of the URL, and those with TLS
	filters                                      func(string) ([]string, error)
}

// elsewhere checks what brokers elsewhere have in common.
func (b *builder) elsewhere(g grant, t table, c elsewhereConfig) Elsewhere {
	e := Elsewhere{
		n: b.count[g.provider] + 1, URL: c.url, QoS: byte(c.qos), User: c.user, PasswordFile: c.passwordFile, CA: c.ca, Cert: c.cert, Key: c.key,
	}
	e.ID = b.app.Name + "-" + strings.ReplaceAll(g.provider, ".", "-") + "-" + strconv.Itoa(e.n)
	b.checkElsewhere(t, c)
	e.Source = b.source(g, t, b.received(t, c, &e), c.onMessage)
	if c.publish != "" {
		e.Outlet = b.outlet(g, t, c, e.ID)
	}
	return e
}

// checkElsewhere checks the URL and who the box says it is.
func (b *builder) checkElsewhere(t table, c elsewhereConfig) {
	u := b.checkURL(child(t.path, "url"), c.url, c.schemes...)
	if u != nil && u.User != nil {
		b.fault(child(t.path, "url"), "must not hold a user or password: a manifest is no place for secrets")
	}
	b.checkSecrets(t, map[string]string{"password_file": c.passwordFile, "ca": c.ca, "cert": c.cert, "key": c.key})
	if c.passwordFile != "" && c.user == "" {
		b.fault(child(t.path, "password_file"), "there is no user")
	}
	if c.user != "" && (len(c.user) > 256 || strings.ContainsFunc(c.user, func(r rune) bool { return r < ' ' || r == 0x7f })) {
		b.fault(child(t.path, "user"), "want at most 256 bytes without control characters, got %q", clip(c.user))
	}
	if (c.cert == "") != (c.key == "") {
		b.fault(child(t.path, "cert"), "cert and key belong together")
	}
	secure := u == nil
	for _, s := range c.secure {
		secure = secure || u.Scheme == s
	}
	if !secure && c.ca+c.cert != "" {
		b.fault(child(t.path, "url"), "with ca or cert it must be one with TLS: %s", strings.Join(c.secure, ", "))
	}
}

// checkSecrets checks the names of files that are on the box and in no app.
func (b *builder) checkSecrets(t table, files map[string]string) {
	for key, name := range files {
		if name != "" && (!filepath.IsAbs(name) || strings.ContainsRune(name, 0)) {
			b.fault(child(t.path, key), "want the absolute path of a file on the box, got %q", clip(name))
		}
	}
}

// received returns what is to be received, without filters if nothing is, and sets the group of a queue.
func (b *builder) received(t table, c elsewhereConfig, e *Elsewhere) Source {
	given := func(key string) bool { _, ok := t.values[key]; return ok }
	if c.topic+c.queue == "" && c.publish != "" {
		for _, key := range []string{"on_message", "delivery", "group"} {
			if given(key) {
				b.fault(child(t.path, key), "is for what is received, and there is neither a topic nor a queue")
			}
		}
		return Source{}
	}
	key, name := b.topicOrQueue(t, c.topic, c.queue)
	s := Source{Topic: name, Queue: key == "queue", Pull: c.delivery == "pull", QoS: c.qos}
	var err error
	if s.Filters, err = c.filters(name); err != nil && name != "" {
		b.fault(child(t.path, key), "%q: %v", clip(name), err)
	}
	if strings.HasPrefix(name, "$") {
		b.fault(child(t.path, key), "%q: topics that begin with $ are the broker's; a shared subscription is a queue", clip(name))
	}
	switch {
	case !s.Queue && given("group"):
		b.fault(child(t.path, "group"), "is for a queue")
	case s.Queue:
		e.Group = c.group
		if e.Group == "" {
			e.Group = b.app.Name
		}
		b.checkName(child(t.path, "group"), e.Group)
		if len(s.Filters) > 0 {
			s.Name = QueueName(e.URL+" "+e.Group, s.Filters[0])
		}
	}
	return s
}

// outlet checks what is published, and that no other outlet of the actor takes it.
func (b *builder) outlet(g grant, t table, c elsewhereConfig, id string) *Outlet {
	path := child(t.path, "publish")
	filters, err := c.filters(c.publish)
	if err != nil {
		b.fault(path, "%q: %v", clip(c.publish), err)
		return nil
	}
	o := Outlet{Stream: id + "-out", Actor: g.actor, Link: g.link, Filters: filters}
	b.unique("stream", path, o.Stream)
	for _, other := range b.app.Outlets {
		if other.Actor == o.Actor && other.Link == o.Link && overlap(other.Filters, filters) {
			b.fault(path, "%q is in part what actor %q publishes to another broker, through stream %q", clip(c.publish), g.actor, other.Stream)
		}
	}
	b.app.Outlets = append(b.app.Outlets, o)
	return &o
}

func overlap(a, b []string) bool {
	for _, f := range a {
		for _, g := range b {
			if topic.Overlap(f, g) {
				return true
			}
		}
	}
	return false
}

type mqttConfig struct {
	URL          string      `toml:"url" required:"true"`
	ClientID     string      `toml:"client_id" default:""`
	Session      string      `toml:"session" default:"kept" oneof:"kept|clean"`
	KeepAlive    Duration    `toml:"keep_alive" default:"30s" min:"1s" max:"18h"`
	User         string      `toml:"user" default:""`
	PasswordFile string      `toml:"password_file" default:""`
	CA           string      `toml:"ca" default:""`
	Cert         string      `toml:"cert" default:""`
	Key          string      `toml:"key" default:""`
	Will         *willConfig `toml:"will"`
	QoS          int         `toml:"qos" default:"1" min:"0" max:"2"`
	Topic        string      `toml:"topic" default:""`
	Queue        string      `toml:"queue" default:""`
	Group        string      `toml:"group" default:""`
	Delivery     string      `toml:"delivery" default:"push" oneof:"push|pull"`
	OnMessage    string      `toml:"on_message" default:"on_message"`
	Publish      string      `toml:"publish" default:""`
	Retain       bool        `toml:"retain" default:"false"`
}

type willConfig struct {
	Topic   string `toml:"topic" required:"true"`
	Payload string `toml:"payload" default:""`
	QoS     int    `toml:"qos" default:"0" min:"0" max:"2"`
	Retain  bool   `toml:"retain" default:"false"`
}

func (b *builder) mqtt(g grant, t table, _ *Link) {
	var c mqttConfig
	b.decode(t, &c)
	s := MQTTSource{ClientID: c.ClientID, Clean: c.Session == "clean", KeepAlive: c.KeepAlive.Truncate(time.Second), Retain: c.Retain}
	s.Elsewhere = b.elsewhere(g, t, elsewhereConfig{
		url: c.URL, topic: c.Topic, queue: c.Queue, group: c.Group, publish: c.Publish, onMessage: c.OnMessage, delivery: c.Delivery, qos: c.QoS,
		user: c.User, passwordFile: c.PasswordFile, ca: c.CA, cert: c.Cert, key: c.Key,
		schemes: []string{"tcp", "mqtt", "ssl", "tls", "mqtts", "ws", "wss"}, secure: []string{"ssl", "tls", "mqtts", "wss"},
		filters: topic.Filters,
	})
	if len(c.ClientID) > 128 || strings.ContainsFunc(c.ClientID, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		b.fault(child(t.path, "client_id"), "want at most 128 printable characters without spaces, got %q", clip(c.ClientID))
	}
	if c.ClientID != "" {
		b.unique("client id at "+c.URL, child(t.path, "client_id"), c.ClientID)
	}
	if s.Clean && c.QoS == 2 {
		b.fault(child(t.path, "session"), `with qos = 2 it must be "kept": a session that ends with the connection can repeat messages`)
	}
	if c.Retain && c.Publish == "" {
		b.fault(child(t.path, "retain"), "is for what is published, and there is no publish")
	}
	if w := c.Will; w != nil {
		path := child(child(t.path, "will"), "topic")
		if _, err := topic.Subject(w.Topic); err != nil && w.Topic != "" {
			b.fault(path, "%q: %v", clip(w.Topic), err)
		}
		s.Will = &Will{w.Topic, w.Payload, byte(w.QoS), w.Retain}
	}
	b.app.MQTT = append(b.app.MQTT, s)
}

// NATSSource is what the box has at a NATS server. Its topic is an MQTT topic filter with a "/" in it, else a subject filter.
type NATSSource struct {
	Elsewhere
	// Files on the box, beside those of Elsewhere: a credentials file and the seed of an nkey, "" for none.
	Credentials, NKeyFile string
	Domain                string // JetStream domain, "" for that of the server
}

// ConsumerName names the client at the server, and its durable consumer: edged-<device>-<app>-<n>.
func (s *NATSSource) ConsumerName(device, app string) string {
	return "edged-" + device + "-" + app + "-" + strconv.Itoa(s.n)
}

type natsConfig struct {
	URL          string `toml:"url" required:"true"`
	Credentials  string `toml:"credentials" default:""`
	User         string `toml:"user" default:""`
	PasswordFile string `toml:"password_file" default:""`
	NKeyFile     string `toml:"nkey_file" default:""`
	CA           string `toml:"ca" default:""`
	Cert         string `toml:"cert" default:""`
	Key          string `toml:"key" default:""`
	Domain       string `toml:"jetstream_domain" default:""`
	QoS          int    `toml:"qos" default:"1" min:"0" max:"2"`
	Topic        string `toml:"topic" default:""`
	Queue        string `toml:"queue" default:""`
	Group        string `toml:"group" default:""`
	Delivery     string `toml:"delivery" default:"push" oneof:"push|pull"`
	OnMessage    string `toml:"on_message" default:"on_message"`
	Publish      string `toml:"publish" default:""`
}

func (b *builder) nats(g grant, t table, _ *Link) {
	var c natsConfig
	b.decode(t, &c)
	s := NATSSource{Credentials: c.Credentials, NKeyFile: c.NKeyFile, Domain: c.Domain}
	schemes := []string{"nats", "tls", "ws", "wss"}
	s.Elsewhere = b.elsewhere(g, t, elsewhereConfig{
		url: c.URL, topic: c.Topic, queue: c.Queue, group: c.Group, publish: c.Publish, onMessage: c.OnMessage, delivery: c.Delivery, qos: c.QoS,
		user: c.User, passwordFile: c.PasswordFile, ca: c.CA, cert: c.Cert, key: c.Key,
		schemes: schemes, secure: []string{"nats", "tls", "wss"}, filters: topic.ResolveFilter,
	})
	b.checkSecrets(t, map[string]string{"credentials": c.Credentials, "nkey_file": c.NKeyFile})
	ways := 0
	for _, way := range []string{c.Credentials, c.User, c.NKeyFile} {
		if way != "" {
			ways++
		}
	}
	if ways > 1 {
		b.fault(t.path, "credentials, user and nkey_file are three ways to say who the box is: take one")
	}
	if c.Domain != "" {
		b.checkName(child(t.path, "jetstream_domain"), c.Domain)
	}
	b.app.NATS = append(b.app.NATS, s)
}
