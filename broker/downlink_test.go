package broker

import (
	"fmt"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/edged-io/edged/store"
)

// received returns what a stream of the box holds, as "subject=body".
func (b *testBox) received(stream string) []string {
	b.t.Helper()
	var all []string
	err := b.db.Read(stream, 1, 1<<20, 1<<30, func(m store.Message) error {
		all = append(all, m.Subject+"="+string(m.Data))
		return nil
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return all
}

func (b *testBox) waitReceived(stream string, want ...string) {
	b.t.Helper()
	waitFor(b.t, fmt.Sprintf("%q", want), func() (bool, string) {
		got := b.received(stream)
		return fmt.Sprint(got) == fmt.Sprint(want), fmt.Sprintf("%q", got)
	})
}

func publishDown(t *testing.T, js jetstream.JetStream, subject string, bodies ...string) {
	t.Helper()
	for _, body := range bodies {
		if _, err := js.Publish(t.Context(), subject, []byte(body)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDownlink_Take_addresses(t *testing.T) {
	h := newTestHub(t, nil)
	h.init()
	js := h.js()
	publishDown(t, js, "edge.down.device.a.cmd", "1") // before the box was ever there
	b := startBox(t, h, "a", t.TempDir(), boxOptions{groups: []string{"red"}, local: map[string]string{"cmd": "cmd", "full": "edge.down.all.>"}})
	b.waitReceived("cmd", "cmd=1")
	publishDown(t, js, "edge.down.group.red.cmd", "2")
	b.waitReceived("cmd", "cmd=1", "cmd=2")
	publishDown(t, js, "edge.down.group.blue.cmd", "not ours")
	publishDown(t, js, "edge.down.device.b.cmd", "not ours")
	publishDown(t, js, "edge.down.all.cmd", "3")
	b.waitReceived("full", "edge.down.all.cmd=3")
	publishDown(t, js, "edge.down.device.a.nobody", "4")
	publishDown(t, js, "edge.down.device.a.cmd", "5")
	b.waitReceived("cmd", "cmd=1", "cmd=2", "cmd=5")
	var dead []string
	err := b.db.DeadLetters(func(d store.DeadLetter) error {
		dead = append(dead, fmt.Sprintf("%s %s %s %q %s", d.Stream, d.Subject, d.Reason, d.Error, d.Data))
		return nil
	})
	want := `[EDGE_DOWN edge.down.device.a.nobody rejected "no stream takes subject nobody" 4]`
	if got := fmt.Sprint(dead); err != nil || got != want {
		t.Errorf("dead letters: got %s, %v, want %s", got, err, want)
	}
}
