package broker

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// DigestSubject is where a box that is connected answers what the hub should hold:
// to the name of a stream with a DeviceDigest of it, to nothing with one that
// only names the streams.
func DigestSubject(device string) string { return "edge.digest." + device }

// DeviceDigest is what a box answers.
type DeviceDigest struct {
	Device  string       `json:"device"`
	Epoch   string       `json:"epoch"`
	Streams []string     `json:"streams"` // all that are uplinked
	Lanes   []LaneDigest `json:"lanes"`   // of the stream that was asked for: of this epoch on this hub, and of former ones
}

// Results of a comparison.
const (
	ResultSame    = "same"    // the hub holds exactly what it acknowledged
	ResultDiffers = "differs" // it does not
	ResultUnknown = "unknown" // nothing can be compared
)

// LaneReport is what the comparison of a lane found.
type LaneReport struct {
	Stream   string        `json:"stream"`
	Result   string        `json:"result"`
	Read     uint64        `json:"read"`     // messages of the lane on the hub
	Proven   uint64        `json:"proven"`   // of those, how many are in ranges that are the same on both sides
	Newer    uint64        `json:"newer"`    // got after the box was asked; the next comparison has them
	Ranges   int           `json:"ranges"`   // compared
	Findings []LaneFinding `json:"findings"` // the first of them, by sequence
	Unproven []LaneSpan    `json:"unproven"` // what cannot be compared, and why
}

// LaneFinding is one fault. Kind is "missing", "added", "altered", "repeated", "order",
// "foreign", or "range" where it cannot be told which messages of a range differ.
type LaneFinding struct {
	Kind   string `json:"kind"`
	Epoch  string `json:"epoch,omitempty"`
	From   uint64 `json:"from,omitempty"` // sequences on the box
	To     uint64 `json:"to,omitempty"`
	HubSeq uint64 `json:"hub_seq,omitempty"` // the hub's, where it is known
	Box    uint64 `json:"box,omitempty"`     // messages of the range that the box knows of
	Hub    uint64 `json:"hub,omitempty"`     // and that the hub holds
}

// LaneSpan is a part of a lane.
type LaneSpan struct {
	Epoch string `json:"epoch"`
	From  uint64 `json:"from"`
	To    uint64 `json:"to"`
	Count uint64 `json:"count"` // messages that the hub holds there
	Why   string `json:"why"`
}

// VerifyOptions say what Verify compares.
type VerifyOptions struct {
	Domain string // of the hub's JetStream, "" for that of the server
	// Ask asks the box for a stream, "" for their names. Nil asks it through the hub.
	Ask    func(ctx context.Context, stream string) (DeviceDigest, error)
	Device string
	Stream string // "" for all
	// Progress, if set, is called now and then.
	Progress func(stream string, read, of uint64)

	newerWait time.Duration // of tests
}

// ErrBoxSilent: the box is not connected to the hub, or is of a version that
// knows nothing of digests.
var ErrBoxSilent = errors.New("the box does not answer; it must be connected to the hub, or be asked on its own machine")

const (
	// askBox is how long a box may take to answer.
	askBox = 10 * time.Second
	// newerWait is how long a box may take to know what the hub had got meanwhile:
	// one that has just come back has to ask the hub first.
	newerWait  = 30 * time.Second
	newerPause = 250 * time.Millisecond
)

// Verify compares what the hub holds of a box with what it acknowledged to that
// box, lane by lane. It reads each lane from its first message to its last, in constant
// memory; nc needs the right to read EDGE_UP.
func Verify(ctx context.Context, nc *nats.Conn, o VerifyOptions) ([]LaneReport, error) {
	ask := o.Ask
	if ask == nil {
		ask = func(ctx context.Context, stream string) (DeviceDigest, error) {
			return askDigest(ctx, nc, o.Device, stream)
		}
	}
	js, err := jetstream.NewWithAPIPrefix(nc, strings.TrimSuffix(apiPrefix(o.Domain), "."))
	if err != nil {
		return nil, fmt.Errorf("jetstream of the hub: %w", err)
	}
	box, err := ask(ctx, "")
	if err != nil {
		return nil, err
	}
	streams := box.Streams
	if o.Stream != "" {
		if !slices.Contains(streams, o.Stream) {
			return nil, fmt.Errorf("device %s has no uplinked stream %.128s", o.Device, o.Stream)
		}
		streams = []string{o.Stream}
	}
	var all []LaneReport
	for _, stream := range streams {
		r, err := verifyLane(ctx, js, o, ask, stream)
		if err != nil {
			return all, fmt.Errorf("lane of stream %s: %w", stream, err)
		}
		all = append(all, r)
	}
	return all, nil
}

