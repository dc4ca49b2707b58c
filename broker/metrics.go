package broker

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/edged-io/edged/store"
)

// Stats of the server and its subscriptions.
type Stats struct {
	Link          bool
	Downs         uint64 // times the link went down
	Subscriptions []SubscriptionStats
}

// SubscriptionStats counts since the subscription was configured.
type SubscriptionStats struct {
	Name, Stream string
	Pending      uint64 // messages not read yet, and those read and not done with
	InFlight     int    // in handlers
	Delivered    uint64 // acknowledged
	Redelivered  uint64 // attempts beyond the first
	Failed       uint64 // attempts that failed and will be repeated
	DeadLetters  uint64
	Expired      uint64 // of these, because their time to live was over
	Replays      int    // dead letters that wait to be handled once more
	Replayed     uint64 // dead letters that were handled after all
	StrayAcks    uint64 // from NATS clients, for nothing they were given
	Paused       bool
}

// Stats returns counters; they are not of one moment.
func (s *Server) Stats() Stats {
	st := Stats{}
	s.link.mu.Lock()
	st.Link, st.Downs = s.link.id != 0, s.link.downs
	s.link.mu.Unlock()
	for _, d := range s.work.all() {
		st.Subscriptions = append(st.Subscriptions, d.stats())
	}
	return st
}

func (d *delivery) stats() SubscriptionStats {
	st := SubscriptionStats{
		Name: d.sub.Name, Stream: d.sub.Stream,
		Pending:  d.seen.window.Load(),
		InFlight: int(d.seen.inFlight.Load()), Delivered: d.seen.delivered.Load(),
		Redelivered: d.seen.redelivered.Load(), Failed: d.seen.bad.Load(), DeadLetters: d.seen.dead.Load(),
		Expired: d.seen.expired.Load(), Replays: int(d.seen.letters.Load()), Replayed: d.seen.replayed.Load(),
		StrayAcks: d.seen.strayAcks.Load(), Paused: d.gate.isPaused(),
	}
	next := d.seen.next.Load()
	if next == 0 { // not started
		if pos, err := d.s.o.Store.Position(d.sub.Name); err == nil {
			next = pos.Floor + 1
		}
	}
	if info, err := d.s.o.Store.Stream(d.sub.Stream); err == nil {
		next = max(next, info.First)
		if info.Last >= next {
			st.Pending += min(info.Last-next+1, uint64(info.Msgs)) // there may be gaps
		}
	}
	return st
}

// metrics of the broker. Streams and subscriptions come from the manifest, so
// their names are a short list.
type metrics struct {
	s        *Server
	stored   prometheus.Counter
	repeats  prometheus.Counter
	refused  *prometheus.CounterVec
	describe map[string]*prometheus.Desc
}

func newMetrics(s *Server, r prometheus.Registerer) (*metrics, error) {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("edged_broker_"+name, help, labels, nil)
	}
	m := &metrics{
		s: s,
		stored: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "edged_broker_stored_total", Help: "Messages from outside that were stored.",
		}),
		repeats: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "edged_broker_repeats_total", Help: "Messages from outside that were recognised as repeats.",
		}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "edged_broker_refused_total", Help: "Messages from outside that were not stored.",
		}, []string{"reason"}),
		describe: map[string]*prometheus.Desc{
			"messages":  desc("stream_messages", "Messages a stream holds.", "stream"),
			"bytes":     desc("stream_bytes", "Bytes a stream holds.", "stream"),
			"age":       desc("stream_oldest_age_seconds", "Age of the oldest message a stream holds.", "stream"),
			"risk":      desc("stream_at_risk_messages", "Messages that were acknowledged and that a power cut right now would take.", "stream"),
			"riskage":   desc("stream_at_risk_seconds", "How long the oldest of them has been at risk.", "stream"),
			"full":      desc("disk_full", "1 while the disk has no room for the store."),
			"delayed":   desc("stream_delayed_messages", "Messages that are parked until they are due.", "stream"),
			"dropped":   desc("stream_dropped_total", "Messages a limit of the stream took before they were consumed.", "stream", "reason"),
			"pending":   desc("subscription_pending", "Messages a subscription has not done with.", "subscription"),
			"inflight":  desc("subscription_in_flight", "Messages in handlers.", "subscription"),
			"attempts":  desc("subscription_attempts_total", "How attempts to hand out a message ended.", "subscription", "result"),
			"expired":   desc("subscription_expired_total", "Messages that became dead letters because their time to live was over.", "subscription"),
			"replays":   desc("subscription_replays_pending", "Dead letters that wait to be handled once more.", "subscription"),
			"replayed":  desc("subscription_replayed_total", "Dead letters that were handled after all.", "subscription"),
			"strays":    desc("subscription_stray_acks_total", "Acknowledgements of NATS clients that belong to no message they were given.", "subscription"),
			"link":      desc("link_up", "1 while the leaf connection to the hub is there."),
			"linkdowns": desc("link_downs_total", "How often the leaf connection was lost."),
			"cuts":      desc("connection_cuts_total", "How often the broker's own connection was cut for reading too slowly."),
		},
	}
	if r == nil {
		return m, nil
	}
	return m, errors.Join(r.Register(m.stored), r.Register(m.repeats), r.Register(m.refused), r.Register(m))
}

