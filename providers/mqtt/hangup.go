package mqtt

import (
	"errors"
	"fmt"
	"io"
	"syscall"
)

// maxHangUps is after how many connections that a broker closed with the same message first in flight, and nothing achieved, the message is named. MQTT 3.1.1
// has no other way to refuse one.
const maxHangUps = 3

// hangUps counts them.
type hangUps struct {
	seq uint64 // of the message, in the outbox
	n   int
}

// hangUpError says which message the broker does not take.
type hangUpError struct {
	seq    uint64
	stream string
	cause  error
}

func (e *hangUpError) Error() string {
	return fmt.Sprintf("the broker closes the connection whenever message %d of stream %s is sent, which holds up the outbox: check what the broker allows (size, topic): %v",
		e.seq, e.stream, e.cause)
}

func (e *hangUpError) Unwrap() error { return e.cause }

// blame names the message that may be why the broker closed the connection of l, which had published that many before.
func (c *Client) blame(l *link, published uint64, err error) error {
	if !l.connected || !(errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)) {
		return err
	}
	seq, ok := l.flight.first()
	if !ok || c.stats.published.Load() != published || seq != c.hangUps.seq {
		c.hangUps = hangUps{seq: seq}
	}
	if !ok {
		return err
	}
	if c.hangUps.n++; c.hangUps.n < maxHangUps {
		return err
	}
	return &hangUpError{seq, c.o.Outbox.Stream, err}
}

// first returns the first message in flight that the broker does not have.
func (f *flight) first() (seq uint64, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.sending {
		if !s.released && !s.gone && (!ok || s.seq < seq) {
			seq, ok = s.seq, true
		}
	}
	return seq, ok
}
