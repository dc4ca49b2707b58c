package node

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// serveAdmin serves health and metrics. /healthz says whether the box works at
// all, and what of it does not; /readyz whether it serves.
func (n *Node) serveAdmin(ctx context.Context) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		problems := n.problems()
		if n.db.Err() != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		if len(problems) == 0 {
			fmt.Fprintln(w, "ok")
			return
		}
		fmt.Fprintf(w, "degraded\n%s\n", strings.Join(problems, "\n"))
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if ready, _ := n.health.problems(); !ready {
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprintln(w, "starting")
			return
		}
		fmt.Fprintln(w, "ready")
	})
	metrics := sync.OnceValue(n.metrics)
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) { metrics().ServeHTTP(w, r) })
	return serveHTTP(ctx, n.admin, mux)
}

// metrics registers what nobody reads before the first who asks for it.
func (n *Node) metrics() http.Handler {
	n.registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		&collector{n},
	)
	return promhttp.HandlerFor(n.registry, promhttp.HandlerOpts{})
}

// collector reads the figures of parts that know nothing of Prometheus.
type collector struct{ n *Node }

var (
	descTurns     = prometheus.NewDesc("edged_store_turns_total", "Turns committed.", nil, nil)
	descBounded   = prometheus.NewDesc("edged_store_bounded_total", "Reads, writes and messages refused to turns of actors that held too much.", nil, nil)
	descCommits   = prometheus.NewDesc("edged_store_commits_total", "Groups of turns written.", nil, nil)
	descBytes     = prometheus.NewDesc("edged_store_held_bytes", "Bytes held by streams and dead letters.", nil, nil)
	descDead      = prometheus.NewDesc("edged_store_dead_letters", "Dead letters.", nil, nil)
	descDropped   = prometheus.NewDesc("edged_store_dropped_total", "Messages a limit took before they were consumed.", []string{"reason"}, nil)
	descLost      = prometheus.NewDesc("edged_store_lost_messages", "Messages lost with damaged files that are still in quarantine.", nil, nil)
	descAside     = prometheus.NewDesc("edged_store_quarantined_files", "Damaged files that nobody has looked at and removed yet.", nil, nil)
	descDelayed   = prometheus.NewDesc("edged_store_delayed_messages", "Messages that are parked until they are due.", nil, nil)
	descDegraded  = prometheus.NewDesc("edged_node_problems", "Parts of the box that do not work.", nil, nil)
	descCalls     = prometheus.NewDesc("edged_runtime_calls_total", "Calls of actors.", []string{"result"}, nil)
	descState     = prometheus.NewDesc("edged_store_state_bytes", "Bytes of all state, keys included.", nil, nil)
	descLimits    = prometheus.NewDesc("edged_actor_limits_met_total", "How often actors met a limit; of log_rate, lines dropped.", []string{"limit"}, nil)
	descMemory    = prometheus.NewDesc("edged_runtime_memory_bytes", "Linear memory of all instances.", nil, nil)
	descInstances = prometheus.NewDesc("edged_runtime_instances", "Instances of actors.", []string{"state"}, nil)
)

func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descTurns, descBounded, descCommits, descBytes, descDead, descDropped, descLost, descAside, descDelayed, descDegraded, descCalls, descInstances, descLimits, descMemory, descState} {
		ch <- d
	}
}

func (c *collector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	count := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	s := c.n.db.Stats()
	count(descTurns, s.Turns)
	count(descCommits, s.Commits)
	count(descBounded, s.Bounded)
	gauge(descBytes, float64(s.Bytes))
	gauge(descState, float64(s.State))
	gauge(descDead, float64(c.n.db.DeadLetterCount()))
	dropped := map[string]uint64{"full": 0, "age": 0, "expired": 0, "restart": 0}
	var delayed int64
	for _, st := range c.n.db.Streams() {
		delayed += st.Delayed
		for reason, n := range st.Dropped {
			dropped[reason] += n
		}
	}
	for reason, n := range dropped {
		count(descDropped, n, reason)
	}
	gauge(descDelayed, float64(delayed))
	aside, lost := c.n.quarantined()
	gauge(descAside, float64(aside))
	gauge(descLost, float64(lost))
	gauge(descDegraded, float64(len(c.n.problems())))
	r, met := c.n.meters.sum()
	count(descCalls, succeeded(r), "ok")
	count(descCalls, r.GuestErrors, "error")
	count(descCalls, r.Traps, "trap")
	count(descCalls, r.Timeouts, "timeout")
	count(descCalls, r.StepLimit, "steps")
	count(descCalls, r.Refused, "refused")
	gauge(descInstances, float64(r.Idle), "idle")
	gauge(descInstances, float64(r.Busy), "busy")
	gauge(descMemory, float64(r.MemoryBytes))
	for l, n := range met {
		count(descLimits, n, limit(l).String())
	}
}
