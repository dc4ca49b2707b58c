package store

import "time"

// pendingMessage is a message that a turn publishes, until its commit.
type pendingMessage struct {
	m       Message
	s       *stream
	receipt Receipt
	hashes  [2]idHash // of its ID, and of its number
	given   bool      // its stamp is the publisher's

	numbered         // by its producer
	parked   *parked // it is to wait there
	released *parked // it has waited there
	// remembered: what later ones are to know it by. A stream may have been told
	// otherwise since the message was queued.
	remembered []idHash
	held       bool   // it was told, and is on its way to the disk
	value      []byte // as it is on disk, once somebody has made it
}

// identities are what a repeat of p is recognised by in s, beside watermarks.
func (p *pendingMessage) identities(s *stream) []idHash {
	switch {
	case s.config.Dedupe < 0:
		return nil
	case p.numbered.seq == 0 && p.m.ID == "":
		return nil
	case p.numbered.seq == 0:
		return p.hashes[:1]
	case p.m.ID == "":
		return p.hashes[1:]
	}
	return p.hashes[:]
}

// identify works out what p is recognised by.
func (p *pendingMessage) identify() {
	if p.m.ID != "" {
		p.hashes[0] = hashID(p.m.ID)
	}
	p.numbered, p.hashes[1] = p.m.numbered()
}

// frame is the message as it is stored now.
func (p *pendingMessage) frame(now time.Duration) *frame {
	f := &frame{Message: p.m, stored: now, published: now, given: p.given}
	if p.released != nil {
		f.published = p.released.published
	}
	return f
}

// pendingAck acknowledges seq, or all up to it, or remembers attempts.
type pendingAck struct {
	subscription string
	sub          *subscription
	seq          uint64
	upTo         bool
	attempts     int
}

func (a *pendingAck) apply(p *position) {
	switch {
	case a.attempts > 0:
		p.tried(a.seq, a.attempts)
	case a.upTo:
		p.ackUpTo(a.seq)
	default:
		// How far ahead it is was checked when it was queued, against a floor
		// that can only have risen since.
		_ = p.ack(a.seq)
	}
}
