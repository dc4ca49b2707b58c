package httpserver

import (
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics count requests by app; those that are for none count as "-".
type metrics struct {
	requests    *prometheus.CounterVec
	seconds     *prometheus.HistogramVec
	inFlight    prometheus.Gauge
	connections prometheus.Gauge

	mu   sync.Mutex // guards apps
	apps map[string]bool
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "edged_httpserver_requests_total", Help: "HTTP requests answered, by app and class of status; 499 is a client that has gone.",
		}, []string{"app", "class"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "edged_httpserver_request_seconds", Help: "From the header of a request to the end of its answer.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}, []string{"app"}),
		inFlight:    prometheus.NewGauge(prometheus.GaugeOpts{Name: "edged_httpserver_requests_in_flight", Help: "HTTP requests that are being answered."}),
		connections: prometheus.NewGauge(prometheus.GaugeOpts{Name: "edged_httpserver_connections", Help: "Connections of HTTP clients."}),
		apps:        make(map[string]bool),
	}
	if r != nil {
		r.MustRegister(m.requests, m.seconds, m.inFlight, m.connections)
	}
	return m
}

func (m *metrics) done(app string, status int, took time.Duration) {
	class := strconv.Itoa(status/100) + "xx"
	if status == statusGone {
		class = "499"
	}
	m.requests.WithLabelValues(app, class).Inc()
	m.seconds.WithLabelValues(app).Observe(took.Seconds())
}

// keep forgets apps that are not served any more.
func (m *metrics) keep(places map[string]*place) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := make(map[string]bool, len(places))
	for _, pl := range places {
		now[pl.app] = true
	}
	for app := range m.apps {
		if !now[app] {
			m.requests.DeletePartialMatch(prometheus.Labels{"app": app})
			m.seconds.DeletePartialMatch(prometheus.Labels{"app": app})
		}
	}
	m.apps = now
}
