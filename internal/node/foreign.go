package node

import (
	"github.com/edged-io/edged/internal/config"
	"github.com/edged-io/edged/lattice"
)

// isForeign says whether a link leads to a provider that is not built in: one with a
// key, in a process of its own, on this box or elsewhere in the lattice.
func isForeign(l lattice.Link) bool { return config.IsProviderKey(l.Provider) }

// foreignLinks are those of apps that lead to providers which are not built in, by linkID.
func foreignLinks(s appSet) map[string]lattice.Link {
	all := make(map[string]lattice.Link)
	for _, a := range s {
		bus, _ := a.links()
		for _, l := range bus {
			if isForeign(l) {
				all[linkID(l)] = l
			}
		}
	}
	return all
}

// linkForeign tells providers that are not built in which links have gone, and which
// there are.
func (n *Node) linkForeign(old, next map[string]lattice.Link) error {
	for id, l := range old {
		if _, stays := next[id]; stays {
			continue
		}
		if err := n.processes.DeleteLink(l); err != nil {
			return err
		}
	}
	for _, l := range next {
		if err := n.processes.PutLink(l); err != nil {
			return err
		}
	}
	return nil
}
