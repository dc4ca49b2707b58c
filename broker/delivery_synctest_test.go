package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// timed is a subscription in a bubble whose clock is not real, without the NATS
// server.
type timed struct {
	*Server
	t     *testing.T
	end   func()
	start time.Time

	mu    sync.Mutex // guards tries
	tries []string
}

func newTimed(t *testing.T, sub Subscription, deliver func(m Message, attempt int) error) *timed {
	t.Helper()
	b := &timed{t: t, Server: newTestServer(t, Options{})}
	sub.Name, sub.Stream = "s", "s"
	sub.Deliver = func(_ context.Context, m Message, attempt int) error {
		b.mu.Lock()
		b.tries = append(b.tries, fmt.Sprintf("%d.%d %v", m.Seq, attempt, time.Since(b.start).Round(time.Millisecond)))
		b.mu.Unlock()
		return deliver(m, attempt)
	}
	if err := b.Configure(t.Context(), []Stream{{Name: "s", Subjects: []string{"s.>"}}}, []Subscription{sub}); err != nil {
		t.Fatal(err)
	}
	b.end = b.startWork(t.Context())
	b.start = time.Now()
	return b
}

func (b *timed) put(subjects ...string) {
	b.t.Helper()
	for _, subject := range subjects {
		done := make(chan error, 1)
		b.Publish(Message{Subject: subject}, func(_ Ack, err error) { done <- err })
		if err := <-done; err != nil {
			b.t.Fatal(err)
		}
		synctest.Wait()
	}
}

func (b *timed) want(tries ...string) {
	b.t.Helper()
	synctest.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	if !slices.Equal(b.tries, tries) {
		b.t.Errorf("got %q, want %q", b.tries, tries)
	}
}

// A pause of RetryAfter has no jitter.
func TestSubscription_RetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newTimed(t, Subscription{}, func(m Message, attempt int) error {
			if m.Subject == "s.late" && attempt < 3 {
				return fmt.Errorf("wrapped: %w", RetryAfter(time.Duration(attempt)*time.Minute))
			}
			return nil
		})
		defer b.end()
		b.put("s.late", "s.late", "s.other")
		b.want("1.1 0s", "3.1 0s")
		time.Sleep(time.Hour)
		b.want("1.1 0s", "3.1 0s", "1.2 1m0s", "1.3 3m0s", "2.1 3m0s", "2.2 4m0s", "2.3 6m0s")
	})
}

func TestSubscription_Backoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var at []time.Time
		b := newTimed(t, Subscription{Backoff: []time.Duration{time.Second, time.Minute}, MaxDeliver: 5}, func(Message, int) error {
			at = append(at, time.Now())
			return errors.New("no")
		})
		defer b.end()
		b.put("s.a")
		time.Sleep(time.Hour)
		synctest.Wait()
		if len(at) != 5 {
			t.Fatalf("got %d attempts, want 5", len(at))
		}
		for i, want := range []time.Duration{time.Second, time.Minute, time.Minute, time.Minute} {
			if got := at[i+1].Sub(at[i]); got < want*8/10 || got > want*12/10 {
				t.Errorf("pause %d: got %v, want %v within a fifth", i+1, got, want)
			}
		}
		if n := b.o.Store.DeadLetterCount(); n != 1 {
			t.Errorf("got %d dead letters, want 1", n)
		}
	})
}

// TestSubscription_AckWait: a handler that takes too long loses its context, and
// the message is tried again.
func TestSubscription_AckWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTestServer(t, Options{})
		var tries []time.Duration
		start := time.Now()
		sub := Subscription{Name: "s", Stream: "s", AckWait: time.Minute, Backoff: []time.Duration{0}, Deliver: func(ctx context.Context, _ Message, attempt int) error {
			tries = append(tries, time.Since(start))
			if attempt == 1 {
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		}}
		if err := s.Configure(t.Context(), []Stream{{Name: "s", Subjects: []string{"s"}}}, []Subscription{sub}); err != nil {
			t.Fatal(err)
		}
		end := s.startWork(t.Context())
		defer end()
		s.Publish(Message{Subject: "s"}, func(Ack, error) {})
		time.Sleep(time.Hour)
		synctest.Wait()
		if !slices.Equal(tries, []time.Duration{0, time.Minute}) {
			t.Errorf("got attempts at %v, want at 0 and after a minute", tries)
		}
	})
}

