package mqtt

import "github.com/edged-io/edged/store"

// trail keeps what one sender sends in order on disk. When a message can not be
// stored now, those behind it must not be either: the sender will send all of
// them again, and the later ones would be repeats of what is already there.
type trail struct {
	last *store.Turn // of the message before; nil for none
	next *store.Turn
}

// follow orders t behind the turn of the message before. It fails if that one
// was not stored.
func (tr *trail) follow(t *store.Turn) error {
	tr.next = t
	if tr.last == nil {
		return nil
	}
	return t.Follow(tr.last)
}

// skip says that the message can never be stored, and holds nobody back.
func (tr *trail) skip() { tr.next = nil }

// step says that the turn of the message was submitted, or refused.
func (tr *trail) step() {
	if tr.next != nil {
		tr.last, tr.next = tr.next, nil
	}
}
