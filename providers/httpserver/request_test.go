package httpserver

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/edged-io/edged/sdk/go/msgpack"
	"github.com/edged-io/edged/store"
)

func TestRequest_allFields(t *testing.T) {
	r := newRig(t)
	got := make(chan request, 1)
	url := r.serve("", func(_ context.Context, q request) ([]byte, error) {
		got <- q
		return reply(201, "made", "X-One", "1"), nil
	})
	a := ask(t, "POST", url+"/a%2Fb/c?x=1&y=%20", "body", "X-Two", "a", "X-Two", "b", "Connection", "X-Hop", "X-Hop", "gone", "Te", "trailers")
	if a.StatusCode != 201 || a.body != "made" || a.Header.Get("X-One") != "1" || a.ContentLength != 4 {
		t.Errorf("answer %v %q", a.Response, a.body)
	}
	if _, typed := a.Header["Content-Type"]; typed {
		t.Errorf("a content type was made up: %v", a.Header)
	}
	q := <-got
	if q.method != "POST" || q.path != "/a%2Fb/c" || q.query != "x=1&y=%20" || q.body != "body" {
		t.Errorf("request %+v", q)
	}
	if !slices.Equal(q.fields, []string{"method", "path", "queryString", "header", "body"}) {
		t.Errorf("fields %q", q.fields)
	}
	if !slices.Equal(q.header["x-two"], []string{"a", "b"}) || q.header["host"][0] != strings.TrimPrefix(url, "http://") {
		t.Errorf("header %q", q.header)
	}
	for _, name := range []string{"connection", "x-hop", "te"} {
		if _, there := q.header[name]; there {
			t.Errorf("header %s belongs to the connection", name)
		}
	}
	ask(t, "GET", url+"/", "")
	if q := <-got; len(q.fields) != 5 || q.query != "" || q.body != "" {
		t.Errorf("request without a body %+v", q)
	}
}

