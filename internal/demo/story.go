package demo

import (
	"context"
	"fmt"
	"time"
)

// scene is one thing that happens, at a part of the round.
type scene struct {
	at   float64 // of the duration of the round
	tell string
	do   func(ctx context.Context) error
}

func (s *stage) story() []scene {
	return []scene{
		{0, "Each reading goes by MQTT to the box, there to the disk and the actor, and on to the hub.", nil},
		{0.10, "The roof is in the sun: above 30 °C the actor raises alarms and closes the relay of the fan.", s.heat(true)},
		{0.22, "The link to the hub is cut. The box goes on; what the hub has to get waits on its disk.", s.cutLink},
		{0.40, "The box is killed (kill -9). Its sensors hold on to what it has not acknowledged.", s.killBox},
		{0.46, "It starts again, with no hub to be seen, from what is on its disk.", s.startBox},
		{0.58, "The roof cools down.", s.heat(false)},
		{0.64, "The link is back. What has waited goes to the hub.", s.mendLink},
		{0.80, "The box is killed once more, in the middle of everything.", s.killBox},
		{0.84, "It starts again.", s.startBox},
	}
}

// play plays the story, or as much of it as there is before Finish.
func (s *stage) play(ctx context.Context) error {
	start := time.Now()
	s.view.RoundEnds = time.Since(s.began) + s.o.Duration
	for _, sc := range s.story() {
		if err := s.wait(ctx, start.Add(time.Duration(sc.at*float64(s.o.Duration)))); err != nil {
			return err
		}
		if s.finishing() {
			return nil
		}
		s.tell("%s", sc.tell)
		if sc.do != nil {
			if err := sc.do(ctx); err != nil {
				return err
			}
		}
		s.show(ctx)
	}
	return s.wait(ctx, start.Add(s.o.Duration))
}

// settle makes everything whole again, wherever the story was.
func (s *stage) settle(ctx context.Context) error {
	s.tell("The sensors stop. Now the hub has to get the rest.")
	if s.finishing() {
		s.tell("Then both are compared. Ctrl-C again leaves at once.")
	}
	_ = s.heat(false)(ctx)
	if s.cut {
		if err := s.mendLink(ctx); err != nil {
			return err
		}
	}
	if !s.box.up() {
		return s.startBox(ctx)
	}
	return nil
}

func (s *stage) heat(on bool) func(context.Context) error {
	return func(context.Context) error {
		for _, sn := range s.sensors {
			sn.hot.Store(on && sn.name == hotSensor)
		}
		return nil
	}
}

func (s *stage) cutLink(context.Context) error {
	s.link.aim("")
	s.cut = true
	s.r.Cuts++
	return nil
}

func (s *stage) mendLink(context.Context) error {
	s.link.aim(s.hub.server.LeafAddr())
	s.cut = false
	return nil
}

func (s *stage) killBox(context.Context) error {
	s.r.Kills++
	err := s.box.kill()
	s.cable.aim("")
	return err
}

func (s *stage) startBox(ctx context.Context) error {
	a, err := s.box.start(ctx)
	if err == nil {
		s.cable.aim(a.MQTT)
	}
	return err
}

// tell tells what happens now.
func (s *stage) tell(format string, a ...any) {
	s.o.Screen.Tell(time.Since(s.began), fmt.Sprintf(format, a...))
}

// show brings the view up to date. What can not be asked now stays as it was.
func (s *stage) show(ctx context.Context) {
	v := &s.view
	v.Elapsed = time.Since(s.began)
	v.Sensors, v.Rate = len(s.sensors), s.o.Rate
	v.Sent, v.Acked = 0, 0
	for _, sn := range s.sensors {
		sent, acked := sn.counts()
		v.Sent += sent
		v.Acked += acked
	}
	v.Box, v.Lives, v.Cut = s.box.up(), s.box.lives, s.cut
	v.Link = false
	if v.Box {
		if state, err := s.box.ask(ctx); err == nil {
			v.Turns, v.Waiting, v.Link, v.Relay = state.turns, state.waiting, state.link, state.relay
		}
	}
	asking, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	if readings, alarms, err := s.hub.held(asking); err == nil {
		v.HubReadings, v.HubAlarms = readings, alarms
	}
	s.r.Peak = max(s.r.Peak, v.Waiting)
	v.note()
	s.o.Screen.Show(*v)
}
