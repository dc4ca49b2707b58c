package control

import (
	"context"
	"log/slog"
	"time"

	"github.com/edged-io/edged/lattice"
)

// A Host is what the control interface acts on. Its errors are shown to whoever gave the command, so they say what to do and hold no secrets.
//
// State and the methods that are answered when they return (PutLink, DeleteLink, SetConfig, SetLabels, SetRegistries, Stop) are called one after
// the other; they do not wait for a provider, a registry or the hub. ScaleActor, UpdateActor, StartProvider and StopProvider may take as long as it takes
// to fetch a module over a slow link; they are called for several actors and providers at once, for one of them in order. What a method changed
// is in State when it returns, and survives a restart of the host.
type Host interface {
	// State is what the host is and has. Neither side changes it afterwards.
	State() State

	// ScaleActor makes Max the number of instances of one entry of an actor, 0 for none. It fetches the module when the actor does not run yet.
	// It is an error if the actor's key is not the ID that was given, where that is a key; if it runs under another ID; and if it runs from a
	// different reference.
	ScaleActor(context.Context, ActorScale) error
	// UpdateActor replaces the code of a running actor, without losing a call. The module must have the same key and a higher revision.
	UpdateActor(context.Context, ActorUpdate) error
	// StartProvider starts a provider. One that has its key and link name and runs already is an error.
	StartProvider(context.Context, ProviderStart) error
	// StopProvider stops a provider; one that does not run is no error. Its links stay.
	StopProvider(context.Context, ProviderStop) error

	// PutLink puts a link. In place of one with the same actor, contract and name, it is taken from the provider before it is put again, for
	// providers ignore a second put.
	PutLink(context.Context, Link) error
	// DeleteLink deletes the link with this actor, contract and name; one that is not there is no error.
	DeleteLink(context.Context, lattice.Link) error
	// SetConfig makes values the configuration of that name, all of it; nil deletes it.
	SetConfig(ctx context.Context, name string, values map[string][]byte) error
	// SetLabels makes these the labels of the host, beside those that begin with "hostcore.".
	SetLabels(context.Context, map[string]string) error
	// SetRegistries adds or replaces the logins of OCI registries, by host and port.
	SetRegistries(context.Context, map[string]Registry) error
	// Stop begins to stop the host, which has so long for it. It returns at once; Service.Run ends later, with its context.
	Stop(within time.Duration)
}

// State is what a host is and has.
type State struct {
	ID              string   // of the host, an N key
	Issuer          string   // C key that signs its invocations
	ClusterIssuers  []string // C keys whose invocations it believes
	FriendlyName    string
	Version         string // such as 1.2.3-rc.1; readers take no other form, and are told 0.0.0 then
	Started         time.Time
	JetStreamDomain string // "" for none
	CtlHost         string // where a NATS client reaches the lattice
	RPCHost         string

	Labels    map[string]string // with those that begin with "hostcore."
	Actors    []Actor           // that run here
	Providers []Provider        // that run here, or elsewhere and are this host's
	Links     []Link            // of the lattice

	// Actors and providers that are to run here and can not. No inventory has them, and commands stop them like the others.
	LeftOut          []Actor
	LeftOutProviders []Provider

	Claims []Claims // of all actors and providers that are known in the lattice
	Config map[string]map[string][]byte
}

// An Actor is one entry of an actor: its instances with the same annotations.
type Actor struct {
	ID          string // by which it is told apart: its key, or what version 1 called it
	Key         string // M key, or "app/name" of an unsigned one
	Ref         string
	Name        string
	Revision    int64
	Annotations map[string]string
	Max         uint32 // instances that may run at once
	Instance    string // id of this entry since it started, or got other code
	App         string // that declares it, and alone may change it; "" for none
}

// A Provider is a provider under one link name.
type Provider struct {
	ID          string // its key, or what version 1 called it
	Key         string // V key, or the name of a built-in one
	Ref         string
	Contract    string
	LinkName    string
	Name        string
	Revision    int64
	Annotations map[string]string
	Instance    string
	Health      Health
	App         string
	Kept        string // why no command stops it; "" if one does
}

// Health is what the last health request of a provider came to.
type Health int

// Results of a health request.
const (
	HealthUnknown Health = iota
	Healthy
	Unhealthy
)

// A Link is a link and what version 1 knows of it. Actor and Provider are ids or keys.
type Link struct {
	lattice.Link
	WIT          WIT      // as it was put; zero for one that was put by version 0 or an app
	SourceConfig []string // names of configurations that belong to its values, later ones win over earlier ones and over Values
	TargetConfig []string // the same, before SourceConfig
	App          string
}

// LinkValues are the values of a link with its configurations in it.
func (st State) LinkValues(l Link) map[string]string {
	values := make(map[string]string, len(l.Values))
	for k, v := range l.Values {
		values[k] = v
	}
	for _, names := range [][]string{l.TargetConfig, l.SourceConfig} {
		for _, name := range names {
			for k, v := range st.Config[name] {
				values[k] = string(v)
			}
		}
	}
	return values
}

// Claims are the claims of an actor or provider.
type Claims struct {
	Subject      string // M or V key
	Issuer       string // A key
	Name         string
	Version      string
	Revision     int64
	Tags         []string
	Caps         []string // of an actor
	CallAlias    string   // of an actor
	Contract     string   // of a provider
	ConfigSchema string   // of a provider: JSON
	NotBefore    time.Time
	Expires      time.Time
}

// ActorScale is how many instances an entry of an actor is to have.
type ActorScale struct {
	ID          string // "" for the key of the module at Ref
	Ref         string
	Annotations map[string]string
	Max         uint32
	Config      []string          // names of configurations
	Limits      map[string]string // of version 1's component_limits
}

// ActorUpdate replaces the code of an actor.
type ActorUpdate struct {
	ID  string
	Ref string // of the new module
}

// ProviderStart starts a provider.
type ProviderStart struct {
	ID            string // "" for the key of the archive at Ref
	Ref           string
	LinkName      string
	Annotations   map[string]string
	Configuration string   // version 0: config_json of its host data
	Config        []string // version 1: names of configurations
}

// ProviderStop stops a provider.
type ProviderStop struct {
	ID       string
	LinkName string
}

// Registry is the login of an OCI registry. It prints nothing of it.
type Registry struct {
	Username string
	Password string
	Token    string
}

// LogValue keeps a login out of logs.
func (Registry) LogValue() slog.Value { return slog.StringValue("[login]") }

// String keeps a login out of texts.
func (Registry) String() string { return "[login]" }

// GoString keeps a login out of %#v.
func (Registry) GoString() string { return "[login]" }
