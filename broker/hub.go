package broker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// HubInitOptions say how the hub's streams are to be.
type HubInitOptions struct {
	// Replicas of each stream in a cluster. 0 means 1 for what is created, and
	// leaves what is there.
	Replicas int
	// Domain is the JetStream domain of the hub, for a connection that does not
	// end in it. "" is that of the server connected to.
	Domain string
}

// HubChange tells what InitHub did with one thing.
type HubChange struct {
	Name string `json:"name"` // "stream EDGE_UP", "bucket EDGE_DESIRED", …
	// Action is "created", "changed" or "unchanged".
	Action string `json:"action"`
	// Detail says what changed, as "allow_atomic, replicas 1 → 3".
	Detail string `json:"detail,omitempty"`
}

// ErrHubTooOld: the server does not know what the hub needs.
var ErrHubTooOld = errors.New("the hub must be NATS 2.12 or newer")

// leastHub is the oldest NATS that takes atomic batches.
var leastHub = [2]int{2, 12}

// InitHub creates what a fleet needs on a NATS deployment with JetStream, or
// changes what is there until it serves. It deletes nothing and takes no limit
// lower, and to run it again does no harm. nc is a connection with the rights to
// do it, in the account of the fleet. After an error the changes made until
// then are returned with it.
func InitHub(ctx context.Context, nc *nats.Conn, o HubInitOptions) ([]HubChange, error) {
	if err := checkHubVersion(nc.ConnectedServerVersion()); err != nil {
		return nil, err
	}
	if o.Replicas < 0 || o.Replicas > 5 {
		return nil, fmt.Errorf("replicas %d: must be 1 to 5", o.Replicas)
	}
	js, err := jetstream.NewWithAPIPrefix(nc, strings.TrimSuffix(apiPrefix(o.Domain), "."))
	if err != nil {
		return nil, fmt.Errorf("jetstream of the hub: %w", err)
	}
	var done []HubChange
	maxPayload := int32(min(nc.MaxPayload(), 1<<30))
	for _, want := range hubStreams(o.Replicas, maxPayload) {
		change, err := ensureHubStream(ctx, js, want, o, maxPayload)
		if err != nil {
			return done, fmt.Errorf("%s: %w", hubThing(want.Name), err)
		}
		done = append(done, change)
	}
	return done, nil
}

// checkHubVersion reads "2.12.1", "2.12.0-RC.1", "v2.13".
func checkHubVersion(version string) error {
	parts := strings.SplitN(strings.TrimPrefix(version, "v"), ".", 3)
	if len(parts) < 2 {
		return fmt.Errorf("%w: it says it is version %q", ErrHubTooOld, version)
	}
	var have [2]int
	for i := range have {
		n, err := strconv.Atoi(parts[i])
		if err != nil {
			return fmt.Errorf("%w: it says it is version %q", ErrHubTooOld, version)
		}
		have[i] = n
	}
	if have[0] < leastHub[0] || have[0] == leastHub[0] && have[1] < leastHub[1] {
		return fmt.Errorf("%w: it is %s", ErrHubTooOld, version)
	}
	return nil
}

// maxDownMessage is what a message to boxes may have, header included: what they
// take unless their device file says less.
const maxDownMessage = 1 << 20

// hubStreams is all that a fleet needs. Key-value buckets and object stores are
// streams with names and settings that every NATS client knows.
func hubStreams(replicas int, maxPayload int32) []jetstream.StreamConfig {
	replicas = max(1, replicas)
	bucket := func(name string, history int64) jetstream.StreamConfig {
		return jetstream.StreamConfig{
			Name: "KV_" + name, Subjects: []string{"$KV." + name + ".>"}, Replicas: replicas,
			MaxMsgsPerSubject: history, Discard: jetstream.DiscardNew,
			DenyDelete: true, AllowRollup: true, AllowDirect: true,
		}
	}
	return []jetstream.StreamConfig{
		{
			Name: streamUp, Subjects: []string{subjectUp + ">"}, Replicas: replicas,
			Description: "what the boxes of the fleet send: edge.up.DEVICE.STREAM.SUBJECT",
			AllowDirect: true, AllowAtomicPublish: true,
			// Tells the boxes what the server takes. It closes the link for more.
			MaxMsgSize: maxPayload,
		},
		{
			Name: streamDown, Subjects: []string{subjectDown + ">"}, Replicas: replicas,
			Description: "what the boxes of the fleet get: edge.down.device.ID.…, edge.down.group.NAME.…, edge.down.all.…",
			AllowDirect: true, AllowMsgTTL: true, MaxMsgSize: min(maxPayload, maxDownMessage),
		},
		bucket(bucketDesired, 8),
		bucket(bucketReported, 1),
		{
			Name: "OBJ_" + bucketArtifacts, Replicas: replicas,
			Subjects: []string{"$O." + bucketArtifacts + ".C.>", "$O." + bucketArtifacts + ".M.>"},
			Discard:  jetstream.DiscardNew, AllowRollup: true, AllowDirect: true,
		},
	}
}

