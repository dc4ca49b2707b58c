package store

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"slices"
)

// maxAhead bounds how far beyond the first message that is not acknowledged
// others may be acknowledged. It bounds a position to 8 KiB on disk.
const maxAhead = 1 << 16

// maxAttempts bounds how many messages have their attempts remembered.
const maxAttempts = 4096

// position is how far a subscription has come: everything up to floor is
// acknowledged, and so is floor+1+i where bit i of ahead is set. Bit 0 is
// never set.
type position struct {
	floor    uint64
	ahead    []uint64
	attempts map[uint64]int // of messages that are not acknowledged and were tried
}

func (p *position) clone() position {
	c := position{floor: p.floor, ahead: slices.Clone(p.ahead)}
	if len(p.attempts) > 0 {
		c.attempts = make(map[uint64]int, len(p.attempts))
		for seq, n := range p.attempts {
			c.attempts[seq] = n
		}
	}
	return c
}

// acked says whether seq is acknowledged.
func (p *position) acked(seq uint64) bool {
	if seq <= p.floor {
		return true
	}
	i := seq - p.floor - 1
	return i/64 < uint64(len(p.ahead)) && p.ahead[i/64]&(1<<(i%64)) != 0
}

func (p *position) ack(seq uint64) error {
	if seq <= p.floor {
		return nil
	}
	i := seq - p.floor - 1
	if i >= maxAhead {
		return fmt.Errorf("acknowledge %d: more than %d ahead of %d, which is not acknowledged", seq, maxAhead, p.floor+1)
	}
	for uint64(len(p.ahead)) <= i/64 {
		p.ahead = append(p.ahead, 0)
	}
	p.ahead[i/64] |= 1 << (i % 64)
	delete(p.attempts, seq)
	p.settle()
	return nil
}

func (p *position) ackUpTo(seq uint64) {
	if seq <= p.floor {
		return
	}
	p.shift(seq - p.floor)
	for s := range p.attempts {
		if s <= seq {
			delete(p.attempts, s)
		}
	}
	p.settle()
}

// settle moves the floor over what is acknowledged without a gap.
func (p *position) settle() {
	n := uint64(0)
	for _, w := range p.ahead {
		ones := uint64(bits.TrailingZeros64(^w))
		n += ones
		if ones < 64 {
			break
		}
	}
	p.shift(n)
}

// shift raises the floor by n and moves the bits with it.
func (p *position) shift(n uint64) {
	if n == 0 {
		return
	}
	p.floor += n
	if words := n / 64; words >= uint64(len(p.ahead)) {
		p.ahead = p.ahead[:0]
	} else {
		p.ahead = p.ahead[:copy(p.ahead, p.ahead[words:])]
	}
	if n %= 64; n > 0 {
		for i := range p.ahead {
			p.ahead[i] >>= n
			if i+1 < len(p.ahead) {
				p.ahead[i] |= p.ahead[i+1] << (64 - n)
			}
		}
	}
	for len(p.ahead) > 0 && p.ahead[len(p.ahead)-1] == 0 {
		p.ahead = p.ahead[:len(p.ahead)-1]
	}
}

func (p *position) tried(seq uint64, n int) {
	if p.acked(seq) {
		return
	}
	if p.attempts == nil {
		p.attempts = make(map[uint64]int)
	}
	if _, ok := p.attempts[seq]; ok || len(p.attempts) < maxAttempts {
		p.attempts[seq] = n
	}
}

func (p *position) encode(key []byte) []byte {
	v := make([]byte, sealLen, sealLen+20+8*len(p.ahead)+16*len(p.attempts))
	v = binary.LittleEndian.AppendUint64(v, p.floor)
	v = binary.LittleEndian.AppendUint32(v, uint32(len(p.ahead)))
	for _, w := range p.ahead {
		v = binary.LittleEndian.AppendUint64(v, w)
	}
	v = binary.LittleEndian.AppendUint32(v, uint32(len(p.attempts)))
	for seq, n := range p.attempts {
		v = binary.LittleEndian.AppendUint64(v, seq)
		v = binary.LittleEndian.AppendUint32(v, uint32(n))
	}
	return finishSeal(key, v)
}

func decodePosition(key, v []byte) (p position, err error) {
	b, err := unseal(key, v)
	if err != nil {
		return p, err
	}
	if len(b) < 12 {
		return p, ErrDamaged
	}
	p.floor = binary.LittleEndian.Uint64(b)
	words := int(binary.LittleEndian.Uint32(b[8:]))
	b = b[12:]
	if words > maxAhead/64+1 || len(b) < words*8+4 {
		return p, ErrDamaged
	}
	for range words {
		p.ahead = append(p.ahead, binary.LittleEndian.Uint64(b))
		b = b[8:]
	}
	n := int(binary.LittleEndian.Uint32(b))
	b = b[4:]
	if n > maxAttempts || len(b) < n*12 {
		return p, ErrDamaged
	}
	for range n {
		p.tried(binary.LittleEndian.Uint64(b), int(binary.LittleEndian.Uint32(b[8:])))
		b = b[12:]
	}
	return p, nil
}
