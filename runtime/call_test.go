package runtime_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/edged-io/edged/runtime"
)

func TestActor_Call_echo(t *testing.T) {
	for name, wasm := range map[string][]byte{"assembled": echoModule(), "go": guest(t)} {
		a := load(t, newHost(t, runtime.Options{}), wasm, runtime.Limits{})
		for _, n := range []int{0, 1, 128, 60 << 10} {
			in := bytes.Repeat([]byte{'x'}, n)
			out, err := a.Call(t.Context(), "Test.Echo", in)
			if err != nil || !bytes.Equal(in, out) {
				t.Errorf("%s, %d bytes: got %d bytes, %v", name, n, len(out), err)
			}
		}
		if s := a.Stats(); s.Calls != 4 || s.Started != 1 || s.Idle != 1 || s.Busy != 0 {
			t.Errorf("%s: stats %+v", name, s)
		}
	}
}

func TestActor_Call_responseIsTheCallers(t *testing.T) {
	a := load(t, newHost(t, runtime.Options{}), echoModule(), runtime.Limits{})
	one, err1 := a.Call(t.Context(), "Echo", []byte("one"))
	two, err2 := a.Call(t.Context(), "Echo", []byte("two"))
	if err1 != nil || err2 != nil || string(one) != "one" || string(two) != "two" {
		t.Errorf("got %q %v, %q %v", one, err1, two, err2)
	}
}

func TestActor_Call_guestError(t *testing.T) {
	a := load(t, newHost(t, runtime.Options{}), guest(t), runtime.Limits{})
	_, err := a.Call(t.Context(), "Test.Fail", []byte("no paper"))
	var guestErr *runtime.GuestError
	if !errors.As(err, &guestErr) || guestErr.Text != "no paper" || guestErr.Actor != "lab/guest" || runtime.NotHandled(err) {
		t.Errorf("got %v", err)
	}
	if want := "actor lab/guest: Test.Fail: no paper"; err.Error() != want {
		t.Errorf("got %q, want %q", err, want)
	}
	_, err = a.Call(t.Context(), "Test.Unknown", nil)
	if !runtime.NotHandled(err) {
		t.Errorf("unknown operation: got %v", err)
	}
	if s := a.Stats(); s.GuestErrors != 2 || s.Discarded != 0 {
		t.Errorf("stats %+v", s)
	}
}

func TestActor_Call_guestErrorWins(t *testing.T) {
	h := newHost(t, runtime.Options{})
	a := load(t, h, callModule(append(append(append(num(0), num(0)...), call(2)...), num(1)...), nil), runtime.Limits{})
	var guestErr *runtime.GuestError
	if _, err := a.Call(t.Context(), "Op", nil); !errors.As(err, &guestErr) {
		t.Errorf("error and 1: got %v", err)
	}
	for _, result := range []int{0, 2, -1} {
		a = load(t, h, callModule(num(result), nil), runtime.Limits{})
		if _, err := a.Call(t.Context(), "Op", nil); !errors.As(err, &guestErr) || !strings.Contains(err.Error(), "without a reason") {
			t.Errorf("result %d: got %v", result, err)
		}
	}
}

func TestActor_Call_hostCall(t *testing.T) {
	type key struct{}
	h := newHost(t, runtime.Options{Call: func(ctx context.Context, actor, binding, namespace, operation string, payload []byte) ([]byte, error) {
		if operation == "Fail" {
			return []byte("ignored"), errors.New("out of paper")
		}
		_, deadline := ctx.Deadline()
		return fmt.Appendf(nil, "%s %s %s %s %s %v %v", actor, binding, namespace, operation, payload, ctx.Value(key{}), deadline), nil
	}})
	a := load(t, h, guest(t), runtime.Limits{})
	ctx := context.WithValue(t.Context(), key{}, "turn 7")
	out, err := a.Call(ctx, "Test.Call", []byte("default wasmcloud:keyvalue KeyValue.Get key"))
	if want := "lab/guest default wasmcloud:keyvalue KeyValue.Get key turn 7 true"; err != nil || string(out) != want {
		t.Errorf("got %q, %v, want %q", out, err, want)
	}
	_, err = a.Call(ctx, "Test.Call", []byte("default x Fail y"))
	var guestErr *runtime.GuestError
	if !errors.As(err, &guestErr) || guestErr.Text != "Fail: out of paper" {
		t.Errorf("got %v", err)
	}
	// A stale error of the host does not spoil the next call.
	if out, err := a.Call(ctx, "Test.CallTwice", []byte("default x Fail y")); err != nil || string(out) != "survived" {
		t.Errorf("got %q, %v", out, err)
	}
}

