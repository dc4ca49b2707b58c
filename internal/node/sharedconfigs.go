package node

import (
	"context"
	"errors"
	"maps"
	"unicode/utf8"

	"github.com/edged-io/edged/lattice/metadata"
)

// shareConfigs makes the configurations that were put here and those that the lattice has the same. Each remembers in which form the lattice has it, as
// links do: so a box that was away learns what was put meanwhile, and what was put here while the hub was away is told when it is back. What is no text, or has a name that no key can be, stays on
// the box.
func (n *Node) shareConfigs(ctx context.Context) error {
	h, there := n.held(), n.configs.All()
	var errs []error
	for name, values := range h.Config {
		now, ok := textsOf(values)
		if !ok || !metadata.IsConfigName(name) {
			continue // it is on this box only
		}
		var err error
		was, told := h.Told[name]
		has, ok := there[name]
		switch {
		case told && maps.Equal(was, now): // it was not changed here
			if !ok {
				err = n.followConfig(ctx, name, was, nil)
			} else if !maps.Equal(has, was) {
				err = n.followConfig(ctx, name, was, has)
			}
		case ok && maps.Equal(has, now):
			err = n.noteTold(ctx, name, now)
		default:
			if err = n.configs.Put(name, now); err == nil {
				err = n.noteTold(ctx, name, now)
			}
		}
		errs = append(errs, err)
	}
	for name := range h.Told {
		if _, stays := h.Config[name]; !stays {
			err := n.configs.Delete(name)
			if err == nil {
				err = n.noteTold(ctx, name, nil)
			}
			errs = append(errs, err)
		}
	}
	for name, has := range there {
		_, here := h.Config[name]
		if _, told := h.Told[name]; !here && !told {
			errs = append(errs, n.followConfig(ctx, name, nil, has))
		}
	}
	return errors.Join(errs...)
}

// noteShared tells what can not be shared.
func (n *Node) noteShared(err error) {
	if err == nil {
		n.health.recover("configurations", "")
		return
	}
	n.health.degrade("configurations", "", err)
}

// textsOf is the form that the lattice has of the values of a configuration, which are text.
func textsOf(values map[string][]byte) (texts map[string]string, ok bool) {
	texts = make(map[string]string, len(values))
	for k, v := range values {
		if !utf8.ValidString(k) || !utf8.Valid(v) {
			return nil, false
		}
		texts[k] = string(v)
	}
	return texts, true
}

// noteTold notes in which form the lattice has a configuration, nil for none.
func (n *Node) noteTold(ctx context.Context, name string, values map[string]string) error {
	return n.keep(ctx, func(next *held) error {
		next.tell(name, values)
		return nil
	})
}

func (h *held) tell(name string, values map[string]string) {
	if values == nil {
		delete(h.Told, name)
		return
	}
	h.Told[name] = values
}

// followConfig changes a configuration from what it was, nil for none, to what others have made of it. Who has changed it meanwhile has his way.
func (n *Node) followConfig(ctx context.Context, name string, was, has map[string]string) error {
	return n.put(ctx, "", nil, func(next *held) error {
		now, here := next.Config[name]
		texts, ok := textsOf(now)
		if !ok || here != (was != nil) || !maps.Equal(texts, was) {
			return nil // share runs again
		}
		delete(next.Config, name)
		if has != nil {
			values := make(map[string][]byte, len(has))
			for k, v := range has {
				values[k] = []byte(v)
			}
			next.Config[name] = values
		}
		next.tell(name, has)
		return nil
	})
}
