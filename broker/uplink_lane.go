package broker

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/edged-io/edged/store"
)

const (
	// maxBatchMessages is what a NATS server takes in an atomic batch, unless it
	// was told otherwise.
	maxBatchMessages = 1000
	// maxBatchBytes bounds what a batch holds in memory, and what is sent in
	// vain when the link goes down. A single larger message goes alone.
	maxBatchBytes = 1 << 20
	// firstBatch is how many messages a batch has before anything is known of
	// the link.
	firstBatch = 64
	// settleMessages is how many acknowledgements wait at most until the store
	// knows of them.
	settleMessages = 1000
	// maxSilences bounds how often the time for an answer is doubled.
	maxSilences = 6
	// lossChecks is how often the hub must say that it has less than it
	// acknowledged before we believe it: a replica that lags says so too.
	lossChecks = 3
)

// uplinkLane pumps one stream. Its goroutine owns all but what mu guards.
type uplinkLane struct {
	p      *pumps
	db     *store.DB
	api    *hubAPI
	log    *slog.Logger
	stream string
	sub    string
	prefix string // of subjects
	filter string // prefix and ">"

	epoch    string
	rec      laneRecord
	hub      hubStream
	acked    uint64            // the hub has all up to here
	kept     uint64            // of which the store knows
	dirty    bool              // rec is not in the store yet
	unkept   int               // sequences that it is behind, about
	settleBy time.Time         // when it is to know the rest
	stones   map[uint64]string // sequences whose place a tombstone takes → reason
	synced   bool
	next     uint64 // the next sequence to send
	expect   uint64 // the hub's sequence of the last message of the lane
	maxMsg   int

	size     int    // messages for the next batch
	most     int    // the hub takes no more in one
	badEnd   uint64 // somewhere up to here is a message that the hub refuses
	badMost  int    // messages in a batch until it is found
	careful  bool   // wait until the hub has opened a batch before sending all of it
	scans    int    // times in a row that the hub did not let us look into the lane
	losses   int    // times in a row that the hub had less than it acknowledged
	silences int    // times in a row that the hub did not tell the last message
	raced    int    // times in a row that the lane ended with another message than expected
	suspect  suspect
	said     string
	proof    proof
	pace     pace
	trouble  condition

	mu    sync.Mutex // guards shown and meter
	shown LaneStatus
	meter meter
}

func newLane(p *pumps, stream string) *uplinkLane {
	log := p.o.Log.With("stream", stream)
	prefix := lanePrefix(p.o.Device, stream)
	return &uplinkLane{
		p: p, db: p.o.Store, log: log, stream: stream, sub: uplinkSubscription(stream),
		prefix: prefix, filter: prefix + ">", stones: make(map[uint64]string),
		size: firstBatch, most: maxBatchMessages, maxMsg: defaultHubMessage,
		proof:   proof{hasher: newHasher()},
		pace:    pace{least: p.o.Timing.Least, most: p.o.Timing.Most},
		trouble: condition{log: log, now: p.o.Now},
	}
}

// run pumps until ctx ends.
func (l *uplinkLane) run(ctx context.Context) {
	l.pump(ctx)
	if err := l.settle(); err != nil {
		l.log.Debug("uplink ends", "err", err) // the hub will be asked
	}
}

func (l *uplinkLane) pump(ctx context.Context) {
	wake, stop, err := l.db.Watch(l.stream)
	if err != nil {
		l.log.Error("uplink cannot read its stream", "err", err)
		return
	}
	defer stop()
	if err := l.load(); err != nil {
		l.log.Error("uplink cannot read its position", "err", err)
		return
	}
	for ctx.Err() == nil {
		changed := l.p.pauseUntilUp(ctx)
		if changed == nil {
			return
		}
		l.synced = false
		err := l.pumpWhileUp(ctx, changed, wake)
		if storeEnded(err) {
			return // the server ends for it
		}
		l.show(func(s *LaneStatus) { s.Synced = false })
		sleep(ctx, l.pace.next(), nil) // a link that flaps must not make us spin
	}
}

