package ota

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Names of what a hub keeps for its boxes.
const (
	DesiredBucket   = "EDGE_DESIRED"   // key-value; key is the device id
	ReportedBucket  = "EDGE_REPORTED"  // key-value; key is the device id
	ArtifactsBucket = "EDGE_ARTIFACTS" // object store; name is the digest, "sha256:…"
)

// Bounds of one exchange with the hub. A chunk of an artifact may come over a slow
// mobile link; a small request that takes longer was lost with the link.
const (
	requestTimeout = 10 * time.Second
	chunkTimeout   = 45 * time.Second
	unwatchTimeout = 500 * time.Millisecond
)

// EnsureHub creates the two buckets and the object store on a hub where they are
// missing, and leaves those alone that are there. Replicas is for new ones.
func EnsureHub(ctx context.Context, nc *nats.Conn, domain string, replicas int) error {
	js, err := newJetStream(nc, domain)
	if err != nil {
		return err
	}
	for name, description := range map[string]string{
		DesiredBucket: "what each box should run", ReportedBucket: "what each box reports",
	} {
		_, err := js.KeyValue(ctx, name)
		if errors.Is(err, jetstream.ErrBucketNotFound) {
			_, err = js.CreateKeyValue(ctx, jetstream.KeyValueConfig{
				Bucket: name, Description: description, Replicas: replicas, MaxValueSize: maxDesired,
			})
		}
		if err != nil {
			return fmt.Errorf("hub bucket %s: %w", name, err)
		}
	}
	_, err = js.ObjectStore(ctx, ArtifactsBucket)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		_, err = js.CreateObjectStore(ctx, jetstream.ObjectStoreConfig{
			Bucket: ArtifactsBucket, Description: "files of apps", Replicas: replicas,
		})
	}
	if err != nil {
		return fmt.Errorf("object store %s: %w", ArtifactsBucket, err)
	}
	return nil
}

// Permissions are the subjects that a box needs for its updates on a hub with the given
// JetStream domain, and no others: what its leaf connection may publish there, and what
// it may subscribe to. They let it read its own desired state and every artifact, and
// write its own report.
func Permissions(domain, device string) (publish, subscribe []string) {
	api := "$JS." + domain + ".API."
	if domain == "" {
		api = "$JS.API."
	}
	report := "$KV." + ReportedBucket + "." + device
	publish = []string{
		api + "STREAM.INFO.KV_" + DesiredBucket,
		api + "STREAM.INFO.KV_" + ReportedBucket,
		api + "STREAM.INFO.OBJ_" + ArtifactsBucket,
		api + "DIRECT.GET.KV_" + DesiredBucket + ".$KV." + DesiredBucket + "." + device,
		api + "DIRECT.GET.KV_" + ReportedBucket + "." + report,
		api + "DIRECT.GET.OBJ_" + ArtifactsBucket,
		api + "DIRECT.GET.OBJ_" + ArtifactsBucket + ".$O." + ArtifactsBucket + ".M.*",
		api + "CONSUMER.CREATE.KV_" + DesiredBucket + ".*.$KV." + DesiredBucket + "." + device,
		api + "CONSUMER.DELETE.KV_" + DesiredBucket + ".*",
		"$JS.FC.KV_" + DesiredBucket + ".>",
	}
	if domain == "" {
		return append(publish, report), []string{"_INBOX.>"}
	}
	return append(publish, api+report), []string{"_INBOX.>"}
}

// StatusOf reads from the hub what is desired of a device and what it reported last.
// If what is desired does not read, the error wraps ErrDesired and the report is there
// all the same.
func StatusOf(ctx context.Context, nc *nats.Conn, domain, device string) (Status, error) {
	var s Status
	js, err := newJetStream(nc, domain)
	if err != nil {
		return s, err
	}
	h := hub{js: js, device: device}
	s.Desired, err = h.desired(ctx)
	if err != nil && !errors.Is(err, ErrDesired) {
		return Status{}, err
	}
	r, reportErr := h.reported(ctx)
	s.Reported = r
	return s, errors.Join(err, reportErr)
}

func newJetStream(nc *nats.Conn, domain string) (jetstream.JetStream, error) {
	if domain == "" {
		return jetstream.New(nc)
	}
	return jetstream.NewWithDomain(nc, domain)
}

// hub is a device's view of the hub. It holds no handles, since the hub may be
// another one at the next call; its methods may be called concurrently.
type hub struct {
	js     jetstream.JetStream
	device string
}

// value reads the device's key, nil if there is no such key.
func (h hub) value(ctx context.Context, bucket string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	kv, err := h.js.KeyValue(ctx, bucket)
	if err != nil {
		return nil, fmt.Errorf("hub bucket %s: %w", bucket, err)
	}
	entry, err := kv.Get(ctx, h.device)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("hub bucket %s: key %s: %w", bucket, h.device, err)
	}
	return entry.Value(), nil
}

// desired is nil if nothing is desired.
func (h hub) desired(ctx context.Context) (*Desired, error) {
	b, err := h.value(ctx, DesiredBucket)
	if err != nil || b == nil {
		return nil, err
	}
	d, err := ParseDesired(b)
	if err != nil {
		return nil, err
	}
	return &d, nil
}

// reported is nil if nothing was reported yet.
func (h hub) reported(ctx context.Context) (*Reported, error) {
	b, err := h.value(ctx, ReportedBucket)
	if err != nil || b == nil {
		return nil, err
	}
	if len(b) > maxDesired {
		return nil, fmt.Errorf("reported state of %s: %d bytes, limit %d", h.device, len(b), maxDesired)
	}
	var r Reported
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, fmt.Errorf("reported state of %s: %w", h.device, err)
	}
	return &r, nil
}

func (h hub) put(ctx context.Context, bucket string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("hub bucket %s: %w", bucket, err)
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	kv, err := h.js.KeyValue(ctx, bucket)
	if err != nil {
		return fmt.Errorf("hub bucket %s: %w", bucket, err)
	}
	if _, err := kv.Put(ctx, h.device, b); err != nil {
		return fmt.Errorf("hub bucket %s: put key %s: %w", bucket, h.device, err)
	}
	return nil
}

// watch calls fn in a goroutine of the connection's for each change of the device's
// key, until stop is called. A change may go unnoticed when the link comes and goes,
// so a watch is only a hint to read the key.
func (h hub) watch(ctx context.Context, bucket string, fn func()) (stop func(), err error) {
	bind, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	kv, err := h.js.KeyValue(bind, bucket)
	if err != nil {
		return nil, fmt.Errorf("hub bucket %s: %w", bucket, err)
	}
	ctx, cancelWatch := context.WithCancel(ctx)
	w, err := kv.Watch(ctx, h.device, jetstream.UpdatesOnly(), jetstream.MetaOnly())
	if err != nil {
		cancelWatch()
		return nil, fmt.Errorf("hub bucket %s: watch %s: %w", bucket, h.device, err)
	}
	done := make(chan struct{})
	go func() { // ends with stop, which waits for it
		defer close(done)
		for {
			select {
			case <-ctx.Done():
				return
			case _, ok := <-w.Updates():
				if !ok {
					return
				}
				fn()
			}
		}
	}()
	return func() {
		stopped := make(chan struct{})
		go func() { // ends with the hub's answer, the client's patience of 5 s, or the connection
			defer close(stopped)
			_ = w.Stop() // the consumer is one without a reader; the hub forgets it by itself
		}()
		select {
		case <-stopped:
		case <-time.After(unwatchTimeout): // a hub that is away must not hold up the end of the box
		}
		cancelWatch()
		<-done
	}, nil
}
