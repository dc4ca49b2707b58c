package providertest

import (
	"bytes"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/edged-io/edged/internal/claims"
	"github.com/edged-io/edged/lattice/wire"
	"github.com/edged-io/edged/sdk/go/msgpack"
)

// forgeries are calls that no host has sent.
func (s *session) forgeries() {
	for _, f := range []struct {
		name, why string
		change    func(*wire.Invocation) error
	}{
		{"no-token", "there is no token", func(i *wire.Invocation) error { i.Token = ""; return nil }},
		{"token-garbage", "the token is garbage", func(i *wire.Invocation) error { i.Token = "a.b.c"; return nil }},
		{"token-signature", "the signature of the token is wrong", func(i *wire.Invocation) error {
			b := []byte(i.Token)
			if b[len(b)-10] == 'A' {
				b[len(b)-10] = 'B'
			} else {
				b[len(b)-10] = 'A'
			}
			i.Token = string(b)
			return nil
		}},
		{"token-issuer", "a key signed it that is not in cluster_issuers", func(i *wire.Invocation) error {
			stranger, err := claims.Generate(claims.Cluster)
			if err != nil {
				return err
			}
			return wire.Sign(i, i.Payload, stranger)
		}},
		{"token-payload", "the token is over another payload", func(i *wire.Invocation) error {
			i.Payload = append([]byte{0xc0}, i.Payload...)
			signed := i.Payload[1:]
			if err := wire.Sign(i, i.Payload, s.signer); err != nil {
				return err
			}
			i.Payload = signed
			return nil
		}},
		{"token-operation", "the token is for another operation", func(i *wire.Invocation) error {
			return s.signAs(i, func(i *wire.Invocation) { i.Operation += "Not" })
		}},
		{"token-origin", "the token is of another actor", func(i *wire.Invocation) error {
			return s.signAs(i, func(i *wire.Invocation) { i.Origin.Key = s.second })
		}},
		{"token-expired", "the token has expired", func(i *wire.Invocation) error {
			past := time.Now().Add(-24 * time.Hour).Unix()
			c, err := claims.Inspect[map[string]any](i.Token)
			if err != nil {
				return err
			}
			c.Expires = &past
			i.Token, err = claims.Sign(c, s.signer)
			return err
		}},
		{"other-target", "it is for another provider", func(i *wire.Invocation) error {
			other, err := claims.Generate(claims.Service)
			if err != nil {
				return err
			}
			i.Target.Key = other.Key().String()
			return wire.Sign(i, i.Payload, s.signer)
		}},
	} {
		s.do(f.name, func() error {
			i := s.signed(s.actor, s.probe())
			if err := f.change(&i); err != nil {
				return err
			}
			return s.refused(s.ask(i.Append(nil)), f.why)
		})
	}
}

// signAs gives i the token of what it is after change.
func (s *session) signAs(i *wire.Invocation, change func(*wire.Invocation)) error {
	other := *i
	change(&other)
	err := wire.Sign(&other, other.Payload, s.signer)
	i.Token = other.Token
	return err
}

// large are calls whose payload is in the object store. The operation is one that
// nobody has: whether the provider gets as far as to say so is what counts.
func (s *session) large() {
	data := make([]byte, wire.ChunkBytes+100_000)
	for i := range data {
		data[i] = byte(i * 7)
	}
	payload := msgpack.AppendBin(nil, data)
	s.do("large-request", func() error {
		i := s.signed(s.actor, Call{Operation: noSuch.Operation, Payload: payload})
		o, err := s.askLarge(i, payload)
		if err != nil {
			return err
		}
		if o.err != nil || s.plain(o.response.Error) != s.unknown {
			return warn("a payload of %d bytes, in the object store, gets %s and not %q", len(payload), o, s.unknown)
		}
		if !s.until(s.o.Timeout, func() bool { return !s.stored(i.Object()) }) {
			return warn("the payload is still in the object store after it was read")
		}
		return nil
	})
	s.do("large-forged", func() error {
		i := s.signed(s.actor, Call{Operation: noSuch.Operation, Payload: payload})
		forged := bytes.Clone(payload)
		forged[len(forged)/2]++
		o, err := s.askLarge(i, forged)
		if err == nil && o.err == nil && s.plain(o.response.Error) == s.unknown {
			err = warn("a payload in the object store that the token is not over got as far as the operation")
		}
		return err
	})
}

// largeExtra is how much longer hosts wait when a payload is in the object store.
const largeExtra = 13 * time.Second

// askLarge puts a payload into the object store and sends the envelope without it.
func (s *session) askLarge(i wire.Invocation, payload []byte) (outcome, error) {
	bucket, err := s.js.CreateObjectStore(s.ctx, jetstream.ObjectStoreConfig{Bucket: s.o.Lattice})
	if err == nil {
		_, err = bucket.PutBytes(s.ctx, i.Object(), payload)
	}
	if err != nil {
		return outcome{}, fmt.Errorf("object store of the NATS server: %w", err)
	}
	i.Payload = nil
	return s.askWithin(s.o.Timeout+largeExtra, i.Append(nil)), nil
}

func (s *session) stored(name string) bool {
	bucket, err := s.js.ObjectStore(s.ctx, s.o.Lattice)
	if err == nil {
		_, err = bucket.GetInfo(s.ctx, name)
	}
	return err == nil
}
