package providertest

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/edged-io/edged/lattice/wire"
	"github.com/edged-io/edged/sdk/go/msgpack"
)

// waitHealthy waits until the provider answers that it is healthy: there is no other
// sign that it has started.
func (s *session) waitHealthy() error {
	last := errNobody
	if s.until(s.o.Start, func() bool { last = s.askHealth(nil); return last == nil }) {
		return nil
	}
	return fmt.Errorf("not healthy within %s: %w", s.o.Start, last)
}

// askHealth asks with one of the two payloads that hosts send.
func (s *session) askHealth(payload []byte) error {
	m, err := s.request(s.subject+wire.SuffixHealth, payload)
	if err != nil {
		return err
	}
	h, err := wire.DecodeHealth(m.Data)
	switch {
	case err != nil:
		return err
	case !h.Healthy:
		return fmt.Errorf("it says that it is not healthy: %q", h.Message)
	}
	return nil
}

func (s *session) health() error {
	placeholder := msgpack.AppendBool(msgpack.AppendString(msgpack.AppendMapHeader(nil, 1), "placeholder"), true)
	for what, payload := range map[string][]byte{"nothing": nil, `{"placeholder": true}`: placeholder} {
		if err := s.askHealth(payload); err != nil {
			return fmt.Errorf("asked with %s: %w", what, err)
		}
	}
	m, err := s.request(s.subject+wire.SuffixHealth, nil)
	if err == nil {
		_, err = members(m.Data)
	}
	return err
}

// foreignShutdown tells the provider that another host stops. It must take no notice;
// foreignIgnored asks much later.
func (s *session) foreignShutdown() {
	inbox := nats.NewInbox()
	_, err := s.conn.ChanSubscribe(inbox, s.replies)
	if err == nil {
		other := "N" + s.second[1:] // has the form, and is nobody's
		data, _ := json.Marshal(map[string]string{"host_id": other})
		err = s.conn.PublishRequest(s.subject+wire.SuffixShutdown, inbox, data)
	}
	if err != nil {
		s.do("shutdown-other-host", func() error { return err })
	}
}

func (s *session) foreignIgnored() error {
	select {
	case m := <-s.replies:
		return fmt.Errorf("answered %q to a shutdown of another host, at the start of this test", m.Data)
	default:
	}
	return s.askHealth(nil)
}

// killAfter is when the least patient of the classic hosts that wait kills.
const killAfter = 2 * time.Second

func (s *session) shutdown() error {
	data, _ := json.Marshal(map[string]string{"host_id": s.host})
	begin := time.Now()
	m, err := s.request(s.subject+wire.SuffixShutdown, data)
	if s.program == nil {
		if err != nil {
			return err
		}
		gone := s.until(s.o.Start, func() bool {
			// A request that it took when it ended is not answered any more.
			_, err := s.requestWithin(min(s.o.Timeout, time.Second), s.subject+wire.SuffixHealth, nil)
			return errors.Is(err, errNobody)
		})
		if !gone {
			return errors.New("it answers still, after the shutdown")
		}
	} else {
		select {
		case <-s.program.exited:
		case <-time.After(s.o.Start):
			return fmt.Errorf("it runs still, %s after the shutdown", s.o.Start)
		case <-s.ctx.Done():
			return nil
		}
		state, took := s.program.cmd.ProcessState.String(), time.Since(begin)
		s.program = nil // has ended as it should
		if state != "exit status 0" {
			return warn("it ended with %s", state)
		}
		if took > killAfter {
			return warn("it took %s, hosts kill after %s", took.Round(time.Millisecond), killAfter)
		}
	}
	switch {
	case err != nil:
		return warn("no answer to the request: hosts wait for one before they kill")
	case string(m.Data) != "shutting down":
		return warn("the answer is %.100q, want %q", m.Data, "shutting down")
	}
	return nil
}

// garbage goes to every subject of the provider. Whether it is answered is all the same.
func (s *session) garbage() error {
	l := s.link(s.actor)
	link := l.Append(nil)
	i := s.signed(s.actor, s.probe())
	envelope := i.Append(nil)
	rubbish := [][]byte{
		{}, {0xc1}, {0xff}, {0x80}, {0x90}, {0xc0}, []byte("garbage"), {0xdd, 0xff, 0xff, 0xff, 0xff}, {0xdf, 0xff, 0xff, 0xff, 0xff},
		{0xc6, 0xff, 0xff, 0xff, 0xff, 0}, nested(10_000), envelope[:len(envelope)/2], envelope[1:], link[:len(link)/2],
		append([]byte{0x81, 0xa6}, "origin\xc0"...), append([]byte{0x81, 0xa2}, "id\xa0"...),
		[]byte(`{"host_id":5}`), []byte(`{"host_id":`), []byte("[]"), []byte("null"), {0xa5, 'a'}, make([]byte, 100_000),
	}
	for _, suffix := range []string{"", wire.SuffixPut, wire.SuffixDelete, wire.SuffixHealth, wire.SuffixShutdown} {
		for _, b := range rubbish {
			if suffix == wire.SuffixShutdown && (len(b) == 0 || b[0] != '{') {
				continue // some kits obey the empty one of old hosts
			}
			if err := s.conn.PublishRequest(s.subject+suffix, nats.NewInbox(), b); err != nil {
				return err
			}
		}
	}
	if err := s.waitHealthy(); err != nil {
		return fmt.Errorf("after messages that make no sense: %w", err)
	}
	if o := s.call(s.actor, s.probe()); !s.accepted(o) {
		return fmt.Errorf("after messages that make no sense, a call that went well before got %s", o)
	}
	return nil
}

// nested is n arrays, each in the one before.
func nested(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = 0x91
	}
	return append(b, 0xc0)
}

// actorCalls reports on the calls that the provider has made of actors, if any.
func (s *session) actorCalls() {
	s.mu.Lock()
	called, fault := s.called, s.fault
	s.mu.Unlock()
	if called == 0 {
		return
	}
	s.do("calls-of-actors", func() error {
		if fault != nil {
			return fmt.Errorf("one of %d calls would have been refused: %w", called, fault)
		}
		return nil
	})
}
