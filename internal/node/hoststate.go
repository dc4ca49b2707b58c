package node

import (
	"cmp"
	"crypto/rand"
	"encoding/json"
	"fmt"
	goruntime "runtime"
	"slices"
	"time"

	"github.com/edged-io/edged/internal/config"
	"github.com/edged-io/edged/internal/control"
	"github.com/edged-io/edged/providers/child"
)

// hostChanged has the state of the host made anew, and events told of what is different.
func (n *Node) hostChanged() {
	n.commanded.mu.Lock()
	n.commanded.state = nil
	n.commanded.mu.Unlock()
	if s := n.commanded.service.Load(); s != nil {
		s.Changed()
	}
}

// openControl makes the control interface, if the device file has one.
func (n *Node) openControl() error {
	if !n.o.Device.Lattice.Control {
		return nil
	}
	s, err := control.New(control.Options{Conn: n.link, Lattice: n.o.Device.Lattice.Name, Host: controlHost{n}, Log: n.part("control")})
	if err != nil {
		return err
	}
	n.commanded.service.Store(s)
	return nil
}

// State implements control.Host.
func (h controlHost) State() control.State {
	c := &h.commanded
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state == nil {
		st := h.hostState()
		c.state = &st
	}
	return *c.state
}

// hostState makes the state. Call it with commanded.mu held.
func (n *Node) hostState() control.State {
	put, apps := n.held(), n.commanded.shown
	st := control.State{
		ID: n.identity.host.Key().String(), Issuer: n.identity.cluster.Key().String(), FriendlyName: n.o.Device.Device.ID, Version: n.o.Version,
		Started: n.started, Labels: put.labels(n.o.Device.Device.Labels), Config: put.Config,
	}
	for _, k := range append(slices.Clip(n.identity.issuers), n.identity.cluster.Key()) {
		st.ClusterIssuers = append(st.ClusterIssuers, k.String())
	}
	if hub := n.o.Device.Hub; hub != nil {
		st.JetStreamDomain = hub.JetStreamDomain
	}
	st.CtlHost = natsURL(n.broker.Addr())
	st.RPCHost = st.CtlHost
	for key, value := range platform() {
		st.Labels[key] = value
	}
	ids := make(map[string]string)
	instance := func(what string) string {
		id := cmp.Or(n.commanded.ids[what], newInstance())
		ids[what] = id
		return id
	}
	for _, a := range apps.actors() {
		st.Actors = append(st.Actors, n.entries(put, a, instance)...)
	}
	builtins := config.Builtins()
	for _, name := range sortedKeys(builtins) {
		st.Providers = append(st.Providers, control.Provider{
			ID: name, Key: name, Ref: "builtin:" + name, Contract: builtins[name], LinkName: "default", Name: name, Kept: "it is built in, and always runs",
			Instance: instance("provider " + name), Health: control.Healthy,
		})
	}
	programs := n.processes.Running()
	for _, s := range programs {
		_, kept := put.Providers[providerKey(s.Key, s.LinkName)]
		// Who has not begun is not shown, nor is one that was started by command before it is kept: what it is called is not known yet.
		if s.State == child.Idle || s.App == "" && !s.Remote && !kept {
			continue
		}
		st.Providers = append(st.Providers, n.provider(put, s))
	}
	st.LeftOut, st.LeftOutProviders = leftOut(put, apps, programs, n.health.names("provider"))
	st.Claims = claimsOf(put, apps)
	for _, c := range n.metadata.Claims() {
		if !hasClaims(st.Claims, c.Subject) {
			st.Claims = append(st.Claims, control.Claims{
				Subject: c.Subject, Issuer: c.Issuer, Name: c.Name, Version: c.Version, Revision: c.Revision, Tags: c.Tags, Caps: c.Caps,
				CallAlias: c.CallAlias, Contract: c.Contract, ConfigSchema: c.ConfigSchema,
			})
		}
	}
	n.commanded.ids = ids
	st.Links = linksOf(put, apps)
	return st
}

// leftOut is what was put to run here and can not: the actors without an app, and the providers without a program of which something is known to be
// wrong: one that is just being stopped is put still.
func leftOut(put *held, apps appSet, programs []child.Status, faulty []string) (actors []control.Actor, providers []control.Provider) {
	for _, key := range sortedKeys(put.Actors) {
		h := put.Actors[key]
		if apps[assembledName(key)] != nil {
			continue
		}
		for _, e := range h.Entries {
			actors = append(actors, control.Actor{ID: h.ID, Key: key, Ref: h.Ref, Name: h.Name, Revision: h.Revision, Annotations: e.Annotations, Max: e.Max})
		}
	}
	for _, at := range sortedKeys(put.Providers) {
		p := put.Providers[at]
		there := slices.ContainsFunc(programs, func(s child.Status) bool { return s.Key == p.Key && s.LinkName == p.Link })
		if !there && slices.Contains(faulty, p.title()) {
			providers = append(providers, control.Provider{ID: p.ID, Key: p.Key, Ref: p.Ref, Contract: p.Contract, LinkName: p.Link, Name: p.Name})
		}
	}
	return actors, providers
}