// pumpWhileUp pumps until the link changes.
func (l *uplinkLane) pumpWhileUp(ctx context.Context, changed, wake <-chan struct{}) error {
	up, stop := whileUp(ctx, changed)
	defer stop()
	l.api = l.p.api()
	l.p.queue.up()
	in, err := openReplies(l.api.nc)
	if err != nil {
		return err
	}
	defer in.close()
	for up.Err() == nil {
		err := l.drain(up, in)
		if up.Err() != nil {
			return context.Cause(up)
		}
		l.noteTrouble(err)
		if err != nil {
			if storeEnded(err) {
				return err
			}
			l.synced = false
			sleep(up, l.pace.next(), nil)
			continue
		}
		if err := l.idle(up, wake); err != nil {
			return err
		}
	}
	return context.Cause(up)
}

// idle waits for more messages. What the hub has acknowledged meanwhile becomes
// known to the store when it has waited long enough.
func (l *uplinkLane) idle(ctx context.Context, wake <-chan struct{}) error {
	var settle <-chan time.Time
	if l.dirty {
		timer := time.NewTimer(l.untilSettle())
		defer timer.Stop()
		settle = timer.C
	}
	select {
	case <-wake:
		return nil
	case <-ctx.Done():
		return nil
	case <-settle:
		return l.settle()
	}
}

func (l *uplinkLane) noteTrouble(err error) {
	text := ""
	if err != nil {
		text = err.Error()
		l.trouble.begin("uplink waits", err)
	} else {
		l.trouble.end("uplink goes on")
		l.pace.reset()
	}
	l.show(func(s *LaneStatus) { s.Err = text })
}

// load reads what the store knows of the lane.
func (l *uplinkLane) load() error {
	pos, err := l.db.Position(l.sub)
	if err != nil {
		return err
	}
	l.acked, l.kept = pos.Floor, pos.Floor
	t := l.db.Begin()
	defer t.Discard()
	if _, err := getRecord(t, l.recordKey(), &l.rec); err != nil {
		return err
	}
	if err := l.proof.load(t, l.stream); err != nil {
		return err
	}
	prefix := l.stoneKey("")
	err = l.db.List(spaceHub, prefix, func(key string, value []byte) error {
		seq, err := strconv.ParseUint(strings.TrimPrefix(key, prefix), 10, 64)
		if err != nil {
			return fmt.Errorf("%s in space %s: %w", key, spaceHub, err)
		}
		var reason string
		if err := json.Unmarshal(value, &reason); err != nil {
			return fmt.Errorf("%s in space %s: %w", key, spaceHub, err)
		}
		l.stones[seq] = reason
		return nil
	})
	l.show(func(*LaneStatus) {})
	return err
}

func (l *uplinkLane) recordKey() string          { return "lane/" + l.stream }
func (l *uplinkLane) stoneKey(seq string) string { return "stone/" + l.stream + "/" + seq }
func stoneNumber(seq uint64) string              { return fmt.Sprintf("%020d", seq) }

// drain sends until the stream has nothing more.
func (l *uplinkLane) drain(ctx context.Context, in *replies) error {
	for {
		if !l.synced {
			if err := l.sync(ctx); err != nil {
				return err
			}
		}
		info, err := l.db.Stream(l.stream)
		if err != nil {
			return err
		}
		if info.Last < l.next {
			return nil
		}
		turn, err := l.turn(ctx, info.Priority)
		if err != nil {
			return err
		}
		sent, err := l.sendNext(ctx, in, turn.bytes)
		l.p.queue.done(turn, sent, err == nil)
		if err != nil || sent == 0 {
			return err
		}
		if l.unkept >= settleMessages || l.untilSettle() <= 0 {
			if err := l.settle(); err != nil {
				return err
			}
		}
	}
}

// turn waits until the lane may send, and settles meanwhile: where the link is
// narrow, or others go first, that may take long.
func (l *uplinkLane) turn(ctx context.Context, priority int) (*permit, error) {
	if !l.dirty {
		return l.p.queue.wait(ctx, priority)
	}
	soon, cancel := context.WithTimeout(ctx, l.untilSettle())
	turn, err := l.p.queue.wait(soon, priority)
	cancel()
	if err == nil || ctx.Err() != nil {
		return turn, err
	}
	if err := l.settle(); err != nil {
		return nil, err
	}
	return l.p.queue.wait(ctx, priority)
}

