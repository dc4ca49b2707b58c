package config

// manifest is app.toml as it is written.
type manifest struct {
	SpecVersion   string              `toml:"specversion" required:"true" oneof:"0.2"`
	Name          string              `toml:"name" required:"true"`
	Version       string              `toml:"version" required:"true"`
	Actors        []actorTable        `toml:"actor" items:"64"`
	Streams       []streamTable       `toml:"stream" items:"64"`
	Capabilities  []capabilityTable   `toml:"capability" items:"256"`
	Links         []linkTable         `toml:"link" items:"256"`
	Subscriptions []subscriptionTable `toml:"subscription" items:"256"`
	Providers     []providerTable     `toml:"provider" items:"64"`
}

type actorTable struct {
	Name   string      `toml:"name" required:"true"`
	Module string      `toml:"module" default:""`
	Digest string      `toml:"digest" default:""`
	OCI    string      `toml:"oci" default:""`
	Limits limitsTable `toml:"limits"`
}

type limitsTable struct {
	Memory        Size     `toml:"memory" default:"32MiB" min:"64KiB" max:"4GiB"`
	Time          Duration `toml:"time" default:"5s" min:"1ms" max:"10m"`
	Steps         int64    `toml:"steps" default:"0" min:"0" max:"1000000000000"`
	Calls         int      `toml:"calls" default:"1024" min:"1" max:"65536"`
	Instances     int      `toml:"instances" default:"8" min:"1" max:"256"`
	MinInstances  int      `toml:"min_instances" default:"1" min:"1" max:"256"`
	InstanceCalls int      `toml:"instance_calls" default:"0" min:"0"`
	LogRate       int      `toml:"log_rate" default:"10" min:"1" max:"1000"`
	PublishRate   int      `toml:"publish_rate" default:"1000" min:"1" max:"1000000"`
	State         Size     `toml:"state" default:"8MiB" min:"1KiB" max:"16GiB"`
}

type streamTable struct {
	Name       string   `toml:"name" required:"true"`
	Subjects   []string `toml:"subjects" required:"true" items:"32"`
	Uplink     bool     `toml:"uplink" default:"false"`
	Durability string   `toml:"durability" default:"synced"`
	MaxBytes   Size     `toml:"max_bytes" default:"256MiB" min:"64KiB" max:"16TiB"`
	MaxMsgs    int64    `toml:"max_msgs" default:"0" min:"0" max:"1000000000000"`
	MaxAge     Duration `toml:"max_age" default:"0s" max:"87600h"`
	OnFull     string   `toml:"on_full" default:"reject" oneof:"reject|drop-oldest"`
	Priority   int      `toml:"priority" default:"0" min:"0" max:"9"`
	Dedupe     int      `toml:"dedupe" default:"65536" min:"0" max:"1048576"`
}

type capabilityTable struct {
	Name   string  `toml:"name" required:"true"`
	Actor  string  `toml:"actor" default:""`
	Config []table `toml:"config" items:"256"`
}

type linkTable struct {
	Actor    string `toml:"actor" required:"true"`
	Contract string `toml:"contract" required:"true"`
	Provider string `toml:"provider" required:"true"`
	Name     string `toml:"name" default:"default"`
	Values   table  `toml:"values"`
}

type subscriptionTable struct {
	Name        string     `toml:"name" required:"true"`
	Stream      string     `toml:"stream" required:"true"`
	Filter      string     `toml:"filter" default:">"`
	Actor       string     `toml:"actor" default:""`
	Push        string     `toml:"push" default:""`
	Delivery    string     `toml:"delivery" default:"push" oneof:"push|pull"`
	OnMessage   string     `toml:"on_message" default:"on_message"`
	QoS         int        `toml:"qos" default:"1" min:"0" max:"2"`
	Start       string     `toml:"start" default:"first"`
	Durable     bool       `toml:"durable" default:"true"`
	MaxInFlight int        `toml:"max_in_flight" default:"64" min:"1" max:"1000"`
	OrderedBy   string     `toml:"ordered_by" default:"subject" oneof:"none|subject|key"`
	MaxDeliver  int        `toml:"max_deliver" default:"10" min:"1" max:"1000000"`
	AckWait     Duration   `toml:"ack_wait" default:"30s" min:"100ms" max:"1h"`
	Backoff     []Duration `toml:"backoff" default:"100ms,500ms,2s,10s,30s,1m" items:"32" min:"1ms" max:"24h"`
}

// The configuration of each built-in provider: an element of [[capability.config]], or the values of a link. That of brokers elsewhere is in
// elsewhere.go.

type keyValueConfig struct {
	Bucket string  `toml:"bucket" default:""`
	URL    refused `toml:"URL" why:"state is in the box, and in no Redis: leave it out"` // of classic wasmCloud
}

type blobStoreConfig struct {
	Bucket     string  `toml:"bucket" default:""`
	MaxBytes   Size    `toml:"max_bytes" default:"64MiB" min:"1KiB" max:"16TiB"`
	MaxObjects int     `toml:"max_objects" default:"10000" min:"1" max:"1000000"`
	Root       refused `toml:"ROOT" why:"objects are in the state directory of the box, and in no folder of yours: leave it out"` // of classic wasmCloud
}

type localConfig struct {
	Topic     string `toml:"topic" default:""`
	Queue     string `toml:"queue" default:""`
	QoS       int    `toml:"qos" default:"1" min:"0" max:"2"`
	Delivery  string `toml:"delivery" default:"push" oneof:"push|pull"`
	OnMessage string `toml:"on_message" default:"on_message"`
}

// messagingConfig has what a manifest says in lower case, and the link values of classic wasmCloud as these are written.
type messagingConfig struct {
	Subject      string  `toml:"subject" default:""`
	Queue        string  `toml:"queue" default:""`
	Subscription string  `toml:"SUBSCRIPTION" default:""`
	URI          string  `toml:"URI" default:""`
	ConfigJSON   string  `toml:"config_json" default:""`
	ConfigBase64 string  `toml:"config_b64" default:""`
	ClientJWT    refused `toml:"CLIENT_JWT"`
	ClientSeed   refused `toml:"CLIENT_SEED"`
	TLSCA        refused `toml:"TLS_CA"`
	TLSCAFile    refused `toml:"TLS_CA_FILE"`
}

type gpioConfig struct {
	Chip      string   `toml:"chip" required:"true"`
	Line      int      `toml:"line" required:"true" min:"0" max:"1023"`
	Direction string   `toml:"direction" required:"true" oneof:"in|out"`
	Edge      string   `toml:"edge" default:"none" oneof:"rising|falling|both|none"`
	Debounce  Duration `toml:"debounce" default:"0s" max:"10s"`
	Topic     string   `toml:"topic" default:""`
	Pull      string   `toml:"pull" default:"none" oneof:"up|down|none"`
	Safe      int      `toml:"safe" default:"0" min:"0" max:"1"`
}

// noConfig is for providers that take none.
type noConfig struct{}