// entries are those of an actor.
func (n *Node) entries(put *held, a *actor, instance func(string) string) (all []control.Actor) {
	base := control.Actor{ID: a.key, Key: a.key, Ref: a.digest, Name: cmp.Or(a.signed.Name, a.config.Name), App: a.app}
	if a.isSigned() {
		base.Revision = a.signed.EffectiveRev()
	}
	if !a.commanded {
		base.Max, base.Instance = uint32(a.config.Limits.Instances), instance(a.key+" "+a.digest)
		return append(all, base)
	}
	h := put.Actors[a.key]
	for _, e := range h.Entries {
		is := base
		is.ID, is.Ref, is.App, is.Annotations, is.Max = h.ID, h.Ref, "", e.Annotations, e.Max
		annotations, _ := json.Marshal(e.Annotations) // strings: it does not fail
		is.Instance = instance(a.key + " " + a.digest + " " + string(annotations))
		all = append(all, is)
	}
	return all
}

// provider is one that is not built in.
func (n *Node) provider(put *held, s child.Status) control.Provider {
	p := control.Provider{
		ID: s.Key, Key: s.Key, Ref: s.Ref, Contract: s.Contract, LinkName: s.LinkName, Name: s.Name, Revision: s.Revision, Annotations: s.Annotations,
		Instance: s.Instance, App: s.App,
	}
	switch h, commanded := put.Providers[providerKey(s.Key, s.LinkName)]; {
	case commanded:
		p.ID = h.ID
	case s.Remote:
		p.Kept = "somebody else has started it: edged provider detach takes it from this box"
	}
	switch {
	case s.Health == child.Unhealthy, s.State == child.Waiting, s.State == child.Failed, s.State == child.Away:
		p.Health = control.Unhealthy // also one that has to be stopped, as it ends again and again
	case s.Health == child.Healthy:
		p.Health = control.Healthy
	}
	return p
}

// claims are those of a signed actor.
func (a *actor) claims() (control.Claims, bool) {
	if !a.isSigned() {
		return control.Claims{}, false
	}
	m := a.signed
	return control.Claims{
		Subject: a.key, Issuer: m.Issuer.String(), Name: m.Name, Version: m.Ver, Revision: m.EffectiveRev(), Tags: m.Tags, Caps: m.Caps,
		CallAlias: m.CallAlias, NotBefore: m.NotBefore, Expires: m.Expires,
	}, true
}

// localClaims are those of what runs here.
func (n *Node) localClaims() []control.Claims {
	n.commanded.mu.Lock()
	defer n.commanded.mu.Unlock()
	return claimsOf(n.held(), n.commanded.shown)
}

// claimsOf are those of the actors of apps, and of providers that were started by command.
func claimsOf(put *held, apps appSet) (all []control.Claims) {
	for _, a := range apps.actors() {
		if c, ok := a.claims(); ok {
			all = append(all, c)
		}
	}
	for _, at := range sortedKeys(put.Providers) {
		p := put.Providers[at]
		if !hasClaims(all, p.Key) { // it may run under several link names
			all = append(all, control.Claims{
				Subject: p.Key, Issuer: p.Issuer, Name: p.Name, Version: p.Version, Revision: p.Revision, Contract: p.Contract, ConfigSchema: string(p.Schema),
			})
		}
	}
	return all
}

func hasClaims(all []control.Claims, subject string) bool {
	return slices.ContainsFunc(all, func(c control.Claims) bool { return c.Subject == subject })
}

// linksOf are the links of apps and those that were put. A link of an app hides one of the same actor, contract and name.
func linksOf(put *held, apps appSet) (all []control.Link) {
	declared := make(map[string]bool)
	for _, a := range apps.sorted() {
		if a.config.Assembled {
			continue
		}
		bus, _ := a.links()
		for _, l := range bus {
			declared[heldLinkKey(l.Actor, l.Contract, l.Name)] = true
			all = append(all, control.Link{Link: l, App: a.config.Name})
		}
	}
	for _, at := range sortedKeys(put.Links) {
		if l := put.Links[at]; !declared[heldLinkKey(put.key(l.Actor), l.Contract, l.Name)] {
			all = append(all, l.control())
		}
	}
	return all
}

// platform are the labels that a host has by itself, in the words of other hosts.
func platform() map[string]string {
	arch := goruntime.GOARCH
	switch arch {
	case "amd64":
		arch = "x86_64"
	case "arm64":
		arch = "aarch64"
	}
	return map[string]string{"hostcore.arch": arch, "hostcore.os": goruntime.GOOS, "hostcore.osfamily": "unix"}
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// newInstance is a random UUID, version 4 (RFC 9562, 5.4).
func newInstance() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // does not fail
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// Stop implements control.Host.
func (h controlHost) Stop(within time.Duration) {
	select {
	case h.stopping <- within:
	default: // somebody has asked already
	}
}
