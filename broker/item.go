package broker

import (
	"cmp"
	"slices"
	"time"

	"github.com/edged-io/edged/store"
)

// item is a message that a subscription has not done with.
type item struct {
	seq      uint64
	letter   uint64 // the dead letter that is handled once more, 0 for a message of the stream
	subject  string
	m        Message // without header and data unless loaded
	loaded   bool
	attempts int           // that failed
	verdict  *deadReason   // it is to become a dead letter
	acked    bool          // its receiver has acknowledged it, and only that is to be written
	sent     bool          // it went out to a receiver
	late     bool          // one that it went out to has acknowledged it, when another attempt was under way or at its end
	out      bool          // handed out and not come back
	replies  []string      // where receivers wait to hear that their acknowledgement is on disk
	due      time.Time     // not to be handed out before
	pause    time.Duration // after the last time that nothing could be tried with it
	expires  time.Time     // not to be handed out after; zero means never
	heapAt   int           // its place in window.expiring, from 1
	overdue  bool          // it has expired
	turn     *store.Turn   // of its last attempt, once that is queued
	row      *row          // nil if there is no order
	owedTo   *request      // the client that gets it, at most once; guarded by waiting.mu
	offers   int           // how often it was offered; only the last offer counts
	done     bool
}

// chore says whether the item needs no receiver: only a verdict, or an
// acknowledgement, is to be written.
func (it *item) chore() bool { return it.verdict != nil || it.acked }

// maxReplies bounds how many who acknowledge one message are told of it.
const maxReplies = 16

// promise notes where a receiver waits to hear that its acknowledgement is on disk,
// if it does. Several may have acknowledged.
func (it *item) promise(reply string) {
	if reply != "" && len(it.replies) < maxReplies && !slices.Contains(it.replies, reply) {
		it.replies = append(it.replies, reply)
	}
}

// offer is an item that may be handed out, unless it was offered again or its
// row was halted since.
type offer struct {
	it  *item
	n   int
	due time.Time
}

func (o offer) stale() bool { return o.n != o.it.offers }

// before orders a row: letters in their order, then messages in theirs.
func before(a, b *item) int {
	switch {
	case a.letter != 0 && b.letter != 0:
		return cmp.Or(cmp.Compare(a.m.Stream, b.m.Stream), cmp.Compare(a.seq, b.seq), cmp.Compare(a.letter, b.letter))
	case a.letter != 0:
		return -1
	case b.letter != 0:
		return 1
	}
	return cmp.Compare(a.seq, b.seq)
}

// expire gives an item that is overdue its verdict, unless another one was faster.
func (it *item) expire() bool {
	if !it.overdue || it.chore() {
		return false
	}
	it.verdict = &deadReason{reason: "expired", err: "its time to live was over before it was handled"}
	return true
}

// dueHeap orders offers by the time of their items.
type dueHeap []offer

func (h dueHeap) Len() int { return len(h) }

func (h dueHeap) Less(i, j int) bool {
	if h[i].due.Equal(h[j].due) {
		return h[i].it.seq < h[j].it.seq
	}
	return h[i].due.Before(h[j].due)
}

func (h dueHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }

func (h *dueHeap) Push(x any) { *h = append(*h, x.(offer)) }

func (h *dueHeap) Pop() any {
	old := *h
	o := old[len(old)-1]
	old[len(old)-1] = offer{}
	*h = old[:len(old)-1]
	return o
}

// expiryHeap orders items by when they expire. Each knows its place.
type expiryHeap []*item

func (h expiryHeap) Len() int { return len(h) }

func (h expiryHeap) Less(i, j int) bool { return h[i].expires.Before(h[j].expires) }

func (h expiryHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].heapAt, h[j].heapAt = i+1, j+1
}

func (h *expiryHeap) Push(x any) {
	*h = append(*h, x.(*item))
	x.(*item).heapAt = len(*h)
}

func (h *expiryHeap) Pop() any {
	old := *h
	it := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	it.heapAt = 0
	return it
}
