package broker

import (
	"fmt"
	"testing"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/edged-io/edged/store"
)

// BenchmarkUplink_Drain measures how fast what waits on disk reaches the hub
// through the leaf connection.
func BenchmarkUplink_Drain(b *testing.B) {
	for _, always := range []bool{false, true} {
		for _, size := range []int{128, 1024} {
			b.Run(fmt.Sprintf("sync_always=%t/bytes=%d", always, size), func(b *testing.B) {
				h := newTestHub(b, func(o *server.Options) { o.SyncAlways = always })
				nc := h.client()
				if _, err := InitHub(b.Context(), nc, HubInitOptions{}); err != nil {
					b.Fatal(err)
				}
				h.gate.aim("") // stays offline while the stream fills
				o := boxOptions{streams: map[string]string{"telemetry": "s.>"}}
				box := startBox(b, h, "a", b.TempDir(), o)
				body := make([]byte, size)
				for i := 0; i < b.N; {
					t := box.db.Begin()
					for j := 0; j < 1000 && i < b.N; j++ {
						i++
						if _, err := t.Publish("telemetry", store.Message{Subject: "s.x", Data: body}); err != nil {
							b.Fatal(err)
						}
					}
					if err := t.Commit(); err != nil {
						b.Fatal(err)
					}
				}
				b.SetBytes(int64(size))
				b.ResetTimer()
				h.gate.aim(h.leaf)
				box.drained("telemetry")
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msgs/s")
			})
		}
	}
}
