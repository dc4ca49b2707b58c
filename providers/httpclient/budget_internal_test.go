package httpclient

import (
	"context"
	"errors"
	"sync"
	"testing"
)

func TestBudget(t *testing.T) {
	b := newBudget()
	all, err := b.take(t.Context(), 1<<40) // more than there is
	if err != nil || len(b.places) != maxUnderWay {
		t.Fatalf("took %d places, %v", len(b.places), err)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if _, err := b.take(ended, 1); !errors.Is(err, context.Canceled) || len(b.places) != maxUnderWay || len(b.taking) != 0 {
		t.Errorf("without room: got %v, %d places", err, len(b.places))
	}
	all()
	all() // once is enough
	if len(b.places) != 0 {
		t.Errorf("%d places are not given back", len(b.places))
	}
	// Whoever asks for how much, nobody waits for ever.
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			release, err := b.take(t.Context(), int64(i)*unit)
			if err != nil {
				t.Error(err)
				return
			}
			release()
		})
	}
	wg.Wait()
	if len(b.places) != 0 {
		t.Errorf("%d places are not given back", len(b.places))
	}
}
