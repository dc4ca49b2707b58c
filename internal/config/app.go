package config

import (
	"slices"
	"time"
)

// ManifestName is the manifest in the folder of an app.
const ManifestName = "app.toml"

// Contract ids of the built-in providers.
const (
	ContractKeyValue   = "wasmcloud:keyvalue"
	ContractPubSub     = "edged:pubsub"
	ContractBlobStore  = "wasmcloud:blobstore"
	ContractMessaging  = "wasmcloud:messaging"
	ContractGPIO       = "edged:gpio"
	ContractHTTPServer = "wasmcloud:httpserver"
	ContractHTTPClient = "wasmcloud:httpclient"
	ContractLogging    = "wasmcloud:builtin:logging"
	ContractNumberGen  = "wasmcloud:builtin:numbergen"
)

// Built-in providers, as Link.Provider names them. A manifest says pubsub.mqtt, pubsub.nats or pubsub.local, by where messages come from
// and go to; an actor publishes in the same way to each, so that all are links to one provider.
const (
	ProviderKeyValue   = "keyvalue"
	ProviderPubSub     = "pubsub"
	ProviderBlobStore  = "blobstore"
	ProviderMessaging  = "messaging"
	ProviderGPIO       = "gpio"
	ProviderHTTPServer = "httpserver"
	ProviderHTTPClient = "httpclient"
	ProviderLogging    = "logging"
	ProviderNumberGen  = "numbergen"
)

// App is a checked manifest. Capabilities are translated: each is a link, and a source or line where it brings messages in or moves hardware.
type App struct {
	Dir     string // folder of the app
	Digest  string // of app.toml, "sha256:" and 64 lower-case hexadecimal digits
	Name    string
	Version string
	// Assembled says that it has no manifest: it was put together from commands.
	Assembled bool

	Actors        []Actor
	Providers     []Provider // that are programs of their own
	Streams       []Stream
	Links         []Link // one for each actor, contract and link name
	MQTT          []MQTTSource
	NATS          []NATSSource
	Outlets       []Outlet // at brokers elsewhere
	Local         []LocalSource
	Messaging     []MessagingSource
	GPIO          []GPIOLine
	HTTP          []HTTPServer
	Subscriptions []Subscription
}

// References are those of the app's code, each once.
func (a *App) References() (refs []string) {
	for _, actor := range a.Actors {
		if actor.Ref != "" && !slices.Contains(refs, actor.Ref) {
			refs = append(refs, actor.Ref)
		}
	}
	for _, p := range a.Providers {
		if p.Ref != "" && !slices.Contains(refs, p.Ref) {
			refs = append(refs, p.Ref)
		}
	}
	return refs
}

// Actor is a module that runs.
type Actor struct {
	Name   string // within the app
	Module string // file in the folder of the app, relative, with slashes; "" where there is a Ref
	Ref    string // reference to the module, of a registry or by its digest; "" where there is a file
	Limits ActorLimits
}

// ActorLimits bound what an actor may use. docs/limits.md says what happens at each.
type ActorLimits struct {
	Memory        int64         // bytes of an instance
	Time          time.Duration // of a call
	Steps         int64         // of a call; 0 for no bound but Time
	Calls         int           // in flight, those that wait included
	Instances     int           // calls that are served at once
	MinInstances  int           // kept when there is nothing to do
	InstanceCalls int           // after which an instance is replaced; 0 for none
	LogRate       int           // lines a second
	PublishRate   int           // messages a second
	State         int64         // bytes that a bucket may hold when the actor adds to it
}

// DefaultLimits are those of an actor whose manifest names none.
func DefaultLimits() ActorLimits {
	var t limitsTable
	(&document{}).decode(table{}, &t)
	return t.limits()
}

func (t *limitsTable) limits() ActorLimits {
	return ActorLimits{
		Memory: int64(t.Memory), Time: t.Time, Calls: t.Calls, Instances: t.Instances, MinInstances: t.MinInstances, InstanceCalls: t.InstanceCalls,
		LogRate: t.LogRate, PublishRate: t.PublishRate, Steps: t.Steps, State: int64(t.State),
	}
}

