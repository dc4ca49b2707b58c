package powercut

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/edged-io/edged/store"
)

// operation is something the workload does, and how to see in a state whether
// it was done. To add one: say what it does, name its evidence, and put it into
// one of the lists below.
type operation struct {
	name string
	// run does it once. It marks each act with begin and told.
	run func(h *hand) error
	// evidence calls v.part for each part of an act, saying whether it is there.
	evidence func(v *view, a *act)
	// settles says that what was told before it began is on disk once it is done.
	settles bool
	// relaxed says that it may be told before it is on disk.
	relaxed bool
}

// What publishers and keepers do; workers do work alone. An operation that is
// listed twice is done twice as often.
var (
	publishingActs = []*operation{opJob, opJob, opJob, opRing, opRepeat}
	keepingActs    = []*operation{
		opAudit, opAudit, opNote, opNote, opForget, opChain, opTemp, opTemp, opTemp, opRing, opTry,
		opReplay, opBury, opPark, opPark, opLater, opLater, opBatch, opBatch, opBatch, opRelay, opRelay, opMemory, opNumber, opNumber,
	}

	// evident are all kinds of acts that a record may have.
	evident = []*operation{
		opJob, opRing, opRepeat, opWork, opAudit, opNote, opForget, opChain, opTry, opCreate, opSubscribe, opFill, opDelete,
		opReplay, opBury, opPark, opLater, opBatch, opRaw, opRelay, opMemory, opNumber, opCompact, opRestart,
	}
)

func findOperation(name string) *operation {
	for _, o := range evident {
		if o.name == name {
			return o
		}
	}
	return nil
}

// Names in the workload's store.
const (
	jobs, ring, ledger, chain = "jobs", "ring", "ledger", "chain" // streams
	parked, later             = "parked", "later"                 // streams of what is delayed, by long and by a moment
	batched, inMemory         = "batched", "memory"               // streams that are told before the disk is
	numbered                  = "numbered"                        // stream of producers that number what they send
	raw, cooked               = "raw", "cooked"                   // such streams, the one made of the other
	crew, audit, cook         = "crew", "audit", "cook"           // subscriptions of jobs, ledger and raw
	space                     = "acts"
	sumKey                    = "sum" // messages ever published to the ledger
)

// Bounds of what is published.
const (
	maxJobs   = 2  // messages of a job
	ringMsgs  = 12 // messages that ring holds
	chainMsgs = 30

	numberedMsgs = 8
)

func (w *workload) prepare() error {
	for _, c := range []store.StreamConfig{
		{Name: jobs}, {Name: ledger}, {Name: parked}, {Name: later},
		{Name: batched, Durability: store.Batch, BatchFor: 20 * time.Millisecond},
		{Name: raw, Durability: store.Batch, BatchFor: 10 * time.Millisecond},
		{Name: cooked, Durability: store.Batch, BatchFor: 30 * time.Millisecond},
		{Name: inMemory, Durability: store.Memory},
		{Name: ring, MaxMsgs: ringMsgs, OnFull: store.DropOldest},
		{Name: numbered, MaxMsgs: numberedMsgs, OnFull: store.DropOldest},
		{Name: chain, MaxMsgs: chainMsgs, OnFull: store.DropOldest},
	} {
		if err := w.db.EnsureStream(c); err != nil {
			return err
		}
	}
	for _, c := range []store.SubscriptionConfig{{Name: crew, Stream: jobs}, {Name: audit, Stream: ledger}, {Name: cook, Stream: raw}} {
		if err := w.db.EnsureSubscription(c); err != nil {
			return err
		}
	}
	return nil
}

// opJob publishes messages with identities, for workers.
var opJob = &operation{
	name:    "job",
	settles: true,
	run: func(h *hand) error {
		a := h.begin("job", act{K: 1 + h.rand.IntN(maxJobs), Size: h.size()})
		err := h.do(a, func(t *store.Turn) ([]*store.Receipt, error) { return a.publish(t, jobs, a.id) })
		if err != nil {
			return err
		}
		h.w.mu.Lock()
		defer h.w.mu.Unlock()
		for i, seq := range a.Seqs {
			h.w.stored = append(h.w.stored, job{a.id(i), seq})
			if h.rand.IntN(8) == 0 {
				h.w.put = append(h.w.put, seq)
			} else {
				h.w.jobs <- seq
			}
		}
		return nil
	},
	evidence: func(v *view, a *act) { v.messages(jobs, a, v.floor(crew)) },
}

func (a *act) id(i int) string { return "job-" + strconv.Itoa(a.N) + "-" + strconv.Itoa(i) }

// size is mostly small; sometimes it takes several pages.
func (h *hand) size() int {
	if h.rand.IntN(12) == 0 {
		return 4000 + h.rand.IntN(9000)
	}
	return 20 + h.rand.IntN(400)
}

