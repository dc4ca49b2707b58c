package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/edged-io/edged/internal/topic"
)

// grant is what a capability or a link gives to an actor.
type grant struct {
	actor    string
	link     string // link name
	provider string // as the manifest names it
	path     string // of the capability or link
	configs  []table
}

// builtin is a provider that a manifest can name.
type builtin struct {
	contract string
	provider string // as a Link names it
	// config reads one table of configuration.
	config func(b *builder, g grant, t table, l *Link)
}

var builtins = map[string]builtin{
	"keyvalue":     {ContractKeyValue, ProviderKeyValue, (*builder).keyValue},
	"blobstore":    {ContractBlobStore, ProviderBlobStore, (*builder).blobStore},
	"gpio":         {ContractGPIO, ProviderGPIO, (*builder).gpio},
	"pubsub.mqtt":  {ContractPubSub, ProviderPubSub, (*builder).mqtt},
	"pubsub.nats":  {ContractPubSub, ProviderPubSub, (*builder).nats},
	"pubsub.local": {ContractPubSub, ProviderPubSub, (*builder).local},
	"messaging":    {ContractMessaging, ProviderMessaging, (*builder).messaging},
	"httpserver":   {ContractHTTPServer, ProviderHTTPServer, (*builder).httpServer},
	"httpclient":   {ContractHTTPClient, ProviderHTTPClient, (*builder).httpClient},
	"logging":      {ContractLogging, ProviderLogging, (*builder).none},
	"numbergen":    {ContractNumberGen, ProviderNumberGen, (*builder).none},
}

// builtinNames is for faults.
const builtinNames = "keyvalue, blobstore, gpio, pubsub.mqtt, pubsub.nats, pubsub.local, messaging, httpserver, httpclient, logging or numbergen"

// grants translates capabilities and links.
func (b *builder) grants() {
	for i, c := range b.m.Capabilities {
		path := item("capability", i)
		g := grant{actor: b.actor(child(path, "actor"), c.Actor), link: "default", provider: c.Name, path: path, configs: c.Config}
		switch _, ok := builtins[c.Name]; {
		case !ok:
			b.fault(child(path, "name"), "unknown capability %q, want %s", clip(c.Name), builtinNames)
		default:
			b.grant(g)
		}
	}
	for i, l := range b.m.Links {
		path := item("link", i)
		g := grant{actor: b.actor(child(path, "actor"), l.Actor), link: l.Name, provider: l.Provider, path: path}
		if l.Values.values != nil {
			l.Values.text = true
			b.onlyStrings(l.Values)
			g.configs = []table{l.Values}
		}
		b.checkName(child(path, "name"), l.Name)
		switch p := builtins[l.Provider]; {
		case !IsBuiltin(l.Provider):
			b.foreign(path, g, l)
		case l.Contract != p.contract:
			b.fault(child(path, "contract"), "%s serves %q, not %q", l.Provider, p.contract, clip(l.Contract))
		default:
			b.grant(g)
		}
	}
}

// onlyStrings faults values of a link that are no strings, as they are for providers of strangers.
func (b *builder) onlyStrings(t table) {
	for key, v := range t.values {
		if _, ok := v.(string); !ok {
			b.fault(child(t.path, key), "want a string, got %s", describe(v))
		}
	}
}

// grant adds a link, or to the link that is there: several pubsub, messaging, httpserver or gpio capabilities of one actor are one link.
func (b *builder) grant(g grant) {
	p := builtins[g.provider]
	key := linkKey{g.actor, p.contract, g.link}
	n, again := b.links[key]
	many := slices.Contains([]string{ProviderPubSub, ProviderGPIO, ProviderMessaging, ProviderHTTPServer}, p.provider)
	if again && (!many || b.app.Links[n].Provider != p.provider) {
		b.fault(g.path, "actor %q has a link %q for %s already", g.actor, g.link, p.contract)
		return
	}
	if !again {
		n = len(b.app.Links)
		b.links[key] = n
		b.app.Links = append(b.app.Links, Link{Actor: g.actor, Contract: p.contract, Provider: p.provider, Name: g.link, Values: map[string]string{}})
	}
	l := &b.app.Links[n]
	if p.provider == ProviderKeyValue {
		l.Values["bucket"] = b.app.Name
		if len(g.configs) > 1 {
			b.fault(g.configs[1].path, "keyvalue takes one configuration")
		}
	}
	if p.provider == ProviderBlobStore {
		l.Values["bucket"] = b.app.Name
		if len(g.configs) > 1 {
			b.fault(g.configs[1].path, "blobstore takes one configuration")
		}
	}
	if p.provider == ProviderHTTPServer && len(g.configs) == 0 { // its defaults
		g.configs = []table{{path: g.path}}
	}
	for _, t := range g.configs {
		p.config(b, g, t, l)
	}
}

func (b *builder) none(_ grant, t table, _ *Link) { b.decode(t, &noConfig{}) }

func (b *builder) keyValue(_ grant, t table, l *Link) {
	var c keyValueConfig
	b.decode(t, &c)
	if c.Bucket != "" {
		b.checkName(child(t.path, "bucket"), c.Bucket)
		l.Values["bucket"] = c.Bucket
	}
}

