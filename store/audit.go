package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"os"
)

// audit reads a file whole, once, and holds its parts against each other. It
// keeps a few words for each stream and subscription, and nothing of messages
// and values.
type audit struct {
	*walker
	f      *os.File
	ctx    context.Context
	r      *Report
	strict bool // the first finding is an error
	// carry is given every value that is as it was written; nil for none. What
	// it gets is good for the duration of the call.
	carry func(bucket string, key, value []byte) error

	bucket  string // that is read now
	version int    // of the format, once it is known
	read    int    // values so far
	streams map[uint32]*auditStream
	names   map[string]uint32
	subs    map[string]subscriptionRecord
	floors  map[uint32]position // of subscriptions; attempts are among them
	aheads  map[uint32]uint64   // sequences of streams that may have been told
	gone    []keyRange          // where messages can not be read
	holed   map[string]bool     // buckets of which something is missing
	spaces  spaces
}

// auditStream is a stream by its record, its counters and its messages.
type auditStream struct {
	name    string
	ahead   bool // it tells sequences before they are on disk
	counted bool // old was readable
	old     counters
	tally
	lastID uint64 // the last identity, or message of a producer
}

// tally counts the messages of a stream, which come in order.
type tally struct {
	first, last uint64
	msgs, bytes int64
	gaps        []Range // between them
	moreGaps    int
}

func (t *tally) add(seq uint64, size int64) {
	if t.msgs == 0 {
		t.first = seq
	} else if seq > t.last+1 {
		if len(t.gaps) < maxGaps {
			t.gaps = append(t.gaps, Range{t.last + 1, seq - 1})
		} else {
			t.moreGaps++
		}
	}
	t.last = seq
	t.msgs++
	t.bytes += size
}

// keyRange is keys in [low, high); nil is open.
type keyRange struct{ low, high []byte }

func newAudit(ctx context.Context, f *os.File, strict bool) *audit {
	return &audit{
		ctx: ctx, f: f, strict: strict, streams: make(map[uint32]*auditStream), names: make(map[string]uint32),
		subs: make(map[string]subscriptionRecord), floors: make(map[uint32]position), aheads: make(map[uint32]uint64), holed: make(map[string]bool),
	}
}

// found takes what is wrong: an error, if it is to be one.
func (a *audit) found(format string, args ...any) error {
	text := fmt.Sprintf(format, args...)
	if a.strict {
		return fmt.Errorf("%w: %s", ErrDamaged, text)
	}
	a.r.find(text)
	return nil
}

// note takes what is wrong where that is no reason not to open the file.
func (a *audit) note(format string, args ...any) {
	if !a.strict {
		a.r.find(fmt.Sprintf(format, args...))
	}
}

// file reads the file as its last commit left it.
func (a *audit) file(path string) error {
	size, err := a.begin(path)
	if err != nil {
		return err
	}
	metas := readMetas(a.f)
	if len(metas) == 0 {
		a.r.Rootless = true
		a.walker = newWalker(a.f, uint64(size)/pageSize, a.unread)
		for _, name := range allBuckets {
			a.bucket = string(name)
			a.allGone()
		}
		a.gone = nil // messages are found by other means
		return a.found("it has no valid root page")
	}
	for _, m := range metas {
		if m.astray {
			if err := a.found("a root page is in the place of the other one"); err != nil {
				return err
			}
		}
	}
	if len(metas) == 1 || metas[0].txid == metas[1].txid {
		a.r.Notes = append(a.r.Notes, "one of the two root pages can not be read: a power cut during the last write does this; if there was none, the turns committed last may be gone")
	}
	return a.all(metas[0], size)
}

// snapshot reads the file as commit txid left it.
func (a *audit) snapshot(path string, txid uint64) error {
	size, err := a.begin(path)
	if err != nil {
		return err
	}
	for _, m := range readMetas(a.f) {
		if m.txid == txid {
			return a.all(m, size)
		}
	}
	return fmt.Errorf("%w: its root page was written twice meanwhile; try again", ErrBusy)
}

func (a *audit) begin(path string) (size int64, err error) {
	info, err := a.f.Stat()
	if err != nil {
		return 0, fmt.Errorf("%w: %w", ErrUnusable, err)
	}
	a.r = newReport(path)
	a.r.Bytes = info.Size()
	return info.Size(), nil
}