func verifyLane(ctx context.Context, js jetstream.JetStream, o VerifyOptions, ask func(context.Context, string) (DeviceDigest, error), stream string) (r LaneReport, err error) {
	up, err := js.Stream(ctx, streamUp)
	if err != nil {
		return r, fmt.Errorf("stream %s: %w", streamUp, err)
	}
	box, err := ask(ctx, stream) // first: what it says is on the hub by then
	if err != nil {
		return r, err
	}
	v := newVerifier(stream, lanePrefix(o.Device, stream), up.CachedInfo(), box)
	if err := v.read(ctx, js, o.Progress); err != nil {
		return r, err
	}
	r = v.report()
	if r.Newer == 0 {
		return r, nil
	}
	// Who else but the box can have written what is newer? It knows by now.
	for end := time.Now().Add(cmp.Or(o.newerWait, newerWait)); time.Now().Before(end) && ctx.Err() == nil; {
		if box, err = ask(ctx, stream); err != nil {
			return r, err
		}
		for i := range box.Lanes {
			if d := &box.Lanes[i]; d.Epoch == v.current && d.Created.Equal(v.created) && d.to() >= v.newest.to {
				return r, nil
			}
		}
		sleep(ctx, newerPause, nil)
	}
	v.find(LaneFinding{Kind: "added", Epoch: v.current, From: v.newest.from, To: v.newest.to, Hub: r.Newer})
	return v.rep, ctx.Err()
}

// askDigest asks a box, through the hub.
func askDigest(ctx context.Context, nc *nats.Conn, device, stream string) (d DeviceDigest, err error) {
	wait, cancel := context.WithTimeout(ctx, askBox)
	defer cancel()
	m, err := nc.RequestWithContext(wait, DigestSubject(device), []byte(stream))
	switch {
	case ctx.Err() != nil:
		return d, ctx.Err()
	case errors.Is(err, nats.ErrNoResponders), errors.Is(err, context.DeadlineExceeded):
		return d, fmt.Errorf("device %s: %w", device, ErrBoxSilent)
	case err != nil:
		return d, fmt.Errorf("device %s: %w", device, err)
	}
	if d, err = parseDigest(m.Data); err != nil {
		return d, fmt.Errorf("device %s: answer: %w", device, err)
	}
	return d, nil
}

var errDigest = errors.New("not a digest of a lane")

// parseDigest reads the answer of a box.
func parseDigest(data []byte) (d DeviceDigest, err error) {
	var answer struct {
		DeviceDigest
		Error string `json:"error"`
	}
	if err := json.Unmarshal(data, &answer); err != nil {
		return d, err
	}
	if answer.Error != "" {
		return d, errors.New(answer.Error[:min(len(answer.Error), 500)])
	}
	d = answer.DeviceDigest
	if len(d.Lanes) > 1+maxDigests {
		return d, errDigest
	}
	for i := range d.Lanes {
		if err := d.Lanes[i].check(); err != nil {
			return d, err
		}
	}
	return d, nil
}

// check refuses what add would never make.
func (d *LaneDigest) check() error {
	if len(d.Ranges) > 2*maxRanges || d.Epoch == "" {
		return errDigest
	}
	for i, r := range d.Ranges {
		behind := i == 0 || r.From == d.Ranges[i-1].To+1
		if r.From == 0 || r.To+1 < r.From || r.To == ^uint64(0) || !behind || r.Plain >= prime61 || r.Weighed >= prime61 || r.Count > r.To-r.From+1 {
			return errDigest
		}
	}
	return nil
}
