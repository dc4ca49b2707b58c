package broker

import (
	"fmt"
	"testing"
)

// checkLane fails unless the lane holds prefix-1 … prefix-n, once and in order.
func checkLane(t *testing.T, got []laneMessage, prefix string, n int) {
	t.Helper()
	if len(got) != n {
		t.Errorf("got %d messages in the lane, want %d", len(got), n)
	}
	for i, m := range got {
		if want := fmt.Sprintf("%s-%d", prefix, i+1); m.data != want || m.seq != uint64(i+1) {
			t.Fatalf("message %d of the lane: got sequence %d with %q, want %d with %q", i, m.seq, m.data, i+1, want)
		}
	}
}

func TestUplink_Drain_keepsOrder(t *testing.T) {
	h := newTestHub(t, nil)
	h.init()
	b := startBox(t, h, "a", t.TempDir(), boxOptions{streams: map[string]string{"telemetry": "s.>"}})
	b.putMany("telemetry", "s.x", "m", 5000)
	b.drained("telemetry")
	checkLane(t, h.lane("a", "telemetry"), "m", 5000)
	waitFor(t, "the store to let go", func() (bool, string) {
		info, err := b.db.Stream("telemetry")
		return err == nil && info.Msgs == 0, fmt.Sprintf("%+v %v", info, err)
	})
}