// hubThing is what an operator calls a stream.
func hubThing(stream string) string {
	if name, ok := strings.CutPrefix(stream, "KV_"); ok {
		return "bucket " + name
	}
	if name, ok := strings.CutPrefix(stream, "OBJ_"); ok {
		return "object store " + name
	}
	return "stream " + stream
}

func ensureHubStream(ctx context.Context, js jetstream.JetStream, want jetstream.StreamConfig, o HubInitOptions, maxPayload int32) (HubChange, error) {
	change := HubChange{Name: hubThing(want.Name), Action: "unchanged"}
	s, err := js.Stream(ctx, want.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		if s, err = js.CreateStream(ctx, want); err != nil {
			return change, fmt.Errorf("create: %w", err)
		}
		change.Action = "created"
		return change, checkHubStream(s.CachedInfo().Config, want)
	}
	if err != nil {
		return change, err
	}
	have := s.CachedInfo().Config
	if have.Retention != want.Retention {
		return change, fmt.Errorf("it keeps messages by %s, which cannot be changed; it must be limits", have.Retention)
	}
	if have.Mirror != nil || have.Sealed {
		return change, errors.New("it is a mirror or sealed, and takes no messages")
	}
	next, what := adjust(have, want, o.Replicas, maxPayload)
	if len(what) == 0 {
		return change, nil
	}
	if s, err = js.UpdateStream(ctx, next); err != nil {
		return change, fmt.Errorf("change %s: %w", strings.Join(what, ", "), err)
	}
	change.Action, change.Detail = "changed", strings.Join(what, ", ")
	return change, checkHubStream(s.CachedInfo().Config, want)
}

// adjust returns what is there with what is missing, and says what that is. What
// the owner of the hub has chosen beyond it stays.
func adjust(have, want jetstream.StreamConfig, replicas int, maxPayload int32) (next jetstream.StreamConfig, what []string) {
	next = have
	for _, subject := range want.Subjects {
		if !slices.Contains(have.Subjects, subject) {
			next.Subjects = append(slices.Clip(next.Subjects), subject)
			what = append(what, "subject "+subject)
		}
	}
	flags := map[string]struct{ have, want *bool }{
		"allow_atomic":      {&next.AllowAtomicPublish, &want.AllowAtomicPublish},
		"allow_direct":      {&next.AllowDirect, &want.AllowDirect},
		"allow_msg_ttl":     {&next.AllowMsgTTL, &want.AllowMsgTTL},
		"allow_rollup_hdrs": {&next.AllowRollup, &want.AllowRollup},
	}
	for _, name := range slices.Sorted(maps.Keys(flags)) {
		if f := flags[name]; *f.want && !*f.have {
			*f.have = true
			what = append(what, name)
		}
	}
	if want.MaxMsgSize > 0 && (have.MaxMsgSize <= 0 || have.MaxMsgSize > maxPayload) {
		// More than the server takes is no limit, so nothing gets smaller.
		next.MaxMsgSize = want.MaxMsgSize
		what = append(what, fmt.Sprintf("max_msg_size %d", want.MaxMsgSize))
	}
	if n := have.MaxMsgsPerSubject; want.MaxMsgsPerSubject > 0 && n > 0 && n < want.MaxMsgsPerSubject {
		next.MaxMsgsPerSubject = want.MaxMsgsPerSubject
		what = append(what, fmt.Sprintf("history %d → %d", n, want.MaxMsgsPerSubject))
	}
	if replicas > have.Replicas {
		next.Replicas = replicas
		what = append(what, fmt.Sprintf("replicas %d → %d", have.Replicas, replicas))
	}
	return next, what
}

// checkHubStream finds out whether the hub really does what it was asked: an
// old member of a cluster passes over what it does not know.
func checkHubStream(have, want jetstream.StreamConfig) error {
	if want.AllowAtomicPublish && !have.AllowAtomicPublish {
		return fmt.Errorf("%w: it does not take atomic batches", ErrHubTooOld)
	}
	if want.AllowDirect && !have.AllowDirect {
		return errors.New("it does not answer direct gets")
	}
	return nil
}