// Stream is a set of subjects whose messages are kept. Its name is unique on the box.
type Stream struct {
	Name     string
	Subjects []string // subject filters
	Uplink   bool
	MaxBytes int64
	MaxMsgs  int64         // 0 for no limit
	MaxAge   time.Duration // 0 for no limit
	// DropOldest says that a full stream drops its oldest messages; else it refuses new ones.
	DropOldest bool
	// Memory says that it is never on disk. BatchFor is how long a message may be in memory alone after it was acknowledged; 0 for not at all.
	Memory   bool
	BatchFor time.Duration
	Priority int // 0 to 9
	Dedupe   int // identities of messages that are remembered; 0 for none
}

// Link lets an actor use a provider.
type Link struct {
	Actor    string // name within the app
	Contract string
	Provider string // ProviderKeyValue, …, the name of one of App.Providers, or the key of another one that is not built in
	Name     string // "default" unless the manifest says otherwise
	// Values are, for keyvalue: "bucket"; for blobstore: "bucket", "max_bytes", "max_objects"; for gpio: "lines", as CHIP/LINE with a space between; for httpclient, those of providers/httpclient; else empty.
	Values map[string]string
}

// Source is a place from which messages come to an actor. Feeds says where they are kept on the way.
type Source struct {
	// Name is the name of the inbox stream, should it need one, and what the names of its subscriptions begin with: <app>-<capability>-<n>, n from 1
	// within app and capability, "." as "-"; of a queue, what QueueName makes of it, which all its receivers on the box have in common.
	Name string
	// Topic is the topic or queue as the manifest has it.
	Topic string
	Actor string
	// Filters are the one or two subject filters of the topic; they never match the same subject.
	Filters []string
	// Operation of the actor that is called; "" where the actor pulls.
	Operation string
	// Pull says that the actor asks for the messages, by Topic.
	Pull bool
	// QoS is 0 where a message counts as handled before it is; else 1 or 2.
	QoS int
	// Queue says that a message goes to one of the sources with this name, in whichever app; else each source gets each message.
	Queue bool
}

// LocalSource is a subscription to subjects of the box.
type LocalSource struct{ Source }

// MessagingSource is a subscription of wasmcloud:messaging. It has no inbox: what no stream holds comes from core NATS. The operation of its actor is the one
// of the contract.
type MessagingSource struct {
	Source
	// Group is the queue group of a queue, "" for none.
	Group string
}

// GPIOLine is a line of a GPIO chip and what is done with it. It has one owner on the box.
type GPIOLine struct {
	Actor    string
	Link     string // link name
	Chip     string
	Line     int
	Output   bool
	Rising   bool // edges that are reported, of an input
	Falling  bool
	Debounce time.Duration
	Subject  string // to which edges are published; "" without edges
	Pull     string // resistor of an input: "up", "down" or "none"
	Safe     int    // level of an output before it is set first and after the box stops
}

// Subscription delivers the messages of a stream to an actor or to a NATS subject, or keeps them for who asks.
type Subscription struct {
	Name   string // unique on the box
	Stream string
	Filter string
	// Actor is who is called, or with Pull who may ask, by the name of the subscription. It is "" with Push, and may be with Pull, where NATS clients can ask.
	Actor       string
	Operation   string // of the actor that is called
	Push        string // subject to which messages are published; "" for none
	Pull        bool
	QoS         int // as in Source
	Start       Start
	Ephemeral   bool // its position ends with the process
	MaxInFlight int
	OrderedBy   string // "none", "subject" or "key"
	MaxDeliver  int
	AckWait     time.Duration
	Backoff     []time.Duration // the last one repeats
}

// Start is where a subscription begins that is new: At is "first", "last", "new", "seq" or "time".
type Start struct {
	At   string
	Seq  uint64
	Time time.Time
}

// operation returns what on_message stands for.
func operation(onMessage string) string {
	if onMessage == "" || onMessage == "on_message" {
		return "PubSub.OnMessage"
	}
	return onMessage
}
