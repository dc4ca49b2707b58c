package store

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	bolt "go.etcd.io/bbolt"
)

// Bounds of producers. A watermark is never forgotten, so there is a bound to
// how many a stream has.
const (
	maxProducers    = 1 << 16
	maxProducerName = 4096
)

// ErrProducers: the stream has watermarks of as many producers as it can. It is
// a kind of ErrFull.
var ErrProducers = fmt.Errorf("too many producers: %w", ErrFull)

// watermark is how far a producer has come in a stream. It is 16 bytes on disk,
// whatever it has sent, and is never forgotten.
type watermark struct {
	seq  uint64 // the highest number it gave to a message
	last uint64 // the sequence of that message; 0 while it is parked
}

// watermarks are those of a stream, by hash of the producer's name. DB.mu guards
// them.
type watermarks struct {
	stored map[idHash]watermark // or told of what is in memory
	queued map[idHash]watermark // beyond them
	fresh  int                  // of the queued, those of producers that are not stored
}

// numbered is what makes a message one of a producer's.
type numbered struct {
	producer idHash // of its name
	seq      uint64 // 0 for a message without
}

func (m *Message) checkProducer() error {
	switch {
	case m.ProducerSeq > 0 && m.Producer == "":
		return errors.New("it has the number of a producer, and no producer")
	case len(m.Producer) > maxProducerName:
		return fmt.Errorf("name of its producer has %d bytes, at most %d: %w", len(m.Producer), maxProducerName, ErrTooLarge)
	}
	return nil
}

// numbered returns what makes m one of a producer's, and an identity of that.
func (m *Message) numbered() (n numbered, identity idHash) {
	if m.ProducerSeq == 0 {
		return n, identity
	}
	n = numbered{producer: hashID(m.Producer), seq: m.ProducerSeq}
	// What is hashed begins as no identity does that comes in a header.
	sum := sha256.Sum256(append(binary.BigEndian.AppendUint64([]byte("\x00producer\x00"), n.seq), n.producer[:]...))
	return n, idHash(sum[:16])
}

func (w *watermarks) of(producer idHash) (m watermark, known bool) {
	if m, known = w.queued[producer]; !known {
		m, known = w.stored[producer]
	}
	return m, known
}

// raise notes what is queued. A message that was parked has raised it before.
func (w *watermarks) raise(n numbered, last uint64) {
	if m, _ := w.of(n.producer); n.seq == 0 || n.seq < m.seq {
		return
	}
	if w.queued == nil {
		w.queued = make(map[idHash]watermark)
	}
	if _, known := w.of(n.producer); !known {
		w.fresh++
	}
	w.queued[n.producer] = watermark{n.seq, last}
}

// rollback forgets what is queued.
func (w *watermarks) rollback() {
	clear(w.queued)
	w.fresh = 0
}

// told notes the watermark of a message that is in memory, which its publisher
// is told: it is there whatever the disk says.
func (w *watermarks) told(p *pendingMessage) {
	if m := (watermark{p.numbered.seq, p.m.Seq}); m.seq > 0 && m.seq >= w.stored[p.producer].seq {
		w.wrote(p.producer, m)
	}
}

// checkProducer finds whether the stream of p can have a watermark of its
// producer, and notes it.
func (a *added) checkProducer(p *pendingMessage) error {
	if p.numbered.seq == 0 {
		return nil
	}
	id := identity{p.s, p.producer}
	_, before := a.marks[id]
	if _, known := p.s.marks.of(p.producer); !known && !before {
		if n := p.s.marks.count() + a.producers[p.s]; n >= maxProducers {
			return fmt.Errorf("stream %s knows %d: %w", p.s.config.Name, n, ErrProducers)
		}
		if a.producers == nil {
			a.producers = make(map[*stream]int)
		}
		a.producers[p.s]++
	}
	if a.marks == nil {
		a.marks = make(map[identity]uint64)
	}
	a.marks[id] = p.numbered.seq
	return nil
}

// wrote makes m what is stored.
func (w *watermarks) wrote(producer idHash, m watermark) {
	if w.stored == nil {
		w.stored = make(map[idHash]watermark)
	}
	if _, known := w.stored[producer]; !known && w.fresh > 0 {
		w.fresh--
	}
	w.stored[producer] = m
	if w.queued[producer] == m {
		delete(w.queued, producer)
	}
}

// count is how many producers there are.
func (w *watermarks) count() int { return len(w.stored) + w.fresh }

// raise notes the watermark that p raises, as the file will have it.
func (c *streamWrite) raise(p *pendingMessage) {
	if p.numbered.seq == 0 {
		return
	}
	m, raised := c.marks[p.producer]
	if !raised {
		m = p.s.marks.stored[p.producer] // which nobody but the writer changes
	}
	if p.numbered.seq < m.seq {
		return
	}
	if c.marks == nil {
		c.marks = make(map[idHash]watermark)
	}
	c.marks[p.producer] = watermark{p.numbered.seq, p.m.Seq}
}

// putWatermarks writes those that a group raised.
func putWatermarks(tx *bolt.Tx, s *stream, marks map[idHash]watermark) error {
	b := tx.Bucket(bucketProducers)
	for producer, m := range marks {
		key := producerKey(s.id, producer)
		if err := b.Put(key, m.encode(key)); err != nil {
			return fmt.Errorf("stream %s, watermark of a producer: %w", s.config.Name, err)
		}
	}
	return nil
}

func producerKey(stream uint32, producer idHash) []byte {
	return append(idKey(stream), producer[:]...)
}

func splitProducerKey(k []byte) (stream uint32, producer idHash, ok bool) {
	if len(k) != 4+len(producer) {
		return 0, producer, false
	}
	return binary.BigEndian.Uint32(k), idHash(k[4:]), true
}

func (m watermark) encode(key []byte) []byte {
	v := binary.LittleEndian.AppendUint64(make([]byte, sealLen, sealLen+16), m.seq)
	return finishSeal(key, binary.LittleEndian.AppendUint64(v, m.last))
}

func decodeWatermark(key, v []byte) (m watermark, err error) {
	b, err := unseal(key, v)
	if err != nil {
		return m, err
	}
	if len(b) != 16 {
		return m, ErrDamaged
	}
	m = watermark{binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])}
	if m.seq == 0 {
		return m, ErrDamaged
	}
	return m, nil
}

// loadProducers reads the watermarks.
func (db *DB) loadProducers(tx *bolt.Tx, byID map[uint32]*stream) error {
	b := tx.Bucket(bucketProducers)
	if b == nil {
		return nil // before version 2
	}
	return b.ForEach(func(k, v []byte) error {
		id, producer, ok := splitProducerKey(k)
		s := byID[id]
		if !ok || s == nil {
			return fmt.Errorf("watermark under key %x belongs to no stream: %w", k, ErrDamaged)
		}
		m, err := decodeWatermark(k, v)
		if err != nil {
			return fmt.Errorf("stream %s, watermark of a producer: %w", s.config.Name, err)
		}
		s.marks.wrote(producer, m)
		return nil
	})
}

func (a *audit) producer(key, value []byte) bool {
	id, _, ok := splitProducerKey(key)
	m, err := decodeWatermark(key, value)
	if !ok || err != nil {
		return false
	}
	s := a.streams[id]
	if s == nil {
		return !a.strict // it went with its stream
	}
	s.lastID = max(s.lastID, m.last)
	return true
}
