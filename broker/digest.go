package broker

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash"
	"math/bits"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	// maxRanges bounds the closed ranges of a digest that hold messages. Beyond it
	// each two become one, so that a lane of any length has as many.
	maxRanges = 64
	// firstRange is how many messages the ranges of a young lane hold.
	firstRange = 1024
	// maxDigests bounds the digests that are kept of a lane, beside the one that
	// goes on: of former epochs, and of hubs that were here before.
	maxDigests = 4
)

// Reasons why a range cannot be compared.
const (
	whyLost    = "the hub lost what it had acknowledged"
	whyNotHeld = "the box did not hold it any more when it learned that the hub has it"
	whyAgain   = "it was sent more than once"
)

// LaneDigest is what a box knows of the messages of a lane that a hub acknowledged
// to it, in one epoch. Whoever reads the lane can find out whether the hub holds
// exactly those, without having them.
type LaneDigest struct {
	Created time.Time     `json:"created"` // of EDGE_UP: which hub it is
	Epoch   string        `json:"epoch"`
	Size    uint64        `json:"size"`   // messages in a closed range
	Ranges  []DigestRange `json:"ranges"` // one behind the other; the last one is still open
}

// DigestRange is what the messages of a range of sequences add up to. It does not
// depend on their order, which a reader sees anyway, so that two ranges can
// become one.
type DigestRange struct {
	From  uint64 `json:"from"` // sequences, both included; not all of them have a message
	To    uint64 `json:"to"`
	Count uint64 `json:"count"`
	HubTo uint64 `json:"hub_to"` // the hub's sequence of the last message, about
	Sum   Sum    `json:"sum"`    // of the hashes of the messages
	// Plain and Weighed are sums modulo 2^61-1 of a part of each hash, and of that
	// part times the sequence. Where one message differs, they tell which.
	Plain   uint64 `json:"plain"`
	Weighed uint64 `json:"weighed"`
	// Why is not empty for a range that cannot be compared.
	Why string `json:"why,omitempty"`
}

// Sum is a number of 256 bits, least significant word first, added modulo 2^256.
type Sum [4]uint64

// entry is one message of a digest.
type entry struct {
	seq  uint64
	hash [sha256.Size]byte
}

func (s *Sum) add(o Sum) {
	var carry uint64
	for i := range s {
		s[i], carry = bits.Add64(s[i], o[i], carry)
	}
}

func sumOf(h [sha256.Size]byte) (s Sum) {
	for i := range s {
		s[i] = binary.LittleEndian.Uint64(h[8*i:])
	}
	return s
}

// MarshalText returns the sum in hexadecimal digits.
func (s Sum) MarshalText() ([]byte, error) {
	var b [sha256.Size]byte
	for i, w := range s {
		binary.LittleEndian.PutUint64(b[8*i:], w)
	}
	return hex.AppendEncode(nil, b[:]), nil
}

// UnmarshalText reads what MarshalText wrote.
func (s *Sum) UnmarshalText(text []byte) error {
	var b [sha256.Size]byte
	if len(text) != hex.EncodedLen(len(b)) {
		return errors.New("sum: must have 64 hexadecimal digits")
	}
	if _, err := hex.Decode(b[:], text); err != nil {
		return err
	}
	*s = sumOf(b)
	return nil
}

// add takes one more message in.
func (r *DigestRange) add(e entry) {
	r.Count++
	s := sumOf(e.hash)
	r.Sum.add(s)
	part := reduce(s[0])
	r.Plain = addMod(r.Plain, part)
	r.Weighed = addMod(r.Weighed, mulMod(part, reduce(e.seq)))
}

// join makes r one range with o, which follows it.
func (r *DigestRange) join(o DigestRange) {
	r.To, r.HubTo = o.To, max(r.HubTo, o.HubTo)
	r.Count += o.Count
	r.Sum.add(o.Sum)
	r.Plain, r.Weighed = addMod(r.Plain, o.Plain), addMod(r.Weighed, o.Weighed)
}

// same says whether two sides have the same messages in a range.
func (r *DigestRange) same(o *DigestRange) bool {
	return r.Count == o.Count && r.Sum == o.Sum && r.Plain == o.Plain && r.Weighed == o.Weighed
}

// differs returns the sequence of the one message in which the two sides differ,
// as far as it can be told. ok is false if there are several.
func (r *DigestRange) differs(o *DigestRange) (seq uint64, ok bool) {
	plain, weighed := subMod(r.Plain, o.Plain), subMod(r.Weighed, o.Weighed)
	if plain == 0 {
		return 0, false
	}
	seq = mulMod(weighed, invMod(plain))
	return seq, r.From <= seq && seq <= r.To
}

// to returns the last sequence that the digest covers.
func (d *LaneDigest) to() uint64 {
	if n := len(d.Ranges); n > 0 {
		return d.Ranges[n-1].To
	}
	return 0
}

// count returns how many messages it has.
func (d *LaneDigest) count() (n uint64) {
	for i := range d.Ranges {
		n += d.Ranges[i].Count
	}
	return n
}

// newDigest returns the digest of a lane whose next message is from.
func newDigest(created time.Time, epoch string, from uint64) *LaneDigest {
	return &LaneDigest{Created: created, Epoch: epoch, Size: firstRange, Ranges: []DigestRange{{From: from, To: from - 1}}}
}

