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
	"github.com/edged-io/edged/store"
)

// BenchmarkPublish is the same publishing code against a box and against
// JetStream that syncs always, in turns, so that they see the same disk.
func BenchmarkPublish(b *testing.B) {
	for _, publishers := range []int{1, 16, 256} {
		b.Run(fmt.Sprint(publishers), func(b *testing.B) {
			box := startBox(b, broker.Options{Listen: anyPort, Store: openStore(b, benchDir(b))},
				broker.Stream{Name: "telemetry", Subjects: []string{"sensors.>"}, MaxBytes: 64 << 20, OnFull: store.DropOldest})
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

// BenchmarkDeliver is the way of a message through a box: published, handled in
// a turn that publishes another one, acknowledged.
func BenchmarkDeliver(b *testing.B) {
	for _, subjects := range []int{1, 64} {
		b.Run(fmt.Sprintf("%d-subjects", subjects), func(b *testing.B) {
			var handled atomic.Int64
			box := newBox(b, broker.Options{Store: openStore(b, benchDir(b))})
			box.configure(b, []broker.Stream{telemetry, {Name: "out", Subjects: []string{"out"}, MaxMsgs: 1000, OnFull: store.DropOldest}},
				broker.Subscription{Name: "s", Stream: "telemetry", Deliver: func(ctx context.Context, m broker.Message, _ int) error {
					turn := store.TurnFrom(ctx)
					turn.AfterCommit(func() { handled.Add(1) })
					return box.Stage(turn, broker.Message{Subject: "out", Data: m.Data})
				}})
			box.run(b)
			before := box.db.Stats()
			body := make([]byte, 128)
			sent, start := 0, time.Now()
			for b.Loop() {
				box.Publish(broker.Message{Subject: fmt.Sprintf("sensors.%d", sent%subjects), Data: body}, func(_ broker.Ack, err error) {
					if err != nil {
						b.Error(err)
					}
				})
				sent++
			}
			eventually(b, "all are handled", func() bool { return handled.Load() == int64(sent) })
			b.ReportMetric(float64(sent)/time.Since(start).Seconds(), "msg/s")
			b.ReportMetric(2*float64(box.db.Stats().Commits-before.Commits)/float64(sent), "syncs/msg")
		})
	}
}
