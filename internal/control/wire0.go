package control

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// ack0 is the answer to a command of version 0. Error is there when it is empty, too.
type ack0 struct {
	Accepted bool   `json:"accepted"`
	Error    string `json:"error"`
}

// octets are bytes as JSON numbers, as serde writes them.
type octets []byte

// MarshalJSON writes [1,2,3], and [] for none.
func (o octets) MarshalJSON() ([]byte, error) {
	b := []byte{'['}
	for i, c := range o {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendUint(b, uint64(c), 10)
	}
	return append(b, ']'), nil
}

// optional is a string that may be null.
func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// some is a map that is never null.
func some(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}

func uptime(st State) time.Duration { return max(time.Since(st.Started), 0) }

// human is a duration as hosts write it: "1h 51m 54s".
func human(d time.Duration) string {
	seconds := int64(d / time.Second)
	parts := []string{}
	for _, u := range []struct {
		name string
		in   int64
	}{{"d", 86400}, {"h", 3600}, {"m", 60}} {
		if seconds >= u.in || len(parts) > 0 {
			parts = append(parts, fmt.Sprintf("%d%s", seconds/u.in, u.name))
			seconds %= u.in
		}
	}
	return strings.Join(append(parts, fmt.Sprintf("%ds", seconds)), " ")
}

// host0 is the answer to a ping.
type host0 struct {
	ID              string            `json:"id"`
	Issuer          string            `json:"issuer"`
	Labels          map[string]string `json:"labels"`
	FriendlyName    string            `json:"friendly_name"`
	UptimeSeconds   int64             `json:"uptime_seconds"`
	UptimeHuman     string            `json:"uptime_human"`
	Version         string            `json:"version"`
	ClusterIssuers  string            `json:"cluster_issuers"`
	JetStreamDomain *string           `json:"js_domain"`
	CtlHost         string            `json:"ctl_host"`
	RPCHost         string            `json:"rpc_host"`
	ProvRPCHost     string            `json:"prov_rpc_host"`
	LatticePrefix   string            `json:"lattice_prefix"`
	Lattice         string            `json:"lattice"`
}

func (s *Service) host0(st State) host0 {
	up := uptime(st)
	return host0{
		ID: st.ID, Issuer: st.Issuer, Labels: some(st.Labels), FriendlyName: st.FriendlyName,
		UptimeSeconds: int64(up / time.Second), UptimeHuman: human(up), Version: st.Version,
		ClusterIssuers: strings.Join(st.ClusterIssuers, ","), JetStreamDomain: optional(st.JetStreamDomain),
		CtlHost: st.CtlHost, RPCHost: st.RPCHost, ProvRPCHost: st.RPCHost, LatticePrefix: s.lattice, Lattice: s.lattice,
	}
}

// inventory of version 0; that of version 1 has components in place of actors.
type inventory struct {
	HostID        string            `json:"host_id"`
	Issuer        string            `json:"issuer,omitempty"`
	FriendlyName  string            `json:"friendly_name"`
	Labels        map[string]string `json:"labels"`
	Version       string            `json:"version"`
	UptimeHuman   string            `json:"uptime_human"`
	UptimeSeconds int64             `json:"uptime_seconds"`
	Actors        []actor0          `json:"actors,omitzero"`
	Components    []component1      `json:"components,omitzero"`
	Providers     []provider0       `json:"providers"`
}

// actor0 has beside what version 0 wants what a reader of version 1 wants, for heartbeats are one for both.
type actor0 struct {
	ID        string      `json:"id"`
	Ref       *string     `json:"image_ref"`
	Name      *string     `json:"name"`
	Instances []instance0 `json:"instances"`
	*component0
}

// component0 is the rest of a component in version 1.
type component0 struct {
	Annotations map[string]string `json:"annotations"`
	Revision    int64             `json:"revision"`
	Max         int64             `json:"max_instances"`
}

type instance0 struct {
	Instance    string            `json:"instance_id"`
	Revision    int64             `json:"revision"`
	Annotations map[string]string `json:"annotations"`
	Ref         *string           `json:"image_ref"`
	Max         uint32            `json:"max_instances"`
}

