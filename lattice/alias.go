package lattice

import "slices"

// aliases are the actors that claim a call alias, who did first in front.
type aliases map[string][]string

// move lets actor claim an alias in place of another, "" for none.
func (a aliases) move(actor, from, to string) {
	if from == to {
		return
	}
	claim := slices.DeleteFunc(a[from], func(other string) bool { return other == actor })
	if len(claim) == 0 {
		delete(a, from)
	} else {
		a[from] = claim
	}
	if to != "" {
		a[to] = append(a[to], actor)
	}
}

// elsewhere are the actors that run on other hosts of the lattice.
type elsewhere struct {
	grants  map[string]Grant
	aliases aliases
}

// SetRemoteActor makes known an actor that runs elsewhere in the lattice, so that
// it can be called by its alias. An alias that an actor of this box claims too
// reaches that one.
func (b *Bus) SetRemoteActor(actor string, g Grant) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.elsewhere.aliases.move(actor, b.elsewhere.grants[actor].Alias, g.Alias)
	b.elsewhere.grants[actor] = g
}

// DeleteRemoteActor forgets what SetRemoteActor said.
func (b *Bus) DeleteRemoteActor(actor string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.elsewhere.aliases.move(actor, b.elsewhere.grants[actor].Alias, "")
	delete(b.elsewhere.grants, actor)
}

// Aliased returns the key of the actor that a call alias reaches, "" for none.
func (b *Bus) Aliased(alias string) string {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.aliased(alias)
}

func (b *Bus) aliased(alias string) string {
	if claim := b.claimants(alias); len(claim) > 0 {
		return claim[0]
	}
	return ""
}

// claimants returns the actors that claim an alias, whom it reaches in front. An
// actor may run both here and elsewhere.
func (b *Bus) claimants(alias string) []string {
	claim := slices.Clone(b.aliases[alias])
	for _, key := range b.elsewhere.aliases[alias] {
		if !slices.Contains(claim, key) {
			claim = append(claim, key)
		}
	}
	return claim
}

// Conflict is a call alias that several actors claim.
type Conflict struct {
	Alias  string
	Holder string   // whom it reaches: the first on this box that claimed it, then the first elsewhere
	Others []string // whom it does not
}

// Conflicts returns the call aliases that several actors claim, ordered by
// alias.
func (b *Bus) Conflicts() []Conflict {
	b.mu.RLock()
	defer b.mu.RUnlock()
	var all []Conflict
	note := func(alias string) {
		if claim := b.claimants(alias); len(claim) > 1 {
			all = append(all, Conflict{alias, claim[0], claim[1:]})
		}
	}
	for alias := range b.aliases {
		note(alias)
	}
	for alias := range b.elsewhere.aliases {
		if _, noted := b.aliases[alias]; !noted {
			note(alias)
		}
	}
	slices.SortFunc(all, func(x, y Conflict) int { return compare(x.Alias, y.Alias) })
	return all
}
