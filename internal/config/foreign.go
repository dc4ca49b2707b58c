package config

import (
	"strings"

	"github.com/edged-io/edged/internal/claims"
)

// Bounds of the values of a link to a provider that is not built in.
const (
	maxLinkValues     = 64
	maxLinkValueBytes = 64 << 10 // of all keys and values together
)

// IsBuiltin says whether a provider is one of the box's own, by the name of a capability.
func IsBuiltin(provider string) bool {
	_, ok := builtins[provider]
	return ok
}

// IsProviderKey says whether s is the key of a provider that is not built in.
func IsProviderKey(s string) bool {
	k, err := claims.Parse(s)
	return err == nil && k.Kind() == claims.Service
}

// foreign adds a link to a provider that somebody else runs, in a process of its own, here or elsewhere. Contract and values are between actor and
// provider: any contract may be served so, those of the built-in providers included.
func (b *builder) foreign(path string, g grant, l linkTable) {
	if !b.checkOwnLink(path, l) && !IsProviderKey(l.Provider) {
		b.fault(child(path, "provider"), "unknown provider %q, want %s; a [[provider]] of the app; or the key of another one, V and 55 more characters", clip(l.Provider), builtinNames)
		return
	}
	if !contractForm(l.Contract) {
		b.fault(child(path, "contract"), "must have 1 to 256 letters, digits, and _ - . : / only, got %q", clip(l.Contract))
	}
	if first, again := b.links[linkKey{g.actor, l.Contract, g.link}]; again {
		b.fault(path, "actor %q has a link %q for %s already, to %s: leave one of them out", g.actor, g.link, clip(l.Contract), b.app.Links[first].Provider)
		return
	}
	for _, other := range b.app.Links {
		if other.Actor == g.actor && other.Provider == l.Provider && other.Name == g.link {
			b.fault(path, "actor %q has a link %q to this provider already, for %s, and a provider takes one under a name", g.actor, g.link, other.Contract)
			return
		}
	}
	link := Link{Actor: g.actor, Contract: l.Contract, Provider: l.Provider, Name: g.link, Values: map[string]string{}}
	size := 0
	for key, v := range l.Values.values {
		text, _ := v.(string) // else it has a fault already
		link.Values[key] = text
		size += len(key) + len(text)
	}
	if len(link.Values) > maxLinkValues || size > maxLinkValueBytes {
		b.fault(child(path, "values"), "%d values of %d bytes, at most %d of %d", len(link.Values), size, maxLinkValues, maxLinkValueBytes)
	}
	b.links[linkKey{g.actor, l.Contract, g.link}] = len(b.app.Links)
	b.app.Links = append(b.app.Links, link)
}

// contractForm says whether s may be a contract id: every provider has its own, and it is a part of what tokens are made of.
func contractForm(s string) bool {
	return s != "" && len(s) <= 256 && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("_-.:/", r)
	})
}
