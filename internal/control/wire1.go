package control

import (
	"strings"
	"time"
)

// reply1 is every answer of version 1.
type reply1 struct {
	Success  bool   `json:"success"`
	Message  string `json:"message"`
	Response any    `json:"response,omitempty"`
}

// host1 is the answer to a ping.
type host1 struct {
	ID              string            `json:"id"`
	Labels          map[string]string `json:"labels"`
	FriendlyName    string            `json:"friendly_name"`
	Version         string            `json:"version"`
	Lattice         string            `json:"lattice"`
	RPCHost         string            `json:"rpc_host"`
	CtlHost         string            `json:"ctl_host"`
	JetStreamDomain *string           `json:"js_domain"`
	UptimeSeconds   int64             `json:"uptime_seconds"`
	UptimeHuman     string            `json:"uptime_human"`
}

func (s *Service) host1(st State) host1 {
	up := uptime(st)
	return host1{
		ID: st.ID, Labels: some(st.Labels), FriendlyName: st.FriendlyName, Version: semver(st.Version), Lattice: s.lattice,
		RPCHost: st.RPCHost, CtlHost: st.CtlHost, JetStreamDomain: optional(st.JetStreamDomain),
		UptimeSeconds: int64(up / time.Second), UptimeHuman: human(up),
	}
}

// component1 is one entry of an actor.
type component1 struct {
	ID          string            `json:"id"`
	Ref         string            `json:"image_ref"`
	Name        string            `json:"name,omitempty"`
	Annotations map[string]string `json:"annotations"`
	Revision    int64             `json:"revision"`
	Max         uint32            `json:"max_instances"`
}

// inventory1 has actors and providers by their ids.
func inventory1(st State) inventory {
	inv := base(st)
	inv.Components = []component1{}
	for _, a := range st.Actors {
		inv.Components = append(inv.Components, component1{
			ID: a.ID, Ref: a.Ref, Name: a.Name, Annotations: some(a.Annotations), Revision: revision(a.Revision), Max: a.Max,
		})
	}
	for _, p := range st.Providers {
		inv.Providers = append(inv.Providers, provider0{
			ID: p.ID, Ref: p.Ref, Name: p.Name, Revision: revision(p.Revision), Annotations: some(p.Annotations),
		})
	}
	return inv
}

// link1 is a link as version 1 has it.
type link1 struct {
	Source       string   `json:"source_id"`
	Target       string   `json:"target"`
	Name         string   `json:"name"`
	Namespace    string   `json:"wit_namespace"`
	Package      string   `json:"wit_package"`
	Interfaces   []string `json:"interfaces"`
	SourceConfig []string `json:"source_config"`
	TargetConfig []string `json:"target_config"`
}

// clean is a link without the space around its names, and with its default name.
func (r link1) clean() link1 {
	for _, s := range []*string{&r.Source, &r.Target, &r.Name, &r.Namespace, &r.Package} {
		*s = strings.TrimSpace(*s)
	}
	if r.Name == "" {
		r.Name = "default"
	}
	return r
}

// newLink1 is how version 1 sees a link: as it was put there, or by the table.
func newLink1(st State, l Link) link1 {
	w, inward := l.WIT, false
	if w.Namespace == "" {
		w, inward = WITOf(l.Contract)
	} else {
		_, inward = ContractOf(w)
	}
	r := link1{
		Source: st.id(l.Actor), Target: st.id(l.Provider), Name: l.Name, Namespace: w.Namespace, Package: w.Package,
		Interfaces: list(w.Interfaces), SourceConfig: list(l.SourceConfig), TargetConfig: list(l.TargetConfig),
	}
	if inward {
		r.Source, r.Target = r.Target, r.Source
	}
	return r
}

// id is what version 1 calls what has a key here, or the name itself.
func (st State) id(name string) string {
	for _, a := range st.Actors {
		if a.Key == name {
			return a.ID
		}
	}
	for _, p := range st.Providers {
		if p.Key == name {
			return p.ID
		}
	}
	return name
}

func links1(st State) []link1 {
	all := make([]link1, 0, len(st.Links))
	for _, l := range st.Links {
		all = append(all, newLink1(st, l))
	}
	return all
}

// list is a list that is never null.
func list(l []string) []string {
	if l == nil {
		return []string{}
	}
	return l
}

// texts are the values of a configuration. Bytes that are no UTF-8, which version 0 may have put, become U+FFFD.
func texts(values map[string][]byte) map[string]string {
	m := make(map[string]string, len(values))
	for k, v := range values {
		m[k] = strings.ToValidUTF8(string(v), "\uFFFD")
	}
	return m
}
