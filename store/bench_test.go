package store_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/edged-io/edged/store"
)

// BenchmarkDB_Publish is a durable publish of 128 bytes, by so many publishers
// that each wait for their own.
func BenchmarkDB_Publish(b *testing.B) {
	for _, publishers := range []int{1, 16, 256} {
		b.Run(fmt.Sprintf("publishers=%d", publishers), func(b *testing.B) {
			db, err := store.Open(store.Options{Dir: b.TempDir()})
			if err != nil {
				b.Fatal(err)
			}
			defer db.Close()
			if err := db.EnsureStream(store.StreamConfig{Name: "a"}); err != nil {
				b.Fatal(err)
			}
			if err := db.EnsureSubscription(store.SubscriptionConfig{Name: "s", Stream: "a"}); err != nil {
				b.Fatal(err)
			}
			data := make([]byte, 128)
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			before := db.Stats()
			b.ResetTimer()
			work := make(chan struct{}, b.N)
			for range b.N {
				work <- struct{}{}
			}
			close(work)
			var wg sync.WaitGroup
			for range publishers {
				wg.Go(func() {
					var last *store.Receipt
					for range work {
						t := db.Begin()
						if last != nil {
							t.Ack("s", last.Seq)
						}
						r, err := t.Publish("a", store.Message{Subject: "s", Data: data})
						if err == nil {
							err = t.Commit()
						}
						if err != nil {
							b.Error(err)
							return
						}
						last = r
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(db.Stats().Commits-before.Commits)*2/float64(b.N), "syncs/op")
		})
	}
}