// all reads every bucket, meta, streams and subscriptions before what belongs
// to them.
func (a *audit) all(m metaPage, size int64) error {
	pages := uint64(size) / pageSize
	a.r.Pages = int64(min(m.pages, 1<<40))
	if m.pages > pages {
		if err := a.found("it has %d bytes of %d", size, min(m.pages, 1<<40)*pageSize); err != nil {
			return err
		}
	} else {
		pages = m.pages
	}
	a.walker = newWalker(a.f, pages, a.unread)
	roots := make(map[string][]byte)
	var strange []string
	err := a.tree(m.root, 0, nil, nil, func(flags uint32, name, value []byte) error {
		switch {
		case flags != leafBucket || len(value) < bucketLen:
			return a.found("%q is no bucket", name)
		case !isBucket(name):
			strange = append(strange, string(name))
		default:
			roots[string(name)] = bytes.Clone(value)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, name := range allBuckets {
		a.bucket = string(name)
		root, ok := roots[a.bucket]
		if !ok && addedBuckets[a.bucket] > a.version && a.version > 0 {
			continue // the file is older
		}
		if !ok {
			if err := a.found("bucket %s is missing", name); err != nil {
				return err
			}
			a.allGone()
			continue
		}
		if err := a.walker.bucket(root, 1, a.element); err != nil {
			return err
		}
	}
	a.bucket = ""
	for _, name := range strange {
		if err := a.found("there is a bucket %q", name); err != nil {
			return err
		}
	}
	return a.agree()
}

func isBucket(name []byte) bool {
	for _, b := range allBuckets {
		if bytes.Equal(b, name) {
			return true
		}
	}
	return false
}

// unread takes a hole in a tree.
func (a *audit) unread(h hole) error {
	a.r.Unreadable++
	a.holed[a.bucket] = true
	where := "of the root"
	if a.bucket != "" {
		where = "of " + a.bucket
		if a.bucket == string(bucketMessages) {
			a.goneFrom(h.low, h.high)
		} else {
			a.r.lose(Loss{lossName(a.bucket), a.nameOf(a.bucket, h.low), a.nameOf(a.bucket, h.high), true})
		}
	}
	return a.found("page %d %s: %s", h.page, where, h.why)
}

// goneFrom notes where messages can not be read.
func (a *audit) goneFrom(low, high []byte) {
	if n := len(a.gone); n == maxGone {
		a.gone[n-1].high = bytes.Clone(high)
		return
	}
	a.gone = append(a.gone, keyRange{bytes.Clone(low), bytes.Clone(high)})
}

// allGone notes that nothing of a bucket can be read.
func (a *audit) allGone() {
	a.holed[a.bucket] = true
	if a.bucket == string(bucketMessages) {
		a.goneFrom(nil, nil)
	} else {
		a.r.lose(Loss{What: lossName(a.bucket), Range: true})
	}
}

// damaged takes a value that is not what was written.
func (a *audit) damaged(key []byte) error {
	a.holed[a.bucket] = true
	if a.bucket == string(bucketMessages) {
		a.goneFrom(key, append(bytes.Clone(key), 0))
	} else {
		a.r.lose(Loss{What: lossName(a.bucket), First: a.nameOf(a.bucket, key)})
	}
	return a.found("%s %s is not what was written", what(a.bucket), a.nameOf(a.bucket, key))
}

func what(bucket string) string {
	if bucket == string(bucketMessages) {
		return "message"
	}
	return lossName(bucket)
}

// element reads a value.
func (a *audit) element(flags uint32, key, value []byte) error {
	if a.read++; a.read%4096 == 0 {
		if err := a.ctx.Err(); err != nil {
			return context.Cause(a.ctx)
		}
	}
	body, err := unseal(key, value)
	if flags != 0 || err != nil {
		return a.damaged(key)
	}
	var ok bool
	switch a.bucket {
	case string(bucketMeta):
		ok, err = a.meta(key, value)
	case string(bucketStreams):
		ok = a.stream(key, value)
	case string(bucketCounters):
		ok = a.counters(key, value)
	case string(bucketMessages):
		ok, err = a.message(key, value)
	case string(bucketIDs):
		ok = a.identity(key, body)
	case string(bucketSubs):
		ok = a.subscription(key, value)
	case string(bucketPositions):
		ok = a.position(key, value)
	case string(bucketDelayed):
		ok, err = a.parked(key, value)
	case string(bucketProducers):
		ok = a.producer(key, value)
	case string(bucketDead):
		var d DeadLetter
		ok = len(key) == 8 && getJSON(key, value, &d) == nil && d.ID == binary.BigEndian.Uint64(key)
	case string(bucketState):
		a.spaces.countState(key, body)
		ok = true
	default:
		ok = true
	}
	switch {
	case err != nil:
		return err
	case !ok:
		return a.damaged(key)
	case a.carry != nil:
		return a.carry(a.bucket, key, value)
	}
	return nil
}

// agree holds counters against messages, subscriptions against streams, and
// positions against both.
func (a *audit) agree() error {
	for _, s := range a.streams {
		c := &s.old
		if s.msgs != c.msgs || s.bytes != c.bytes || s.last > c.last || s.msgs > 0 && s.first < c.first {
			if err := a.found("stream %s holds %d messages (%d bytes) where %d (%d bytes) were written", s.name, s.msgs, s.bytes, c.msgs, c.bytes); err != nil {
				return err
			}
		}
		if s.lastID > c.last {
			a.note("stream %s has an identity of message %d, and ends at %d", s.name, s.lastID, c.last)
		}
	}
	used := make(map[uint32]bool)
	for name, r := range a.subs {
		id, ok := a.names[r.Stream]
		if !ok {
			if err := a.found("subscription %s is of stream %s, which is missing", name, r.Stream); err != nil {
				return err
			}
			continue
		}
		p, ok := a.floors[r.ID]
		if !ok {
			if err := a.found("subscription %s has no position", name); err != nil {
				return err
			}
		} else if last := max(a.streams[id].old.last, a.aheads[id]); p.floor > last {
			a.note("subscription %s has acknowledged %d, and stream %s ends at %d", name, p.floor, r.Stream, last)
		}
		if used[r.ID] {
			if err := a.found("subscription %s shares its position with another one", name); err != nil {
				return err
			}
		}
		used[r.ID] = true
	}
	for id := range a.floors {
		if !used[id] {
			a.note("there is a position number %d of no subscription", id)
		}
	}
	return nil
}
