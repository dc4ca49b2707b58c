package control

import (
	"context"
	"encoding/json"
)

// Detached is a service without a connection, whose events go to publish.
func Detached(o Options, publish func(subject string, data []byte) error) (*Service, error) {
	s, err := newService(o)
	if err == nil {
		s.events.publish = publish
	}
	return s, err
}

// Answer answers one request; see answer.
func (s *Service) Answer(ctx context.Context, subject string, body []byte) ([]byte, bool) {
	return s.answer(ctx, subject, body)
}

// Settle waits for the commands that were accepted, and tells what changed.
func (s *Service) Settle() {
	s.lanes.wait()
	s.events.differences()
}

// Events runs the events alone.
func (s *Service) Events(ctx context.Context) { s.events.run(ctx) }

// ReadInventory is what a client makes of an inventory.
func ReadInventory(data []byte) (State, error) {
	var inv inventory
	err := json.Unmarshal(data, &inv)
	return inv.state(), err
}

// ReadEvent is what a client makes of an event.
func ReadEvent(data []byte) (Event, bool) { return decodeEvent(data) }
