package broker_test

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/edged-io/edged/broker"
	"github.com/edged-io/edged/store"
)

// What a power cut would take is there for who watches.
func TestServer_metrics_atRisk(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	b := newBox(t, broker.Options{Registerer: reg})
	for _, c := range []store.StreamConfig{{Name: "safe"}, {Name: "loose", Durability: store.Memory}} {
		if err := b.db.EnsureStream(c); err != nil {
			t.Fatal(err)
		}
		turn := b.db.Begin()
		if _, err := turn.Publish(c.Name, store.Message{Subject: "x"}); err != nil {
			t.Fatal(err)
		}
		if err := turn.Commit(); err != nil {
			t.Fatal(err)
		}
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]float64)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				name += " " + l.GetValue()
			}
			got[name] = m.GetGauge().GetValue()
		}
	}
	for name, want := range map[string]float64{
		"edged_broker_stream_at_risk_messages safe":  0,
		"edged_broker_stream_at_risk_messages loose": 1,
		"edged_broker_disk_full":                     0,
	} {
		if v, ok := got[name]; !ok || v != want {
			t.Errorf("%s: got %v (%t), want %v", name, v, ok, want)
		}
	}
	if age := got["edged_broker_stream_at_risk_seconds loose"]; age <= 0 {
		t.Errorf("at risk for %v s", age)
	}
}