// The smallest request that a classic actor takes has these bytes.
func TestAppendRequest_bytes(t *testing.T) {
	req, err := http.NewRequest("GET", "http://h/", nil)
	if err != nil {
		t.Fatal(err)
	}
	got := string(appendRequest(nil, req, nil))
	want := "\x85\xa6method\xa3GET\xa4path\xa1/\xabqueryString\xa0\xa6header\x81\xa4host\x91\xa1h\xa4body\xc4\x00"
	if got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestRequest_textThatIsNone(t *testing.T) {
	r := newRig(t)
	url := r.serve("", func(_ context.Context, q request) ([]byte, error) {
		return reply(200, q.path+"|"+q.query+"|"+q.header["x"][0]), nil
	})
	got := raw(t, url, "GET /\xff?q=\xfe HTTP/1.1\r\nHost: h\r\nX: a\xffb\r\nConnection: close\r\n\r\n")
	if !strings.HasSuffix(got, "/%FF|q=\uFFFD|a\uFFFDb") {
		t.Errorf("got %q", got)
	}
}

// A turn that fails, and one whose answer can not be sent, changed nothing; and
// the client learns nothing of it but where to look.
func TestRequest_turn(t *testing.T) {
	r := newRig(t)
	answers := map[string][]byte{
		"/ok": reply(200, "fine"), "/teapot": reply(418, "short"), "/status": reply(99, ""), "/high": reply(600, ""), "/none": nil,
		"/inject": reply(200, "", "X-A", "1\r\nX-B: 2"), "/name": reply(200, "", "X A", "1"), "/nul": reply(200, "", "X", "\x00"),
		"/more": append(reply(200, ""), 1), "/array": {0x91, 0xa2, 'n', 'o'}, "/text": msgpack.AppendString(nil, "ok"),
	}
	url := r.serve("", func(ctx context.Context, q request) ([]byte, error) {
		if err := store.TurnFrom(ctx).Put("seen", q.path, []byte("x")); err != nil {
			return nil, err
		}
		if q.path == "/fails" {
			return nil, errActor
		}
		return answers[q.path], nil
	})
	for path, want := range map[string]int{
		"/ok": 200, "/teapot": 418, "/fails": 500, "/status": 500, "/high": 500, "/none": 500, "/inject": 500, "/name": 500, "/nul": 500,
		"/more": 500, "/array": 500, "/text": 500,
	} {
		a := ask(t, "GET", url+path, "")
		if a.StatusCode != want {
			t.Errorf("%s: got %d %q, want %d", path, a.StatusCode, a.body, want)
		}
		if got := r.has(path); got != (want < 500) {
			t.Errorf("%s: what the turn changed is there: %v", path, got)
		}
		if want == 500 {
			_, id, _ := strings.Cut(a.body, `"id":"`)
			id, _, _ = strings.Cut(id, `"`)
			if id == "" || strings.Contains(a.body, "secret") || !strings.Contains(r.log.String(), "id="+id) {
				t.Errorf("%s: answered %q; log:\n%s", path, a.body, r.log.String())
			}
		}
	}
	if !strings.Contains(r.log.String(), "secret of the actor") {
		t.Error("the log has no cause")
	}
}

// has says whether a key of the space "seen" is on disk.
func (r *rig) has(key string) (there bool) {
	r.t.Helper()
	err := r.db.Do(r.t.Context(), func(_ context.Context, t *store.Turn) (err error) {
		_, there, err = t.Get("seen", key)
		return err
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return there
}

// An answer leaves after the commit.
func TestRequest_answersAfterCommit(t *testing.T) {
	r := newRig(t)
	var committed atomic.Bool
	url := r.serve("", func(ctx context.Context, _ request) ([]byte, error) {
		turn := store.TurnFrom(ctx)
		turn.AfterCommit(func() { committed.Store(true) })
		return reply(200, ""), turn.Put("seen", "x", nil)
	})
	if a := ask(t, "GET", url+"/", ""); a.StatusCode != 200 || !committed.Load() {
		t.Errorf("status %d, committed %v", a.StatusCode, committed.Load())
	}
}

// Turns that want the same key run again, with the same body.
func TestRequest_conflict(t *testing.T) {
	r := newRig(t)
	var calls atomic.Int64
	url := r.serve("", func(ctx context.Context, q request) ([]byte, error) {
		calls.Add(1)
		turn := store.TurnFrom(ctx)
		v, _, err := turn.Get("seen", "sum")
		if err != nil {
			return nil, err
		}
		next := string(v) + q.body
		return reply(200, next), turn.Put("seen", "sum", []byte(next))
	})
	const n = 40
	done := make(chan answer, n)
	for range n {
		go func() { done <- ask(t, "POST", url+"/", "x") }()
	}
	lengths := make(map[int]bool)
	for range n {
		a := <-done
		if a.StatusCode != 200 {
			t.Errorf("status %d %s", a.StatusCode, a.body)
		}
		lengths[len(a.body)] = true
	}
	if len(lengths) != n {
		t.Errorf("%d answers differ, want %d; %d calls", len(lengths), n, calls.Load())
	}
}

// Who changes nothing waits for no disk.
func TestRequest_readsAreNotSynced(t *testing.T) {
	r := newRig(t)
	url := r.serve("", func(ctx context.Context, _ request) ([]byte, error) {
		_, there, err := store.TurnFrom(ctx).Get("seen", "x")
		return reply(200, fmt.Sprint(there)), err
	})
	before := r.db.Stats().Commits
	for range 5 {
		if a := ask(t, "GET", url+"/", ""); a.body != "false" {
			t.Errorf("%d %q", a.StatusCode, a.body)
		}
	}
	if n := r.db.Stats().Commits - before; n != 0 {
		t.Errorf("%d groups were written", n)
	}
}

func TestResponse_forms(t *testing.T) {
	r := newRig(t)
	url := r.serve("", func(_ context.Context, q request) ([]byte, error) {
		switch q.path {
		case "/cookies":
			b := msgpack.AppendMapHeader(nil, 2)
			b = msgpack.AppendMapHeader(msgpack.AppendString(b, "header"), 2)
			b = msgpack.AppendArrayHeader(msgpack.AppendString(b, "set-cookie"), 2)
			b = msgpack.AppendString(msgpack.AppendString(b, "a=1"), "b=2")
			b = msgpack.AppendString(msgpack.AppendString(b, "x-plain"), "text")
			return msgpack.AppendInt(msgpack.AppendString(b, "statusCode"), 200), nil
		case "/length":
			return reply(200, "four", "Content-Length", "400", "Transfer-Encoding", "chunked", "Connection", "close", "Content-Type", "text/plain"), nil
		case "/ints": // a body as old Rust writes it, and the keys in another order
			return []byte("\x83\xa4body\x92\x68\x69\xa6header\x80\xaastatusCode\xcc\xc8"), nil
		case "/array": // a struct as an array, a marker in front, a text for the body, nothing for the header
			return []byte("\xc1\x93\xcd\x00\xc9\xc0\xa2hi"), nil
		case "/204", "/304", "/205":
			return reply(map[string]int{"/204": 204, "/304": 304, "/205": 205}[q.path], "not to be seen"), nil
		}
		return reply(200, "body of "+q.method), nil
	})
	if a := ask(t, "GET", url+"/cookies", ""); !slices.Equal(a.Header["Set-Cookie"], []string{"a=1", "b=2"}) || a.Header.Get("X-Plain") != "text" {
		t.Errorf("header %v", a.Header)
	}
	if a := ask(t, "GET", url+"/length", ""); a.body != "four" || a.ContentLength != 4 || a.Close || a.Header.Get("Content-Type") != "text/plain" {
		t.Errorf("%v %q", a.Response, a.body)
	}
	if a := ask(t, "GET", url+"/ints", ""); a.body != "hi" {
		t.Errorf("body %q", a.body)
	}
	if a := ask(t, "GET", url+"/array", ""); a.body != "hi" || a.StatusCode != 201 {
		t.Errorf("%d %q", a.StatusCode, a.body)
	}
	for _, path := range []string{"/204", "/304", "/205"} {
		if a := ask(t, "GET", url+path, ""); a.body != "" || fmt.Sprintf("/%d", a.StatusCode) != path {
			t.Errorf("%s: %d %q", path, a.StatusCode, a.body)
		}
	}
	got := raw(t, url, "HEAD / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
	if !strings.Contains(got, "Content-Length: 12\r\n") || !strings.HasSuffix(got, "\r\n\r\n") {
		t.Errorf("HEAD: %q", got)
	}
}

func TestRequest_statusOfErrors(t *testing.T) {
	r := newRig(t)
	errs := map[string]error{
		"/time": fmt.Errorf("x: %w", ErrTimeLimit), "/busy": ErrBusy, "/full": fmt.Errorf("x: %w", store.ErrFull), "/failed": store.ErrFailed,
		"/deadline": context.DeadlineExceeded, "/other": errors.New("x"),
	}
	url := r.serve("", func(_ context.Context, q request) ([]byte, error) { return nil, errs[q.path] })
	for path, want := range map[string]int{"/time": 504, "/busy": 503, "/full": 507, "/failed": 503, "/deadline": 504, "/other": 500} {
		a := ask(t, "GET", url+path, "")
		if a.StatusCode != want || a.Header.Get("Content-Type") != "application/json" || !strings.HasPrefix(a.body, `{"error":"`) {
			t.Errorf("%s: %d %q, want %d", path, a.StatusCode, a.body, want)
		}
		if again := a.Header.Get("Retry-After"); (again != "") != (want == 503 || want == 507) {
			t.Errorf("%s: Retry-After %q", path, again)
		}
	}
	// Lines in the log are bounded, and an answer has a number only if the log has it.
	for range 2 * noiseBurst {
		a := ask(t, "GET", url+"/other", "")
		if _, id, ok := strings.Cut(a.body, `"id":"`); ok && !strings.Contains(r.log.String(), "id="+id[:10]) {
			t.Fatalf("%q is not in the log", a.body)
		}
	}
	if n := strings.Count(r.log.String(), "request failed"); n < noiseBurst || !strings.Contains(r.log.String(), " actor=lab/a ") {
		t.Errorf("%d failures are in the log", n)
	}
	r.mu.Lock()
	delete(r.actors, "a")
	r.mu.Unlock()
	if a := ask(t, "GET", url+"/", ""); a.StatusCode != 503 {
		t.Errorf("without an actor: %d", a.StatusCode)
	}
}

// A request that changes nothing, over one connection.
func BenchmarkRequest(b *testing.B) {
	r := newRig(b)
	url := r.serve("", echo)
	c := client(b)
	b.ReportAllocs()
	for b.Loop() {
		req, err := http.NewRequest("POST", url+"/x?y", strings.NewReader("body"))
		if err != nil {
			b.Fatal(err)
		}
		if a := do(b, c, req); a.StatusCode != 200 {
			b.Fatal(a.StatusCode)
		}
	}
}
