package node

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/edged-io/edged/broker"
)

// errInUse is something that can not be removed as it is.
var errInUse = errors.New("in use")

// declared says which of the streams on disk an app that runs declares, or needs
// as an inbox or outbox, each with the name of the app.
func (s appSet) declared() map[string]string {
	streams := make(map[string]string)
	for _, a := range s {
		for _, c := range a.config.Streams {
			streams[c.Name] = a.config.Name
		}
		for _, src := range a.sources() {
			streams[src.Name] = a.config.Name
		}
		for _, o := range a.config.Outlets {
			streams[o.Stream] = a.config.Name
		}
	}
	return streams
}

// removeStream serves DELETE /streams/{name}: it ends a stream that no app
// declares any more, with what it still holds only by force.
func (n *Node) removeStream(r *http.Request) (any, error) {
	name, force := r.PathValue("name"), r.URL.Query().Get("force") == "true"
	// Once begun it is brought to an end.
	return struct{}{}, n.endStream(context.WithoutCancel(r.Context()), name, force)
}

func (n *Node) endStream(ctx context.Context, name string, force bool) error {
	n.apply.Lock()
	defer n.apply.Unlock()
	info, err := n.db.Stream(name)
	if err != nil {
		return fmt.Errorf("stream %s: %w", name, err)
	}
	if app, ok := n.apps.declared()[name]; ok {
		return fmt.Errorf("stream %s: app %s declares it, take it out of the manifest first: %w", name, app, errInUse)
	}
	if !force && info.Msgs+info.Delayed > 0 {
		return fmt.Errorf("stream %s holds %d messages, which --force removes with it: %w", name, info.Msgs+info.Delayed, errInUse)
	}
	streams, subs, err := n.wanted(n.apps)
	if err != nil {
		return err
	}
	streams = slices.DeleteFunc(streams, func(s broker.Stream) bool { return s.Name == name })
	subs = slices.DeleteFunc(subs, func(s subscription) bool { return s.Stream == name })
	if err := n.configure(ctx, streams, subs); err != nil {
		return err
	}
	if err := n.db.DeleteStream(name); err != nil {
		return err
	}
	n.log.Info("stream removed", "stream", name, "messages", info.Msgs)
	return nil
}
