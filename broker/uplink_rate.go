package broker

import (
	"math"
	"time"
)

const meterTime = 10 * time.Second

// meter measures a rate over about the last ten seconds.
type meter struct {
	perSecond float64
	at        time.Time
}

func (m *meter) add(bytes int, now time.Time) {
	m.perSecond = m.now(now) + float64(bytes)/meterTime.Seconds()
	m.at = now
}

func (m *meter) now(now time.Time) float64 {
	return m.perSecond * math.Exp(-now.Sub(m.at).Seconds()/meterTime.Seconds())
}

func (m *meter) rate(now time.Time) int64 { return int64(m.now(now)) }
