package broker

import (
	"context"
	"errors"
	"fmt"

	"github.com/edged-io/edged/store"
)

// ReplayDeadLetters has dead letters handled once more, all of them or, with an
// error, none: by the subscription named to, or with "" by the ones they came
// from. Each keeps its place among its like: letters of one subject (or key, as
// the subscription has it) come in their old order, and before messages
// of it that were not handed out yet. The handler gets a letter's message as it
// was, in a turn that drops the letter, with attempts counted from 1. If it fails
// as often as MaxDeliver says, or is rejected, the letter is brought up to date
// and stays.
//
// Errors are store.ErrNoDeadLetter, and that of a subscription that is not
// there.
func (s *Server) ReplayDeadLetters(ctx context.Context, ids []uint64, to string) error {
	return s.o.Store.Do(ctx, func(_ context.Context, t *store.Turn) error {
		for _, id := range ids {
			target := to
			if target == "" {
				l, err := s.o.Store.DeadLetter(id)
				if err != nil {
					return err
				}
				target = l.Subscription
			}
			if s.work.get(target) == nil {
				return fmt.Errorf("dead letter %d: subscription %q is %w: name one that is", id, target, errNoDelivery)
			}
			t.ReplayDeadLetter(id, target)
		}
		return nil
	})
}

// takeLetters takes up the dead letters that the subscription is to handle once
// more. All at once, because messages of their keys have to wait for them; a
// letter is read again when it is handed out.
func (d *delivery) takeLetters() {
	l := &d.loop
	if !l.letters {
		return
	}
	l.letters = false
	for _, id := range d.s.o.Store.Replays(d.sub.Name) {
		if l.win.letters[id] != nil {
			continue
		}
		letter, err := d.letter(id)
		switch {
		case errors.Is(err, errDropped), errors.Is(err, store.ErrNoDeadLetter):
			continue
		case err != nil:
			d.broke(err)
			return
		}
		m := letterMessage(letter)
		l.win.addLetter(id, m, d.sub.key(m))
	}
	d.seen.letters.Store(uint64(len(l.win.letters)))
}

// letter reads a dead letter that the subscription is to handle.
func (d *delivery) letter(id uint64) (store.DeadLetter, error) {
	l, err := d.s.o.Store.DeadLetter(id)
	if err == nil && l.ReplayTo != d.sub.Name {
		err = errDropped
	}
	return l, err
}

// letterMessage is the message of a dead letter.
func letterMessage(l store.DeadLetter) Message {
	return Message{Stream: l.Stream, Seq: l.Seq, Subject: l.Subject, Header: l.Header, Data: l.Data, Time: l.Time}
}
