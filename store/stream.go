package store

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
	"sort"

	bolt "go.etcd.io/bbolt"
)

// A full stream refuses what comes (the publisher is told, with ErrFull), or
// drops what is oldest, counted in StreamInfo.Dropped.
// Reasons for which a message leaves a stream before all its readers had it.
// The numbers are on disk.
const (
	dropFull    = iota // on_full = drop-oldest
	dropAge            // max_age
	dropExpired        // its own time to live
	dropRestart        // it was in memory alone
	numDropReasons
)

var dropNames = [numDropReasons]string{"full", "age", "expired", "restart"}

// StreamInfo is the state of a stream: on disk, and what was told of what is in
// memory alone.
type StreamInfo struct {
	StreamConfig
	First, Last uint64 // sequences held; First is Last+1 when there is none
	Msgs, Bytes int64
	// Delayed counts messages that are parked until they are due. Limits count
	// them too; at most half of a limit of a stream that drops its oldest.
	Delayed int64
	// Dropped counts messages that a limit took before every subscription of
	// the stream had acknowledged them, by reason: "full", "age", "expired" or
	// "restart".
	Dropped map[string]uint64
	// Risk is zero for a stream that is Synced.
	Risk Risk
}

type streamRecord struct {
	ID     uint32       `json:"id"`
	Config StreamConfig `json:"config"`
}

// stream is a stream in memory. disk is what the file says, and readers see
// tail behind it; last, msgs and bytes include what is queued.
type stream struct {
	id       uint32
	config   StreamConfig
	deleted  bool // by DeleteStream; only the writer sets and asks
	disk     counters
	tail     tail
	shed     shed
	fronts   fronts
	ahead    uint64                 // sequences up to here are reserved on disk: they may be told before their message is there
	written  uint64                 // the sequence of the last message that got to the disk; 0 if there was none at Open
	jumped   bool                   // at Open, over what was reserved
	moved    bool                   // from memory, and the disk does not know yet how far subscriptions and producers are
	counted  int64                  // messages in memory alone, by what the file says
	lost     [numDropReasons]uint64 // messages in memory dropped, not counted in disk yet
	last     uint64                 // of the last message queued
	msgs     int64
	bytes    int64
	parked   parkedCount // of msgs and bytes
	marks    watermarks
	ids      identities
	watchers map[chan struct{}]struct{}
	front    frame // the oldest message, as far as it grows old; only the writer looks
}

func newStream(id uint32, c StreamConfig) *stream {
	return &stream{
		id: id, config: c, disk: counters{first: 1},
		watchers: make(map[chan struct{}]struct{}),
	}
}

// rollback forgets what was queued.
func (s *stream) rollback() {
	s.last, s.msgs, s.bytes = s.lastSeq(), s.heldMsgs(), s.heldBytes()
	s.ids.forgetBeyond(s.last)
	s.marks.rollback()
}

// repeated returns the sequence of the first message with the identity of p, if
// the stream remembers it: 0 while it is parked. Of a producer's message whose
// identity is forgotten, it is that of the producer's last one.
func (s *stream) repeated(p *pendingMessage) (seq uint64, ok bool) {
	for _, h := range p.identities(s) {
		if seq, ok := s.ids.find(h); ok {
			return seq, true
		}
		if s.parked.ids[h] != nil {
			return 0, true
		}
	}
	if m, _ := s.marks.of(p.producer); p.numbered.seq > 0 && p.numbered.seq <= m.seq {
		return m.last, true
	}
	return 0, false
}

