package broker

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/edged-io/edged/store"
)

// TestUplink_Alarm_goesNext has an alarm come while a narrow link is busy with a backlog:
// it goes up behind what is on its way, and not behind the backlog.
func TestUplink_Alarm_goesNext(t *testing.T) {
	for name, o := range map[string]boxOptions{"narrow link": {}, "rate": {maxRate: 64 << 10}} {
		t.Run(name, func(t *testing.T) {
			h := newTestHub(t, nil)
			h.init()
			if o.maxRate == 0 {
				h.gate.narrow(64 << 10)
			}
			o.streams = map[string]string{"telemetry": "s.>", "alarms": "a.>"}
			o.priority = map[string]int{"alarms": 9}
			b := startBox(t, h, "a", t.TempDir(), o)
			const n = 4000
			b.putMany("telemetry", "s.x", strings.Repeat("x", 200), n)
			waitFor(t, "the link to be busy", func() (bool, string) {
				s := b.lane("telemetry")
				return s.Acked > 100, fmt.Sprintf("%+v", s)
			})
			for i := range 3 {
				before := b.lane("telemetry").Acked
				b.put("alarms", "a.x", fmt.Sprintf("alarm-%d", i+1))
				waitFor(t, "the alarm to go up", func() (bool, string) {
					s := b.lane("alarms")
					return s.Acked == uint64(i+1), fmt.Sprintf("%+v", s)
				})
				// About 150 messages are a second of the link; the batch on its way may be
				// twice that, and one more may have its turn before.
				if after := b.lane("telemetry").Acked; after-before > 1000 || after >= n {
					t.Errorf("alarm %d: %d messages of the backlog went before it, of %d", i+1, after-before, n)
				}
			}
			s := b.lane("telemetry")
			if s.Lag == 0 || s.Bytes < int64(s.Lag)*200 || s.Rate == 0 || s.Hub.Last != s.Acked || s.Hub.Msgs != s.Acked || s.Hub.Time.IsZero() {
				t.Errorf("got status %+v", s)
			}
			h.gate.narrow(0)
		})
	}
}

// TestUplink_Narrow_largeMessage has a link on which one message takes longer than the
// hub may take for an answer, and so does the answer to what the lane ends with.
func TestUplink_Narrow_largeMessage(t *testing.T) {
	h := newTestHub(t, nil)
	h.init()
	h.gate.narrow(128 << 10)
	o := telemetry
	o.ping = 10 * time.Second // as it is with boxes: what is on its way holds pings up
	o.timing = pumpTiming{Request: 300 * time.Millisecond, Least: 5 * time.Millisecond, Most: 100 * time.Millisecond, Settle: 20 * time.Millisecond, Pull: time.Second}
	b := startBox(t, h, "a", t.TempDir(), o)
	b.put("telemetry", "s.x", "m-1")
	b.putMessage("telemetry", store.Message{Subject: "s.x", Data: make([]byte, 256<<10)})
	b.put("telemetry", "s.x", "m-3")
	b.drained("telemetry")
	got := h.lane("a", "telemetry")
	if len(got) != 3 || len(got[1].data) != 256<<10 || got[2].data != "m-3" {
		t.Errorf("got %d messages in the lane, want each of 3 once", len(got))
	}
	if s := b.lane("telemetry"); s.Refused != 0 {
		t.Errorf("refused: got %d, want 0", s.Refused)
	}
}

// TestUplink_Rate_settles has a backlog go up slowly: what the hub has is known to the
// store meanwhile, and not kept for it until the backlog has gone.
func TestUplink_Rate_settles(t *testing.T) {
	h := newTestHub(t, nil)
	h.init()
	o := telemetry
	o.maxRate = 8 << 10
	b := startBox(t, h, "a", t.TempDir(), o)
	const n = settleMessages / 2
	b.putMany("telemetry", "s.x", strings.Repeat("x", 200), n)
	waitFor(t, "the store to know of what the hub has", func() (bool, string) {
		pos, err := b.db.Position(uplinkSubscription("telemetry"))
		return pos.Floor > 0, fmt.Sprintf("%+v, %v", pos, err)
	})
	if s := b.lane("telemetry"); s.Acked >= n {
		t.Errorf("got %+v, want it to be under way", s)
	}
}
