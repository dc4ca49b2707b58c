package demo

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"
)

const (
	showInterval = 200 * time.Millisecond
	// drainTimeout is for how long nothing may move on the way to the hub, once
	// the box is up and the link is there. How long all of it takes depends on the machine.
	drainTimeout = 30 * time.Second
)

var errNotDrained = fmt.Errorf("the hub did not get everything, and for %s nothing moved", drainTimeout)

// stage is where the story is played: all that takes part, and what the
// audience is told. It is for one goroutine.
type stage struct {
	o       *Options
	box     *box
	hub     *hub
	link    *gate // from the box to the hub
	cable   *gate // from the sensors to the box
	sensors []*sensor
	stop    context.CancelFunc // ends the gates and sensors
	wg      sync.WaitGroup     // of the gates and sensors

	began    time.Time
	cut      bool
	view     View
	readings map[string]*Comparison // by sensor, over all rounds
	alarms   map[string]*Comparison
	r        Result
}

func newStage(o *Options, dir string) (s *stage, err error) {
	s = &stage{
		o: o, began: time.Now(),
		readings: make(map[string]*Comparison), alarms: make(map[string]*Comparison),
	}
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	for _, g := range []**gate{&s.link, &s.cable} {
		if *g, err = newGate(); err != nil {
			return s, err
		}
		s.wg.Go(func() { (*g).run(ctx) })
	}
	if s.box, err = newBox(dir, o.App, s.link.addr(), o.Box); err != nil {
		return s, err
	}
	for _, name := range sensorNames {
		sn, err := newSensor(name, s.cable.addr())
		if err != nil {
			return s, err
		}
		s.sensors = append(s.sensors, sn)
		s.wg.Go(func() { _ = sn.client.Run(ctx) }) // nil when ctx has ended
	}
	if s.hub, err = startHub(ctx, dir); err != nil {
		return s, err
	}
	return s, nil
}

// close ends everything, the box first.
func (s *stage) close() error {
	var err error
	if s.box != nil {
		err = s.box.stop()
	}
	s.stop()
	s.wg.Wait()
	if s.hub != nil {
		s.hub.stop()
	}
	return err
}

func (s *stage) run(ctx context.Context) error {
	s.tell("A hub, a box and %d sensors on this machine. Look around meanwhile:", len(s.sensors))
	s.o.Screen.Tell(0, "  edged status --config "+s.box.file)
	s.link.aim(s.hub.server.LeafAddr())
	if err := s.startBox(ctx); err != nil {
		return err
	}
	if err := s.compile(ctx); err != nil {
		return err
	}
	for {
		last, err := s.round(ctx)
		if err != nil || last {
			return err
		}
	}
}

// compile waits until the actor has its code. The story goes by the clock, and would be
// over before it on a slow machine.
func (s *stage) compile(ctx context.Context) error {
	tick := time.NewTicker(showInterval)
	defer tick.Stop()
	for told := false; ; {
		state, err := s.box.ask(ctx)
		if err == nil && !state.compiling {
			return nil
		}
		if err == nil && !told {
			s.tell("The actor is compiled, which is done once for each version.")
			told = true
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
		if err := s.box.check(); err != nil {
			return err
		}
	}
}

// round plays the story once and compares.
func (s *stage) round(ctx context.Context) (last bool, err error) {
	measuring, stopMeasuring := context.WithCancel(ctx)
	defer stopMeasuring()
	playing, stopPlaying := context.WithCancelCause(ctx)
	defer stopPlaying(nil)
	s.view.Round++
	sensorsDone := s.measure(playing, measuring, stopPlaying)
	err = s.play(playing)
	stopMeasuring()
	if err == nil {
		err = s.settle(playing)
	}
	if err == nil {
		err = s.lastAcks(playing, sensorsDone)
	}
	stopPlaying(err)
	<-sensorsDone
	if err == nil {
		err = s.drain(ctx)
	}
	if err == nil || errors.Is(err, errNotDrained) {
		err = errors.Join(err, s.compare(ctx))
	}
	return s.finishing() || !s.o.Forever, err
}

// measure lets the sensors measure; see sensor.measure. What it returns is
// closed when they have ended.
func (s *stage) measure(ctx, measuring context.Context, fail context.CancelCauseFunc) <-chan struct{} {
	interval := time.Duration(len(s.sensors)) * time.Second / time.Duration(s.o.Rate)
	var wg sync.WaitGroup
	for i, sn := range s.sensors {
		offset := interval * time.Duration(i) / time.Duration(len(s.sensors))
		wg.Go(func() {
			if err := sn.measure(ctx, measuring, offset, interval); err != nil {
				fail(err)
			}
		})
	}
	done := make(chan struct{})
	go func() { // ends with the sensors
		wg.Wait()
		close(done)
	}()
	return done
}

// lastAcks waits until the sensors have ended: until all they sent is
// acknowledged.
func (s *stage) lastAcks(ctx context.Context, sensorsDone <-chan struct{}) error {
	for {
		acked := s.view.Acked
		patience, cancel := context.WithTimeout(ctx, drainTimeout)
		err := s.watch(ctx, sensorsDone, patience.Done())
		cancel()
		if err != nil {
			return err
		}
		select {
		case <-sensorsDone:
			return nil
		default:
		}
		if s.view.Acked == acked {
			return fmt.Errorf("the box did not acknowledge everything, and nothing for %s", drainTimeout)
		}
	}
}

func (s *stage) finishing() bool {
	select {
	case <-s.o.Finish:
		return true
	default:
		return false
	}
}

// wait watches until the time has come, or the round is to end.
func (s *stage) wait(ctx context.Context, until time.Time) error {
	end, cancel := context.WithDeadline(context.WithoutCancel(ctx), until)
	defer cancel()
	return s.watch(ctx, end.Done(), s.o.Finish)
}

// watch shows the view until one of the channels is closed. What goes wrong
// meanwhile it returns.
func (s *stage) watch(ctx context.Context, one, other <-chan struct{}) error {
	tick := time.NewTicker(showInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-one:
			return nil
		case <-other:
			return nil
		case <-tick.C:
			s.show(ctx)
			if err := s.box.check(); err != nil {
				return err
			}
		}
	}
}