func (s *stream) wakeWatchers() {
	for ch := range s.watchers {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}

// EnsureStream creates the stream, or gives the one of that name these limits.
// Of what is beyond new limits, max_age takes what is too old; a stream that
// drops its oldest does so within a second, and one that refuses keeps all it has
// and refuses until there is less. One that is no longer in memory writes what
// it holds. What one that becomes so has on disk stays there, in front of what
// comes, until it is consumed.
func (db *DB) EnsureStream(c StreamConfig) error {
	if err := c.check(); err != nil {
		return err
	}
	db.mu.Lock()
	s, exists := db.streams[c.Name]
	same := exists && s.config == c
	db.mu.Unlock()
	if same {
		return nil
	}
	return db.admin(func(tx *bolt.Tx) (func(), error) {
		// Somebody may have been faster. Only the writer, which runs this, adds
		// and removes.
		db.mu.Lock()
		s, exists := db.streams[c.Name]
		db.mu.Unlock()
		r := streamRecord{Config: c}
		if exists {
			r.ID = s.id
		} else {
			id, err := tx.Bucket(bucketStreams).NextSequence()
			if err != nil {
				return nil, err
			}
			r.ID = uint32(id)
		}
		if err := putJSON(tx.Bucket(bucketStreams), []byte(c.Name), r); err != nil {
			return nil, err
		}
		return func() {
			if exists {
				if s.config.Durability == Memory && c.Durability != Memory {
					db.holdTail(s)
				}
				s.config = c
			} else {
				db.streams[c.Name] = newStream(r.ID, c)
			}
		}, nil
	})
}

// DeleteStream removes a stream with its messages and subscriptions. It fails
// with ErrNoStream if there is none.
func (db *DB) DeleteStream(name string) error {
	return db.admin(func(tx *bolt.Tx) (func(), error) {
		s, subs := db.streamWithSubs(name)
		if s == nil {
			return nil, fmt.Errorf("delete stream %s: %w", name, ErrNoStream)
		}
		for _, sub := range subs {
			if err := deleteSubscription(tx, sub); err != nil {
				return nil, err
			}
		}
		for _, b := range [][]byte{bucketMessages, bucketIDs, bucketDelayed, bucketProducers} {
			if err := deleteRange(tx.Bucket(b), s.id); err != nil {
				return nil, err
			}
		}
		if err := tx.Bucket(bucketCounters).Delete(idKey(s.id)); err != nil {
			return nil, err
		}
		if err := tx.Bucket(bucketStreams).Delete([]byte(name)); err != nil {
			return nil, err
		}
		if err := putReservation(tx, s.id, reservation{}); err != nil {
			return nil, err
		}
		return func() {
			for _, sub := range subs {
				delete(db.subs, sub.name)
			}
			delete(db.streams, name)
			s.deleted = true
			db.delays.forget(s)
			s.wakeWatchers()
		}, nil
	})
}

func (db *DB) streamWithSubs(name string) (s *stream, subs []*subscription) {
	db.mu.Lock()
	defer db.mu.Unlock()
	s = db.streams[name]
	for _, sub := range db.subs {
		if sub.stream == s {
			subs = append(subs, sub)
		}
	}
	return s, subs
}

func deleteRange(b *bolt.Bucket, stream uint32) error {
	c := b.Cursor()
	from := idKey(stream)
	// Each search begins where the last one ended: pages that are empty by now
	// stay in the tree until the commit.
	for k, _ := c.Seek(from); len(k) >= 4 && binary.BigEndian.Uint32(k) == stream; k, _ = c.Seek(from) {
		from = slices.Clone(k)
		if err := c.Delete(); err != nil {
			return err
		}
	}
	return nil
}

// Streams returns all streams, by name.
func (db *DB) Streams() []StreamInfo {
	db.mu.Lock()
	defer db.mu.Unlock()
	infos := make([]StreamInfo, 0, len(db.streams))
	for _, s := range db.streams {
		infos = append(infos, db.info(s))
	}
	sort.Slice(infos, func(i, j int) bool { return infos[i].Name < infos[j].Name })
	return infos
}

// Stream returns the state of one stream, or ErrNoStream.
func (db *DB) Stream(name string) (StreamInfo, error) {
	db.mu.Lock()
	defer db.mu.Unlock()
	s, ok := db.streams[name]
	if !ok {
		return StreamInfo{}, fmt.Errorf("stream %s: %w", name, ErrNoStream)
	}
	return db.info(s), nil
}

func (db *DB) info(s *stream) StreamInfo {
	info := StreamInfo{
		StreamConfig: s.config,
		First:        s.firstSeq(), Last: s.lastSeq(),
		Msgs: s.heldMsgs(), Bytes: s.heldBytes(),
		Delayed: s.parked.stored,
		Dropped: make(map[string]uint64),
		Risk:    db.risk(s),
	}
	for i, n := range s.disk.dropped {
		if n += s.lost[i]; n > 0 {
			info.Dropped[dropNames[i]] = n
		}
	}
	return info
}

// Watch returns a channel that gets a token after each commit that added
// messages to the stream; tokens do not pile up. The first is there at once,
// so that a reader begins by reading. stop ends it.
func (db *DB) Watch(name string) (wake <-chan struct{}, stop func(), err error) {
	db.mu.Lock()
	defer db.mu.Unlock()
	s, ok := db.streams[name]
	if !ok {
		return nil, nil, fmt.Errorf("watch stream %s: %w", name, ErrNoStream)
	}
	ch := make(chan struct{}, 1)
	ch <- struct{}{}
	s.watchers[ch] = struct{}{}
	return ch, func() {
		db.mu.Lock()
		defer db.mu.Unlock()
		delete(s.watchers, ch)
	}, nil
}

// Read calls fn for at most limit committed messages of the stream from
// sequence from on, in order, and stops when they hold more than maxBytes
// together or when fn fails. Messages that were consumed or dropped are not
// there any more. The bytes of a message are fn's to keep.
func (db *DB) Read(name string, from uint64, limit, maxBytes int, fn func(Message) error) error {
	db.mu.Lock()
	s, ok := db.streams[name]
	var id uint32
	var last uint64
	var tail []tailEntry
	if ok {
		// What is in the tail now may be on disk when that is read: it is taken
		// from here, and nothing behind last from there.
		from = max(from, s.shed.upTo+1)
		id, last, tail = s.id, s.disk.last, s.tail.from(from, limit)
	}
	db.mu.Unlock()
	if !ok {
		return fmt.Errorf("read stream %s: %w", name, ErrNoStream)
	}
	var batch []Message
	size := 0
	line, now := db.clock.line.Load(), db.clock.now()
	take := func(key, v []byte, seq uint64) error {
		v = slices.Clone(v)
		f, err := decodeFrame(key, v)
		if err != nil {
			return fmt.Errorf("stream %s, message %d: %w", name, seq, err)
		}
		m := f.message(line, now)
		m.Stream, m.Seq = name, seq
		size += len(v)
		batch = append(batch, m)
		return nil
	}
	if from <= last {
		err := db.view(func(tx *bolt.Tx) error {
			c := tx.Bucket(bucketMessages).Cursor()
			for k, v := c.Seek(seqKey(id, from)); k != nil && len(batch) < limit && size < maxBytes; k, v = c.Next() {
				stream, seq, ok := splitSeqKey(k)
				if !ok || stream != id || seq > last {
					break
				}
				if err := take(k, v, seq); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	for i := 0; i < len(tail) && len(batch) < limit && size < maxBytes; i++ {
		if err := take(seqKey(id, tail[i].seq), tail[i].value, tail[i].seq); err != nil {
			return err
		}
	}
	for _, m := range batch {
		if err := fn(m); err != nil {
			return err
		}
	}
	return nil
}

func putJSON(b *bolt.Bucket, key []byte, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return b.Put(key, seal(key, body))
}

func getJSON(key, v []byte, to any) error {
	body, err := unseal(key, v)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(body, to); err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return nil
}
