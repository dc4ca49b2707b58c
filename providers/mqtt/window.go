package mqtt

import (
	"sync"

	"github.com/mochi-mqtt/server/v2/packets"
)

// publication is one PUBLISH of a client, from its arrival to its acknowledgement.
type publication struct {
	m      *message // for the subscribers; nil for a repeat
	id     uint16
	qos    byte
	size   int
	ready  bool // its fate is known
	reason packets.Code
	fatal  bool // the store ended: the connection must too
}

// window is what a connection has published and what is not yet acknowledged, in order. It is bounded by count and bytes; a publisher that goes beyond
// them waits. Only the writer of the connection takes from it.
type window struct {
	maxCount, maxBytes int
	wake               func()        // tells the writer that the head may be ready
	room               chan struct{} // tells the reader that there may be room

	mu    sync.Mutex // guards what follows
	queue []*publication
	bytes int
}

func newWindow(maxCount, maxBytes int, wake func()) *window {
	return &window{maxCount: maxCount, maxBytes: maxBytes, wake: wake, room: make(chan struct{}, 1)}
}

// admit puts p at the end when there is room for it. It says false if ended was closed first. Only one goroutine may call it.
func (w *window) admit(p *publication, ended <-chan struct{}) bool {
	for {
		w.mu.Lock()
		if len(w.queue) == 0 || len(w.queue) < w.maxCount && w.bytes+p.size <= w.maxBytes {
			w.queue = append(w.queue, p)
			w.bytes += p.size
			w.mu.Unlock()
			return true
		}
		w.mu.Unlock()
		select {
		case <-w.room:
		case <-ended:
			return false
		}
	}
}

// settle tells the fate of p. It does not block.
func (w *window) settle(p *publication, reason packets.Code, fatal bool) {
	w.mu.Lock()
	p.ready, p.reason, p.fatal = true, reason, fatal
	head := w.queue[0] == p
	w.mu.Unlock()
	if head {
		w.wake()
	}
}

// head returns the oldest publication if its fate is known. It stays until pop.
func (w *window) head() *publication {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.queue) == 0 || !w.queue[0].ready {
		return nil
	}
	return w.queue[0]
}

func (w *window) pop() {
	w.mu.Lock()
	w.bytes -= w.queue[0].size
	w.queue[0] = nil
	w.queue = w.queue[1:]
	w.mu.Unlock()
	select {
	case w.room <- struct{}{}:
	default:
	}
}

func (w *window) empty() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.queue) == 0
}
