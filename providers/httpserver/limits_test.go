package httpserver

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/edged-io/edged/store"
)

// dial opens a connection whose reads and writes end.
func dial(t testing.TB, url string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestBody_tooLarge(t *testing.T) {
	r := newRig(t)
	url := r.serve(`"max_body":10`, echo)
	chunked := func(body string) string {
		return fmt.Sprintf("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(body), body)
	}
	ten, eleven := strings.Repeat("x", 10), strings.Repeat("x", 11)
	for text, want := range map[string]string{
		"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\nConnection: close\r\n\r\n" + ten:    "200 OK",
		"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 11\r\nConnection: close\r\n\r\n" + eleven: "413 Request Entity Too Large",
		chunked(ten):    "200 OK",
		chunked(eleven): "413 Request Entity Too Large",
		// Nothing of the body is asked for.
		"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 11\r\nExpect: 100-continue\r\n\r\n": "413 Request Entity Too Large",
	} {
		if got := raw(t, url, text); !strings.HasPrefix(got, "HTTP/1.1 "+want) {
			t.Errorf("%q: got %q, want %s", text, got, want)
		}
	}
	c := dial(t, url)
	fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n")
	br := bufio.NewReader(c)
	if line, err := br.ReadString('\n'); err != nil || line != "HTTP/1.1 100 Continue\r\n" {
		t.Errorf("got %q, %v", line, err)
	}
	fmt.Fprint(c, "ok")
	if rest, err := io.ReadAll(br); err != nil || !strings.HasSuffix(string(rest), "POST /? ok") {
		t.Errorf("got %q, %v", rest, err)
	}
	if r.bodies.left != 64<<20 {
		t.Errorf("%d bytes of the budget are left", r.bodies.left)
	}
}

func TestBody_grows(t *testing.T) {
	r := newRig(t)
	url := r.serve("", func(_ context.Context, q request) ([]byte, error) { return reply(200, q.body), nil })
	for _, n := range []int{1, firstBuffer - 1, firstBuffer, firstBuffer + 1, 1<<20 - 1, 1 << 20} {
		body := strings.Repeat("0123456789abcdef", n/16+1)[:n]
		if a := ask(t, "POST", url+"/", body); a.body != body {
			t.Errorf("%d bytes came back as %d, status %d", n, len(a.body), a.StatusCode)
		}
		req, err := http.NewRequest("POST", url+"/", io.MultiReader(strings.NewReader(body))) // of unknown length
		if err != nil {
			t.Fatal(err)
		}
		if a := do(t, client(t), req); a.body != body {
			t.Errorf("%d bytes in chunks came back as %d, status %d", n, len(a.body), a.StatusCode)
		}
	}
}

func TestBody_slow(t *testing.T) {
	r := newRig(t)
	url := r.serve(`"timeout":{"read":"20ms"}`, echo)
	got := raw(t, url, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nab")
	if !strings.HasPrefix(got, "HTTP/1.1 408 ") {
		t.Errorf("got %q", got)
	}
}

// The time to read is over when the body is there: an actor may take longer.
func TestBody_timeDoesNotCutTheActor(t *testing.T) {
	r := newRig(t)
	url := r.serve(`"timeout":{"read":"250ms"}`, func(ctx context.Context, q request) ([]byte, error) {
		select {
		case <-time.After(400 * time.Millisecond):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		return reply(200, q.body), nil
	})
	for _, body := range []string{"", "abc"} {
		if a := ask(t, "POST", url+"/", body); a.StatusCode != 200 || a.body != body {
			t.Errorf("status %d %q", a.StatusCode, a.body)
		}
	}
}

func TestBody_budget(t *testing.T) {
	r := newRig(t, func(o *Options) { o.MaxBuffered = firstBuffer + 10 })
	url := r.serve("", func(ctx context.Context, q request) ([]byte, error) {
		if err := store.TurnFrom(ctx).Put("seen", q.path, []byte("x")); err != nil {
			return nil, err
		}
		return reply(200, strings.Repeat("z", len(q.query))), nil
	})
	c := dial(t, url)
	fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\nConnection: close\r\n\r\n", firstBuffer)
	left := func() int64 {
		r.bodies.mu.Lock()
		defer r.bodies.mu.Unlock()
		return r.bodies.left
	}
	r.eventually("the first body has its room", func() bool { return left() == 10 })
	if a := ask(t, "POST", url+"/", strings.Repeat("x", 11)); a.StatusCode != 503 || a.Header.Get("Retry-After") == "" {
		t.Errorf("status %d", a.StatusCode)
	}
	if a := ask(t, "POST", url+"/", "x"); a.StatusCode != 200 {
		t.Errorf("status %d for a body that fits", a.StatusCode)
	}
	fmt.Fprint(c, strings.Repeat("y", firstBuffer))
	if got, err := io.ReadAll(c); err != nil || !strings.HasPrefix(string(got), "HTTP/1.1 200") {
		t.Errorf("got %.40q, %v", got, err)
	}
	r.eventually("all room is given back", func() bool { return left() == firstBuffer+10 })
	// An answer that there is no room for is of a turn that did not happen.
	if a := ask(t, "GET", url+"/large?"+strings.Repeat("q", 2*firstBuffer), ""); a.StatusCode != 503 || a.Header.Get("Retry-After") == "" || r.has("/large") {
		t.Errorf("status %d, and what the turn changed is there: %v", a.StatusCode, r.has("/large"))
	}
	if a := ask(t, "GET", url+"/small?q", ""); a.StatusCode != 200 || a.body != "z" || !r.has("/small") {
		t.Errorf("status %d %q", a.StatusCode, a.body)
	}
	r.eventually("all room is given back", func() bool { return left() == firstBuffer+10 })
}

// A body may take all the room there is.
func TestBody_all(t *testing.T) {
	const all = 5 * firstBuffer
	r := newRig(t, func(o *Options) { o.MaxBuffered = all })
	url := r.serve(`"max_body":81920`, func(_ context.Context, q request) ([]byte, error) { return reply(200, fmt.Sprint(len(q.body))), nil })
	if a := ask(t, "POST", url+"/", strings.Repeat("x", all)); a.StatusCode != 200 || a.body != fmt.Sprint(all) {
		t.Errorf("status %d %q", a.StatusCode, a.body)
	}
}

// A client that sends its header in drops is hung up on, and one whose header is
// endless is told.
func TestHeader_limits(t *testing.T) {
	r := newRig(t)
	url := r.serve(`"timeout":{"header":"50ms"}`, echo)
	c := dial(t, url)
	fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: h\r\nX: ")
	if got, err := io.ReadAll(c); err != nil || len(got) > 0 && !strings.HasPrefix(string(got), "HTTP/1.1 408") {
		t.Errorf("got %q, %v", got, err)
	}
	url = r.serve("", echo)
	if got := raw(t, url, "GET / HTTP/1.1\r\nHost: h\r\nX: "+strings.Repeat("x", maxRequestHeader+8192)+"\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 431") {
		t.Errorf("got %.60q", got)
	}
}

// hold is an actor whose calls wait until they are let go.
type hold struct{ in, out chan struct{} }

func newHold() *hold { return &hold{make(chan struct{}, 100), make(chan struct{})} }

func (h *hold) handle(ctx context.Context, q request) ([]byte, error) {
	h.in <- struct{}{}
	select {
	case <-h.out:
		return reply(200, "held "+q.path), nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func TestRequests_tooMany(t *testing.T) {
	r := newRig(t)
	h := newHold()
	url := r.serve(`"max_requests":2`, h.handle)
	done := make(chan answer, 2)
	for range 2 {
		go func() { done <- ask(t, "GET", url+"/", "") }()
		<-h.in
	}
	if a := ask(t, "GET", url+"/", ""); a.StatusCode != 503 || a.Header.Get("Retry-After") == "" {
		t.Errorf("status %d", a.StatusCode)
	}
	close(h.out)
	for range 2 {
		if a := <-done; a.StatusCode != 200 {
			t.Errorf("status %d", a.StatusCode)
		}
	}
	if a := ask(t, "GET", url+"/", ""); a.StatusCode != 200 {
		t.Errorf("status %d after there was room", a.StatusCode)
	}
}

func TestRequest_handlerTimeout(t *testing.T) {
	r := newRig(t)
	h := newHold()
	url := r.serve(`"timeout_ms":30`, h.handle)
	if a := ask(t, "GET", url+"/", ""); a.StatusCode != 504 || !strings.Contains(a.body, "no answer in time") {
		t.Errorf("status %d %s", a.StatusCode, a.body)
	}
}

// More connections than there may be wait, until one ends.
func TestConnections_wait(t *testing.T) {
	r := newRig(t)
	url := r.serve(`"max_connections":1`, echo)
	first := dial(t, url)
	fmt.Fprint(first, "GET /one HTTP/1.1\r\nHost: h\r\n\r\n")
	br := bufio.NewReader(first)
	if line, err := br.ReadString('\n'); err != nil || line != "HTTP/1.1 200 OK\r\n" {
		t.Fatalf("got %q, %v", line, err)
	}
	// They are crowded, so this one ends by itself, and the second gets its turn.
	if got := raw(t, url, "GET /two HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"); !strings.Contains(got, "GET /two") {
		t.Errorf("got %q", got)
	}
	rest, err := io.ReadAll(br)
	if err != nil || !strings.Contains(string(rest), "Connection: close") {
		t.Errorf("the first got %q, %v", rest, err)
	}
}

func TestRequest_malformed(t *testing.T) {
	r := newRig(t)
	url := r.serve("", echo)
	for text, want := range map[string]string{
		"GET / HTTP/1.1\r\n\r\n":                                                                                    "400",
		"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n":                                                              "400",
		"GET / HTTP/9.9\r\nHost: h\r\n\r\n":                                                                         "505",
		"GET\r\n\r\n":                                                                                               "400",
		"G ET / HTTP/1.1\r\nHost: h\r\n\r\n":                                                                        "400",
		"get / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n":                                                    "501",
		"CONNECT h:1 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n":                                              "400",
		"OPTIONS * HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n":                                                "400",
		"GET / HTTP/1.1\r\nHost: h\r\nX y: 1\r\n\r\n":                                                               "400",
		"GET / HTTP/1.1\r\nHost: h\r\nX: a\x00b\r\n\r\n":                                                            "400",
		"GET %zz HTTP/1.1\r\nHost: h\r\n\r\n":                                                                       "400",
		"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx":                            "400",
		"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n":                                                  "400",
		"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip\r\n\r\n":                                             "501",
		"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\nzz\r\n":               "400",
		"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\nffffffffffffffff\r\n": "400",
		"GET / HTTP/1.1\r\nHost: h\r\nExpect: miracles\r\n\r\n":                                                     "417",
		"\x16\x03\x01\x02\x00\x01\x00":                                                                              "400",
		"GET http://other/abs?q HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n":                                   "200",
		"GET / HTTP/1.0\r\n\r\n":                                                                                    "200",
	} {
		c := dial(t, url)
		fmt.Fprint(c, text)
		_ = c.(*net.TCPConn).CloseWrite()
		got, _ := io.ReadAll(c) // a reset after the answer is as good
		if !strings.HasPrefix(string(got), "HTTP/1.1 "+want) && !strings.HasPrefix(string(got), "HTTP/1.0 "+want) {
			t.Errorf("%q: got %.80q, want %s", text, got, want)
		}
	}
	if a := ask(t, "GET", url+"/", ""); a.StatusCode != 200 {
		t.Errorf("status %d after all that", a.StatusCode)
	}
}

// A client that goes away takes its call along.
func TestRequest_clientGone(t *testing.T) {
	r := newRig(t)
	ended := make(chan error, 1)
	in := make(chan struct{})
	url := r.serve("", func(ctx context.Context, _ request) ([]byte, error) {
		close(in)
		<-ctx.Done()
		ended <- context.Cause(ctx)
		return nil, context.Cause(ctx)
	})
	for _, body := range []string{"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nok"} {
		c := dial(t, url)
		fmt.Fprint(c, body)
		<-in
		c.Close()
		select {
		case <-ended:
		case <-time.After(patience):
			t.Fatal("the call goes on")
		}
	}
	r.eventually("the request ends as one of a client that has gone", func() bool { return strings.Contains(r.log.String(), "status=499") })
}
