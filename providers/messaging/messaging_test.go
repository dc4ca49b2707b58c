package messaging_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/edged-io/edged/internal/event"
	"github.com/edged-io/edged/lattice"
	"github.com/edged-io/edged/providers"
	"github.com/edged-io/edged/providers/messaging"
	"github.com/edged-io/edged/sdk/go/msgpack"
	"github.com/edged-io/edged/store"
)

// fake is a broker whose streams hold "kept.…", and which answers on "ask".
type fake struct {
	staged   []store.Message
	sent     []messaging.Message
	requests int
	waited   time.Duration
}

func (f *fake) Covers(subject string) (string, bool) {
	return "kept", strings.HasPrefix(subject, "kept.")
}

func (f *fake) Stage(_ *store.Turn, m store.Message) error {
	f.staged = append(f.staged, m)
	return nil
}

func (f *fake) Publish(m messaging.Message) { f.sent = append(f.sent, m) }

func (f *fake) Request(ctx context.Context, subject string, body []byte) (messaging.Message, error) {
	f.requests++
	deadline, _ := ctx.Deadline()
	f.waited = time.Until(deadline)
	switch subject {
	case "ask":
		return messaging.Message{Subject: "_INBOX.x", Body: append([]byte("got "), body...)}, nil
	case "silent":
		<-ctx.Done()
		return messaging.Message{}, ctx.Err()
	}
	return messaging.Message{}, messaging.ErrNoResponders
}

