package broker

import (
	"fmt"
	"testing"
	"time"

	"github.com/edged-io/edged/store"
)

// TestUplink_Unsynced_crash has a stream whose messages go up before they are on disk, and a
// power cut that takes them from the box: the hub has more than the box ever knows again.
// That is no loss and no other store, and no sequence is used twice.
func TestUplink_Unsynced_crash(t *testing.T) {
	for _, d := range []store.Durability{store.Batch, store.Memory} {
		t.Run(d.String(), func(t *testing.T) {
			h := newTestHub(t, nil)
			h.init()
			var log safeLog
			o := telemetry
			o.durable, o.log = d, log.logger()
			o.timing = pumpTiming{Request: 2 * time.Second, Least: 5 * time.Millisecond, Most: 100 * time.Millisecond, Settle: time.Hour, Pull: time.Second}
			b := startBox(t, h, "a", t.TempDir(), o)
			waitFor(t, "the lane to have asked", func() (bool, string) { s := b.lane("telemetry"); return s.Synced, fmt.Sprintf("%+v", s) })
			b.put("telemetry", "s.x", "first") // waits for the disk, where sequences are reserved with it
			b.putMany("telemetry", "s.x", "m", 30)
			b.drained("telemetry")
			after := copyStore(t, b.dir) // what a power cut leaves
			b.stop()
			o.timing = pumpTiming{}
			b = startBox(t, h, "a", after, o)
			b.putMany("telemetry", "s.x", "n", 20)
			b.drained("telemetry")
			waitFor(t, "nothing to be behind", func() (bool, string) { s := b.lane("telemetry"); return s.Lag == 0, fmt.Sprintf("%+v", s) })
			got := h.lane("a", "telemetry")
			if len(got) != 51 || got[50].data != "n-20" {
				t.Fatalf("got %d messages in the lane, want 51", len(got))
			}
			for i, m := range got {
				if m.epoch != got[0].epoch || i > 0 && m.seq <= got[i-1].seq {
					t.Fatalf("message %d: got sequence %d of epoch %s behind %d", i+1, m.seq, m.epoch, got[i-1].seq)
				}
			}
			for _, text := range []string{whatLost, whatDiverged, whatForeign} {
				if log.count(text) != 0 {
					t.Errorf("it is said that %s", text)
				}
			}
			b.settled(h, got[50].seq)
			r := b.verify(h)
			gone := uint64(30) // the first is on disk, where the stream has any
			if d == store.Memory {
				gone = 31
			}
			if r.Result != ResultSame || r.Proven != 51-gone || len(r.Unproven) != 1 || r.Unproven[0].Count != gone || r.Unproven[0].Why != whyNotHeld {
				t.Errorf("got %+v, want %d messages not proven", r, gone)
			}
		})
	}
}
