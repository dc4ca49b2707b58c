package wire_test

import (
	"testing"
	"time"

	"github.com/edged-io/edged/internal/claims"
	"github.com/edged-io/edged/lattice/wire"
)

func BenchmarkSign(b *testing.B) {
	seed, err := claims.ParseSeed(cluster)
	if err != nil {
		b.Fatal(err)
	}
	signer, err := seed.Signer()
	if err != nil {
		b.Fatal(err)
	}
	i := increment(b)
	b.ReportAllocs()
	for b.Loop() {
		if err := wire.Sign(&i, i.Payload, signer); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCheck(b *testing.B) {
	i := increment(b)
	i.Token = checkToken(b, i)
	now := time.Now()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := wire.Check(&i, i.Payload, now); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecodeInvocation(b *testing.B) {
	i := increment(b)
	i.Token = checkToken(b, i)
	envelope := i.Append(nil)
	b.SetBytes(int64(len(envelope)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := wire.DecodeInvocation(envelope); err != nil {
			b.Fatal(err)
		}
	}
}
