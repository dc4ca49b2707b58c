package broker

import (
	"log/slog"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

func TestHubServer_startsAgainWithWhatItHeld(t *testing.T) {
	h := NewHubServer(t.TempDir(), slog.New(slog.DiscardHandler))
	defer h.Stop()
	var before [2]string
	for life, want := range []string{"created", "unchanged"} {
		if err := h.Start(); err != nil {
			t.Fatal(err)
		}
		if err := h.Start(); err == nil {
			t.Error("a hub that runs was started")
		}
		nc, err := nats.Connect(h.ClientURL(), nats.Timeout(time.Minute))
		if err != nil {
			t.Fatal(err)
		}
		changes, err := InitHub(t.Context(), nc, HubInitOptions{Domain: "hub"})
		nc.Close()
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range changes {
			if c.Action != want {
				t.Errorf("life %d: %s %s, want %s", life, c.Name, c.Action, want)
			}
		}
		at := [2]string{h.ClientURL(), h.LeafAddr()}
		if life > 0 && at != before {
			t.Errorf("it was at %v and is at %v", before, at)
		}
		before = at
		h.Stop()
		h.Stop()
	}
}
