package broker

import (
	"fmt"
	"slices"
)

// Epoch returns the id under which the box's messages reach the hub, "" if there
// is no hub or Run has not started.
func (s *Server) Epoch() string {
	if p := s.work.hub(); p != nil {
		return p.epochs.current()
	}
	return ""
}

// Lanes returns how far each uplinked stream has come on the hub, by stream.
func (s *Server) Lanes() []LaneStatus {
	if p := s.work.hub(); p != nil {
		return p.Lanes()
	}
	return nil
}

// Inlets returns how far the box has come with what the hub has for it.
func (s *Server) Inlets() []InletStatus {
	if p := s.work.hub(); p != nil {
		return p.Inlets()
	}
	return nil
}

// Digest returns what the hub should hold of an uplinked stream, and with "" only
// which streams there are.
func (s *Server) Digest(stream string) (DeviceDigest, error) {
	d := DeviceDigest{Device: s.o.Device, Epoch: s.Epoch(), Streams: []string{}, Lanes: []LaneDigest{}}
	s.work.mu.Lock()
	for name := range s.work.uplinked {
		d.Streams = append(d.Streams, name)
	}
	s.work.mu.Unlock()
	slices.Sort(d.Streams)
	if stream == "" {
		return d, nil
	}
	if !slices.Contains(d.Streams, stream) {
		return d, fmt.Errorf("stream %.128q: not uplinked", stream)
	}
	t := s.o.Store.Begin()
	defer t.Discard()
	now, former, err := readDigests(t, stream)
	if err != nil {
		return d, fmt.Errorf("digest of stream %s: %w", stream, err)
	}
	if now != nil {
		d.Lanes = append(d.Lanes, *now)
	}
	for _, f := range former {
		d.Lanes = append(d.Lanes, *f)
	}
	return d, nil
}

func (w *work) hub() *pumps {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.pumps
}
