package store_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/edged-io/edged/store"
)

// spaceBytes is what values take, as documented.
func spaceBytes(values map[string]string) (n int64) {
	for k, v := range values {
		n += int64(len(k)+len(v)) + 32
	}
	return n
}

// wantSpace compares what the store has counted with what is in it.
func wantSpace(t interface{ Fatalf(string, ...any) }, db *store.DB, space string, reserved int64) {
	values := make(map[string]string)
	if err := db.List(space, "", func(k string, v []byte) error { values[k] = string(v); return nil }); err != nil {
		t.Fatalf("list: %v", err)
	}
	var got store.SpaceInfo
	for _, i := range db.Spaces(space) {
		if i.Name == space {
			got = i
		}
	}
	want := store.SpaceInfo{Name: space, Keys: int64(len(values)), Bytes: spaceBytes(values), Reserved: reserved}
	if len(values) == 0 && reserved == 0 {
		want = store.SpaceInfo{}
	}
	if got != want {
		t.Fatalf("counted %+v, want %+v", got, want)
	}
}

// do runs fn in a turn that has to be committed.
func do(t *testing.T, db *store.DB, fn func(*store.Turn) error) {
	t.Helper()
	if err := db.Do(t.Context(), func(_ context.Context, turn *store.Turn) error { return fn(turn) }); err != nil {
		t.Fatal(err)
	}
}

func putWithin(t *testing.T, turn *store.Turn, key string, n int, limit int64) error {
	t.Helper()
	return turn.PutWithin("kv/b", key, []byte(strings.Repeat("x", n)), limit)
}

