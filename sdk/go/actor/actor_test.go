package actor_test

import (
	"encoding/hex"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/edged-io/edged/sdk/go/actor"
	"github.com/edged-io/edged/sdk/go/msgpack"
)

// host answers every call with response, or fails with failure, and keeps the
// last call.
type host struct {
	response, failure string
	called            string
}

func use(t *testing.T, h *host) {
	t.Helper()
	before := actor.SetHost(func(link, target, operation string, payload []byte) ([]byte, error) {
		h.called = link + " " + target + " " + operation + " " + hex.EncodeToString(payload)
		if h.failure != "" {
			return nil, errors.New(h.failure)
		}
		b, err := hex.DecodeString(strings.ReplaceAll(h.response, " ", ""))
		return b, err
	})
	t.Cleanup(func() { actor.SetHost(before) })
}

func TestHandle(t *testing.T) {
	actor.Handle("Test.Upper", func(p []byte) ([]byte, error) { return []byte(strings.ToUpper(string(p))), nil })
	if out, err := actor.Invoke("Test.Upper", []byte("x")); err != nil || string(out) != "X" {
		t.Errorf("got %q, %v", out, err)
	}
	if _, err := actor.Invoke("Test.Nothing", nil); err == nil || err.Error() != "method not handled: Test.Nothing" {
		t.Errorf("got %v", err)
	}
}

func TestOnHealth(t *testing.T) {
	if out, err := actor.Invoke("Actor.HealthRequest", []byte{0x80}); err != nil || hex.EncodeToString(out) != "81a76865616c746879c3" {
		t.Errorf("by itself: got %x, %v", out, err)
	}
	var sick error
	actor.OnHealth(func() error { return sick })
	if out, err := actor.Invoke("Actor.HealthRequest", []byte{0x80}); err != nil || hex.EncodeToString(out) != "81a76865616c746879c3" {
		t.Errorf("healthy: got %x, %v", out, err)
	}
	sick = errors.New("sick")
	if out, err := actor.Invoke("Actor.HealthRequest", []byte{0x80}); err != nil || string(out) != "\x82\xa7healthy\xc2\xa7message\xa4sick" {
		t.Errorf("sick: got %q, %v", out, err)
	}
}

func TestOnMessage_answers(t *testing.T) {
	var result error
	actor.OnMessage(func(actor.Event) error { return result })
	for _, c := range []struct {
		name   string
		result error
		want   string
		fails  bool
	}{
		{"done", nil, "", false},
		{"again", actor.Retry(0), "\x81\xa6action\xa5retry", false},
		{"again later", actor.Retry(1500 * time.Millisecond), "\x82\xa6action\xa5retry\xa7afterMs\xcd\x05\xdc", false},
		{"again soon", actor.Retry(time.Microsecond), "\x82\xa6action\xa5retry\xa7afterMs\x01", false},
		{"never", actor.Reject("bad"), "\x82\xa6action\xa6reject\xa6reason\xa3bad", false},
		{"never, wrapped", errors.Join(actor.Reject("bad")), "\x82\xa6action\xa6reject\xa6reason\xa3bad", false},
		{"failed", errors.New("no paper"), "", true},
	} {
		result = c.result
		out, err := actor.Deliver("", actor.Event{ID: "1"})
		if string(out) != c.want || (err != nil) != c.fails {
			t.Errorf("%s: got %q, %v, want %q", c.name, out, err, c.want)
		}
	}
}