// untilSettle is how long what the hub has acknowledged may wait to be known to the
// store.
func (l *uplinkLane) untilSettle() time.Duration { return l.settleBy.Sub(l.p.o.Now()) }

// sendNext sends one batch of about so many bytes, and returns how many it had.
func (l *uplinkLane) sendNext(ctx context.Context, in *replies, bytes int) (sent int, err error) {
	batch, err := l.collect(bytes)
	if err != nil || len(batch) == 0 {
		return 0, err
	}
	for i := range batch {
		sent += batch[i].size
	}
	if err := l.advance(ctx, in, batch); err != nil {
		return sent, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.meter.add(sent, time.Now())
	l.shown.Hub.Time = time.Now()
	return sent, nil
}

// collect reads the next batch: of so many bytes at most, or one message.
func (l *uplinkLane) collect(bytes int) ([]outMsg, error) {
	limit := min(l.size, l.most)
	if l.badEnd >= l.next {
		limit = min(limit, l.badMost)
	} else {
		l.badEnd = 0
	}
	var batch []outMsg
	size, full := 0, false
	err := l.db.Read(l.stream, l.next, limit, bytes, func(m store.Message) error {
		if full {
			return nil
		}
		out, err := l.prepare(m)
		if err != nil {
			return err
		}
		if len(batch) > 0 && size+out.size > bytes {
			full = true
			return nil
		}
		batch, size = append(batch, out), size+out.size
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read: %w", err)
	}
	return batch, nil
}

// prepare turns a message into what goes up: itself, or a tombstone.
func (l *uplinkLane) prepare(m store.Message) (outMsg, error) {
	reason, ok := l.stones[m.Seq]
	if ok {
		return l.tombstone(m, reason), nil
	}
	out, refused := l.lift(m)
	if refused == "" {
		return out, nil
	}
	if err := l.refuse(m, stoneTooLarge, refused, 0); err != nil {
		return outMsg{}, err
	}
	return l.tombstone(m, stoneTooLarge), nil
}

// ackedByHub notes that the hub has all up to seq.
func (l *uplinkLane) ackedByHub(seq, hubSeq uint64) {
	if l.rec.Seq == 0 || !l.rec.Created.Equal(l.hub.created) {
		l.rec.Since = l.next
	}
	l.rec.Created, l.rec.HubSeq, l.rec.Seq = l.hub.created, hubSeq, seq
	if !l.dirty {
		l.settleBy = l.p.o.Now().Add(l.p.o.Timing.Settle)
	}
	l.dirty, l.unkept = true, l.unkept+int(seq-l.next)+1
	l.acked = max(l.acked, seq)
	l.next, l.expect = seq+1, hubSeq
	l.show(func(*LaneStatus) {})
}

// settle lets the store know what the hub has, in one turn with what is to be
// known of the hub. Should a crash come before it, the hub is asked.
func (l *uplinkLane) settle() error {
	if !l.dirty {
		return nil
	}
	t := l.db.Begin()
	if l.acked > l.kept {
		t.AckUpTo(l.sub, l.acked)
	}
	if err := l.put(t); err != nil {
		t.Discard()
		return err
	}
	var gone []uint64
	for seq := range l.stones {
		if seq <= l.acked {
			gone = append(gone, seq)
			if err := t.Delete(spaceHub, l.stoneKey(stoneNumber(seq))); err != nil {
				t.Discard()
				return err
			}
		}
	}
	if err := t.Commit(); err != nil {
		return fmt.Errorf("note what the hub has: %w", err)
	}
	l.kept, l.dirty, l.unkept = l.acked, false, 0
	l.proof.written()
	for _, seq := range gone {
		delete(l.stones, seq)
	}
	return nil
}

// put stages what is to be known of the lane on the hub.
func (l *uplinkLane) put(t *store.Turn) error {
	if err := putRecord(t, l.recordKey(), l.rec); err != nil {
		return err
	}
	return l.proof.write(t, l.stream)
}
