package e2e

import (
	"errors"
	"fmt"
	"testing"

	"github.com/nats-io/nats.go"
)

// Two boxes with the same stream on one account of the hub. What a client of the
// one publishes is answered once, by that box, and kept by that box.
func TestTwoBoxes_sameStream(t *testing.T) {
	h := newHub(t)
	var boxes []*box
	for _, device := range []string{"press-7", "press-8"} {
		b := newBox(t, device, newProxy(t, h.leafAddr()).addr()).warm()
		a := app{version: "1"}
		if device == "press-8" {
			a.more = "[[stream]]\nname = \"only\"\nsubjects = [\"only.>\"]\n"
		}
		b.install(a)
		b.up()
		boxes = append(boxes, b)
	}
	for _, b := range boxes {
		b.linkIs("up")
	}
	overheard, err := boxes[1].nats().SubscribeSync("sensors.*.temperature")
	if err != nil {
		t.Fatal(err)
	}
	const n = 300
	var answers []*nats.Subscription
	for _, b := range boxes {
		answers = append(answers, publishAlone(b, n))
	}
	if _, err := boxes[0].nats().Request("only.press-8", nil, patience); !errors.Is(err, nats.ErrNoResponders) {
		t.Errorf("a stream of the other box answers: %v", err)
	}
	for _, b := range boxes {
		b.drained(uplinked...)
		if last := b.status().stream("telemetry").Last; last != n {
			t.Errorf("%s stored %d messages, want %d", b.device, last, n)
		}
		lane := h.lane(b.device, "telemetry")
		if len(lane) != n {
			t.Errorf("the hub holds %d messages of %s, want %d", len(lane), b.device, n)
		}
		for i, m := range lane {
			if want := fmt.Sprintf("%s %d", b.device, i+1); m.body != want || m.seq != uint64(i+1) {
				t.Fatalf("message %d of %s on the hub: seq %d, %q, want %q", i+1, b.device, m.seq, m.body, want)
			}
		}
	}
	// Whatever crossed over has come by now: it had the way to the hub and back.
	for i, sub := range answers {
		if more, _, err := sub.Pending(); err != nil || more > 0 {
			t.Errorf("%s: %d answers too many, %v", boxes[i].device, more, err)
		}
	}
	if heard, _, err := overheard.Pending(); err != nil || heard != n {
		t.Errorf("a client of press-8 heard %d messages, want the %d of press-8; %v", heard, n, err)
	}
	for _, b := range boxes {
		b.kill()
	}
}

// publishAlone publishes n messages and looks at the answers to them; where more
// would come is returned.
func publishAlone(b *box, n int) *nats.Subscription {
	b.t.Helper()
	nc := b.nats()
	answers, err := nc.SubscribeSync(nats.NewInbox())
	if err != nil {
		b.t.Fatal(err)
	}
	for i := range n {
		if err := nc.PublishRequest("sensors.x.temperature", answers.Subject, fmt.Appendf(nil, "%s %d", b.device, i+1)); err != nil {
			b.t.Fatal(err)
		}
	}
	for i := range n {
		m, err := answers.NextMsg(patience)
		if err != nil {
			b.t.Fatalf("answer %d: %v", i+1, err)
		}
		if want := fmt.Sprintf(`{"stream":"telemetry","seq":%d}`, i+1); string(m.Data) != want {
			b.t.Errorf("%s: answer %d is %s, want %s", b.device, i+1, m.Data, want)
		}
	}
	return answers
}
