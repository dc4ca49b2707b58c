package broker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// StatusSubject is where a box that is connected answers what its state is.
func StatusSubject(device string) string { return "edge.status." + device }

// HubLane is what the hub holds of a stream of a box.
type HubLane struct {
	Stream string
	Epoch  string // of the last message
	Last   uint64 // its sequence on the box
	Msgs   uint64 // messages of the lane, of all epochs
}

// HubLanes asks a hub for the lanes of a box, by name of the stream. nc is a
// connection to the hub, domain as in HubInitOptions.
func HubLanes(ctx context.Context, nc *nats.Conn, domain, device string) ([]HubLane, error) {
	js, err := jetstream.NewWithAPIPrefix(nc, strings.TrimSuffix(apiPrefix(domain), "."))
	if err != nil {
		return nil, fmt.Errorf("jetstream of the hub: %w", err)
	}
	stream, err := js.Stream(ctx, streamUp)
	if err != nil {
		return nil, fmt.Errorf("stream %s: %w", streamUp, err)
	}
	prefix := "edge.up." + device + "."
	info, err := stream.Info(ctx, jetstream.WithSubjectFilter(prefix+">"))
	if err != nil {
		return nil, fmt.Errorf("stream %s: %w", streamUp, err)
	}
	names := make(map[string]uint64)
	for subject, n := range info.State.Subjects {
		name, _, _ := strings.Cut(strings.TrimPrefix(subject, prefix), ".")
		names[name] += n
	}
	var lanes []HubLane
	for name, msgs := range names {
		m, err := stream.GetLastMsgForSubject(ctx, prefix+name+".>")
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("lane of stream %s: %w", name, err)
		}
		last, _ := strconv.ParseUint(m.Header.Get(headerSeq), 10, 64) // 0 for what is not a box's
		lanes = append(lanes, HubLane{Stream: name, Epoch: m.Header.Get(headerEpoch), Last: last, Msgs: msgs})
	}
	slices.SortFunc(lanes, func(a, b HubLane) int { return cmp.Compare(a.Stream, b.Stream) })
	return lanes, nil
}