func TestDB_Spaces(t *testing.T) {
	dir := t.TempDir()
	db := openWith(t, store.Options{Dir: dir})
	do(t, db, func(turn *store.Turn) error {
		return errors.Join(turn.Put("kv/a", "k", []byte("value")), turn.Put("kv/a", "", nil), turn.Put("kv/b", "x", nil), turn.Put("other", "y", nil))
	})
	want := "[{kv/a 2 70 0} {kv/b 1 33 0}]"
	for range 2 {
		if got := fmt.Sprint(db.Spaces("kv/")); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		db = openWith(t, store.Options{Dir: dir})
	}
	do(t, db, func(turn *store.Turn) error {
		return errors.Join(turn.Delete("kv/b", "x"), turn.Delete("kv/b", "never there"), turn.Put("kv/a", "k", []byte("v")))
	})
	if got, want := fmt.Sprint(db.Spaces("")), "[{kv/a 2 66 0} {other 1 33 0}]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// A file of the first format is counted as any other.
func TestDB_Spaces_version1(t *testing.T) {
	db := openWith(t, store.Options{Dir: version1(t)})
	if got, want := fmt.Sprint(db.Spaces("")), "[{kv/app 2 78 0} {other 1 34 0}]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestTurn_PutWithin_refuses(t *testing.T) {
	db := openWith(t, store.Options{Dir: t.TempDir()})
	const limit = 1000
	do(t, db, func(turn *store.Turn) error { return putWithin(t, turn, "a", 900, limit) }) // 933
	turn := db.Begin()
	if err := putWithin(t, turn, "b", 35, limit); !errors.Is(err, store.ErrFull) || !strings.Contains(err.Error(), "933 bytes of 1000") {
		t.Fatalf("68 bytes more: %v", err)
	}
	// Nothing of it is staged, and the turn can go on.
	if _, ok, err := turn.Get("kv/b", "b"); ok || err != nil {
		t.Fatalf("what was refused is there: %v, %v", ok, err)
	}
	if err := errors.Join(putWithin(t, turn, "b", 34, limit), putWithin(t, turn, "a", 900, limit)); err != nil {
		t.Fatalf("67 bytes more, and as many as before: %v", err)
	}
	if err := turn.Commit(); err != nil {
		t.Fatal(err)
	}
	wantSpace(t, db, "kv/b", 0)
}

// A limit that was lowered refuses what grows, and nothing else.
func TestTurn_PutWithin_overTheLimitAlready(t *testing.T) {
	db := openWith(t, store.Options{Dir: t.TempDir()})
	do(t, db, func(turn *store.Turn) error {
		return errors.Join(putWithin(t, turn, "a", 500, 0), putWithin(t, turn, "b", 500, 0))
	})
	do(t, db, func(turn *store.Turn) error {
		if err := putWithin(t, turn, "a", 501, 100); !errors.Is(err, store.ErrFull) {
			t.Errorf("one more: %v", err)
		}
		return errors.Join(putWithin(t, turn, "a", 500, 100), putWithin(t, turn, "a", 400, 100), turn.Delete("kv/b", "b"))
	})
	wantSpace(t, db, "kv/b", 0)
}

// What a turn deletes makes room for what it puts; what it did not read counts
// for nothing, since another one may have deleted it already.
func TestTurn_PutWithin_afterDelete(t *testing.T) {
	db := openWith(t, store.Options{Dir: t.TempDir()})
	const limit = 1000
	do(t, db, func(turn *store.Turn) error { return putWithin(t, turn, "a", 900, limit) })
	do(t, db, func(turn *store.Turn) error {
		if _, ok, err := turn.Get("kv/b", "a"); !ok || err != nil {
			t.Error(ok, err)
		}
		return errors.Join(turn.Delete("kv/b", "a"), putWithin(t, turn, "b", 900, limit), putWithin(t, turn, "c", 1, limit))
	})
	wantSpace(t, db, "kv/b", 0)
	do(t, db, func(turn *store.Turn) error {
		err := turn.Delete("kv/b", "b")
		if err := putWithin(t, turn, "d", 900, limit); !errors.Is(err, store.ErrFull) {
			t.Errorf("got %v", err)
		}
		return err
	})
	wantSpace(t, db, "kv/b", 0)
}

// To the byte: what is deleted, what is written over without having been read,
// and what another turn is about to give up.
func TestTurn_PutWithin_toTheByte(t *testing.T) {
	db := openWith(t, store.Options{Dir: t.TempDir(), MaxState: 1000})
	do(t, db, func(turn *store.Turn) error { return putWithin(t, turn, "a", 367, 0) }) // 400
	for n, fits := range map[int]bool{967: true, 968: false} {
		turn := db.Begin()
		if _, _, err := turn.Get("kv/b", "a"); err != nil {
			t.Fatal(err)
		}
		err := errors.Join(turn.Delete("kv/b", "a"), putWithin(t, turn, "b", n, 1000))
		if (err == nil) != fits {
			t.Errorf("%d bytes in the place of what is deleted: %v", n, err)
		}
		turn.Discard()
		turn = db.Begin()
		err = errors.Join(putWithin(t, turn, "a", 367, 1000), putWithin(t, turn, "b", n-400, 1000))
		if (err == nil) != fits {
			t.Errorf("%d bytes beside what is written over: %v", n-400, err)
		}
		turn.Discard()
	}
	gives, takes := db.Begin(), db.Begin()
	defer gives.Discard()
	defer takes.Discard()
	if _, _, err := gives.Get("kv/b", "a"); err != nil {
		t.Fatal(err)
	}
	if err := gives.Delete("kv/b", "a"); err != nil {
		t.Fatal(err)
	}
	for _, limit := range []int64{0, 1000} {
		if err := putWithin(t, takes, "b", 600, limit); !errors.Is(err, store.ErrFull) {
			t.Errorf("limit %d: room that another turn may still keep is taken: %v", limit, err)
		}
	}
}

// Turns under way count, so that none that was let in is refused later, and
// none of them is made to lose by another one.
func TestTurn_PutWithin_turnsUnderWay(t *testing.T) {
	db := openWith(t, store.Options{Dir: t.TempDir()})
	const limit = 1000
	one, two := db.Begin(), db.Begin()
	if err := putWithin(t, one, "a", 600, limit); err != nil {
		t.Fatal(err)
	}
	if err := putWithin(t, two, "b", 400, limit); !errors.Is(err, store.ErrFull) {
		t.Fatalf("got %v", err)
	}
	wantSpace(t, db, "kv/b", 633)
	one.Discard()
	wantSpace(t, db, "kv/b", 0)
	if err := putWithin(t, two, "b", 400, limit); err != nil {
		t.Fatal(err)
	}
	if err := two.Commit(); err != nil {
		t.Fatal(err)
	}
	wantSpace(t, db, "kv/b", 0)
}

func TestTurn_PutWithin_manyAtOnce(t *testing.T) {
	db := openWith(t, store.Options{Dir: t.TempDir()})
	const turns, each, limit = 16, 20, 16 * 20 * 50 / 2
	var wg sync.WaitGroup
	for i := range turns {
		wg.Go(func() {
			for j := range each {
				conflicts := 0
				err := db.Do(context.Background(), func(_ context.Context, turn *store.Turn) error {
					conflicts++
					return turn.PutWithin("kv/b", fmt.Sprintf("%02d-%02d", i, j), make([]byte, 13), limit) // 50 bytes
				})
				if err != nil && !errors.Is(err, store.ErrFull) || conflicts > 1 && err == nil {
					t.Errorf("%d attempts, %v", conflicts, err)
				}
			}
		})
	}
	wg.Wait()
	wantSpace(t, db, "kv/b", 0)
	if got := db.Spaces("kv/b")[0].Bytes; got != limit {
		t.Errorf("%d bytes, want exactly %d: each turn fits, or does not", got, limit)
	}
}

func TestTurn_PutWithin_allState(t *testing.T) {
	db := openWith(t, store.Options{Dir: t.TempDir(), MaxState: 1000})
	do(t, db, func(turn *store.Turn) error { return turn.Put("sessions", "s", make([]byte, 900)) })
	turn := db.Begin()
	defer turn.Discard()
	if err := putWithin(t, turn, "a", 100, 0); !errors.Is(err, store.ErrFull) || !strings.Contains(err.Error(), "all state together") {
		t.Errorf("got %v", err)
	}
	if err := turn.Put("sessions", "t", make([]byte, 900)); err != nil {
		t.Errorf("what has no limit: %v", err)
	}
}

func TestTurn_PutWithin_diskFull(t *testing.T) {
	full := false
	db := openWith(t, store.Options{Dir: t.TempDir(), Failpoint: func(point string) error {
		if full && point == store.FailpointBeforeSync {
			return store.ErrFull
		}
		return nil
	}})
	full = true
	turn := db.Begin()
	err := errors.Join(putWithin(t, turn, "a", 100, 1000), turn.Commit())
	full = false
	if !errors.Is(err, store.ErrFull) {
		t.Fatalf("got %v", err)
	}
	wantSpace(t, db, "kv/b", 0)
}

// TestDB_spacesModel runs turns side by side that fill two spaces to their
// limits, and holds every answer against what it has to be.
func TestDB_spacesModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp(fastDir(), "spaces")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		limit := rapid.Int64Range(100, 600).Draw(t, "limit")
		var trouble error
		o := store.Options{Dir: dir, MaxState: limit * 3 / 2, Failpoint: func(point string) error {
			if point == store.FailpointBeforeSync {
				return trouble
			}
			return nil
		}}
		db, err := store.Open(o)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { db.Close() }()
		state := map[string]map[string]string{"kv/a": {}, "kv/b": {}}
		type underWay struct {
			*store.Turn
			puts map[string]map[string]*string // nil deletes
		}
		turns := map[int]*underWay{}
		commit := func(i int) {
			u := turns[i]
			delete(turns, i)
			if err := u.Commit(); err != nil {
				if !errors.Is(err, store.ErrConflict) && !errors.Is(err, trouble) {
					t.Fatalf("commit: %v", err)
				}
				return
			}
			for space, puts := range u.puts {
				for k, v := range puts {
					if delete(state[space], k); v != nil {
						state[space][k] = *v
					}
				}
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"stage": func(t *rapid.T) {
				i := rapid.SampledFrom([]int{0, 0, 0, 0, 0, 0, 1, 2}).Draw(t, "turn")
				u := turns[i]
				if u == nil {
					u = &underWay{db.Begin(), map[string]map[string]*string{"kv/a": {}, "kv/b": {}}}
					turns[i] = u
				}
				space := rapid.SampledFrom([]string{"kv/a", "kv/b"}).Draw(t, "space")
				key := rapid.SampledFrom([]string{"", "k", "key", "another key"}).Draw(t, "key")
				if rapid.Bool().Draw(t, "read") {
					if _, _, err := u.Get(space, key); err != nil {
						t.Fatalf("get: %v", err)
					}
				}
				if rapid.IntRange(0, 3).Draw(t, "delete") == 0 {
					if err := u.Delete(space, key); err != nil {
						t.Fatalf("delete is refused: %v", err)
					}
					u.puts[space][key] = nil
					return
				}
				n := rapid.IntRange(0, 300).Draw(t, "bytes")
				if close := rapid.IntRange(-1, 4).Draw(t, "close"); close < 2 { // just what fits, or one byte beside it
					n = max(0, int(limit-without(state[space], u.puts[space], key))-len(key)-32+close)
				}
				v := strings.Repeat("v", n)
				err := u.PutWithin(space, key, []byte(v), limit)
				if err == nil {
					u.puts[space][key] = &v
				} else if !errors.Is(err, store.ErrFull) {
					t.Fatalf("put: %v", err)
				}
				if len(turns) > 1 {
					return // what the others do makes a bound of it
				}
				after, all := int64(0), int64(0)
				for name, values := range state {
					values = maps.Clone(values)
					for k, p := range u.puts[name] {
						if delete(values, k); p != nil {
							values[k] = *p
						}
					}
					if name == space {
						if err != nil {
							values[key] = v
						}
						after = spaceBytes(values)
					}
					all += spaceBytes(values)
				}
				if fits := after <= limit && all <= o.MaxState; fits && err != nil && !mayBeInexact(u.puts, state) {
					t.Fatalf("%d bytes of %d, %d of all: %v", after, limit, all, err)
				} else if !fits && err == nil {
					t.Fatalf("%d bytes of %d, %d of all, and it is let in", after, limit, all)
				}
			},
			"commit": func(t *rapid.T) {
				if i := rapid.IntRange(0, 3).Draw(t, "turn"); turns[i] != nil {
					commit(i)
				}
			},
			"commit all": func(t *rapid.T) {
				for i := range 3 {
					if turns[i] != nil {
						commit(i)
					}
				}
			},
			"discard": func(t *rapid.T) {
				if i := rapid.IntRange(0, 3).Draw(t, "turn"); turns[i] != nil {
					turns[i].Discard()
					delete(turns, i)
				}
			},
			"full disk": func(t *rapid.T) {
				if i := rapid.IntRange(0, 3).Draw(t, "turn"); turns[i] != nil {
					trouble = store.ErrFull
					commit(i)
					trouble = nil
				}
			},
			"reopen": func(t *rapid.T) {
				for i, u := range turns {
					u.Discard()
					delete(turns, i)
				}
				db.Close()
				if db, err = store.Open(o); err != nil {
					t.Fatal(err)
				}
			},
			"": func(t *rapid.T) {
				all := int64(0)
				for name, values := range state {
					var got store.SpaceInfo
					for _, i := range db.Spaces(name) {
						got = i
					}
					if got.Bytes != spaceBytes(values) || got.Keys != int64(len(values)) || got.Bytes+got.Reserved > limit || len(turns) == 0 && got.Reserved != 0 || got.Reserved < 0 {
						t.Fatalf("%s: %+v, limit %d, want %d bytes", name, got, limit, spaceBytes(values))
					}
					all += got.Bytes
				}
				if all > o.MaxState {
					t.Fatalf("%d bytes of %d in all", all, o.MaxState)
				}
			},
		})
	})
}

// without is what a space holds after a turn, but for one key.
func without(values map[string]string, puts map[string]*string, key string) int64 {
	values = maps.Clone(values)
	for k, p := range puts {
		if delete(values, k); p != nil {
			values[k] = *p
		}
	}
	delete(values, key)
	return spaceBytes(values)
}

// mayBeInexact says whether a turn deletes something that is there: without
// having read it, it may not count on that.
func mayBeInexact(puts map[string]map[string]*string, state map[string]map[string]string) bool {
	for space, all := range puts {
		for k, v := range all {
			if _, there := state[space][k]; v == nil && there {
				return true
			}
		}
	}
	return false
}
