package store

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// Buckets of the file. Every value in them begins with a checksum (seal), so
// that a flipped bit is an error and never a message.
var (
	bucketMeta      = []byte("meta")      // "version", "clock", "timeline"
	bucketStreams   = []byte("streams")   // name → JSON of streamRecord
	bucketCounters  = []byte("counters")  // stream id → counters
	bucketMessages  = []byte("messages")  // stream id, sequence → message
	bucketIDs       = []byte("ids")       // stream id, sequence → hash of the message's identity
	bucketSubs      = []byte("subs")      // name → JSON of subscriptionRecord
	bucketPositions = []byte("positions") // subscription id → position
	bucketState     = []byte("state")     // space, key → value
	bucketDead      = []byte("dead")      // id → JSON of DeadLetter
	bucketDelayed   = []byte("delayed")   // stream id, number → message that is parked
	bucketProducers = []byte("producers") // stream id, hash of the producer's name → watermark

	allBuckets = [][]byte{
		bucketMeta, bucketStreams, bucketCounters, bucketMessages, bucketIDs,
		bucketSubs, bucketPositions, bucketState, bucketDead, bucketDelayed, bucketProducers,
	}
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

const sealLen = 4

// seal puts the checksum of key and body in front of body. The key is part of
// it, so that a value found under another key is damage too.
func seal(key, body []byte) []byte {
	v := make([]byte, sealLen, sealLen+len(body))
	return finishSeal(key, append(v, body...))
}

// finishSeal fills in the checksum of a value whose first four bytes were left
// free.
func finishSeal(key, v []byte) []byte {
	crc := crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, v[sealLen:])
	binary.LittleEndian.PutUint32(v, crc)
	return v
}

// unseal returns the body of v, which still belongs to the file, or ErrDamaged.
func unseal(key, v []byte) ([]byte, error) {
	if len(v) < sealLen {
		return nil, ErrDamaged
	}
	crc := crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, v[sealLen:])
	if binary.LittleEndian.Uint32(v) != crc {
		return nil, ErrDamaged
	}
	return v[sealLen:], nil
}

// seqKey is the key of a message: its stream, then its sequence, big endian,
// so that a stream is one contiguous, ordered range and grows at its end.
func seqKey(stream uint32, seq uint64) []byte {
	k := make([]byte, 12)
	binary.BigEndian.PutUint32(k, stream)
	binary.BigEndian.PutUint64(k[4:], seq)
	return k
}

// splitSeqKey undoes seqKey.
func splitSeqKey(k []byte) (stream uint32, seq uint64, ok bool) {
	if len(k) != 12 {
		return 0, 0, false
	}
	return binary.BigEndian.Uint32(k), binary.BigEndian.Uint64(k[4:]), true
}

func idKey(id uint32) []byte { return binary.BigEndian.AppendUint32(nil, id) }

func deadKey(id uint64) []byte { return binary.BigEndian.AppendUint64(nil, id) }

// Limits of keys in spaces.
const (
	maxSpace = 255
	maxKey   = 1024
	maxValue = 16 << 20
)

// stateKey is the key of a value: the length of the space's name, the name,
// the key.
type stateKey string

func newStateKey(space, key string) (stateKey, error) {
	if len(space) == 0 || len(space) > maxSpace {
		return "", fmt.Errorf("space %q: name of %d bytes: %w", space, len(space), ErrTooLarge)
	}
	if len(key) > maxKey {
		return "", fmt.Errorf("space %s: key of %d bytes, at most %d: %w", space, len(key), maxKey, ErrTooLarge)
	}
	return stateKey(string([]byte{byte(len(space))}) + space + key), nil
}

// counters is what the store knows of a stream without reading its messages.
type counters struct {
	first, last uint64 // last is 0 in a stream that never had a message; first is last+1 when it holds none
	msgs, bytes int64
	dropped     [numDropReasons]uint64
}

const countersLen = 4*8 + numDropReasons*8

func (c *counters) encode(key []byte) []byte {
	v := make([]byte, sealLen, sealLen+countersLen)
	v = binary.LittleEndian.AppendUint64(v, c.first)
	v = binary.LittleEndian.AppendUint64(v, c.last)
	v = binary.LittleEndian.AppendUint64(v, uint64(c.msgs))
	v = binary.LittleEndian.AppendUint64(v, uint64(c.bytes))
	for _, n := range c.dropped {
		v = binary.LittleEndian.AppendUint64(v, n)
	}
	return finishSeal(key, v)
}

func decodeCounters(key, v []byte) (c counters, err error) {
	b, err := unseal(key, v)
	if err != nil {
		return c, err
	}
	if len(b) < 4*8 {
		return c, ErrDamaged
	}
	c.first = binary.LittleEndian.Uint64(b)
	c.last = binary.LittleEndian.Uint64(b[8:])
	c.msgs = int64(binary.LittleEndian.Uint64(b[16:]))
	c.bytes = int64(binary.LittleEndian.Uint64(b[24:]))
	b = b[32:]
	for i := 0; i < int(numDropReasons) && len(b) >= 8; i++ {
		c.dropped[i] = binary.LittleEndian.Uint64(b)
		b = b[8:]
	}
	return c, nil
}
