package broker

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	maxFindings = 32
	maxUnproven = 32
	// maxEpochs bounds the epochs of a lane that are told apart.
	maxEpochs = 64
	// maxGaps is how many gaps of a range are noted.
	maxGaps = 4
	// verifyPull is how much is on its way from the hub at a time.
	verifyPull = 4 << 20
)

// verifier compares one lane. For one goroutine.
type verifier struct {
	rep     LaneReport
	newest  span // of what is newer
	prefix  string
	created time.Time // of EDGE_UP
	first   uint64    // what the hub has of EDGE_UP begins there
	limited bool      // by limits of its own, it takes away
	hasher  *hasher
	current string // epoch of the box
	epochs  map[string]*epochCheck
	order   []string // of appearance
}

// epochCheck compares what a lane has of one epoch.
type epochCheck struct {
	known *LaneDigest // nil if the box knows nothing of it
	got   []rangeCheck
	at    int    // the range of the last message
	last  uint64 // its sequence
	// Messages that no range has.
	before, newer, other span
	beforeN, otherN      uint64
}

// rangeCheck is what the hub has of a range.
type rangeCheck struct {
	DigestRange
	gaps     []span
	moreGaps bool
	last     uint64
}

func newVerifier(stream, prefix string, up *jetstream.StreamInfo, box DeviceDigest) *verifier {
	c := up.Config
	v := &verifier{
		rep:    LaneReport{Stream: stream, Findings: []LaneFinding{}, Unproven: []LaneSpan{}},
		prefix: prefix, created: up.Created.UTC(), first: up.State.FirstSeq, hasher: newHasher(),
		limited: c.MaxAge > 0 || c.MaxBytes > 0 || c.MaxMsgs > 0 || c.MaxMsgsPerSubject > 0 || c.AllowMsgTTL,
		current: box.Epoch, epochs: make(map[string]*epochCheck),
	}
	for i := range box.Lanes {
		if d := &box.Lanes[i]; d.Created.Equal(v.created) && v.epochs[d.Epoch] == nil {
			v.epoch(d.Epoch, d)
		}
	}
	return v
}

func (v *verifier) epoch(id string, known *LaneDigest) *epochCheck {
	e := &epochCheck{known: known}
	if known != nil {
		e.got = make([]rangeCheck, len(known.Ranges))
		for i, r := range known.Ranges {
			e.got[i].From, e.got[i].To = r.From, r.To
		}
	}
	v.epochs[id] = e
	v.order = append(v.order, id)
	return e
}

// read takes the lane in, up to the last message that it has now.
func (v *verifier) read(ctx context.Context, js jetstream.JetStream, progress func(stream string, read, of uint64)) error {
	cons, err := js.OrderedConsumer(ctx, streamUp, jetstream.OrderedConsumerConfig{FilterSubjects: []string{v.prefix + ">"}})
	if err != nil {
		return err
	}
	info, err := cons.Info(ctx)
	if err != nil {
		return err
	}
	of := info.NumPending
	if of == 0 {
		return nil
	}
	messages, err := cons.Messages(jetstream.PullMaxBytes(verifyPull), jetstream.PullExpiry(30*time.Second))
	if err != nil {
		return err
	}
	defer messages.Stop()
	for v.rep.Read < of {
		m, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			return err
		}
		meta, err := m.Metadata()
		if err != nil {
			return fmt.Errorf("%w: message on %.200q is no delivery: %w", errHubAnswer, m.Subject(), err)
		}
		v.take(m.Subject(), m.Headers(), m.Data(), meta.Sequence.Stream)
		if progress != nil && (v.rep.Read%10_000 == 0 || v.rep.Read == of) {
			progress(v.rep.Stream, v.rep.Read, of)
		}
		if meta.NumPending == 0 && v.rep.Read < of {
			break // what was there at first was removed meanwhile
		}
	}
	return nil
}

// take compares one message, which follows the one before it in the lane.
func (v *verifier) take(subject string, header nats.Header, body []byte, hubSeq uint64) {
	v.rep.Read++
	seq, err := strconv.ParseUint(header.Get(headerSeq), 10, 64)
	id := header.Get(headerEpoch)
	if err != nil || seq == 0 || id == "" || !strings.HasPrefix(subject, v.prefix) {
		v.find(LaneFinding{Kind: "foreign", HubSeq: hubSeq})
		return
	}
	e := v.epochs[id]
	if e == nil {
		if len(v.epochs) >= maxEpochs {
			v.find(LaneFinding{Kind: "foreign", HubSeq: hubSeq})
			return
		}
		e = v.epoch(id, nil)
	}
	entry := v.hasher.entry(seq, subject[len(v.prefix):], header, body)
	if seq <= e.last {
		kind := "order"
		if seq == e.last {
			kind = "repeated"
		}
		v.find(LaneFinding{Kind: kind, Epoch: id, From: seq, To: seq, HubSeq: hubSeq})
	}
	e.take(entry, hubSeq)
	e.last = max(e.last, seq)
}