func newProvider(t testing.TB) (*messaging.Provider, *store.DB, *fake) {
	t.Helper()
	db, err := store.Open(store.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	f := &fake{}
	return messaging.New(db, f, 1000, 200), db, f
}

func request(subject, body string, ms int64) []byte {
	b := msgpack.AppendMapHeader(nil, 3)
	b = msgpack.AppendString(msgpack.AppendString(b, "subject"), subject)
	b = msgpack.AppendBin(msgpack.AppendString(b, "body"), []byte(body))
	return msgpack.AppendInt(msgpack.AppendString(b, "timeoutMs"), ms)
}

func publish(m messaging.Message) lattice.Invocation {
	return lattice.Invocation{Operation: "Messaging.Publish", Payload: messaging.AppendMessage(nil, m)}
}

// What is published is staged; with a reply subject it goes out after the
// commit, or the stream keeps that too.
func TestProvider_Publish(t *testing.T) {
	p, db, f := newProvider(t)
	err := db.Do(t.Context(), func(ctx context.Context, _ *store.Turn) error {
		for _, m := range []messaging.Message{
			{Subject: "a.b", Body: []byte("1")},
			{Subject: "kept.b", Body: []byte("2")},
			{Subject: "kept.c", Reply: "answers.x", Body: []byte("3")},
			{Subject: "a.c", Reply: "answers.y", Body: []byte("4")},
			{Subject: "_INBOX.abc", Body: []byte("5")},
		} {
			if _, err := p.Call(ctx, publish(m)); err != nil {
				return err
			}
		}
		if len(f.sent) > 0 {
			t.Errorf("%v was sent before the commit", f.sent)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(f.sent) != 1 || f.sent[0].Subject != "a.c" || f.sent[0].Reply != "answers.y" || string(f.sent[0].Body) != "4" {
		t.Errorf("sent %v", f.sent)
	}
	if len(f.staged) != 4 || f.staged[0].Header != nil || string(f.staged[1].Data) != "2" {
		t.Fatalf("staged %v", f.staged)
	}
	if m := messaging.Of(f.staged[2]); m.Subject != "kept.c" || m.Reply != "answers.x" || string(m.Body) != "3" {
		t.Errorf("read back %+v", m)
	}
	if reply, _ := event.Header(f.staged[2].Header).Get("Edged-Reply-To"); reply != "answers.x" {
		t.Errorf("reply %q in the header", reply)
	}
}

// A turn that fails sends nothing.
func TestProvider_Publish_discarded(t *testing.T) {
	p, db, f := newProvider(t)
	failed := errors.New("failed")
	err := db.Do(t.Context(), func(ctx context.Context, _ *store.Turn) error {
		_, err := p.Call(ctx, publish(messaging.Message{Subject: "a", Reply: "b"}))
		return errors.Join(err, failed)
	})
	if !errors.Is(err, failed) || len(f.sent) > 0 {
		t.Errorf("%v, sent %v", err, f.sent)
	}
}

func TestProvider_Request(t *testing.T) {
	p, db, f := newProvider(t)
	err := db.Do(t.Context(), func(ctx context.Context, _ *store.Turn) error {
		ctx, cancel := context.WithTimeout(ctx, time.Hour)
		defer cancel()
		reply, err := p.Call(ctx, lattice.Invocation{Operation: "Messaging.Request", Payload: request("ask", "this", 1<<32-1)})
		if err != nil {
			return err
		}
		want := messaging.AppendMessage(nil, messaging.Message{Subject: "_INBOX.x", Body: []byte("got this")})
		if string(reply) != string(want) {
			t.Errorf("got %x, want %x", reply, want)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if f.waited >= time.Hour-50*time.Millisecond || f.waited < 59*time.Minute {
		t.Errorf("would have waited %s of an hour", f.waited)
	}
}

func TestProvider_Call_refuses(t *testing.T) {
	p, _, f := newProvider(t)
	const ask, tell = "Messaging.Request", "Messaging.Publish"
	body := strings.Repeat("x", 1000)
	for _, test := range []struct {
		op      string
		payload []byte
		want    string
	}{
		{ask, request("nobody", "", 5000), "messaging: no such topic: request to nobody: nobody listens on the subject"},
		{ask, request("silent", "", 1), "messaging: timed out: "},
		{ask, request("a", body, 1), "messaging: payload too large: "},
		{ask, request("a.*", "", 1), "messaging: wrong format: "},
		{ask, request("$SYS.x", "", 1), "messaging: not permitted: "},
		{ask, request("a", "", -1), "messaging: wrong format: "},
		{ask, []byte{0x81}, "messaging: wrong format: "},
		{tell, publish(messaging.Message{Subject: "a", Body: []byte(body)}).Payload, "messaging: payload too large: "},
		{ask, request(strings.Repeat("s", 201), "", 1), "messaging: payload too large: subject and replyTo have 201 bytes, at most 200"},
		{tell, publish(messaging.Message{Subject: "a", Reply: strings.Repeat("s", 200)}).Payload, "messaging: payload too large: "},
		{tell, publish(messaging.Message{Subject: ""}).Payload, "messaging: wrong format: "},
		{tell, publish(messaging.Message{Subject: "wasmbus.evt.default"}).Payload, "messaging: not permitted: "},
		{tell, publish(messaging.Message{Subject: "a", Reply: "b c"}).Payload, "messaging: wrong format: "},
		{"Messaging.HandleMessage", nil, "messaging: wrong format: "},
	} {
		_, err := p.Call(t.Context(), lattice.Invocation{Operation: test.op, Payload: test.payload})
		var failure *providers.Failure
		if err == nil || !strings.HasPrefix(err.Error(), test.want) || !errors.As(err, &failure) {
			t.Errorf("%s %.60q: got %v, want %q first", test.op, test.payload, err, test.want)
		}
	}
	if len(f.staged) > 0 || len(f.sent) > 0 {
		t.Errorf("%v and %v went out", f.staged, f.sent)
	}
}

// The bytes are those that classic actors read and write.
func TestAppendMessage(t *testing.T) {
	got := messaging.AppendMessage(nil, messaging.Message{Subject: "a", Reply: "b", Body: []byte{1}})
	if want := "\x83\xa7subject\xa1a\xa7replyTo\xa1b\xa4body\xc4\x01\x01"; string(got) != want {
		t.Errorf("got %q, want %q", got, want)
	}
	got = messaging.AppendMessage(nil, messaging.Message{Subject: "a"})
	if want := "\x82\xa7subject\xa1a\xa4body\xc4\x00"; string(got) != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func FuzzCall(f *testing.F) {
	f.Add(request("ask", "x", 1))
	f.Add(publish(messaging.Message{Subject: "a.b", Reply: "c", Body: []byte("x")}).Payload)
	f.Add([]byte("\x82\xa7subject\xa1a\xa4body\x93\x01\x02\x03")) // bytes as an array
	p, _, broker := newProvider(f)
	f.Fuzz(func(t *testing.T, payload []byte) {
		broker.staged, broker.sent = nil, nil
		_, err := p.Call(t.Context(), lattice.Invocation{Operation: "Messaging.Publish", Payload: payload})
		var failure *providers.Failure
		switch {
		case err == nil && len(broker.staged)+len(broker.sent) != 1:
			t.Fatal("neither staged nor sent")
		case err != nil && !errors.As(err, &failure):
			t.Fatalf("an error of no kind: %v", err)
		}
	})
}

// TestProvider_Call_forms: peers write the same in other ways (PROTOCOL 3.2 and 8.0).
func TestProvider_Call_forms(t *testing.T) {
	p, _, f := newProvider(t)
	for what, payload := range map[string]string{
		"a map":                      "\x83\xa7subject\xa3a.b\xa7replyTo\xa3c.d\xa4body\xc4\x02hi",
		"in another order":           "\x84\xa4body\xc4\x02hi\xa3new\x93\x01\x02\x03\xa7replyTo\xa3c.d\xa7subject\xa3a.b",
		"an array":                   "\x93\xa3a.b\xa3c.d\xc4\x02hi",
		"marked":                     "\xc1\x83\xa7subject\xa3a.b\xa7replyTo\xa3c.d\xa4body\xc4\x02hi",
		"bytes as numbers":           "\x83\xa7subject\xa3a.b\xa7replyTo\xa3c.d\xa4body\x92\x68\x69",
		"bytes as text, and wide":    "\x83\xa7subject\xda\x00\x03a.b\xa7replyTo\xd9\x03c.d\xa4body\xa2hi",
		"names and subjects as bins": "\x83\xc4\x07subject\xc4\x03a.b\xa7replyTo\xa3c.d\xa4body\xc4\x02hi",
	} {
		f.sent = nil
		if _, err := p.Call(t.Context(), lattice.Invocation{Operation: "Messaging.Publish", Payload: []byte(payload)}); err != nil {
			t.Errorf("%s: %v", what, err)
		} else if len(f.sent) != 1 || f.sent[0].Subject != "a.b" || f.sent[0].Reply != "c.d" || string(f.sent[0].Body) != "hi" {
			t.Errorf("%s: sent %+v", what, f.sent)
		}
	}
	for what, payload := range map[string]string{
		"a map":    "\x83\xa7subject\xa3ask\xa4body\xc4\x02hi\xa9timeoutMs\xcd\x27\x10",
		"an array": "\x93\xa3ask\xc4\x02hi\xce\x00\x00\x27\x10",
		"no wait":  "\x82\xa7subject\xa3ask\xa4body\xc4\x02hi",
	} {
		reply, err := p.Call(t.Context(), lattice.Invocation{Operation: "Messaging.Request", Payload: []byte(payload)})
		if want := messaging.AppendMessage(nil, messaging.Message{Subject: "_INBOX.x", Body: []byte("got hi")}); err != nil || string(reply) != string(want) {
			t.Errorf("%s: %x, %v", what, reply, err)
		}
		if f.waited > 10*time.Second {
			t.Errorf("%s: would have waited %s", what, f.waited)
		}
	}
}
