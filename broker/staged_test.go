package broker_test

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/edged-io/edged/broker"
	"github.com/edged-io/edged/store"
)

// A turn that is full holds about as much memory as it may: what a message takes
// beside its bytes counts, too.
func TestPort_Stage_countsWhatItTakes(t *testing.T) {
	const most = 16 << 20
	db, err := store.Open(store.Options{Dir: t.TempDir(), MaxStaged: most})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	box := startBox(t, broker.Options{Listen: anyPort, Store: db}, broker.Stream{Name: "kept", Subjects: []string{"kept.>"}})
	port := box.NewPort()
	for _, subject := range []string{"kept.a", "lost.a"} {
		for _, size := range []int{0, 100, 1000, 10_000} {
			t.Run(fmt.Sprint(subject, " ", size), func(t *testing.T) {
				turn := db.Begin()
				defer turn.Discard()
				turn.Bound()
				before, n := heap(), 0
				for ; err == nil; n++ {
					m := broker.Message{Subject: strings.Clone(subject), ID: fmt.Sprint("n:", n), Data: make([]byte, size)}
					m.Header = []byte(fmt.Sprintf("NATS/1.0\r\nNats-Msg-Id: %d\r\n\r\n", n))
					err = port.Stage(turn, m)
				}
				took := heap() - before
				if !errors.Is(err, store.ErrTooLarge) {
					t.Fatalf("%d messages, then %v; want ErrTooLarge", n, err)
				}
				if err = nil; took > most*5/4 || took < most/3 {
					t.Errorf("%d messages take %d bytes, and count as %d", n, took, most)
				}
			})
		}
	}
}

// heap is how many bytes are in use, with nothing that could be freed.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