type provider0 struct {
	ID          string            `json:"id"`
	Ref         *string           `json:"image_ref"`
	Contract    string            `json:"contract_id,omitempty"`
	LinkName    string            `json:"link_name,omitempty"`
	Name        *string           `json:"name"`
	Revision    int64             `json:"revision"`
	Annotations map[string]string `json:"annotations"`
	Instance    string            `json:"instance_id,omitempty"`
}

// base is what both inventories begin with.
func base(st State) inventory {
	up := uptime(st)
	return inventory{
		HostID: st.ID, FriendlyName: st.FriendlyName, Labels: some(st.Labels), Version: st.Version,
		UptimeHuman: human(up), UptimeSeconds: int64(up / time.Second), Providers: []provider0{},
	}
}

// inventory0 has actors by their keys.
func inventory0(st State) inventory {
	inv := base(st)
	inv.Issuer = st.Issuer
	inv.Actors = actors0(st, func(a Actor) string { return a.Key })
	for _, p := range st.Providers {
		inv.Providers = append(inv.Providers, newProvider0(p))
	}
	return inv
}

func newProvider0(p Provider) provider0 {
	return provider0{
		ID: p.Key, Ref: optional(p.Ref), Contract: p.Contract, LinkName: p.LinkName, Name: optional(p.Name),
		Revision: p.Revision, Annotations: some(p.Annotations), Instance: p.Instance,
	}
}

// actors0 gathers the entries of each actor; name says what it is called.
func actors0(st State, name func(Actor) string) []actor0 {
	all := []actor0{}
	index := map[string]int{}
	for _, a := range st.Actors {
		i, ok := index[name(a)]
		if !ok {
			i = len(all)
			index[name(a)] = i
			all = append(all, actor0{ID: name(a), Ref: optional(a.Ref), Name: optional(a.Name)})
		}
		all[i].Instances = append(all[i].Instances, instance0{
			Instance: a.Instance, Revision: a.Revision, Annotations: some(a.Annotations), Ref: optional(a.Ref), Max: a.Max,
		})
	}
	return all
}

// beat is the inventory of a heartbeat, which readers of both versions understand. What has an id of version 1 is called by it.
func beat(st State) inventory {
	inv := inventory0(st)
	inv.Actors = actors0(st, func(a Actor) string { return a.ID })
	for i, a := range inv.Actors {
		c := component0{Annotations: a.Instances[0].Annotations, Revision: a.Instances[0].Revision}
		for _, in := range a.Instances {
			c.Max += int64(in.Max)
		}
		inv.Actors[i].component0 = &c
	}
	for i, p := range st.Providers {
		inv.Providers[i].ID = p.ID
	}
	return inv
}

type link0 struct {
	Actor    string            `json:"actor_id"`
	Provider string            `json:"provider_id"`
	Name     string            `json:"link_name"`
	Contract string            `json:"contract_id"`
	Values   map[string]string `json:"values"`
}

func newLink0(st State, l Link) link0 {
	return link0{Actor: st.key(l.Actor), Provider: st.key(l.Provider), Name: l.Name, Contract: l.Contract, Values: st.LinkValues(l)}
}

func links0(st State) []link0 {
	all := make([]link0, 0, len(st.Links))
	for _, l := range st.Links {
		all = append(all, newLink0(st, l))
	}
	return all
}

// claimsMaps are the claims in both versions, under old names and new ones. All values are text.
func claimsMaps(st State) []map[string]string {
	all := make([]map[string]string, 0, len(st.Claims))
	for _, c := range st.Claims {
		caps, revision := strings.Join(c.Caps, ","), strconv.FormatInt(c.Revision, 10)
		m := map[string]string{
			"sub": c.Subject, "subject": c.Subject, "iss": c.Issuer, "issuer": c.Issuer, "rev": revision, "revision": revision,
			"name": c.Name, "version": c.Version, "tags": strings.Join(c.Tags, ","),
			"caps": caps, "capabilities": caps, "call_alias": c.CallAlias, "contract_id": c.Contract,
		}
		if c.ConfigSchema != "" {
			m["config_schema"] = c.ConfigSchema
		}
		all = append(all, m)
	}
	return all
}