// progress is what changes while the hub gets the rest.
type progress struct {
	box              boxState
	readings, alarms uint64
}

// drain waits until the box has nothing left to do, and the hub has as many
// messages as are due.
func (s *stage) drain(ctx context.Context) error {
	tick := time.NewTicker(showInterval / 2)
	defer tick.Stop()
	moved := time.Now()
	var was progress
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
		if err := s.box.check(); err != nil {
			return err
		}
		state, err := s.box.ask(ctx)
		s.show(ctx)
		if is := (progress{state, s.view.HubReadings, s.view.HubAlarms}); err == nil && is != was {
			was, moved = is, time.Now()
		}
		if time.Since(moved) > drainTimeout {
			return errNotDrained
		}
		if err == nil && state.empty && s.view.HubReadings >= uint64(s.view.Acked) {
			return nil
		}
	}
}

// compare compares what was acknowledged in this round with what the hub holds.
func (s *stage) compare(ctx context.Context) error {
	if s.o.tamper != nil {
		if err := s.o.tamper(ctx, s.hub); err != nil {
			return err
		}
	}
	held, err := s.hub.read(ctx)
	if err != nil {
		return err
	}
	var readings, alarms Comparison
	for _, sn := range s.sensors {
		l := sn.take()
		c := compare(sn.name, l.sent, l.acked, held[streamReadings][sn.name])
		a := compare(sn.name, l.alarms, len(l.alarms), held[streamAlarms][sn.name])
		delete(held[streamReadings], sn.name)
		delete(held[streamAlarms], sn.name)
		sum(s.readings, c)
		sum(s.alarms, a)
		readings.add(c)
		alarms.add(a)
	}
	for stream, all := range map[string]map[string]*Comparison{streamReadings: s.readings, streamAlarms: s.alarms} {
		for name, ids := range held[stream] { // of sensors that there are not
			c := compare(name, nil, 0, ids)
			sum(all, c)
			readings.add(c)
		}
	}
	s.r.Rounds++
	if !readings.Same() || !alarms.Same() {
		return ErrDifferent
	}
	if s.o.Forever {
		s.tell("Round %d: %d readings and %d alarms at the hub, the same as acknowledged, in order.", s.r.Rounds, readings.Held, alarms.Held)
		return s.hub.forget(ctx)
	}
	return nil
}

func sum(all map[string]*Comparison, c Comparison) {
	if all[c.Sensor] == nil {
		all[c.Sensor] = &Comparison{}
	}
	all[c.Sensor].add(c)
}

// result sums up.
func (s *stage) result() Result {
	r := s.r
	r.Same = r.Rounds > 0
	list := func(all map[string]*Comparison) []Comparison {
		out := []Comparison{}
		for _, name := range slices.Sorted(maps.Keys(all)) {
			out = append(out, *all[name])
			r.Same = r.Same && all[name].Same()
		}
		return out
	}
	r.Readings, r.Alarms = list(s.readings), list(s.alarms)
	r.Relay, r.Seconds = s.view.Relay, time.Since(s.began).Round(100*time.Millisecond).Seconds()
	return r
}
