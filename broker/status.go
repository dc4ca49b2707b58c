package broker

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

func (w *work) hub() *pumps {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.pumps
}
