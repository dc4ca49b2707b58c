package child

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/edged-io/edged/lattice"
	"github.com/edged-io/edged/lattice/wire"
)

// linksOf are the links of a provider, by actor: one each, since the link name is the
// provider's too.
type linksOf map[string]wire.Link

func wireLink(l lattice.Link) wire.Link {
	values := maps.Clone(l.Values)
	if values == nil {
		values = map[string]string{}
	}
	return wire.Link{Actor: l.Actor, Provider: l.Provider, Name: cmp.Or(l.Name, defaultLink), Contract: l.Contract, Values: values}
}

func sameLink(a, b wire.Link) bool {
	return a.Contract == b.Contract && maps.Equal(a.Values, b.Values)
}

// PutLink tells the provider l.Provider of a link, now and each time it starts; it may
// be one that runs elsewhere. A link that changes is deleted first, since providers
// ignore a second put of one that they know. Where it is the same already, it is only
// told again.
func (m *Manager) PutLink(l lattice.Link) error {
	w := wireLink(l)
	if !wire.IsToken(w.Provider) || !wire.IsToken(w.Name) {
		return fmt.Errorf("link of %s to provider %.80q, %.80q: neither may hold more than letters, digits, _ and -", l.Actor, l.Provider, w.Name)
	}
	data := w.Append(nil)
	if limit := m.o.Conn.MaxPayload(); limit > 0 && int64(len(data)) > limit {
		return fmt.Errorf("link of %s to provider %s: its values take %d bytes, at most %d", l.Actor, l.Provider, len(data), limit)
	}
	at := id{w.Provider, w.Name}
	m.mu.Lock()
	defer m.mu.Unlock()
	of := m.links[at]
	if of == nil {
		of = make(linksOf)
		m.links[at] = of
	}
	old, known := of[w.Actor]
	of[w.Actor] = w
	if known && !sameLink(old, w) {
		m.tell(at, wire.SuffixDelete, old)
		m.tellLater(at, w)
	} else {
		m.tell(at, wire.SuffixPut, w)
	}
	if in := m.providers[at]; in != nil && (!known || !sameLink(old, w)) {
		in.wake()
	}
	return nil
}

// DeleteLink tells the provider that a link is gone; one that there was not is no
// error.
func (m *Manager) DeleteLink(l lattice.Link) error {
	w := wireLink(l)
	if !wire.IsToken(w.Provider) || !wire.IsToken(w.Name) {
		return nil // there was none
	}
	at := id{w.Provider, w.Name}
	m.mu.Lock()
	defer m.mu.Unlock()
	if old, ok := m.links[at][w.Actor]; ok {
		w = old
		delete(m.links[at], w.Actor)
		if len(m.links[at]) == 0 {
			delete(m.links, at)
		}
	}
	m.tell(at, wire.SuffixDelete, w)
	return nil
}

// tell publishes a link. It fails only when the connection is closed or its buffer is
// full; a provider is told of its links again when it comes back. Call it with m.mu
// held, so that what is told of a link is in order.
func (m *Manager) tell(at id, suffix string, l wire.Link) {
	if err := m.o.Conn.Publish(wire.ProviderSubject(m.o.Lattice, at.key, at.link)+suffix, l.Append(nil)); err != nil {
		m.log.Warn("provider not told of a link", "provider", at.key, "link", at.link, "actor", l.Actor, "err", err)
	}
}

// A provider handles puts and deletes one beside the other, and one that hears of the
// put first ignores it, and then deletes the link. So the put comes later, and once
// more after a while, which one that knows the link ignores.
var tellAgain = []time.Duration{100 * time.Millisecond, 2 * time.Second}

// tellLater puts a link that was just deleted, unless it has changed again by then.
func (m *Manager) tellLater(at id, l wire.Link) {
	for _, wait := range tellAgain {
		time.AfterFunc(wait, func() { // ends by itself, and after the connection it does nothing
			m.mu.Lock()
			defer m.mu.Unlock()
			if now, ok := m.links[at][l.Actor]; ok && sameLink(now, l) && !m.o.Conn.IsClosed() {
				m.tell(at, wire.SuffixPut, now)
			}
		})
	}
}

// sortedLinks returns the links of a provider, by actor. Call it with m.mu held.
func (m *Manager) sortedLinks(at id) []wire.Link {
	all := slices.Collect(maps.Values(m.links[at]))
	slices.SortFunc(all, func(a, b wire.Link) int { return cmp.Compare(a.Actor, b.Actor) })
	return all
}
