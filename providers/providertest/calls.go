package providertest

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/edged-io/edged/lattice/wire"
	"github.com/edged-io/edged/sdk/go/msgpack"
)

// calls are those of an actor that is linked, as different hosts send them.
func (s *session) calls() {
	s.do("unknown-operation", s.unknownOperation)
	for _, c := range s.o.Calls {
		s.do("call "+c.Operation, func() error {
			i := s.signed(s.actor, c)
			o := s.ask(i.Append(nil))
			if o.err != nil || o.response.Failed {
				return fmt.Errorf("got %s", o)
			}
			if c.Want != nil && !bytes.Equal(o.response.Payload, c.Want) {
				return fmt.Errorf("answers with % x, want % x", o.response.Payload, c.Want)
			}
			return wellFormed(o.raw, i.ID, false)
		})
	}
	s.do("answer", func() error {
		i := s.signed(s.actor, s.probe())
		o := s.ask(i.Append(nil))
		if o.err != nil {
			return o.err
		}
		return wellFormed(o.raw, i.ID, o.response.Failed)
	})
	s.do("field-order", func() error {
		o := s.ask(reordered(s.signed(s.actor, s.probe())))
		if !s.accepted(o) {
			return fmt.Errorf("an envelope with its fields in another order, one that is not known, and wide integers gets %s", o)
		}
		return nil
	})
	s.do("host-id-of-cluster", func() error {
		i := s.signed(s.actor, s.probe())
		i.Host = s.cluster.Key().String()
		if o := s.ask(i.Append(nil)); !s.accepted(o) {
			return warn("hosts in Elixir send the key of the cluster as host_id; that gets %s", o)
		}
		return nil
	})
	s.do("in-flight", s.inFlight)
}

func (s *session) unknownOperation() error {
	i := s.signed(s.actor, noSuch)
	o := s.ask(i.Append(nil))
	switch {
	case o.err != nil:
		return o.err
	case !o.response.Failed:
		return fmt.Errorf("the operation %s succeeds", noSuch.Operation)
	}
	s.unknown = s.plain(o.response.Error)
	if err := wellFormed(o.raw, i.ID, true); err != nil {
		return err
	}
	if !strings.Contains(strings.ToLower(o.response.Error), "method not handled") {
		return warn("hosts look for %q in the error, which is %q", "method not handled", o.response.Error)
	}
	return nil
}

// wellFormed holds an answer to what the strictest of the hosts read.
func wellFormed(raw []byte, id string, failed bool) error {
	m, err := members(raw)
	if err != nil {
		return err
	}
	for _, name := range []string{"msg", "invocation_id", "content_length"} {
		if m[name] == nil {
			return fmt.Errorf("the answer has no %s", name)
		}
	}
	if got := msgpack.NewDecoder(m["invocation_id"]).Str(); got != id {
		return fmt.Errorf("invocation_id is %q, want that of the call, %q", got, id)
	}
	problem := msgpack.NewDecoder(m["error"])
	switch present := m["error"] != nil && problem.Kind() != msgpack.Nil; {
	case failed && (problem.Kind() != msgpack.Str || problem.Str() == ""):
		return errors.New("the error has no text")
	case !failed && present:
		return errors.New("error is there and not nil: hosts take that for a failure, whatever its text")
	}
	payload := msgpack.NewDecoder(m["msg"])
	if kind := payload.Kind(); kind != msgpack.Bin {
		return warn("msg is not a bin, but for hosts it is")
	}
	if n, length := len(payload.Bin()), msgpack.NewDecoder(m["content_length"]).Uint(); !failed && length != uint64(n) {
		return fmt.Errorf("content_length is %d, msg has %d bytes", length, n)
	}
	return nil
}

// reordered is an envelope as another writer may send it.
func reordered(i wire.Invocation) []byte {
	entity := func(b []byte, e wire.Entity) []byte {
		b = msgpack.AppendMapHeader(b, 3)
		for _, s := range []string{"contract_id", e.Contract, "link_name", e.Link, "public_key", e.Key} {
			b = msgpack.AppendString(b, s)
		}
		return b
	}
	b := msgpack.AppendMapHeader(nil, 10)
	b = append(msgpack.AppendString(b, "content_length"), 0xcf)
	for shift := 56; shift >= 0; shift -= 8 {
		b = append(b, byte(i.Length>>shift))
	}
	for _, s := range []string{"instance_id", "an instance", "host_id", i.Host, "encoded_claims", i.Token, "id", i.ID} {
		b = msgpack.AppendString(b, s)
	}
	b = msgpack.AppendMapHeader(msgpack.AppendString(b, "traceContext"), 0)
	b = msgpack.AppendBin(msgpack.AppendString(b, "msg"), i.Payload)
	b = msgpack.AppendString(msgpack.AppendString(b, "operation"), i.Operation)
	b = entity(msgpack.AppendString(b, "target"), i.Target)
	return entity(msgpack.AppendString(b, "origin"), i.Origin)
}

// inFlight makes calls at once; each has to get the answer to its own.
func (s *session) inFlight() error {
	faults := make([]error, 16)
	var calls sync.WaitGroup
	for n := range faults {
		calls.Go(func() {
			i := s.signed(s.actor, s.probe())
			switch o := s.ask(i.Append(nil)); {
			case !s.accepted(o):
				faults[n] = fmt.Errorf("one of %d calls at once gets %s", len(faults), o)
			case o.response.ID != i.ID:
				faults[n] = fmt.Errorf("one of %d calls at once gets the answer of another", len(faults))
			}
		})
	}
	calls.Wait()
	if n := slices.IndexFunc(faults, func(err error) bool { return err != nil }); n >= 0 {
		return faults[n]
	}
	return nil
}
