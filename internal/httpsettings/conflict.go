package httpsettings

import (
	"fmt"
	"net/http"
	"strings"
)

// A Place is a Settings of somebody.
type Place struct {
	Name string // unique; with port 0 it makes the listener one of its own
	Settings
}

// Key tells listeners apart: places with the same key share one. Port 0 is a
// free port for each place.
func (p *Place) Key() string {
	if strings.HasSuffix(p.Listen, ":0") {
		return p.Listen + " " + p.Name
	}
	return p.Listen
}

// A Conflict is why a place can not be served together with those before it.
type Conflict struct {
	Place  int // by index
	Reason string
}

// Conflicts returns what keeps places from being served together, at most one
// for each place: listeners that are told two things, and requests that two
// places want. The settings have been checked.
func Conflicts(places []Place) (all []Conflict) {
	type listener struct {
		first int // the place that came first
		mux   *http.ServeMux
		held  []int // those in mux
	}
	listeners := make(map[string]*listener)
	for i := range places {
		p := &places[i]
		l := listeners[p.Key()]
		if l == nil {
			if other := overlapped(places[:i], p.Listen); other != nil {
				all = append(all, Conflict{i, fmt.Sprintf("listens on %s, which %s holds with %s: write the same address in both", p.Listen, other.Name, other.Listen)})
				continue
			}
			l = &listener{first: i, mux: http.NewServeMux()}
			listeners[p.Key()] = l
		}
		if what := differs(&places[l.first].Settings, &p.Settings); what != "" {
			all = append(all, Conflict{i, fmt.Sprintf("the listener on %s is also that of %s, with another %s", p.Listen, places[l.first].Name, what)})
			continue
		}
		l.held = append(l.held, i)
		for _, pattern := range p.Patterns() {
			if register(l.mux, pattern) == nil {
				continue
			}
			owner, theirs := find(places, l.held, pattern)
			reason := fmt.Sprintf("route %q on %s is also one of %s", pattern, p.Listen, owner)
			if theirs != pattern {
				reason = fmt.Sprintf("route %q on %s and %q of %s match the same requests, and neither is the narrower one", pattern, p.Listen, theirs, owner)
			}
			all = append(all, Conflict{i, reason})
			break
		}
	}
	return all
}

// find returns the place that has the pattern, or another one that it can not
// stand beside.
func find(places []Place, held []int, pattern string) (owner, theirs string) {
	for _, i := range held {
		for _, theirs := range places[i].Patterns() {
			mux := http.NewServeMux()
			if register(mux, theirs) == nil && register(mux, pattern) != nil {
				return places[i].Name, theirs
			}
		}
	}
	panic("httpsettings: a pattern that conflicts with none") // it was refused because of one
}

// overlapped returns a place whose address another listener can not be bound
// beside.
func overlapped(places []Place, listen string) *Place {
	for i := range places {
		if places[i].Listen != listen && Overlap(places[i].Listen, listen) {
			return &places[i]
		}
	}
	return nil
}

// differs says in what two places with one listener contradict each other.
func differs(a, b *Settings) string {
	switch {
	case a.TLS != b.TLS:
		return "tls"
	case a.MaxConnections != b.MaxConnections:
		return "max_connections"
	case a.HeaderTimeout != b.HeaderTimeout:
		return "timeout.header"
	}
	return ""
}
