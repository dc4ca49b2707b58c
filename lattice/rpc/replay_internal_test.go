package rpc

import (
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edged-io/edged/internal/claims"
)

func TestMemory_first(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var one, other claims.Key
		for _, k := range []*claims.Key{&one, &other} {
			s, err := claims.Generate(claims.Cluster)
			if err != nil {
				t.Fatal(err)
			}
			*k = s.Key()
		}
		m := newMemory(time.Minute)
		check := func(k claims.Key, id string, want bool) {
			t.Helper()
			if got := m.first(k, id); got != want {
				t.Errorf("%s: first is %v", id, got)
			}
		}
		check(one, "a", true)
		check(one, "a", false)
		check(other, "a", true) // ids are the issuer's own
		time.Sleep(time.Minute - 1)
		check(one, "b", true)
		check(one, "a", false)
		time.Sleep(time.Nanosecond)
		check(one, "a", true)
		check(one, "b", false)
		for i := range maxSeen {
			check(one, strconv.Itoa(i), true)
		}
		check(one, "0", false)
		check(one, "c", true) // the oldest gives way
		check(one, "0", true)
		if len(m.known) != maxSeen || len(m.queue) > 2*maxSeen {
			t.Errorf("%d known, %d queued", len(m.known), len(m.queue))
		}
	})
}