// opRepeat publishes a message again that was stored before.
var opRepeat = &operation{
	name: "repeat",
	run: func(h *hand) error {
		h.w.mu.Lock()
		stored := slices.Clone(h.w.stored)
		h.w.mu.Unlock()
		if len(stored) == 0 {
			return nil
		}
		j := stored[h.rand.IntN(len(stored))]
		a := h.begin("repeat", act{})
		var r *store.Receipt
		err := h.do(a, func(t *store.Turn) (_ []*store.Receipt, err error) {
			r, err = t.Publish(jobs, store.Message{Subject: "jobs.again", ID: j.id, Data: a.body(0)})
			return nil, err
		})
		if err == nil && (!r.Duplicate || r.Seq != j.seq) {
			err = fmt.Errorf("%s: %s is message %d, and was stored again as %d", a, j.id, j.seq, r.Seq)
		}
		return err
	},
	evidence: func(*view, *act) {}, // any message of it is one too many
}

// opRing publishes to a stream that drops what is oldest.
var opRing = &operation{
	name:    "ring",
	settles: true,
	run: func(h *hand) error {
		a := h.begin("ring", act{K: 1 + h.rand.IntN(3), Size: h.size()})
		return h.do(a, func(t *store.Turn) ([]*store.Receipt, error) { return a.publish(t, ring, nil) })
	},
	evidence: func(v *view, a *act) { v.messages(ring, a, v.before(ring)) },
}

// opWork handles a job: what comes of it goes to the ledger, with a sum that
// every turn changes, a value of the hand's own, the acknowledgement of the job
// and sometimes a dead letter.
var opWork = &operation{
	name:    "work",
	settles: true,
	evidence: func(v *view, a *act) {
		v.messages(ledger, a, v.floor(audit))
		v.part(v.acked(crew, a.Seq), "the job's acknowledgement")
		// Hands go on to the next act, with a higher number, when one is done.
		n, _ := strconv.Atoi(v.state["hand-"+strconv.Itoa(a.Hand)])
		v.part(n >= a.N, "the hand's value")
		if a.givesUp() {
			v.part(len(v.letters[a.N]) > 0 || v.buried(a.N), "the dead letter")
		}
	},
}

func (a *act) givesUp() bool { return a.N%4 == 0 }

func (h *hand) work(seq uint64) error {
	a := h.begin(opWork.name, act{Seq: seq, K: 1 + h.rand.IntN(3), Size: h.size()})
	var receipts []*store.Receipt
	first := func(t *store.Turn) (err error) {
		v, _, err := t.Get(space, sumKey)
		if err != nil {
			return err
		}
		sum, _ := strconv.Atoi(string(v))
		if err := t.Put(space, sumKey, []byte(strconv.Itoa(sum+a.K))); err != nil {
			return err
		}
		receipts, err = a.publish(t, ledger, nil)
		return err
	}
	if h.w.Plant == plantSplit {
		err := h.w.db.Do(context.Background(), func(_ context.Context, t *store.Turn) error { return first(t) })
		if err != nil {
			return err
		}
	}
	err := h.do(a, func(t *store.Turn) ([]*store.Receipt, error) {
		if h.w.Plant != plantSplit {
			if err := first(t); err != nil {
				return nil, err
			}
		}
		t.Ack(crew, seq)
		if a.givesUp() {
			t.DeadLetter(store.DeadLetter{Stream: jobs, Seq: seq, Subscription: crew, Reason: "rejected", Attempts: 1, Data: a.body(0)})
		}
		return receipts, t.Put(space, "hand-"+strconv.Itoa(a.Hand), []byte(strconv.Itoa(a.N)))
	})
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	for _, s := range a.Seqs {
		h.w.ledger[s] = true
	}
	for h.w.ledger[h.w.audited+1] {
		h.w.audited++
	}
	if a.givesUp() && err == nil {
		h.w.letters = append(h.w.letters, a.N)
	}
	return err
}

// opAudit acknowledges most of the ledger, as far as everybody who wrote it was
// told.
var opAudit = &operation{
	name:    "audit",
	settles: true,
	run: func(h *hand) error {
		h.w.mu.Lock()
		seq := h.w.audited
		h.w.mu.Unlock()
		if seq < 12 {
			return nil
		}
		a := h.begin("audit", act{Seq: seq - uint64(h.rand.IntN(12))})
		return h.do(a, func(t *store.Turn) ([]*store.Receipt, error) {
			t.AckUpTo(audit, a.Seq)
			return nil, nil
		})
	},
	evidence: func(v *view, a *act) { v.part(v.acked(audit, a.Seq), "the acknowledgement") },
}

// opTry counts an attempt at a job.
var opTry = &operation{
	name: "try",
	run: func(h *hand) error {
		h.w.mu.Lock()
		put := slices.Clone(h.w.put)
		h.w.mu.Unlock()
		if len(put) == 0 {
			return nil
		}
		a := h.begin("try", act{Seq: put[h.rand.IntN(len(put))]})
		return h.do(a, func(t *store.Turn) ([]*store.Receipt, error) {
			t.Attempt(crew, a.Seq, 1)
			return nil, nil
		})
	},
	evidence: func(v *view, a *act) {
		// Who tried the same job at the same time leaves the same trace.
		if v.told(a) {
			v.part(v.acked(crew, a.Seq) || v.positions[crew].Attempts[a.Seq] > 0, "the attempt")
		}
	},
}

