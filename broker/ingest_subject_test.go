package broker_test

import (
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/edged-io/edged/broker"
)

// A filter is no subject, though the embedded server takes it for one.
func TestServer_ingest_wildcards(t *testing.T) {
	b := startBox(t, broker.Options{Listen: anyPort}, broker.Stream{Name: "s", Subjects: []string{"s.>"}})
	nc, err := nats.Connect("nats://"+b.Addr(), nats.Timeout(patience))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	for _, subject := range []string{"s.*", "s.>", "s.a.*.b"} {
		m, err := nc.Request(subject, []byte("x"), patience)
		if err != nil {
			t.Fatal(err)
		}
		if got := string(m.Data); !strings.Contains(got, `"code":400`) || !strings.Contains(got, "wildcards") {
			t.Errorf("publish to %s: %s", subject, got)
		}
	}
	if m, err := nc.Request("s.a", nil, patience); err != nil || !strings.Contains(string(m.Data), `"seq":1`) {
		t.Errorf("publish to s.a: %v %s", err, m.Data)
	}
}