func TestActor_Call_hostCallResult(t *testing.T) {
	fail := false
	h := newHost(t, runtime.Options{Call: func(context.Context, string, string, string, string, []byte) ([]byte, error) {
		if fail {
			return nil, errors.New("no")
		}
		return nil, nil
	}})
	var code []byte
	for range 8 {
		code = append(code, num(0)...)
	}
	// Store the result at 0 and answer with that byte.
	code = append(num(0), append(append(code, call(3)...), 0x36, 2, 0)...)
	code = append(code, append(append(append(num(0), num(4)...), call(1)...), num(1)...)...)
	a := load(t, h, callModule(code, nil), runtime.Limits{})
	for _, c := range []struct {
		fail bool
		want []byte
	}{{false, []byte{1, 0, 0, 0}}, {true, []byte{0, 0, 0, 0}}} {
		fail = c.fail
		if out, err := a.Call(t.Context(), "Op", nil); err != nil || !bytes.Equal(out, c.want) {
			t.Errorf("fail %v: got %x, %v, want %x", c.fail, out, err, c.want)
		}
	}
}

func TestActor_Call_sdkPublish(t *testing.T) {
	var got []string
	h := newHost(t, runtime.Options{Call: func(_ context.Context, _, binding, namespace, operation string, payload []byte) ([]byte, error) {
		got = append(got, binding+" "+namespace+" "+operation+" "+string(payload))
		return nil, nil
	}})
	a := load(t, h, guest(t), runtime.Limits{})
	// {"id":"7","source":"s","type":"publish","data":bin "21.5"}
	event := "\x84\xa2id\xa17\xa6source\xa1s\xa4type\xa7publish\xa4data\xc4\x0421.5"
	if out, err := a.Call(t.Context(), "PubSub.OnMessage", []byte(event)); err != nil || len(out) != 0 {
		t.Fatalf("got %q, %v", out, err)
	}
	want := "default edged:pubsub PubSub.Publish \x82\xa5topic\xa5out/7\xa5event" + event
	if len(got) != 1 || got[0] != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestActor_Call_noStatePromised(t *testing.T) {
	a := load(t, newHost(t, runtime.Options{}), guest(t), runtime.Limits{})
	for _, want := range []string{"1", "2"} { // one warm instance
		if out, err := a.Call(t.Context(), "Test.Count", nil); err != nil || string(out) != want {
			t.Errorf("got %q, %v, want %s", out, err, want)
		}
	}
	if _, err := a.Call(t.Context(), "Test.Panic", nil); err == nil {
		t.Fatal("no trap")
	}
	if out, err := a.Call(t.Context(), "Test.Count", nil); err != nil || string(out) != "1" {
		t.Errorf("after a trap: got %q, %v, want 1 of a fresh instance", out, err)
	}
}

func TestActor_Call_environment(t *testing.T) {
	t.Setenv("SECRET", "secret")
	a := load(t, newHost(t, runtime.Options{}), guest(t), runtime.Limits{})
	if out, err := a.Call(t.Context(), "Test.Environment", nil); err != nil || string(out) != "main.wasm|" {
		t.Errorf("got %q, %v", out, err)
	}
	if out, err := a.Call(t.Context(), "Test.Goroutines", []byte("x")); err != nil || string(out) != "x" {
		t.Errorf("goroutines: got %q, %v", out, err)
	}
}

func TestActor_Call_instancePerCall(t *testing.T) {
	for calls, want := range map[int]string{1: "1 1 1 1", 2: "1 2 1 2", 0: "1 2 3 4"} {
		a := load(t, newHost(t, runtime.Options{}), guest(t), runtime.Limits{CallsPerInstance: calls})
		var got []string
		for range 4 {
			out, err := a.Call(t.Context(), "Test.Count", nil)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, string(out))
		}
		if s := a.Stats(); strings.Join(got, " ") != want || calls > 0 && s.Recycled != uint64(4/calls) {
			t.Errorf("%d calls each: got %q, want %s, stats %+v", calls, got, want, s)
		}
	}
}
