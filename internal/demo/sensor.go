package demo

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/edged-io/edged/internal/event"
	"github.com/edged-io/edged/providers/mqtt"
)

// sensorNames are the places in the greenhouse.
var sensorNames = []string{"north", "east", "south", "west", "door", "roof"}

// hotSensor is the one that is heated.
const hotSensor = "roof"

// alarmLimit is the temperature above which the thermostat raises an alarm.
const alarmLimit = 30

// retryPause is how long a sensor waits before it sends a reading again that
// could not be sent.
const retryPause = 50 * time.Millisecond

// sensor measures, and sends each reading until the box has acknowledged it,
// one after the other. A reading keeps its id when it is sent again.
type sensor struct {
	name   string
	client *mqtt.Client
	hot    atomic.Bool
	seq    int // of the last reading

	mu     sync.Mutex // guards the ledger
	ledger ledger
}

// ledger is what a sensor has sent in a round.
type ledger struct {
	sent   []string // ids, in order
	acked  int      // how many of these the box has acknowledged
	alarms []string // ids of the alarms due for acknowledged readings
}

// newSensor makes a sensor whose cable goes to addr.
func newSensor(name, addr string) (*sensor, error) {
	c, err := mqtt.NewClient(mqtt.ClientOptions{
		URL: "tcp://" + addr, ClientID: "sensor-" + name,
		MinBackoff: 50 * time.Millisecond, MaxBackoff: 400 * time.Millisecond,
	})
	if err != nil {
		return nil, err
	}
	return &sensor{name: name, client: c}, nil
}

func (s *sensor) source() string { return "/greenhouse/" + s.name }
func (s *sensor) topic() string  { return "greenhouse/" + s.name + "/temperature" }

// measure sends a reading each interval, the first after offset, until
// measuring ends and the last one is acknowledged, or ctx ends. Readings that
// fall due while the box is away are sent when it is back.
func (s *sensor) measure(ctx, measuring context.Context, offset, interval time.Duration) error {
	tick := time.NewTimer(offset)
	defer tick.Stop()
	for due := time.Now().Add(offset); ; due = due.Add(interval) {
		tick.Reset(time.Until(due))
		select {
		case <-measuring.Done():
			return nil
		case <-tick.C:
		}
		if measuring.Err() != nil {
			return nil // both were ready
		}
		if err := s.send(ctx, due); err != nil {
			return err
		}
	}
}

// send sends one reading until it is acknowledged or ctx ends.
func (s *sensor) send(ctx context.Context, at time.Time) error {
	s.seq++
	celsius := s.temperature()
	e := event.Event{
		ID: fmt.Sprintf("%s-%06d", s.name, s.seq), Source: s.source(), Type: "greenhouse.temperature",
		Time: at.UTC().Format(time.RFC3339Nano), Data: fmt.Appendf(nil, `{"value":%s,"unit":"C"}`, strconv.FormatFloat(celsius, 'f', 2, 64)),
	}
	body, err := e.JSON()
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.ledger.sent = append(s.ledger.sent, e.ID)
	s.mu.Unlock()
	for s.client.Publish(ctx, s.topic(), 1, body, false) != nil {
		// The box may have it or not: it is sent again, under the same id.
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(retryPause):
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ledger.acked = len(s.ledger.sent)
	if celsius > alarmLimit {
		s.ledger.alarms = append(s.ledger.alarms, e.Source+"/"+e.ID) // as the thermostat names them
	}
	return nil
}

// temperature is about 22 °C, and about 34 °C where it is hot, to two digits.
func (s *sensor) temperature() float64 {
	base := 22.0
	if s.hot.Load() {
		base = 34
	}
	wave := math.Sin(float64(s.seq)/9 + float64(len(s.name)))
	return math.Round((base+2*wave)*100) / 100
}

// counts returns how many readings were sent and acknowledged in this round.
func (s *sensor) counts() (sent, acked int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.ledger.sent), s.ledger.acked
}

// take returns the ledger and begins a new one.
func (s *sensor) take() ledger {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.ledger
	s.ledger = ledger{}
	return l
}
