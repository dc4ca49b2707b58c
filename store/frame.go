package store

import (
	"encoding/binary"
	"time"
)

// messageOverhead is what a message costs beside subject, header and data: its
// key, its frame and its place in a page. It is the same for all, so that what a
// stream holds does not change with the frame.
const messageOverhead = 12 + frameLen + 16

// frameLen is the fixed part of a message's value: checksum, version, wall
// clock, own clock, length of the subject, length of the header. In version 2 a
// byte of flags follows, and what they announce; then subject, header and data.
const frameLen = sealLen + 1 + 8 + 8 + 2 + 4

// Versions of frames. Those of version 1 stay as they are.
const (
	frameVersion1 = 1
	frameVersion  = 2
)

// Flags of a frame.
const (
	frameTrust   = 0x03 // TimeTrust of the stamp
	frameGiven   = 0x04 // the stamp is the publisher's, and not to be corrected
	frameTTL     = 0x08 // 8 bytes: TTL
	framePublish = 0x10 // 8 bytes: the own clock when it was published, if it was parked
	frameKnown   = frameTrust | frameGiven | frameTTL | framePublish
)

// frame is a message as it is stored. Its TTL counts from published.
type frame struct {
	Message
	stored    time.Duration // the own clock when it entered its stream
	published time.Duration // and when it was published
	given     bool          // its stamp is the publisher's
}

func (m *Message) size() int64 {
	return int64(len(m.Subject) + len(m.Header) + len(m.Data) + messageOverhead)
}

// encode returns the value of f.
func (f *frame) encode(key []byte) []byte {
	v := make([]byte, sealLen, frameLen+17+len(f.Subject)+len(f.Header)+len(f.Data))
	return finishSeal(key, f.append(v))
}

// append appends f to v.
func (f *frame) append(v []byte) []byte {
	v = append(v, frameVersion)
	v = binary.LittleEndian.AppendUint64(v, uint64(f.Time.UnixNano()))
	v = binary.LittleEndian.AppendUint64(v, uint64(f.stored))
	v = binary.LittleEndian.AppendUint16(v, uint16(len(f.Subject)))
	v = binary.LittleEndian.AppendUint32(v, uint32(len(f.Header)))
	flags := byte(f.Trust) & frameTrust
	if f.given {
		flags |= frameGiven
	}
	if f.TTL != 0 {
		flags |= frameTTL
	}
	if f.published != f.stored {
		flags |= framePublish
	}
	v = append(v, flags)
	if flags&frameTTL != 0 {
		v = binary.LittleEndian.AppendUint64(v, uint64(f.TTL))
	}
	if flags&framePublish != 0 {
		v = binary.LittleEndian.AppendUint64(v, uint64(f.published))
	}
	v = append(v, f.Subject...)
	v = append(v, f.Header...)
	return append(v, f.Data...)
}

// decodeFrame reads a value without copying: header and data are parts of v.
func decodeFrame(key, v []byte) (f frame, err error) {
	b, err := unseal(key, v)
	if err != nil {
		return f, err
	}
	return parseFrame(b)
}

func parseFrame(b []byte) (f frame, err error) {
	if len(b) < frameLen-sealLen {
		return f, ErrDamaged
	}
	version := b[0]
	f.Time = time.Unix(0, int64(binary.LittleEndian.Uint64(b[1:])))
	f.stored = time.Duration(binary.LittleEndian.Uint64(b[9:]))
	f.published = f.stored
	subject := uint64(binary.LittleEndian.Uint16(b[17:]))
	header := uint64(binary.LittleEndian.Uint32(b[19:]))
	b = b[frameLen-sealLen:]
	switch version {
	case frameVersion1:
		f.given = true // nothing is known of how it was stamped
	case frameVersion:
		if b, err = f.decodeOptions(b); err != nil {
			return f, err
		}
	default:
		return f, ErrDamaged
	}
	if subject+header > uint64(len(b)) {
		return f, ErrDamaged
	}
	f.Subject = string(b[:subject])
	if header > 0 {
		f.Header = b[subject : subject+header]
	}
	f.Data = b[subject+header:]
	return f, nil
}

// decodeOptions reads the flags of a frame and what they announce, and returns
// what follows.
func (f *frame) decodeOptions(b []byte) ([]byte, error) {
	if len(b) < 1 {
		return nil, ErrDamaged
	}
	flags, b := b[0], b[1:]
	f.Trust, f.given = TimeTrust(flags&frameTrust), flags&frameGiven != 0
	if flags&^frameKnown != 0 || f.Trust > TimeSynced {
		return nil, ErrDamaged
	}
	for _, o := range []struct {
		flag byte
		to   *time.Duration
	}{{frameTTL, &f.TTL}, {framePublish, &f.published}} {
		if flags&o.flag == 0 {
			continue
		}
		if len(b) < 8 {
			return nil, ErrDamaged
		}
		*o.to, b = time.Duration(binary.LittleEndian.Uint64(b)), b[8:]
	}
	return b, nil
}

// decodeMessage is decodeFrame, for who asks for no more than the message and
// the own clock when it was stored.
func decodeMessage(key, v []byte) (m Message, stored time.Duration, err error) {
	f, err := decodeFrame(key, v)
	return f.Message, f.stored, err
}

// message is what a reader gets at a moment of the own clock: with the best that
// is known of when it was stored, and what is left of its TTL.
func (f *frame) message(l *timeline, now time.Duration) Message {
	m := f.Message
	if !f.given && f.Trust != TimeSynced {
		var known bool
		m.Trust = TimeUnknown
		if m.Time, known = l.stamp(f.stored, f.Time); known {
			m.Trust = TimeCorrected
		}
	}
	if f.TTL != 0 {
		if m.TTL = f.TTL - l.between(f.published, now); m.TTL == 0 {
			m.TTL = -1
		}
	}
	return m
}

// expired says whether the TTL of f is over.
func (f *frame) expired(l *timeline, now time.Duration) bool {
	return f.TTL != 0 && l.between(f.published, now) >= f.TTL
}