// opNumber publishes as a producer that numbers what it sends. The highest number
// is remembered when the message is long gone.
var opNumber = &operation{
	name:    "number",
	settles: true,
	run: func(h *hand) error {
		a := h.begin("number", act{K: 1, Size: h.size()})
		return h.do(a, func(t *store.Turn) ([]*store.Receipt, error) {
			r, err := t.Publish(numbered, a.numbered())
			return []*store.Receipt{r}, err
		})
	},
	evidence: func(v *view, a *act) { v.messages(numbered, a, v.before(numbered)) },
}

func (a *act) numbered() store.Message {
	return store.Message{Subject: "numbered.made", Data: a.body(0), Producer: a.producer(), ProducerSeq: uint64(a.N)}
}

func (a *act) producer() string { return "hand-" + strconv.Itoa(a.Hand) }

// opNote and opForget write and delete a value.
var opNote = &operation{
	name:    "note",
	settles: true,
	run: func(h *hand) error {
		a := h.begin("note", act{Key: "note-" + strconv.Itoa(h.number), Size: h.size()})
		return h.do(a, func(t *store.Turn) ([]*store.Receipt, error) { return nil, t.Put(space, a.Key, a.body(0)) })
	},
	evidence: func(v *view, a *act) { v.part(v.state[a.Key] == string(a.body(0)), "the value") },
}

var opForget = &operation{
	name:    "forget",
	settles: true,
	run: func(h *hand) error {
		a := h.begin("forget", act{Key: "note-" + strconv.Itoa(h.number)})
		return h.do(a, func(t *store.Turn) ([]*store.Receipt, error) { return nil, t.Delete(space, a.Key) })
	},
	evidence: func(v *view, a *act) {
		_, there := v.state[a.Key]
		v.part(!there, "the absence of the value")
	},
}

// opChain submits turns that follow each other, without waiting in between.
var opChain = &operation{
	name:    "chain",
	settles: true,
	run: func(h *hand) error {
		type link struct {
			a       *act
			receipt *store.Receipt
		}
		var before *store.Turn
		after := 0
		const links = 3
		done := make(chan error, links)
		for range links {
			l := link{a: h.begin("chain", act{K: 1, Size: h.size(), After: after})}
			after = l.a.N
			t := h.w.db.Begin()
			receipts, err := l.a.publish(t, chain, nil)
			if err == nil && before != nil {
				err = t.Follow(before)
			}
			if err != nil {
				t.Discard()
				return err
			}
			l.receipt = receipts[0]
			tell := func() {
				l.a.Seqs = []uint64{l.receipt.Seq}
				h.told(l.a)
			}
			early := h.w.Plant == plantEarly
			if early {
				t.OnQueued(tell)
			}
			t.Submit(func(err error) {
				if err == nil && !early {
					tell()
				}
				done <- err
			})
			before = t
		}
		for range links {
			if err := <-done; err != nil {
				return err
			}
		}
		return nil
	},
	evidence: func(v *view, a *act) { v.messages(chain, a, v.before(chain)) },
}

// opTemp goes on with a stream of the hand's own: it is created, gets a
// subscription and messages, and is deleted.
var opTemp = &operation{
	name: "temp",
	run: func(h *hand) error {
		key := "temp-" + strconv.Itoa(h.number)
		steps := []*operation{opCreate, opSubscribe, opFill, opDelete}
		step := steps[h.temp%len(steps)]
		h.temp++
		a := act{Key: key}
		if step == opFill {
			a.K, a.Size = 2, h.size()
		}
		b := h.begin(step.name, a)
		var err error
		switch step {
		case opCreate:
			err = h.w.db.EnsureStream(store.StreamConfig{Name: key})
		case opSubscribe:
			err = h.w.db.EnsureSubscription(store.SubscriptionConfig{Name: key, Stream: key})
		case opFill:
			return h.do(b, func(t *store.Turn) ([]*store.Receipt, error) { return b.publish(t, key, nil) })
		case opDelete:
			err = h.w.db.DeleteStream(key)
		}
		if err == nil {
			h.told(b)
		}
		return err
	},
}

var opCreate = &operation{
	name:     "create",
	evidence: func(v *view, a *act) { v.part(v.streams[a.Key] != nil, "the stream") },
}

var opSubscribe = &operation{
	name: "subscribe",
	evidence: func(v *view, a *act) {
		_, there := v.positions[a.Key]
		v.part(there, "the subscription")
	},
}

var opFill = &operation{
	name:     "fill",
	evidence: func(v *view, a *act) { v.messages(a.Key, a, 0) },
}

var opDelete = &operation{
	name: "delete",
	evidence: func(v *view, a *act) {
		_, there := v.positions[a.Key]
		v.part(v.streams[a.Key] == nil, "the absence of the stream")
		v.part(!there, "the absence of its subscription")
	},
}
