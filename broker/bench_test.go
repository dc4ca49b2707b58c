package broker_test

import (
	"context"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/edged-io/edged/broker"
)

// BenchmarkPublish is the same publishing code against a box and against
// JetStream that syncs always, in turns, so that they see the same disk.
func BenchmarkPublish(b *testing.B) {
	for _, publishers := range []int{1, 16, 256} {
		b.Run(fmt.Sprint(publishers), func(b *testing.B) {
			box := startBox(b, broker.Options{Listen: anyPort, Store: openStore(b, benchDir(b))},
				broker.Stream{Name: "telemetry", Subjects: []string{"sensors.>"}, MaxBytes: 64 << 20, OnFull: 1})
			js := startJetStream(b)
			ours, theirs := box.client(b), dial(b, js.ClientURL())
			var n, m int
			var tn, tm time.Duration
			before := box.db.Stats()
			for b.Loop() {
				for range 3 {
					c, d := publishFor(b, ours, publishers, 150*time.Millisecond)
					n, tn = n+c, tn+d
					c, d = publishFor(b, theirs, publishers, 150*time.Millisecond)
					m, tm = m+c, tm+d
				}
			}
			st := box.db.Stats()
			rate, peer := float64(n)/tn.Seconds(), float64(m)/tm.Seconds()
			b.ReportMetric(rate, "msg/s")
			b.ReportMetric(peer, "js-always/s")
			b.ReportMetric(rate/peer, "ratio")
			b.ReportMetric(2*float64(st.Commits-before.Commits)/float64(n), "syncs/msg")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// benchDir is a folder on a real disk: temporary ones are often in memory.
func benchDir(b *testing.B) string {
	dir, err := os.MkdirTemp(".", "bench-")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func startJetStream(b *testing.B) *server.Server {
	ns, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true,
		JetStream: true, StoreDir: benchDir(b), SyncAlways: true,
	})
	if err != nil {
		b.Fatal(err)
	}
	ns.Start()
	b.Cleanup(func() {
		ns.Shutdown()
		ns.WaitForShutdown()
	})
	if !ns.ReadyForConnections(patience) {
		b.Fatal("JetStream not ready")
	}
	js, err := dial(b, ns.ClientURL()).JetStream()
	if err != nil {
		b.Fatal(err)
	}
	if _, err := js.AddStream(&nats.StreamConfig{Name: "telemetry", Subjects: []string{"sensors.>"}, MaxBytes: 64 << 20}); err != nil {
		b.Fatal(err)
	}
	return ns
}

func publishFor(b *testing.B, nc *nats.Conn, publishers int, d time.Duration) (n int, took time.Duration) {
	js, err := nc.JetStream()
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(b.Context(), d)
	defer cancel()
	var count atomic.Int64
	var wg sync.WaitGroup
	start := time.Now()
	body := make([]byte, 128)
	for p := range publishers {
		subject := fmt.Sprintf("sensors.%d", p)
		wg.Go(func() {
			for ctx.Err() == nil {
				if _, err := js.Publish(subject, body); err != nil {
					b.Error(err)
					return
				}
				count.Add(1)
			}
		})
	}
	wg.Wait()
	return int(count.Load()), time.Since(start)
}