// blobStore leaves the values that a manifest does not give to the provider.
func (b *builder) blobStore(_ grant, t table, l *Link) {
	var c blobStoreConfig
	b.decode(t, &c)
	if c.Bucket != "" {
		b.checkName(child(t.path, "bucket"), c.Bucket)
		l.Values["bucket"] = c.Bucket
	}
	l.Values["max_bytes"] = strconv.FormatInt(int64(c.MaxBytes), 10)
	l.Values["max_objects"] = strconv.Itoa(c.MaxObjects)
}

func (b *builder) local(g grant, t table, _ *Link) {
	var c localConfig
	b.decode(t, &c)
	key, name := b.topicOrQueue(t, c.Topic, c.Queue)
	filters, err := topic.ResolveFilter(name)
	if err != nil && name != "" {
		b.fault(child(t.path, key), "%q: %v", clip(name), err)
	}
	s := Source{Topic: name, Filters: filters, Queue: key == "queue", QoS: c.QoS, Pull: c.Delivery == "pull"}
	b.app.Local = append(b.app.Local, LocalSource{b.source(g, t, s, c.OnMessage)})
}

// topicOrQueue returns which of the two keys is there, and its value. One has to be.
func (b *builder) topicOrQueue(t table, topic, queue string) (key, name string) {
	switch {
	case topic != "" && queue != "":
		b.fault(child(t.path, "queue"), "want a topic, which each receiver gets, or a queue, which its receivers share, not both")
	case queue != "":
		return "queue", queue
	case topic == "":
		b.fault(child(t.path, "topic"), "required, or a queue")
	}
	return "topic", topic
}

// source completes s, and checks what all sources have. The name of a queue is there already where it is not one of the box's own.
func (b *builder) source(g grant, t table, s Source, onMessage string) Source {
	b.count[g.provider]++
	s.Actor = g.actor
	path := child(t.path, "topic")
	if s.Queue {
		path = child(t.path, "queue")
	}
	b.checkOperation(child(t.path, "on_message"), onMessage)
	switch _, named := t.values["on_message"]; {
	case !s.Pull:
		s.Operation = operation(onMessage)
	case named:
		b.fault(child(t.path, "on_message"), `is for delivery = "push"`)
	default:
		b.unique("pull of actor "+g.actor, path, s.Topic)
	}
	for _, f := range s.Filters {
		// To listen to everything is allowed: what is reserved is never published to a source.
		if topic.Reserved(f) && f != ">" && f != "*.>" && f != "*" {
			b.fault(path, "%q is reserved", clip(f))
		}
	}
	if s.Queue && len(s.Filters) > 0 {
		kind := "queue of actor " + g.actor
		if s.Name == "" {
			s.Name = QueueName("", s.Filters[0])
		} else {
			kind += " in " + s.Name
		}
		b.unique(kind, path, s.Topic)
		if !b.queues[s.Name] { // all its receivers have the names in common
			b.unique("stream", path, s.Name)
			b.unique("subscription", path, s.Name)
			b.queues[s.Name] = true
		}
		return s
	}
	s.Name = fmt.Sprintf("%s-%s-%d", b.app.Name, strings.ReplaceAll(g.provider, ".", "-"), b.count[g.provider])
	b.unique("stream", path, s.Name)
	b.unique("subscription", path, s.Name)
	return s
}

func (b *builder) gpio(g grant, t table, l *Link) {
	var c gpioConfig
	b.decode(t, &c)
	b.checkName(child(t.path, "chip"), c.Chip)
	out := c.Direction == "out"
	for _, key := range []string{"edge", "debounce", "topic", "pull"} {
		if _, ok := t.values[key]; ok && out {
			b.fault(child(t.path, key), "is for inputs")
		}
	}
	if _, ok := t.values["safe"]; ok && c.Direction == "in" {
		b.fault(child(t.path, "safe"), "is for outputs")
	}
	line := GPIOLine{Actor: g.actor, Link: g.link, Chip: c.Chip, Line: c.Line, Output: out, Debounce: c.Debounce, Safe: c.Safe}
	if edges := c.Edge != "none" && c.Edge != ""; !out {
		line.Pull = c.Pull
		line.Rising, line.Falling = edges && c.Edge != "falling", edges && c.Edge != "rising"
		switch {
		case edges && c.Topic == "":
			b.fault(child(t.path, "topic"), "required, to publish the edges on")
		case !edges && c.Topic != "":
			b.fault(child(t.path, "edge"), "required, since there is a topic: rising, falling or both")
		case edges:
			line.Subject = b.gpioSubject(child(t.path, "topic"), c.Topic)
		}
	}
	name := c.Chip + "/" + strconv.Itoa(c.Line)
	if first, ok := b.lines[name]; ok {
		b.fault(child(t.path, "line"), "%s is in use already, in line %d", name, b.line(first))
	}
	b.lines[name] = child(t.path, "line")
	l.Values["lines"] = strings.TrimSpace(l.Values["lines"] + " " + name)
	b.app.GPIO = append(b.app.GPIO, line)
}

func (b *builder) gpioSubject(path, name string) string {
	subject, err := topic.Resolve(name)
	if err != nil {
		b.fault(path, "%q: %v", clip(name), err)
		return ""
	}
	b.checkSubject(path, subject, topic.ValidSubject)
	return subject
}
