package store

import (
	"crypto/sha256"
	"hash/maphash"
	"math/bits"
)

// identities are those that a stream remembers, oldest first. Sooner or later each
// stream has as many as it may have, so they take little: less than 40 bytes each, in two
// pieces without pointers that stay where they are.
type identities struct {
	ring        []idEntry
	first, next uint64 // numbers of the oldest, and of the one to come; number n is at n modulo len(ring)
	// index finds entries by their hashes, with open addressing: a slot has 1 + the
	// place in the ring of the newest entry with that hash, or 0. Its length is a power of
	// two, and a third of it is free.
	index []uint32
}

type idEntry struct {
	seq  uint64
	hash idHash
}

// idSeed keeps those who choose the identities from choosing their slots.
var idSeed = maphash.MakeSeed()

func (d *identities) len() int { return int(d.next - d.first) }

// at returns the i-th oldest.
func (d *identities) at(i int) idEntry { return d.ring[d.place(d.first+uint64(i))] }

// oldest returns a copy of the n oldest.
func (d *identities) oldest(n int) []idEntry {
	all := make([]idEntry, n)
	for i := range all {
		all[i] = d.at(i)
	}
	return all
}

// find returns the sequence that was remembered last with a hash.
func (d *identities) find(h idHash) (seq uint64, ok bool) {
	if d.len() == 0 {
		return 0, false
	}
	place := d.index[d.slot(h)]
	if place == 0 {
		return 0, false
	}
	return d.ring[place-1].seq, true
}

// add remembers what has a sequence that is not below any other.
func (d *identities) add(h idHash, seq uint64) {
	if d.len() == len(d.ring) {
		d.grow()
	}
	place := d.place(d.next)
	d.ring[place] = idEntry{seq, h}
	d.index[d.slot(h)] = place + 1
	d.next++
}

// forgetOldest lets go of the n oldest.
func (d *identities) forgetOldest(n int) {
	for range n {
		d.unlist(d.place(d.first))
		d.first++
	}
}

// forgetBeyond lets go of those with sequences above last.
func (d *identities) forgetBeyond(last uint64) {
	for d.len() > 0 && d.at(d.len()-1).seq > last {
		d.unlist(d.place(d.next - 1))
		d.next--
	}
}

func (d *identities) place(number uint64) uint32 { return uint32(number % uint64(len(d.ring))) }

// home is the slot where the search for a hash begins.
func (d *identities) home(h idHash) uint32 {
	return uint32(maphash.Bytes(idSeed, h[:]) >> (64 - bits.TrailingZeros(uint(len(d.index)))))
}

// slot is the one with an entry of that hash, or the free one where it would be.
func (d *identities) slot(h idHash) uint32 {
	i := d.home(h)
	for d.index[i] != 0 && d.ring[d.index[i]-1].hash != h {
		i = d.after(i)
	}
	return i
}

func (d *identities) after(slot uint32) uint32 { return (slot + 1) & uint32(len(d.index)-1) }

// unlist takes the entry at a place out of the index. A newer one with its hash stays:
// with a memory that was switched off for a while there can be two.
func (d *identities) unlist(place uint32) {
	free := d.slot(d.ring[place].hash)
	if d.index[free] != place+1 {
		return
	}
	// What follows without a gap moves up, unless its search begins behind the free slot.
	for i := d.after(free); d.index[i] != 0; i = d.after(i) {
		mask := uint32(len(d.index) - 1)
		if home := d.home(d.ring[d.index[i]-1].hash); (i-home)&mask >= (i-free)&mask {
			d.index[free], free = d.index[i], i
		}
	}
	d.index[free] = 0
}

func (d *identities) grow() {
	n := len(d.ring) + max(64, len(d.ring)/4)
	bigger := identities{ring: make([]idEntry, n), index: make([]uint32, 1<<bits.Len(uint(n+n/2-1)))}
	for i := range d.len() {
		e := d.at(i)
		bigger.add(e.hash, e.seq)
	}
	*d = bigger
}

type idHash [16]byte

func hashID(id string) idHash {
	sum := sha256.Sum256([]byte(id))
	return idHash(sum[:16])
}
