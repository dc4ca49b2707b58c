package broker

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
)

func TestInitHub_Again_changesNothing(t *testing.T) {
	h := newTestHub(t, nil)
	nc := h.client()
	first, err := InitHub(t.Context(), nc, HubInitOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"stream EDGE_UP", "stream EDGE_DOWN", "bucket EDGE_DESIRED", "bucket EDGE_REPORTED", "object store EDGE_ARTIFACTS"}
	for i, c := range first {
		if c.Action != "created" || c.Name != want[i] {
			t.Errorf("first run: got %+v, want %s created", c, want[i])
		}
	}
	again, err := InitHub(t.Context(), nc, HubInitOptions{Domain: "hub"})
	if err != nil || len(again) != len(want) {
		t.Fatalf("second run: got %+v, %v", again, err)
	}
	for _, c := range again {
		if c.Action != "unchanged" || c.Detail != "" {
			t.Errorf("second run: got %+v, want it unchanged", c)
		}
	}
}

func TestInitHub_There_isAdjusted(t *testing.T) {
	h := newTestHub(t, nil)
	js := h.js()
	ctx := t.Context()
	_, err := js.CreateStream(ctx, jetstream.StreamConfig{
		Name: streamUp, Subjects: []string{"edge.up.>", "more.>"}, MaxBytes: 1 << 30, MaxMsgSize: 5000, Description: "ours",
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: bucketDesired, History: 3}); err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: bucketReported, History: 30}); err != nil {
		t.Fatal(err)
	}
	changes, err := InitHub(ctx, h.client(), HubInitOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want := "[{stream EDGE_UP changed allow_atomic, allow_direct} {stream EDGE_DOWN created } " +
		"{bucket EDGE_DESIRED changed history 3 → 8} {bucket EDGE_REPORTED unchanged } {object store EDGE_ARTIFACTS created }]"
	if got := fmt.Sprint(changes); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	s, err := js.Stream(ctx, streamUp)
	if err != nil {
		t.Fatal(err)
	}
	c := s.CachedInfo().Config
	if c.MaxBytes != 1<<30 || c.MaxMsgSize != 5000 || c.Description != "ours" || len(c.Subjects) != 2 {
		t.Errorf("what the owner chose: got %+v", c)
	}
}

func TestInitHub_Limits(t *testing.T) {
	h := newTestHub(t, func(o *server.Options) { o.MaxPayload = 4 << 20 })
	nc := h.client()
	if _, err := InitHub(t.Context(), nc, HubInitOptions{}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]int32{streamUp: 4 << 20, streamDown: 1 << 20} {
		s, err := h.js().Stream(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.CachedInfo().Config.MaxMsgSize; got != want {
			t.Errorf("%s: got max_msg_size %d, want %d", name, got, want)
		}
	}
}

func TestInitHub_Refused(t *testing.T) {
	for name, c := range map[string]jetstream.StreamConfig{
		"retention": {Name: streamUp, Subjects: []string{"edge.up.>"}, Retention: jetstream.WorkQueuePolicy},
		"overlap":   {Name: "OTHER", Subjects: []string{"edge.>"}},
		"sealed":    {Name: streamDown, Subjects: []string{"edge.down.>"}, Sealed: true},
	} {
		t.Run(name, func(t *testing.T) {
			h := newTestHub(t, nil)
			sealed := c.Sealed
			c.Sealed = false
			js := h.js()
			if _, err := js.CreateStream(t.Context(), c); err != nil {
				t.Fatal(err)
			}
			if c.Sealed = sealed; sealed {
				if _, err := js.UpdateStream(t.Context(), c); err != nil {
					t.Fatal(err)
				}
			}
			_, err := InitHub(t.Context(), h.client(), HubInitOptions{})
			if err == nil || !strings.Contains(err.Error(), "stream EDGE_") {
				t.Errorf("got %v, want an error that names the stream", err)
			}
		})
	}
	h := newTestHub(t, nil)
	if _, err := InitHub(t.Context(), h.client(), HubInitOptions{Replicas: 9}); err == nil {
		t.Error("nine replicas: got no error")
	}
	if changes, err := InitHub(t.Context(), h.client(), HubInitOptions{Replicas: 3}); err == nil {
		t.Errorf("three replicas on one server: got %v and no error", changes)
	}
	plain := newTestHub(t, func(o *server.Options) { o.JetStream = false })
	if _, err := InitHub(t.Context(), plain.client(), HubInitOptions{}); err == nil {
		t.Error("no JetStream: got no error")
	}
}

func TestInitHub_Version(t *testing.T) {
	for version, ok := range map[string]bool{
		"2.12.0": true, "2.12.0-RC.3": true, "v2.13.1": true, "3.0.0": true, "2.15": true,
		"2.11.9": false, "2.9.25": false, "1.4.1": false, "": false, "x.y.z": false, "2": false,
	} {
		err := checkHubVersion(version)
		if ok && err != nil || !ok && !errors.Is(err, ErrHubTooOld) {
			t.Errorf("version %q: got %v, want ok %t", version, err, ok)
		}
	}
}