// TestSubscription_attemptsSaved: attempts reach the disk without another message,
// and in one commit.
func TestSubscription_attemptsSaved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newTimed(t, Subscription{Backoff: []time.Duration{time.Hour}}, func(Message, int) error { return errors.New("no") })
		defer b.end()
		b.put("s.a", "s.b", "s.c")
		synctest.Wait()
		before := b.o.Store.Stats().Commits
		time.Sleep(2 * savePause)
		synctest.Wait()
		pos, err := b.o.Store.Position("s")
		if err != nil {
			t.Fatal(err)
		}
		if len(pos.Attempts) != 3 || pos.Attempts[2] != 1 {
			t.Errorf("got attempts %v, want one for each of three", pos.Attempts)
		}
		if n := b.o.Store.Stats().Commits - before; n != 1 {
			t.Errorf("got %d commits, want 1", n)
		}
	})
}

// TestSubscription_window: behind a message that keeps failing more waits than
// is held in memory. It is read again when its turn comes.
func TestSubscription_window(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var open atomic.Bool
		var bytes atomic.Int64
		b := newTimed(t, Subscription{Backoff: []time.Duration{time.Minute}, MaxInFlight: 1}, func(m Message, _ int) error {
			if m.Seq == 1 && !open.Load() {
				return errors.New("no")
			}
			bytes.Add(int64(len(m.Data)))
			return nil
		})
		defer b.end()
		const size, n = 512 << 10, 40
		for i := range n {
			b.Publish(Message{Subject: "s.same", Data: []byte(strings.Repeat("x", size)), ID: fmt.Sprint(i)}, func(_ Ack, err error) {
				if err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		open.Store(true)
		time.Sleep(time.Hour)
		synctest.Wait()
		if got := bytes.Load(); got != n*size {
			t.Errorf("got %d bytes, want %d", got, n*size)
		}
		if st := b.work.get("s").stats(); st.Pending != 0 || st.Delivered != n {
			t.Errorf("got %+v", st)
		}
	})
}

func TestServerLog_repeats(t *testing.T) {
	var out strings.Builder
	l := newServerLog(slog.New(slog.NewTextHandler(&out, nil)))
	for i := range 3 {
		l.Errorf("cannot connect, attempt %d", i)
	}
	l.Warnf(plaintextWarning)
	l.forget()
	l.Errorf("cannot connect, attempt %d", 9)
	l.Noticef("hello")
	l.Fatalf("listen: %s", "in use")
	if got := strings.Count(out.String(), "cannot connect"); got != 2 || strings.Contains(out.String(), "hello") || strings.Contains(out.String(), "Plaintext") {
		t.Errorf("got %s", out.String())
	}
	if err := l.fatal(); err == nil || err.Error() != "listen: in use" {
		t.Errorf("got %v", err)
	}
}

// Who may do nothing can not fill the log with what it tries.
func TestServerLog_bounded(t *testing.T) {
	var out strings.Builder
	l := newServerLog(slog.New(slog.NewTextHandler(&out, nil)))
	for i := range 200 {
		word := strings.Repeat("x", i)
		l.Errorf("127.0.0.1:%d - cid:%d - %q - Publish Violation - Subject %q", i, i, "a", word)
	}
	if got := strings.Count(out.String(), "\n"); got != 1 {
		t.Errorf("one client: got %d lines, want 1", got)
	}
	for i := range 200 {
		l.Errorf("127.0.0.1:%d - %q - Publish Violation - Subject %q", i, strings.Repeat("y", 10*i), "a")
	}
	if got := strings.Count(out.String(), "\n"); got != maxWarned+1 || out.Len() > 2*maxWarned*maxComplaint {
		t.Errorf("many names: got %d lines, %d bytes, want %d lines", got, out.Len(), maxWarned+1)
	}
}
