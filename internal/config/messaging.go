package config

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"reflect"
	"slices"
	"strings"

	"github.com/edged-io/edged/internal/strictjson"
	"github.com/edged-io/edged/internal/topic"
)

// messaging reads the configuration of wasmcloud:messaging: each subject of it is a subscription.
func (b *builder) messaging(g grant, t table, _ *Link) {
	var c messagingConfig
	b.decode(t, &c)
	switch {
	case c.Subject != "":
		b.subscribe(g, child(t.path, "subject"), c.Subject, c.Queue)
	case c.Queue != "":
		b.fault(child(t.path, "queue"), "is for a subject")
	}
	if c.Subscription != "" {
		for s := range strings.SplitSeq(c.Subscription, ",") {
			b.subscribeTo(g, child(t.path, "SUBSCRIPTION"), s)
		}
	}
	if c.URI != "" {
		b.checkThisBox(child(t.path, "URI"), c.URI)
	}
	if c.ConfigJSON != "" {
		b.classicConfig(g, child(t.path, "config_json"), []byte(c.ConfigJSON))
	}
	if c.ConfigBase64 != "" {
		path := child(t.path, "config_b64")
		data, err := base64.StdEncoding.DecodeString(c.ConfigBase64)
		if err != nil {
			b.fault(path, "not base64: %v", err)
			return
		}
		b.classicConfig(g, path, data)
	}
}

// jsonForms are what the members of a classic configuration can be, in words.
var jsonForms = map[reflect.Kind]string{reflect.Struct: "an object", reflect.Slice: "a list of strings", reflect.String: "a string", reflect.Int: "an integer"}

// classicConfig reads the JSON in which classic wasmCloud has the configuration too.
func (b *builder) classicConfig(g grant, path string, data []byte) {
	var c struct {
		Subscriptions []string `json:"subscriptions"`
		ClusterURIs   []string `json:"cluster_uris"`
		AuthJWT       string   `json:"auth_jwt"`
		AuthSeed      string   `json:"auth_seed"`
		TLSCA         string   `json:"tls_ca"`
		TLSCAFile     string   `json:"tls_ca_file"`
		PingInterval  *int     `json:"ping_interval_sec"`
	}
	d := json.NewDecoder(strings.NewReader(string(data)))
	d.DisallowUnknownFields()
	var bad *json.UnmarshalTypeError
	if err := d.Decode(&c); errors.As(err, &bad) {
		b.fault(path, "%s: JSON %s where %s belongs", cmp.Or(bad.Field, "the document"), bad.Value, jsonForms[bad.Type.Kind()])
		return
	} else if err != nil {
		b.fault(path, "%s", strings.TrimPrefix(err.Error(), "json: "))
		return
	}
	if err := strictjson.CheckKeys(data, &c); err != nil {
		b.fault(path, "%v", err)
		return
	}
	for _, uri := range c.ClusterURIs {
		b.checkThisBox(path, uri)
	}
	for name, set := range map[string]bool{"auth_jwt": c.AuthJWT != "", "auth_seed": c.AuthSeed != "", "tls_ca": c.TLSCA != "", "tls_ca_file": c.TLSCAFile != "", "ping_interval_sec": c.PingInterval != nil} {
		if set {
			b.fault(path, "%s is not enforced by this version: messages come from the box itself", name)
		}
	}
	if len(c.Subscriptions) > maxItems {
		b.fault(path, "%d subscriptions, at most %d", len(c.Subscriptions), maxItems)
		return
	}
	for _, s := range c.Subscriptions {
		b.subscribeTo(g, path, s)
	}
}

// checkThisBox faults the address of any server but the one in the box: there is no other way to it than through it.
func (b *builder) checkThisBox(path, uri string) {
	host := uri
	if u, err := url.Parse(uri); err == nil && u.Host != "" {
		host = u.Host
	}
	name := host
	if i := strings.LastIndexByte(host, ':'); i >= 0 {
		name = host[:i]
	}
	if !slices.Contains([]string{"0.0.0.0", "127.0.0.1", "localhost", "[::1]"}, name) {
		b.fault(path, "%q is not this box: messages of brokers elsewhere come with pubsub.nats or pubsub.mqtt", clip(uri))
	}
}

// subscribeTo is subscribe for the classic form, "subject" or "subject|queue".
func (b *builder) subscribeTo(g grant, path, s string) {
	subject, queue, grouped := strings.Cut(strings.TrimSpace(s), "|")
	if grouped && queue == "" {
		b.fault(path, "%q has no queue after the |", clip(s))
	}
	b.subscribe(g, path, subject, queue)
}

func (b *builder) subscribe(g grant, path, subject, group string) {
	b.count[g.provider]++
	s := Source{
		Name:  fmt.Sprintf("%s-messaging-%d", b.app.Name, b.count[g.provider]),
		Topic: subject, Actor: g.actor, Filters: []string{subject}, QoS: 1, Queue: group != "",
	}
	if !b.checkSubject(path, subject, topic.ValidFilter) {
		return
	}
	if group != "" {
		if !topic.ValidSubject(group) {
			b.fault(path, "not the name of a queue group: %q", clip(group))
		}
		s.Name = QueueName("group "+group, subject)
	}
	b.unique("subscription of actor "+g.actor, path, s.Topic+"|"+group)
	if !b.queues[s.Name] { // all its receivers have the name in common
		b.unique("subscription", path, s.Name)
		b.queues[s.Name] = s.Queue
	}
	b.app.Messaging = append(b.app.Messaging, MessagingSource{s, group})
}
