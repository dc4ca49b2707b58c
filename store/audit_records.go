package store

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// meta refuses a file that a later version of the program has written, before
// anything in it is taken for damage.
func (a *audit) meta(key, value []byte) (ok bool, err error) {
	switch string(key) {
	case string(versionKey):
	case string(timelineKey):
		_, err := decodeTimeline(key, value)
		return err == nil, nil
	case string(clockKey):
		_, err := decodeClock(value)
		return err == nil, nil
	default:
		return a.reservation(key, value), nil
	}
	a.version, err = decodeVersion(value)
	if errors.Is(err, ErrUnusable) {
		return false, err
	}
	return err == nil, nil
}

func (a *audit) stream(key, value []byte) bool {
	var r streamRecord
	if getJSON(key, value, &r) != nil || r.Config.Name != string(key) || r.ID == 0 || a.streams[r.ID] != nil {
		return false
	}
	a.streams[r.ID] = &auditStream{name: string(key), ahead: r.Config.Durability != Synced}
	a.names[string(key)] = r.ID
	return true
}

func (a *audit) counters(key, value []byte) bool {
	c, err := decodeCounters(key, value)
	if err != nil || len(key) != 4 {
		return false
	}
	if s := a.streams[binary.BigEndian.Uint32(key)]; s != nil {
		s.old, s.counted = c, true
	} else {
		a.note("counters of stream %s, which is missing", a.nameOf(a.bucket, key))
	}
	return true
}

func (a *audit) message(key, value []byte) (ok bool, err error) {
	id, seq, ok := splitSeqKey(key)
	if !ok {
		return false, nil
	}
	m, _, err := decodeMessage(key, value)
	if err != nil {
		return false, nil
	}
	s := a.streams[id]
	if s == nil {
		if err := a.found("messages from %d on belong to stream %d, which is missing", seq, id); err != nil {
			return false, err
		}
		s = &auditStream{name: recoveredName(id)}
		a.streams[id] = s
	}
	s.add(seq, m.size())
	return true, nil
}

// recoveredName is that of a stream whose record is lost.
func recoveredName(id uint32) string { return fmt.Sprintf("recovered-%d", id) }

func (a *audit) identity(key, body []byte) bool {
	id, seq, ok := splitSeqKey(key)
	if n := len(idHash{}); !ok || len(body) != n && len(body) != 2*n { // its ID, and its number
		return false
	}
	s := a.streams[id]
	if s == nil {
		return !a.strict // it went with its stream
	}
	s.lastID = max(s.lastID, seq)
	return true
}

func (a *audit) subscription(key, value []byte) bool {
	var r subscriptionRecord
	if getJSON(key, value, &r) != nil {
		return false
	}
	a.subs[string(key)] = r
	return true
}

func (a *audit) position(key, value []byte) bool {
	p, err := decodePosition(key, value)
	if err != nil || len(key) != 4 {
		return false
	}
	a.floors[binary.BigEndian.Uint32(key)] = p
	return true
}
