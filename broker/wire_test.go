package broker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/edged-io/edged/store"
)

// readConn gives a wire something to read, and takes all it writes.
type readConn struct {
	net.Conn // nil; what is not overridden is not called
	r        io.Reader
}

func (c *readConn) Read(p []byte) (int, error)  { return c.r.Read(p) }
func (c *readConn) Write(p []byte) (int, error) { return len(p), nil }
func (c *readConn) Close() error                { return nil }

func TestWire_Read_pieces(t *testing.T) {
	const talk = "INFO {}\r\nPING\r\nMSG a.b 1 5\r\nhello\r\n+OK\r\nMSG a.b 1 _INBOX.1 0\r\n\r\nHMSG a 1 r 12 14\r\nNATS/1.0\r\n\r\nhi\r\nHMSG a 1 12 12\r\nNATS/1.0\r\n\r\n\r\nMSG a 9 1\r\nx\r\n-ERR 'Slow'\r\n"
	for _, step := range []int{1, 3, 7, len(talk)} {
		w, err := dialWire(&readConn{r: &stepReader{[]byte(talk), step}}, "test", 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		w.subscribe("a.>", func(m wireMsg) {
			got = append(got, strings.Join([]string{m.subject, m.reply, string(m.header), string(m.data)}, "|"))
		})
		if err := w.run(); err == nil || !strings.Contains(err.Error(), "Slow") {
			t.Errorf("got %v, want the server's error", err)
		}
		want := []string{"a.b|||hello", "a.b|_INBOX.1||", "a|r|NATS/1.0\r\n\r\n|hi", "a||NATS/1.0\r\n\r\n|"}
		if strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("in steps of %d: got %q, want %q", step, got, want)
		}
		if err := w.flush(); !errors.Is(err, errWireClosed) {
			t.Errorf("flush after the end: got %v, want %v", err, errWireClosed)
		}
		if w.publish("a", "", nil, nil) {
			t.Error("publish after the end says true")
		}
	}
}

type stepReader struct {
	left []byte
	step int
}

func (r *stepReader) Read(p []byte) (int, error) {
	if len(r.left) == 0 {
		return 0, io.EOF
	}
	n := copy(p, r.left[:min(r.step, len(r.left))])
	r.left = r.left[n:]
	return n, nil
}

func FuzzWire_Read(f *testing.F) {
	f.Add([]byte("MSG a 1 5\r\nhello\r\n"))
	f.Add([]byte("HMSG a 1 r 12 14\r\nNATS/1.0\r\n\r\nhi\r\nPONG\r\n"))
	f.Add([]byte("MSG a 1 99999999999999999999\r\n"))
	f.Add([]byte("HMSG a 1 5 -1\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		w, err := dialWire(&readConn{r: io.MultiReader(strings.NewReader("INFO {}\r\n"), bytes.NewReader(b))}, "test", 1<<10)
		if err != nil {
			t.Fatal(err)
		}
		w.subscribe(">", func(m wireMsg) {
			if len(m.header)+len(m.data) > len(b) {
				t.Errorf("message of %d bytes out of %d", len(m.header)+len(m.data), len(b))
			}
		})
		if err := w.run(); err == nil {
			t.Error("the end is no error")
		}
	})
}

func FuzzCheckHeader(f *testing.F) {
	f.Add([]byte("NATS/1.0\r\nNats-Expected-Stream: s\r\n\r\n"))
	f.Add([]byte("NATS/1.0\r\nNats-Rollup: all\r\nNats-TTL: 1\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		err := checkHeader(b, "s")
		if err == nil {
			return
		}
		var answer struct{ Error refusal }
		if e := json.Unmarshal(refusalOf(err).json(), &answer); e != nil || answer.Error.Code == 0 {
			t.Errorf("refusal %v is not JSON: %v", err, e)
		}
	})
}

// newTestServer is a server over a new store that does not run.
func newTestServer(t testing.TB, o Options) *Server {
	t.Helper()
	o.Store = openTestStore(t, store.Options{Dir: t.TempDir()})
	o.Device = "press-7"
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func runTestServer(t testing.TB, s *Server) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	<-s.Ready()
}

// TestServer_cut: a connection that the embedded server cuts is made anew, with
// all that was listened to.
func TestServer_cut(t *testing.T) {
	s := newTestServer(t, Options{})
	if err := s.Configure(t.Context(), []Stream{{Name: "s", Subjects: []string{"s"}}}, nil); err != nil {
		t.Fatal(err)
	}
	runTestServer(t, s)
	heard := make(chan Message, 64)
	if _, err := s.Tap("t", func(m Message) { heard <- m }); err != nil {
		t.Fatal(err)
	}
	nc, err := s.ConnectApp()
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	for range 3 {
		s.local.mu.Lock()
		w := s.local.w
		s.local.mu.Unlock()
		w.conn.Close()
		end := time.Now().Add(time.Minute)
		for {
			if _, err := nc.Request("s", nil, 50*time.Millisecond); err == nil {
				break
			}
			if time.Now().After(end) {
				t.Fatal("the stream is not served any more")
			}
		}
		if err := nc.Publish("t", nil); err != nil {
			t.Fatal(err)
		}
		<-heard
	}
	if got := s.local.cutCount(); got != 3 {
		t.Errorf("got %d cuts, want 3", got)
	}
}

// TestIngest_busy: with no room left a publisher is told so, as JetStream does,
// and served again when there is.
func TestIngest_busy(t *testing.T) {
	s := newTestServer(t, Options{})
	if err := s.Configure(t.Context(), []Stream{{Name: "s", Subjects: []string{"s"}}}, nil); err != nil {
		t.Fatal(err)
	}
	runTestServer(t, s)
	nc, err := s.ConnectApp()
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := nc.JetStream(nats.MaxWait(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	s.room.reserve(maxOnTheWay)
	for range 3 { // the second and third do not wait
		var api *nats.APIError
		if _, err := js.Publish("s", nil); !errors.As(err, &api) || api.Code != 429 {
			t.Errorf("got %v, want 429", err)
		}
	}
	s.room.release(maxOnTheWay)
	if _, err := js.Publish("s", nil); err != nil {
		t.Error(err)
	}
}

// TestIngest_syncBeforeAck: at the point between sync and ack the message is in
// the store, and nobody has been told.
func TestIngest_syncBeforeAck(t *testing.T) {
	var s *Server
	var acked bool
	reached := 0
	s = newTestServer(t, Options{Failpoint: func(name string) {
		if name != "ingest-after-sync-before-ack" {
			return
		}
		reached++
		info, err := s.o.Store.Stream("s")
		if err != nil || info.Msgs != 1 || acked {
			t.Errorf("got %+v, acked %v, %v", info, acked, err)
		}
	}})
	if err := s.Configure(t.Context(), []Stream{{Name: "s", Subjects: []string{"s"}}}, nil); err != nil {
		t.Fatal(err)
	}
	runTestServer(t, s)
	nc, err := s.ConnectApp()
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if _, err := nc.Request("s", nil, time.Minute); err != nil {
		t.Fatal(err)
	}
	acked = true
	if reached != 1 {
		t.Errorf("the point was reached %d times, want once", reached)
	}
}