func (s *span) widen(seq uint64) {
	if s.from == 0 || seq < s.from {
		s.from = seq
	}
	s.to = max(s.to, seq)
}

func (e *epochCheck) take(x entry, hubSeq uint64) {
	switch {
	case e.known == nil || len(e.got) == 0:
		e.other.widen(x.seq)
		e.otherN++
		return
	case x.seq < e.got[0].From:
		e.before.widen(x.seq)
		e.beforeN++
		return
	case x.seq > e.got[len(e.got)-1].To:
		e.newer.widen(x.seq)
		e.otherN++
		return
	}
	if r := &e.got[e.at]; x.seq < r.From || x.seq > r.To {
		e.at, _ = slices.BinarySearchFunc(e.got, x.seq, func(r rangeCheck, seq uint64) int {
			return cmp.Compare(r.To, seq)
		})
	}
	r := &e.got[e.at]
	if due := max(r.last+1, r.From); x.seq > due {
		r.gap(span{due, x.seq - 1})
	}
	r.last = max(r.last, x.seq)
	r.DigestRange.add(x)
	r.HubTo = hubSeq
}

func (r *rangeCheck) gap(s span) {
	if len(r.gaps) == maxGaps {
		r.moreGaps = true
		return
	}
	r.gaps = append(r.gaps, s)
}

// find notes a fault.
func (v *verifier) find(f LaneFinding) {
	v.rep.Result = ResultDiffers
	if len(v.rep.Findings) < maxFindings {
		v.rep.Findings = append(v.rep.Findings, f)
	}
}

func (v *verifier) unproven(s LaneSpan) {
	if len(v.rep.Unproven) < maxUnproven {
		v.rep.Unproven = append(v.rep.Unproven, s)
	}
}

// report compares the ranges, after the last message.
func (v *verifier) report() LaneReport {
	for _, id := range v.order {
		e := v.epochs[id]
		switch {
		case e.known == nil && e.otherN > 0:
			v.unproven(LaneSpan{id, e.other.from, e.other.to, e.otherN, "the box keeps no digest of this epoch on this hub"})
			continue
		case e.known == nil:
			continue
		}
		if e.beforeN > 0 {
			v.unproven(LaneSpan{id, e.before.from, e.before.to, e.beforeN, "it was sent before the box kept a digest"})
		}
		if id == v.current {
			v.rep.Newer, v.newest = e.otherN, e.newer
		} else if e.otherN > 0 { // the epoch has ended for this box
			v.unproven(LaneSpan{id, e.newer.from, e.newer.to, e.otherN, "another copy of the box's store went on with this epoch"})
		}
		hubFrom := uint64(1)
		for j := range e.got {
			v.compare(id, &e.known.Ranges[j], &e.got[j], hubFrom)
			hubFrom = e.known.Ranges[j].HubTo + 1
		}
	}
	if v.rep.Result == "" {
		v.rep.Result = ResultSame
		if v.rep.Ranges == 0 && v.rep.Read > 0 {
			v.rep.Result = ResultUnknown
		}
	}
	slices.SortStableFunc(v.rep.Findings, func(a, b LaneFinding) int { return cmp.Compare(a.From, b.From) })
	return v.rep
}

// compare judges one range. hubFrom is where it begins on the hub, about.
func (v *verifier) compare(epoch string, box *DigestRange, got *rangeCheck, hubFrom uint64) {
	hub := &got.DigestRange
	if box.Why != "" {
		v.unproven(LaneSpan{epoch, box.From, box.To, hub.Count, box.Why})
		return
	}
	if box.Count == 0 && hub.Count == 0 {
		return
	}
	if box.same(hub) {
		v.rep.Ranges++
		v.rep.Proven += hub.Count
		return
	}
	if v.limited && hubFrom < v.first {
		v.unproven(LaneSpan{epoch, box.From, box.To, hub.Count, "limits of " + streamUp + " took messages of it"})
		return
	}
	v.rep.Ranges++
	f := LaneFinding{Kind: "range", Epoch: epoch, From: box.From, To: box.To, Box: box.Count, Hub: hub.Count}
	if got.last < box.To && box.Count == box.To-box.From+1 {
		got.gap(span{max(got.last+1, box.From), box.To})
	}
	if seq, ok := box.differs(hub); ok {
		switch hub.Count {
		case box.Count:
			f.Kind, f.From, f.To = "altered", seq, seq
		case box.Count - 1:
			f.Kind, f.From, f.To = "missing", seq, seq
		case box.Count + 1:
			f.Kind, f.From, f.To = "added", seq, seq
		}
	}
	if f.Kind != "range" {
		v.find(f)
		return
	}
	v.find(f)
	if box.Count != box.To-box.From+1 {
		return // a gap may be of the box's own
	}
	for _, g := range got.gaps {
		v.find(LaneFinding{Kind: "missing", Epoch: epoch, From: g.from, To: g.to})
	}
}
