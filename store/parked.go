package store

import (
	"encoding/binary"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"
)

// parked is what memory holds of one message. The file has the rest.
type parked struct {
	number    uint64 // its key is its stream's id, and this
	s         *stream
	size      int64
	absolute  bool
	due       time.Duration // absolute: since 1970; else from published
	published time.Duration // own clock
	ids       []idHash      // what it is recognised by
	stored    bool          // on disk
	when      time.Duration // the order in the heap: real time, or own clock
	index     int           // in the heap; -1 when it is in none
}

// parkWrite is what a group does to what is parked.
type parkWrite struct {
	stored   []*parked
	released []*parked
}

func (w *parkWrite) park(tx *bolt.Tx, p *pendingMessage) error {
	q := p.parked
	key := seqKey(q.s.id, q.number)
	r := parkedRecord{absolute: q.absolute, due: q.due, frame: frame{Message: p.m, stored: q.published, published: q.published, given: p.given}}
	if err := tx.Bucket(bucketDelayed).Put(key, r.encode(key)); err != nil {
		return fmt.Errorf("stream %s, delayed message %d: %w", q.s.config.Name, q.number, err)
	}
	w.stored = append(w.stored, q)
	return nil
}

func (w *parkWrite) release(tx *bolt.Tx, q *parked) error {
	w.released = append(w.released, q)
	return tx.Bucket(bucketDelayed).Delete(seqKey(q.s.id, q.number))
}

// apply makes what was written what is known. Call it with db.mu held.
func (w *parkWrite) apply(db *DB) {
	for _, q := range w.stored {
		if _, there := db.delays.byStream[q.s][q]; there {
			db.delays.isStored(q, &db.clock)
		}
	}
	for _, q := range w.released {
		db.delays.remove(q)
		q.s.msgs++ // it is in the stream now
		q.s.bytes += q.size
	}
}

// parkedRecord is a message as it is parked: when it is due, what is not in its
// frame, and its frame.
type parkedRecord struct {
	absolute bool
	due      time.Duration
	frame    frame
}

func (r *parkedRecord) encode(key []byte) []byte {
	v := make([]byte, sealLen, sealLen+40+len(r.frame.ID)+len(r.frame.Producer)+int(r.frame.size()))
	flags := byte(0)
	if r.absolute {
		flags |= parkedAbsolute
	}
	v = append(v, parkedVersion, flags)
	v = binary.LittleEndian.AppendUint64(v, uint64(r.due))
	v = binary.LittleEndian.AppendUint32(v, uint32(len(r.frame.ID)))
	v = append(v, r.frame.ID...)
	v = binary.LittleEndian.AppendUint64(v, r.frame.ProducerSeq)
	v = binary.LittleEndian.AppendUint32(v, uint32(len(r.frame.Producer)))
	v = append(v, r.frame.Producer...)
	v = r.frame.append(v)
	return finishSeal(key, v)
}

// decodeParked reads a value without copying header and data.
func decodeParked(key, v []byte) (r parkedRecord, err error) {
	b, err := unseal(key, v)
	if err != nil {
		return r, err
	}
	if len(b) < 14 || b[0] != parkedVersion || b[1]&^parkedAbsolute != 0 {
		return r, ErrDamaged
	}
	r.absolute = b[1]&parkedAbsolute != 0
	r.due = time.Duration(binary.LittleEndian.Uint64(b[2:]))
	id := uint64(binary.LittleEndian.Uint32(b[10:]))
	if b = b[14:]; id > uint64(len(b)) {
		return r, ErrDamaged
	}
	m := Message{ID: string(b[:id])}
	if b = b[id:]; len(b) < 12 {
		return r, ErrDamaged
	}
	m.ProducerSeq = binary.LittleEndian.Uint64(b)
	producer := uint64(binary.LittleEndian.Uint32(b[8:]))
	if b = b[12:]; producer > uint64(len(b)) {
		return r, ErrDamaged
	}
	m.Producer = string(b[:producer])
	if r.frame, err = parseFrame(b[producer:]); err != nil {
		return r, err
	}
	r.frame.ID, r.frame.Producer, r.frame.ProducerSeq = m.ID, m.Producer, m.ProducerSeq
	return r, nil
}

func (a *audit) parked(key, value []byte) (ok bool, err error) {
	id, number, ok := splitSeqKey(key)
	if _, err := decodeParked(key, value); err != nil || !ok {
		return false, nil
	}
	if a.streams[id] == nil {
		if err := a.found("delayed messages from %d on belong to stream %d, which is missing", number, id); err != nil {
			return false, err
		}
		a.streams[id] = &auditStream{name: recoveredName(id)}
	}
	return true, nil
}
