package node

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/edged-io/edged/internal/config"
	"github.com/edged-io/edged/lattice"
	"github.com/edged-io/edged/providers/httpserver"
	"github.com/edged-io/edged/runtime"
)

func (n *Node) openHTTP() *httpserver.Provider {
	n.http = httpserver.New(httpserver.Options{
		Store: n.db, Call: n.callHTTP, Logger: n.part("http"), Registerer: n.registry, Changed: n.httpChanged,
		Failed: n.failures.request, ActorName: n.actorTitle, MaxBuffered: n.o.MemoryLimit / bodyShare,
	})
	return n.http
}

// callHTTP calls an actor for an HTTP request, and says of an error what its
// answer should say.
func (n *Node) callHTTP(ctx context.Context, inv lattice.Invocation) ([]byte, error) {
	reply, err := n.bus.Call(ctx, inv)
	switch {
	case err == nil:
		return reply, nil
	case errors.Is(err, runtime.ErrTimeLimit):
		return nil, fmt.Errorf("%w: %w", httpserver.ErrTimeLimit, err)
	case errors.Is(err, runtime.ErrClosed), errors.Is(err, runtime.ErrHostMemory), errors.Is(err, runtime.ErrDeadlock), errors.Is(err, errBusy):
		return nil, fmt.Errorf("%w: %w", httpserver.ErrBusy, err)
	}
	return nil, err
}

// httpLinks are the places where the actors of an app take HTTP requests.
func (a *app) httpLinks() (all []lattice.Link) {
	for _, h := range a.config.HTTP {
		all = append(all, lattice.Link{
			Actor: a.key(h.Actor), Contract: config.ContractHTTPServer, Provider: config.ProviderHTTPServer, Name: h.Link + "/" + h.Name,
			Values: map[string]string{"config_json": h.Settings.JSON(), httpserver.ValueName: h.Name, httpserver.ValueApp: a.config.Name},
		})
	}
	return all
}

// setHTTP makes the places of a set of apps those where HTTP requests are taken.
func (n *Node) setHTTP(ctx context.Context, s appSet) error {
	var links []lattice.Link
	for _, a := range s.sorted() {
		links = append(links, a.httpLinks()...)
	}
	return n.http.SetLinks(ctx, links)
}

// pauseHTTP keeps requests from the actors of apps that next changes, or leaves
// out.
func (n *Node) pauseHTTP(ctx context.Context, old, next appSet) (resume func(), err error) {
	var keys []string
	for _, s := range []appSet{old, next} {
		for name, a := range s {
			if old[name] == next[name] {
				continue
			}
			for _, actor := range a.actors {
				if !slices.Contains(keys, actor.key) {
					keys = append(keys, actor.key)
				}
			}
		}
	}
	return n.http.Pause(ctx, keys...)
}

// httpChanged tells where HTTP is served now, and where it is not.
func (n *Node) httpChanged() {
	n.health.recover("http", "")
	for _, l := range n.http.Listeners() {
		if l.Error != "" {
			n.health.degrade("http", l.Name, errors.New(l.Error))
		}
	}
	if ready, _ := n.health.problems(); !ready {
		return // Run does it
	}
	n.tellAddresses()
}
