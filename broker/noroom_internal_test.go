package broker

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edged-io/edged/store"
)

func TestNoRoom_saysBeginAndEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		r := noRoom{log: slog.New(slog.NewTextHandler(&out, nil)), stream: "s"}
		lines := func() int { return strings.Count(out.String(), "\n") }
		full := fmt.Errorf("no space: %w", store.ErrFull)
		r.note(nil)
		r.note(store.ErrTooLarge)
		if lines() != 0 {
			t.Fatalf("said without a reason: %s", &out)
		}
		for range 3 {
			r.note(full)
		}
		if lines() != 1 || !strings.Contains(out.String(), "stream=s") {
			t.Fatalf("got %s, want one line", &out)
		}
		r.note(store.ErrTooLarge)
		r.note(nil)
		r.note(nil)
		if lines() != 2 || !strings.Contains(out.String(), "refused=3") {
			t.Fatalf("got %s, want one more line, with the count", &out)
		}
		for range 10 { // by turns, at the limit
			r.note(full)
			r.note(nil)
		}
		if lines() != 2 {
			t.Fatalf("each turn is said: %s", &out)
		}
		time.Sleep(noRoomPause)
		r.note(full)
		if lines() != 3 {
			t.Fatalf("not said again: %s", &out)
		}
	})
}
