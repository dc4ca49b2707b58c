package keyvalue_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edged-io/edged/sdk/go/msgpack"
	"github.com/edged-io/edged/store"
)

func TestProvider_Set_expires(t *testing.T) {
	f := newFixture(t)
	f.call("Set", fields("key", "k", "value", "7", "expires", 1))
	f.call("Set", fields("key", "stays", "value", "7", "expires", 1))
	f.call("Set", fields("key", "stays", "value", "8"))
	if got := f.call("Get", str("k")); got != "value=7,exists=true" {
		t.Fatalf("right away: %q", got)
	}
	f.call("Increment", fields("key", "k", "value", 1)) // leaves alone when it expires
	deadline := time.Now().Add(30 * time.Second)
	for f.call("Contains", str("k")) == "true" {
		if time.Now().After(deadline) {
			t.Fatal("still there after 30 s")
		}
		runtime.Gosched()
	}
	if f.db.Elapsed() < time.Second {
		t.Fatal("gone before its time")
	}
	for op, want := range map[string]string{"Get": "value=,exists=false", "Del": "false", "Contains": "false"} {
		if got := f.call(op, str("k")); got != want {
			t.Errorf("%s of what has expired: %s", op, got)
		}
	}
	if got := f.call("Contains", str("stays")); got != "true" {
		t.Error("a value that was set again, for ever, has expired")
	}
	if n := f.db.Spaces("kv/b")[0].Keys; n != 2 {
		t.Errorf("%d keys on disk", n)
	}
	if next, err := f.p.Sweep(t.Context()); err != nil || next != 1<<63-1 {
		t.Errorf("sweep: next %s, %v", next, err)
	}
	if n := f.db.Spaces("kv/b")[0].Keys; n != 1 {
		t.Errorf("%d keys on disk after a sweep", n)
	}
	// Another kind may take the place of what has expired.
	f.call("Set", fields("key", "l", "value", "v", "expires", 3600))
	if got := f.call("ListAdd", fields("listName", "l", "value", "a")); got == "1" {
		t.Error("a string became a list")
	}
	if next, err := f.p.Sweep(t.Context()); err != nil || next > time.Hour || next < 59*time.Minute {
		t.Errorf("sweep: next %s, %v", next, err)
	}
}

// A box that was off for a day takes nothing for younger than it is, once it
// knows the time.
func TestProvider_Set_expiresWhileTheBoxIsOff(t *testing.T) {
	var wall atomic.Int64
	wall.Store(time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC).UnixNano())
	o := store.Options{
		Dir: t.TempDir(), Now: func() time.Time { return time.Unix(0, wall.Load()) }, ClockSynced: func() bool { return true },
	}
	f := newFixtureWith(t, o)
	f.call("Set", fields("key", "day", "value", "v", "expires", 86400))
	f.call("Set", fields("key", "week", "value", "v", "expires", 7*86400))
	if err := f.db.Close(); err != nil {
		t.Fatal(err)
	}
	wall.Add(int64(25 * time.Hour))
	f = newFixtureWith(t, o)
	if day, week := f.call("Contains", str("day")), f.call("Contains", str("week")); day != "false" || week != "true" {
		t.Errorf("a day %s, a week %s", day, week)
	}
}

// What an earlier version stored expires by the store's own clock.
func TestProvider_Set_earlierForm(t *testing.T) {
	f := newFixture(t)
	put := func(key string, until time.Duration) {
		v := msgpack.AppendArrayHeader(nil, 3)
		v = msgpack.AppendInt(msgpack.AppendInt(v, 1), int64(until))
		v = msgpack.AppendString(msgpack.AppendArrayHeader(v, 1), "7")
		if err := f.db.Do(t.Context(), func(_ context.Context, turn *store.Turn) error { return turn.Put("kv/b", key, v) }); err != nil {
			t.Fatal(err)
		}
	}
	put("ever", 0)
	put("gone", 1)
	put("later", f.db.Elapsed()+time.Hour)
	for key, want := range map[string]string{"ever": "value=7,exists=true", "gone": "value=,exists=false", "later": "value=7,exists=true"} {
		if got := f.call("Get", str(key)); got != want {
			t.Errorf("%s: %s", key, got)
		}
	}
	if got := f.call("Increment", fields("key", "later", "value", 1)); got != "8" {
		t.Error(got)
	}
	next, err := f.p.Sweep(t.Context())
	if err != nil || next > time.Hour || next < 59*time.Minute {
		t.Errorf("next %s, %v", next, err)
	}
	if n := f.db.Spaces("kv/b")[0].Keys; n != 2 {
		t.Errorf("%d keys after a sweep", n)
	}
}

// Run removes what has expired when it is due, and does nothing else.
func TestProvider_Run(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- f.p.Run(ctx) }()
		keys := func() int64 {
			if all := f.db.Spaces("kv/b"); len(all) > 0 {
				return all[0].Keys
			}
			return 0
		}
		for i := range 200 {
			f.call("Set", fields("key", fmt.Sprint(i), "value", "v", "expires", 3600+i))
		}
		f.call("Set", fields("key", "soon", "value", "v", "expires", 5))
		f.call("Set", fields("key", "ever", "value", "v"))
		time.Sleep(2 * time.Minute)
		if n := keys(); n != 201 {
			t.Errorf("%d keys after two minutes", n)
		}
		time.Sleep(70 * time.Minute)
		if n := keys(); n != 1 {
			t.Errorf("%d keys after all have expired", n)
		}
		f.call("Set", fields("key", "again", "value", "v", "expires", 1))
		time.Sleep(3 * time.Minute)
		if n := keys(); n != 1 {
			t.Errorf("%d keys after another one has", n)
		}
		cancel()
		if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}
