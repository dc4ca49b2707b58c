package control

import (
	"fmt"
	"math"
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

// revision is what all readers take for one: some have 32 bits for it, with sign, and some no sign.
func revision(n int64) int64 { return max(0, min(n, math.MaxInt32)) }

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

// semver is a version as readers insist on: three numbers, and what follows them. Another one is 0.0.0.
func semver(version string) string {
	version = strings.TrimPrefix(version, "v")
	core := version
	if i := strings.IndexAny(version, "-+"); i >= 0 {
		core = version[:i]
	}
	numbers := strings.Split(core, ".")
	for _, n := range numbers {
		if _, err := strconv.ParseUint(n, 10, 32); err != nil || len(n) > 1 && n[0] == '0' {
			return "0.0.0"
		}
	}
	rest := version[len(core):]
	letters := func(r rune) bool { return letter(r) && r != '_' || r == '.' || r == '+' }
	if len(numbers) != 3 || len(rest) == 1 || strings.Contains(rest, "..") || strings.IndexFunc(rest, func(r rune) bool { return !letters(r) }) >= 0 {
		return "0.0.0"
	}
	return version
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
		UptimeSeconds: int64(up / time.Second), UptimeHuman: human(up), Version: semver(st.Version),
		ClusterIssuers: strings.Join(st.ClusterIssuers, ","), JetStreamDomain: optional(st.JetStreamDomain),
		CtlHost: st.CtlHost, RPCHost: st.RPCHost, ProvRPCHost: st.RPCHost, LatticePrefix: s.lattice, Lattice: s.lattice,
	}
}

// inventory of version 0; that of version 1 has components in place of actors. What has no name or reference is left out of it: some readers
// take no null for a text.
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

type actor0 struct {
	ID        string      `json:"id"`
	Ref       string      `json:"image_ref,omitempty"`
	Name      string      `json:"name,omitempty"`
	Instances []instance0 `json:"instances"`
}

type instance0 struct {
	Instance    string            `json:"instance_id"`
	Revision    int64             `json:"revision"`
	Annotations map[string]string `json:"annotations"`
	Ref         string            `json:"image_ref,omitempty"`
	Max         uint32            `json:"max_instances"`
}

type provider0 struct {
	ID          string            `json:"id"`
	Ref         string            `json:"image_ref,omitempty"`
	Contract    string            `json:"contract_id,omitempty"`
	LinkName    string            `json:"link_name,omitempty"`
	Name        string            `json:"name,omitempty"`
	Revision    int64             `json:"revision"`
	Annotations map[string]string `json:"annotations"`
	Instance    string            `json:"instance_id,omitempty"`
}

// base is what both inventories begin with.
func base(st State) inventory {
	up := uptime(st)
	return inventory{
		HostID: st.ID, FriendlyName: st.FriendlyName, Labels: some(st.Labels), Version: semver(st.Version),
		UptimeHuman: human(up), UptimeSeconds: int64(up / time.Second), Providers: []provider0{},
	}
}

// inventory0 has actors by their keys.
func inventory0(st State) inventory {
	inv := base(st)
	inv.Issuer = st.Issuer
	inv.Actors = actors0(st)
	for _, p := range st.Providers {
		inv.Providers = append(inv.Providers, newProvider0(p))
	}
	return inv
}

func newProvider0(p Provider) provider0 {
	return provider0{
		ID: p.Key, Ref: p.Ref, Contract: p.Contract, LinkName: p.LinkName, Name: p.Name,
		Revision: revision(p.Revision), Annotations: some(p.Annotations), Instance: p.Instance,
	}
}

// actors0 gathers the entries of each actor.
func actors0(st State) []actor0 {
	all := []actor0{}
	index := map[string]int{}
	for _, a := range st.Actors {
		i, ok := index[a.Key]
		if !ok {
			i = len(all)
			index[a.Key] = i
			all = append(all, actor0{ID: a.Key, Ref: a.Ref, Name: a.Name})
		}
		all[i].Instances = append(all[i].Instances, instance0{
			Instance: a.Instance, Revision: revision(a.Revision), Annotations: some(a.Annotations), Ref: a.Ref, Max: a.Max,
		})
	}
	return all
}

// beat is the inventory of a heartbeat: actors for readers of version 0, and components for those of version 1, which want what has an id to be called
// by it. Nobody may read it into the inventory of version 1, where both are names of one thing; nobody does.
func beat(st State) inventory {
	inv := inventory0(st)
	inv.Components = inventory1(st).Components
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
		caps, rev := strings.Join(c.Caps, ","), strconv.FormatInt(c.Revision, 10)
		m := map[string]string{
			"sub": c.Subject, "subject": c.Subject, "iss": c.Issuer, "issuer": c.Issuer, "rev": rev, "revision": rev,
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
