package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/edged-io/edged/broker"
	"github.com/edged-io/edged/internal/ota"
)

// ErrNoHub: the server has not what a hub has.
var ErrNoHub = errors.New("not a hub: run edged hub init")

// askPatience is how long a box that is connected may take to answer.
const askPatience = 2 * time.Second

// serveRemote answers questions that come through the hub.
func (n *Node) serveRemote(ctx context.Context) error {
	sub, err := n.link.Subscribe(broker.StatusSubject(n.o.Device.Device.ID), func(m *nats.Msg) {
		b, err := json.Marshal(n.Status())
		if err == nil {
			err = m.Respond(b)
		}
		if err != nil {
			n.log.Debug("status not answered", "err", err)
		}
	})
	if err != nil {
		return err
	}
	digests, err := n.link.Subscribe(broker.DigestSubject(n.o.Device.Device.ID), func(m *nats.Msg) {
		var answer any
		answer, err := n.broker.Digest(string(m.Data))
		if err != nil {
			answer = Problem{Error: err.Error()}
		}
		b, err := json.Marshal(answer)
		if err == nil {
			err = m.Respond(b)
		}
		if err != nil {
			n.log.Debug("digest not answered", "err", err)
		}
	})
	if err != nil {
		return err
	}
	<-ctx.Done()
	_ = sub.Unsubscribe() // the connection may be gone
	_ = digests.Unsubscribe()
	return nil
}

// RemoteStatus returns the state of a box through the hub: its own answer if it
// is connected, else what the hub knows.
func RemoteStatus(ctx context.Context, nc *nats.Conn, domain, device string) (Status, error) {
	ask, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	var s Status
	if m, err := nc.RequestWithContext(ask, broker.StatusSubject(device), nil); err == nil {
		if err := json.Unmarshal(m.Data, &s); err != nil {
			return s, fmt.Errorf("device %s: answer: %w", device, err)
		}
		return s, nil
	}
	if err := ctx.Err(); err != nil {
		return s, err
	}
	s = Status{Device: device, Link: "down", Apps: []AppStatus{}, Turns: []TurnStatus{}, Problems: []string{}}
	known, err := ota.StatusOf(ctx, nc, domain, device)
	if err != nil {
		return s, fmt.Errorf("%w: %w", ErrNoHub, err)
	}
	s.Desired, s.Reported = desiredOf(known.Desired), known.Reported
	lanes, err := broker.HubLanes(ctx, nc, domain, device)
	if err != nil {
		return s, err
	}
	s.Streams = []StreamStatus{}
	for _, l := range lanes {
		s.Epoch = l.Epoch
		s.Streams = append(s.Streams, StreamStatus{
			Name: l.Stream, Last: l.Last, Acked: l.Last,
			Hub: &broker.HubHolds{Last: l.Last, Msgs: l.Msgs, Time: time.Now().UTC()},
		})
	}
	return s, nil
}

// DesiredStatus is what a hub wants a box to run.
type DesiredStatus struct {
	App     string `json:"app"`
	Version string `json:"version"`
	Digest  string `json:"digest"` // of the manifest
}

func desiredOf(d *ota.Desired) *DesiredStatus {
	if d == nil {
		return nil
	}
	return &DesiredStatus{App: d.App, Version: d.Version, Digest: d.Manifest}
}