// add takes a message in that the hub acknowledged. closed says that the last
// range is full and another one was begun.
func (d *LaneDigest) add(e entry, hubSeq uint64) (closed bool) {
	if e.seq <= d.to() {
		d.cut(e.seq-1, whyAgain)
		closed = true
	}
	if len(d.Ranges) == 0 {
		d.Ranges = []DigestRange{{From: e.seq, To: e.seq - 1}}
	}
	last := &d.Ranges[len(d.Ranges)-1]
	if last.Why != "" {
		d.Ranges = append(d.Ranges, DigestRange{From: last.To + 1})
		last, closed = &d.Ranges[len(d.Ranges)-1], true
	}
	last.add(e)
	last.To, last.HubTo = e.seq, hubSeq
	if last.Count < d.Size {
		return closed
	}
	d.Ranges = append(d.Ranges, DigestRange{From: e.seq + 1, To: e.seq, HubTo: hubSeq})
	d.compact()
	return true
}

// skip notes that what follows, up to a sequence, cannot be compared.
func (d *LaneDigest) skip(to uint64, why string) {
	last := d.to()
	if to <= last {
		return
	}
	if n := len(d.Ranges); n > 0 && d.Ranges[n-1].Count == 0 { // nothing but what cannot be compared, or nothing
		r := &d.Ranges[n-1]
		if r.Why == "" {
			r.Why = why
		}
		r.To = to
		return
	}
	d.Ranges = append(d.Ranges, DigestRange{From: last + 1, To: to, Why: why})
	d.compact()
}

// cut takes back all behind a sequence. What shared a range with it cannot be
// compared any more.
func (d *LaneDigest) cut(to uint64, why string) {
	for n := len(d.Ranges); n > 0 && d.Ranges[n-1].From > to; n-- {
		d.Ranges = d.Ranges[:n-1]
	}
	if n := len(d.Ranges); n > 0 && d.Ranges[n-1].To > to {
		r := d.Ranges[n-1]
		d.Ranges[n-1] = DigestRange{From: r.From, To: to, HubTo: r.HubTo, Why: why}
	}
}

// compact lets ranges grow until there are few enough. The last one is open and
// stays as it is.
func (d *LaneDigest) compact() {
	for len(d.Ranges) > maxRanges+1 {
		if n := len(d.Ranges) / 2; d.unproven() > maxRanges/4 {
			// What cannot be compared keeps ranges apart; the oldest half goes.
			last := d.Ranges[n-1]
			whole := DigestRange{From: d.Ranges[0].From, To: last.To, HubTo: last.HubTo, Why: whyNotHeld}
			d.Ranges = append([]DigestRange{whole}, d.Ranges[n:]...)
			continue
		}
		d.Size *= 2
		end := len(d.Ranges) - 1
		kept := slices.Clone(d.Ranges[:1])
		for _, r := range d.Ranges[1:end] {
			last := &kept[len(kept)-1]
			if last.Why == "" && r.Why == "" && last.Count+r.Count <= d.Size {
				last.join(r)
			} else {
				kept = append(kept, r)
			}
		}
		d.Ranges = append(kept, d.Ranges[end])
	}
}

// unproven returns how many ranges cannot be compared.
func (d *LaneDigest) unproven() (n int) {
	for _, r := range d.Ranges {
		if r.Why != "" {
			n++
		}
	}
	return n
}

// hasher makes the hash of a message as both sides see it: its sequence, its
// subject without that of the lane, the headers that are the message's own, and
// its body. The epoch is the digest's, and headers of NATS are not the message's.
// For one goroutine.
type hasher struct {
	h     hash.Hash
	names []string
	buf   []byte
}

func newHasher() *hasher { return &hasher{h: sha256.New()} }

func (x *hasher) entry(seq uint64, subject string, header nats.Header, body []byte) (e entry) {
	x.h.Reset()
	x.names = x.names[:0]
	for name := range header {
		own := name != headerEpoch && name != headerSeq && !(len(name) >= 5 && strings.EqualFold(name[:5], "Nats-"))
		if own {
			x.names = append(x.names, name)
		}
	}
	slices.Sort(x.names)
	b := binary.BigEndian.AppendUint64(x.buf[:0], seq)
	b = appendSized(b, subject)
	b = binary.AppendUvarint(b, uint64(len(x.names)))
	for _, name := range x.names {
		b = appendSized(b, name)
		b = binary.AppendUvarint(b, uint64(len(header[name])))
		for _, value := range header[name] {
			b = appendSized(b, value)
		}
	}
	x.buf = b
	x.h.Write(b)
	x.h.Write(body)
	e.seq = seq
	x.h.Sum(e.hash[:0])
	return e
}

func appendSized(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// Arithmetic modulo the prime 2^61-1.
const prime61 = 1<<61 - 1

func reduce(a uint64) uint64 {
	a = a&prime61 + a>>61
	if a >= prime61 {
		a -= prime61
	}
	return a
}

func addMod(a, b uint64) uint64 { return reduce(a + b) }
func subMod(a, b uint64) uint64 { return reduce(a + prime61 - b) }

func mulMod(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return reduce(reduce(lo) + reduce(hi<<3)) // 2^64 is 2^3
}

// invMod returns what a is to be multiplied with to get 1.
func invMod(a uint64) uint64 {
	inv := uint64(1)
	for n := uint64(prime61 - 2); n > 0; n >>= 1 { // Fermat
		if n&1 == 1 {
			inv = mulMod(inv, a)
		}
		a = mulMod(a, a)
	}
	return inv
}