func TestOnMessage_event(t *testing.T) {
	var got actor.Event
	actor.OnMessageAs("Test.Took", func(e actor.Event) error { got = e; return nil })
	want := actor.Event{
		ID: "1", Source: "s", Type: "t", Data: []byte("data"), Subject: "sub", Time: "2026-11-20T10:00:00Z", DataContentType: "text/plain", DataSchema: "x:y",
		Extensions: map[string]string{"topic": "a/b"},
	}
	if _, err := actor.Deliver("Test.Took", want); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	if l := got.Levels(); len(l) != 2 || l[0] != "a" || l[1] != "b" {
		t.Errorf("levels %q", l)
	}
	// Fields in any order, unknown ones, nil for what is absent, extensions
	// that are no text.
	odd := "\x86\xa4data\x93\x01\x02\x03\xa3new\x91\xc0\xa7subject\xc0\xa2id\xa17\xaaextensions\x83\xa1a\xc3\xa1b\xff\xa1c\xa1d\xa6source\xa1s"
	if _, err := actor.Invoke("Test.Took", []byte(odd)); err != nil {
		t.Fatal(err)
	}
	want = actor.Event{ID: "7", Source: "s", Data: []byte{1, 2, 3}, Extensions: map[string]string{"a": "true", "b": "-1", "c": "d"}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	for _, bad := range []string{"", "\x81\xa2id\x01", "\x81", "\xc1", "\x80\x80"} {
		if _, err := actor.Invoke("Test.Took", []byte(bad)); err == nil || !strings.HasPrefix(err.Error(), "event: ") {
			t.Errorf("%q: got %v", bad, err)
		}
	}
}

func TestCalls(t *testing.T) {
	h := &host{}
	use(t, h)
	check := func(name, want string, err error) {
		t.Helper()
		if err != nil || h.called != want {
			t.Errorf("%s: called %s, %v, want %s", name, h.called, err, want)
		}
	}
	text := func(s string) string { return hex.EncodeToString(msgpack.AppendString(nil, s)) }
	check("set", "default wasmcloud:keyvalue KeyValue.Set 83"+text("key")+text("k")+text("value")+text("v")+text("expires")+"00", actor.KV.Set("k", "v"))
	check("publish", "default edged:pubsub PubSub.Publish 82"+text("topic")+text("t")+text("event")+"84"+text("id")+text("1")+text("source")+text("s")+text("type")+text("x")+text("data")+"c400",
		actor.Publish("t", actor.Event{ID: "1", Source: "s", Type: "x"}))
	check("gpio set", "default edged:gpio Gpio.Set 83"+text("chip")+text("sim0")+text("line")+"04"+text("level")+"c3", actor.GPIO("sim0").Set(4, true))
	check("gpio pulse", "default edged:gpio Gpio.Pulse 84"+text("chip")+text("sim0")+text("line")+"04"+text("level")+"c2"+text("ms")+"cd01f4", actor.GPIO("sim0").Pulse(4, false, time.Second/2))
	actor.Log.Warn("too", "hot")
	check("log", "default wasmcloud:builtin:logging Logging.WriteLog 82"+text("level")+text("warn")+text("text")+text("too hot"), nil)

	h.response = "c3"
	v, err := actor.GPIO("sim0").Get(4)
	check("gpio get", "default edged:gpio Gpio.Get 82"+text("chip")+text("sim0")+text("line")+"04", err)
	there, err2 := actor.KeyValue{Link: "cache"}.Contains("k")
	check("contains", "cache wasmcloud:keyvalue KeyValue.Contains "+text("k"), err2)
	gone, err3 := actor.KV.Delete("k")
	check("delete", "default wasmcloud:keyvalue KeyValue.Del "+text("k"), err3)
	if !v || !there || !gone {
		t.Errorf("got %v, %v, %v, want true", v, there, gone)
	}
	h.response = "2a"
	n, err := actor.KV.Increment("k", -1)
	check("increment", "default wasmcloud:keyvalue KeyValue.Increment 82"+text("key")+text("k")+text("value")+"ff", err)
	if n != 42 {
		t.Errorf("got %d, want 42", n)
	}
	h.response = "82" + text("value") + text("v") + text("exists") + "c3"
	if v, ok, err := actor.KV.Get("k"); v != "v" || !ok || err != nil {
		t.Errorf("get: got %q, %v, %v", v, ok, err)
	}
}

func TestCalls_errors(t *testing.T) {
	h := &host{failure: "not granted"}
	use(t, h)
	var failed *actor.HostError
	if _, err := actor.Call("x", "Op", nil); !errors.As(err, &failed) || failed.Text != "not granted" || err.Error() != "Op: not granted" {
		t.Errorf("got %v", err)
	}
	if _, _, err := actor.KV.Get("k"); !errors.As(err, &failed) {
		t.Errorf("get: got %v", err)
	}
	h.failure, h.response = "", "a0"
	if _, _, err := actor.KV.Get("k"); !errors.Is(err, msgpack.ErrType) {
		t.Errorf("get: got %v", err)
	}
	if _, err := actor.KV.Increment("k", 1); !errors.Is(err, msgpack.ErrType) {
		t.Errorf("increment: got %v", err)
	}
	actor.SetHost(nil)
	if err := actor.KV.Set("k", "v"); err == nil || !strings.Contains(err.Error(), "no box") {
		t.Errorf("without a box: got %v", err)
	}
}

func TestOnHTTP(t *testing.T) {
	actor.OnHTTP(func(r actor.Request) (actor.Response, error) {
		if r.Path == "/fail" {
			return actor.Response{}, errors.New("fails")
		}
		return actor.Response{Header: map[string][]string{"a": r.Header["a"]}, Body: []byte(r.Method + r.Path + "?" + r.Query + string(r.Body))}, nil
	})
	request := func(path string) []byte {
		return []byte("\x85\xa6method\xa3GET\xa4path" + path + "\xabqueryString\xa1q\xa6header\x81\xa1a\x92\xa1b\xa1c\xa4body\xc4\x01!")
	}
	want := "\x83\xaastatusCode\xcc\xc8\xa6header\x81\xa1a\x92\xa1b\xa1c\xa4body\xc4\x07GET/?q!"
	if out, err := actor.Invoke("HttpServer.HandleRequest", request("\xa1/")); err != nil || string(out) != want {
		t.Errorf("got %q, %v, want %q", out, err, want)
	}
	if _, err := actor.Invoke("HttpServer.HandleRequest", request("\xa5/fail")); err == nil {
		t.Error("no error")
	}
	if _, err := actor.Invoke("HttpServer.HandleRequest", []byte("\x81")); err == nil {
		t.Error("half a request: no error")
	}
}
