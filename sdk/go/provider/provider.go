// Package provider is for programs that serve a capability contract to the actors
// of a lattice: capability providers of edged, and of every classic wasmCloud host.
//
// A provider is a program of its own. A host starts it, or somebody else does, and
// gives it one line on standard input, its [HostData]. From then on it is a client of
// NATS. This package reads the line, keeps the links, checks who calls, and answers
// health and shutdown; what is left is a [Provider]:
//
//	func main() {
//		provider.Main(func(h *provider.Host) (provider.Provider, error) { return &thing{host: h}, nil })
//	}
//
// A call is made by an actor that is linked, through a host that is trusted, and is
// over the payload that it says; everything else is refused with a reason. Payloads are
// MessagePack, for which there is the package msgpack beside this one. Nothing goes to
// standard output; the log is standard error.
//
// The wire is that of classic wasmCloud, 0.50 to 0.82. docs/write-a-provider.md has it
// in full, for those who write a provider in another language.
package provider

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

// Provider serves one contract to many actors.
type Provider interface {
	// PutLink tells that l.Actor may use the provider, with l.Values. It comes before
	// the first Call through the link, and not again before DeleteLink. An error
	// refuses the link: calls through it are answered with the error. PutLink and
	// DeleteLink are called one at a time.
	PutLink(ctx context.Context, l Link) error
	// DeleteLink ends what PutLink began. Calls through the link may still be under
	// way.
	DeleteLink(ctx context.Context, l Link) error
	// Call serves one operation, and is called from many goroutines at once. What it
	// returns is the answer, as MessagePack; nil for nothing. The text of an error
	// reaches the actor. The context ends when the provider is to stop.
	Call(ctx context.Context, inv Invocation) ([]byte, error)
}

// HealthChecker is for a Provider that can say that it is not well.
type HealthChecker interface {
	// Health is asked every 30 s or so, and has to answer at once.
	Health(ctx context.Context) error
}

// Link says that an actor uses the provider.
type Link struct {
	Actor    string            `json:"actor_id" msgpack:"actor_id"`       // "M…"
	Provider string            `json:"provider_id" msgpack:"provider_id"` // the key of this one
	Name     string            `json:"link_name" msgpack:"link_name"`
	Contract string            `json:"contract_id" msgpack:"contract_id"`
	Values   map[string]string `json:"values" msgpack:"values"` // what the link sets
}

// Invocation is a call by an actor.
type Invocation struct {
	ID        string
	Link      Link   // of the actor that calls
	Operation string // "Service.Method"
	Payload   []byte // MessagePack; not to be changed
	// Idempotency is the same when what made the call runs again, and for no other
	// call; "" where the caller does not say.
	Idempotency string
}

// ErrUnknown is for an operation that the contract does not have. Its text is what
// hosts look for.
var ErrUnknown = errors.New("method not handled")

// HostData is what a host tells a provider that it starts: one line of JSON in base64.
type HostData struct {
	HostID         string   `json:"host_id"`
	Lattice        string   `json:"lattice_rpc_prefix"`
	LinkName       string   `json:"link_name" msgpack:"link_name"`
	URL            string   `json:"lattice_rpc_url"` // of NATS; "" for the one on this machine
	UserJWT        string   `json:"lattice_rpc_user_jwt"`
	UserSeed       string   `json:"lattice_rpc_user_seed"`
	Key            string   `json:"provider_key"`
	InvocationSeed string   `json:"invocation_seed"` // signs what the provider calls
	Links          []Link   `json:"link_definitions"`
	Issuers        []string `json:"cluster_issuers"` // whose invocations count
	Config         string   `json:"config_json"`     // from who started the provider; often ""
	TimeoutMs      int64    `json:"default_rpc_timeout_ms"`
	InstanceID     string   `json:"instance_id"`
	LogLevel       string   `json:"log_level"` // error, warn, info, debug or trace; "" for what you like
	Domain         string   `json:"js_domain"` // of JetStream
	Edged          *Edged   `json:"edged"`     // nil from other hosts
}

// Edged is what a box of edged says beside what all hosts say.
type Edged struct {
	Inbox   string `json:"inbox_prefix"` // of the inboxes that nobody else can read
	Objects bool   `json:"object_store"` // the login may use the object store
}

// String keeps the secrets out of texts and logs.
func (d HostData) String() string { return "[host data of provider " + d.Key + "]" }

// GoString does so for %#v.
func (d HostData) GoString() string { return d.String() }

// maxHostData bounds the line that is read.
const maxHostData = 16 << 20

// ReadHostData reads the first line of r.
func ReadHostData(r io.Reader) (HostData, error) {
	line, err := bufio.NewReader(io.LimitReader(r, maxHostData)).ReadString('\n')
	if err != nil && err != io.EOF {
		return HostData{}, fmt.Errorf("read host data: %w", err)
	}
	return ParseHostData(line)
}

// ParseHostData reads a line. Whatever is not in it has its zero value, except for the
// names that subjects are made of, which have to be there.
func ParseHostData(line string) (HostData, error) {
	var d HostData
	raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(line))
	if err == nil {
		err = json.Unmarshal(raw, &d)
	}
	if err != nil {
		return d, fmt.Errorf("host data is one line of JSON in base64: %w", err)
	}
	for _, name := range []struct{ key, value string }{
		{"lattice_rpc_prefix", d.Lattice}, {"link_name", d.LinkName}, {"provider_key", d.Key},
	} {
		if name.value == "" || strings.ContainsAny(name.value, ".*> \t\r\n") {
			return d, fmt.Errorf("host data: %s %q can not be part of a subject", name.key, name.value)
		}
	}
	return d, nil
}

// Main is all of main: it reads the host data from standard input, serves until the
// host or a signal says to stop, and ends the process.
func Main(make func(*Host) (Provider, error)) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	data, err := ReadHostData(os.Stdin)
	if err == nil {
		err = Run(ctx, data, make)
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
