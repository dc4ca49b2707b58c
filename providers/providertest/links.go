package providertest

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/edged-io/edged/lattice/wire"
)

// unlinked is what the provider says to an actor without a link.
func (s *session) unlinked() outcome { return s.call(s.foreign, s.probe()) }

// linkFirst puts the first link and waits until calls through it are taken.
func (s *session) linkFirst(unlinked outcome) error {
	if err := s.put(s.actor); err != nil {
		return err
	}
	if s.probe().Operation != noSuch.Operation {
		return s.waitAccepted()
	}
	// No operation is known that succeeds. What changes is how the provider refuses one
	// that it does not have.
	s.until(s.o.Timeout, func() bool {
		o := s.call(s.actor, noSuch)
		if o.err == nil && o.response.Failed {
			s.unknown = s.plain(o.response.Error)
		}
		return o.err == nil && (unlinked.err != nil || s.unknown != s.plain(unlinked.response.Error))
	})
	if s.unknown == "" {
		return fmt.Errorf("a call through the link gets %s", s.call(s.actor, noSuch))
	}
	return nil
}

// waitAccepted waits until calls of the first actor are taken.
func (s *session) waitAccepted() error {
	var last outcome
	if s.until(s.o.Start, func() bool { last = s.call(s.actor, s.probe()); return s.accepted(last) }) {
		return nil
	}
	return fmt.Errorf("%s through the link gets %s", s.probe().Operation, last)
}

// refused says what is wrong if a probe that has to be refused was not.
func (s *session) refused(o outcome, why string) error {
	switch {
	case o.err == errNobody:
		return nil
	case s.accepted(o) && s.probe().Operation == noSuch.Operation:
		return warn("%s: the answer is the one to an unknown operation; give a call that succeeds, to have this checked", why)
	case s.accepted(o):
		return fmt.Errorf("%s, and the call was served", why)
	case o.err != nil:
		return warn("refused without an answer: the actor waits until its timeout")
	}
	return nil
}

func (s *session) links() {
	s.do("unlinked-actor", func() error {
		return s.refused(s.unlinked(), "the actor has no link")
	})
	s.do("link-put-again", func() error {
		for range 3 { // every host that learns of a link tells the provider
			if err := s.put(s.actor); err != nil {
				return err
			}
		}
		return s.waitAccepted()
	})
	s.do("link-of-second-actor", func() error {
		if err := s.put(s.second); err != nil {
			return err
		}
		var last outcome
		if !s.until(s.o.Start, func() bool { last = s.call(s.second, s.probe()); return s.accepted(last) }) {
			return fmt.Errorf("%s of the second actor gets %s", s.probe().Operation, last)
		}
		return nil
	})
	s.do("one-answer", s.oneAnswer)
	s.do("queue-group", s.queueGroup)
	s.do("link-delete", func() error {
		if err := s.del(s.second); err != nil {
			return err
		}
		var last outcome
		s.until(s.o.Timeout, func() bool { last = s.call(s.second, s.probe()); return !s.accepted(last) })
		if err := s.refused(last, "the link was deleted"); err != nil {
			return err
		}
		if o := s.call(s.actor, s.probe()); !s.accepted(o) {
			return fmt.Errorf("the other actor, whose link is still there, gets %s", o)
		}
		return nil
	})
	s.do("link-delete-unknown", func() error {
		if err := s.del(s.foreign); err != nil {
			return err
		}
		return s.waitHealthy()
	})
	s.do("link-put-after-delete", func() error {
		if err := s.put(s.second); err != nil {
			return err
		}
		var last outcome
		if !s.until(s.o.Start, func() bool { last = s.call(s.second, s.probe()); return s.accepted(last) }) {
			return fmt.Errorf("%s through a link that was deleted and put again gets %s", s.probe().Operation, last)
		}
		return nil
	})
}

// rounds is how many calls are sent to find out who takes them.
const rounds = 32

// oneAnswer counts the answers while two actors are linked.
func (s *session) oneAnswer() error {
	var answers atomic.Int64
	inbox := nats.NewInbox()
	sub, err := s.conn.Subscribe(inbox, func(*nats.Msg) { answers.Add(1) })
	if err != nil {
		return err
	}
	defer func() { _ = sub.Unsubscribe() }()
	for range rounds {
		i := s.signed(s.actor, s.probe())
		if err := s.conn.PublishRequest(s.subject, inbox, i.Append(nil)); err != nil {
			return err
		}
	}
	all := s.until(s.o.Timeout, func() bool { return answers.Load() >= rounds })
	// What is answered twice has been by the time that later calls are.
	for range 4 {
		s.call(s.actor, s.probe())
	}
	switch n := answers.Load(); {
	case n > rounds:
		return fmt.Errorf("%d calls got %d answers: with two links, each call is served twice (one subscription, in the queue group %q)", rounds, n, wire.ProviderQueue)
	case !all:
		return fmt.Errorf("%d calls sent at once got %d answers within %s", rounds, n, s.o.Timeout)
	}
	return nil
}

// queueGroup joins the group in which all copies of a provider share its calls.
func (s *session) queueGroup() error {
	var ours, theirs atomic.Int64
	inbox := nats.NewInbox()
	answers, err := s.conn.Subscribe(inbox, func(*nats.Msg) { theirs.Add(1) })
	if err != nil {
		return err
	}
	defer func() { _ = answers.Unsubscribe() }()
	member, err := s.conn.QueueSubscribe(s.subject, wire.ProviderQueue, func(*nats.Msg) { ours.Add(1) })
	if err != nil {
		return err
	}
	left := sync.OnceValue(func() error { return errors.Join(member.Unsubscribe(), s.conn.FlushTimeout(10*time.Second)) })
	defer func() { _ = left() }()
	if err := s.conn.FlushTimeout(10 * time.Second); err != nil {
		return err
	}
	for range rounds {
		i := s.signed(s.actor, s.probe())
		if err := s.conn.PublishRequest(s.subject, inbox, i.Append(nil)); err != nil {
			return err
		}
	}
	all := s.until(s.o.Timeout, func() bool { return ours.Load()+theirs.Load() >= rounds })
	if err := left(); err != nil {
		return err
	}
	for range 4 { // what comes twice has come by the time that these are answered
		s.call(s.actor, s.probe())
	}
	switch {
	case ours.Load()+theirs.Load() > rounds:
		return fmt.Errorf("not in the queue group %q: where two copies of the provider run, both serve each call", wire.ProviderQueue)
	case !all:
		return fmt.Errorf("of %d calls sent at once, %d got no answer within %s", rounds, rounds-ours.Load()-theirs.Load(), s.o.Timeout)
	}
	return nil
}
