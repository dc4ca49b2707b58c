package blobstore_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/edged-io/edged/lattice"
	"github.com/edged-io/edged/providers/blobstore"
	"github.com/edged-io/edged/store"
)

// crashDir, in the environment, makes the test binary a box that puts objects until it
// is killed.
const crashDir = "EDGED_BLOBSTORE_CRASH"

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDir); dir != "" {
		fmt.Fprintln(os.Stderr, putForEver(dir))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func content(n int) string { return strings.Repeat(strconv.Itoa(n)+"\n", 2000+n%7*10_000) }

// putForEver puts one object after the other, with a note in the same turn, and says of
// each when it is committed. Every third comes in two parts, in turns of their own; every
// fourth takes the place of the one before.
func putForEver(dir string) error {
	db, err := store.Open(store.Options{Dir: dir})
	if err != nil {
		return err
	}
	p, err := blobstore.New(blobstore.Options{Store: db, Dir: dir + "/blobs"})
	if err != nil {
		return err
	}
	ctx := context.Background()
	go func() { _ = p.Run(ctx) }() // ends with the process
	if err := p.PutLink(ctx, lattice.Link{Actor: "actor", Name: "default", Values: map[string]string{"bucket": "b", "max_bytes": "1000000000"}}); err != nil {
		return err
	}
	do := func(ctx context.Context, op string, v any) ([]byte, error) {
		return p.Call(ctx, lattice.Invocation{
			Origin: lattice.Entity{Key: "actor"}, Target: lattice.Entity{Link: "default"}, Operation: "Blobstore." + op, Payload: encode(pairs, v),
		})
	}
	if _, err := do(ctx, "CreateContainer", "c"); err != nil {
		return err
	}
	first := 0
	if err := db.List("notes", "", func(string, []byte) error { first++; return nil }); err != nil {
		return err
	}
	for n := first; ; n++ {
		object, text, begun, op := fmt.Sprintf("%06d", n-n%4/3), content(n), "", "PutObject"
		last := putAs(object, text, true)
		if n%3 == 0 {
			reply, err := do(ctx, "PutObject", putAs(object, text[:1000], false))
			if err != nil {
				return err
			}
			begun, op = stream(show(reply)), "PutChunk"
			last = st{"chunk", st{"objectId", object, "containerId", "c", "bytes", []byte(text[1000:]), "offset", 1000, "isLast", true}, "streamId", begun, "cancelAndRemove", false}
		}
		err := db.Do(ctx, func(ctx context.Context, t *store.Turn) error {
			_, err := do(ctx, op, last)
			return errors.Join(err, t.Put("notes", fmt.Sprintf("%06d", n), []byte(object)))
		})
		if err != nil {
			return err
		}
		fmt.Println(n)
	}
}

// TestProvider_killed kills a box that puts objects, again and again: what was committed
// is there, whole and with its note, and nothing else is.
func TestProvider_killed(t *testing.T) {
	r := newRig(t)
	r.close()
	for round, more := range []int{1, 7, 20, 3, 40} {
		box := exec.CommandContext(t.Context(), os.Args[0])
		box.Env = append(os.Environ(), crashDir+"="+r.dir)
		box.Stderr = os.Stderr
		out, err := box.StdoutPipe()
		if err == nil {
			err = box.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		lines, told := bufio.NewScanner(out), -1
		for range more {
			if !lines.Scan() {
				t.Fatal("the box ended by itself")
			}
			if told, err = strconv.Atoi(lines.Text()); err != nil {
				t.Fatal(err)
			}
		}
		if err := box.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		rest, _ := io.ReadAll(out)
		told += strings.Count(string(rest), "\n")
		_ = box.Wait() // it was killed
		r.open()
		r.check(round, told)
		r.close()
	}
	r.open()
}

// check compares objects with the notes that were committed with them.
func (r *rig) check(round, told int) {
	r.t.Helper()
	latest, notes := make(map[string]int), 0
	err := r.db.List("notes", "", func(key string, object []byte) error {
		n, err := strconv.Atoi(key)
		latest[string(object)] = n
		notes++
		return err
	})
	if err != nil || notes <= told {
		r.t.Errorf("round %d: %d notes, and %d was told: %v", round, notes, told, err)
	}
	objects := 0
	err = r.p.Objects("b", func(o blobstore.ObjectInfo) error {
		objects++
		n, ok := latest[o.Object]
		got, _, err := r.p.Read(r.t.Context(), "b", o.Container, o.Object, 0, 1<<20)
		if want := content(n); !ok || string(got) != want {
			r.t.Errorf("round %d: object %s has %d bytes, want the %d of %d", round, o.Object, len(got), len(want), n)
		}
		return err
	})
	if err != nil || objects != len(latest) {
		r.t.Errorf("round %d: %d objects, %d notes of them, %v", round, objects, len(latest), err)
	}
	uploads, err := records(r.db)
	if n := r.files(); err != nil || n != objects+strings.Count(uploads, " u/") {
		r.t.Errorf("round %d: %d files of %d objects and %d uploads, %v", round, n, objects, strings.Count(uploads, " u/"), err)
	}
}