// published counts what became of a message from outside.
func (m *metrics) published(a Ack, err error) {
	var refusal *refusal
	switch {
	case err == nil && a.Duplicate:
		m.repeats.Inc()
	case err == nil:
		m.stored.Inc()
	case errors.Is(err, store.ErrFull):
		m.refused.WithLabelValues("full").Inc()
	case errors.Is(err, store.ErrTooLarge):
		m.refused.WithLabelValues("too-large").Inc()
	case errors.Is(err, ErrBusy):
		m.refused.WithLabelValues("busy").Inc()
	case errors.As(err, &refusal):
		m.refused.WithLabelValues("header").Inc()
	default:
		m.refused.WithLabelValues("failed").Inc()
	}
}

// Describe and Collect are those of prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range m.describe {
		ch <- d
	}
}

// Collect is described at Describe.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	gauge := func(name string, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(m.describe[name], prometheus.GaugeValue, v, labels...)
	}
	counter := func(name string, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(m.describe[name], prometheus.CounterValue, float64(v), labels...)
	}
	for _, info := range m.s.o.Store.Streams() {
		gauge("messages", float64(info.Msgs), info.Name)
		gauge("bytes", float64(info.Bytes), info.Name)
		gauge("age", m.oldest(info).Seconds(), info.Name)
		gauge("delayed", float64(info.Delayed), info.Name)
		gauge("risk", float64(info.Risk.Msgs), info.Name)
		gauge("riskage", info.Risk.Age.Seconds(), info.Name)
		for reason, n := range info.Dropped {
			counter("dropped", n, info.Name, reason)
		}
	}
	st := m.s.Stats()
	for _, sub := range st.Subscriptions {
		gauge("pending", float64(sub.Pending), sub.Name)
		gauge("inflight", float64(sub.InFlight), sub.Name)
		counter("attempts", sub.Delivered, sub.Name, "acknowledged")
		counter("attempts", sub.Failed, sub.Name, "failed")
		counter("attempts", sub.DeadLetters, sub.Name, "dead-letter")
		counter("expired", sub.Expired, sub.Name)
		gauge("replays", float64(sub.Replays), sub.Name)
		counter("replayed", sub.Replayed, sub.Name)
		counter("strays", sub.StrayAcks, sub.Name)
	}
	flag := func(is bool) float64 {
		if is {
			return 1
		}
		return 0
	}
	gauge("link", flag(st.Link))
	gauge("full", flag(m.s.o.Store.Stats().DiskFull))
	counter("linkdowns", st.Downs)
	counter("cuts", m.s.local.cutCount())
}

// oldest returns the age of the oldest message of a stream.
func (m *metrics) oldest(info store.StreamInfo) (age time.Duration) {
	// An error means that the store is failing, which others report.
	_ = m.s.o.Store.Read(info.Name, info.First, 1, 1, func(msg Message) error {
		age = max(time.Since(msg.Time), 0)
		return nil
	})
	return age
}
