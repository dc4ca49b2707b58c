package policy_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/edged-io/edged/internal/policy"
)

const (
	actor = "MB2ZQB6ROOMAYBO4ZCTFYWN7YIVBWA3MTKZYAQKJMTIHE2ELLRW2E3ZW"
	other = "MCATS5YOVB6ROX2WUNKGNQ2MP3GMXDMKSG2O4N5CLX3A6W4PZGZZJPUL"
)

var now = time.Unix(1_900_000_000, 0)

// service is a policy service in this process.
type service struct {
	mu       sync.Mutex // guards what follows
	answer   func(id string) (string, error)
	requests []string
	last     string // request id
}

func (s *service) ask(_ context.Context, request []byte) ([]byte, error) {
	var r struct {
		RequestID string `json:"requestId"`
	}
	if err := json.Unmarshal(request, &r); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests, s.last = append(s.requests, string(request)), r.RequestID
	text, err := s.answer(r.RequestID)
	return []byte(text), err
}

func says(permitted bool, message string) func(string) (string, error) {
	return func(id string) (string, error) {
		return fmt.Sprintf(`{"requestId":%q,"permitted":%v,"message":%q}`, id, permitted, message), nil
	}
}

func away(string) (string, error) { return "", policy.ErrUnanswered }

func guard(t *testing.T, s *service, change func(*policy.Options)) *policy.Policy {
	t.Helper()
	o := policy.Options{
		Host: func() policy.Host {
			return policy.Host{Key: "N", Issuer: "C", Lattice: "default", Labels: map[string]string{"site": "lab"}, Issuers: []string{"C"}}
		},
		File: filepath.Join(t.TempDir(), "policy.json"), Logger: slog.New(slog.NewTextHandler(io.Discard, nil)), Now: func() time.Time { return now },
	}
	if s != nil {
		o.Ask = s.ask
	}
	if change != nil {
		change(&o)
	}
	p, err := policy.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func start(p *policy.Policy, key string) error {
	return p.Allow(context.Background(), policy.StartActor, policy.Source{}, policy.Target{Key: key, Issuer: "A"})
}

func call(p *policy.Policy, from, to string) error {
	return p.Allow(context.Background(), policy.PerformInvocation, policy.Source{Key: from, Contract: "acme:x", LinkName: "default"}, policy.Target{Key: to})
}

func want(t *testing.T, got, want error, text string) {
	t.Helper()
	if !errors.Is(got, want) || want == nil && got != nil || got != nil && !strings.Contains(got.Error(), text) {
		t.Errorf("got %v, want %v with %q", got, want, text)
	}
}

// What is sent is what classic hosts send.
func TestPolicy_Allow_request(t *testing.T) {
	s := &service{answer: says(true, "")}
	p := guard(t, s, nil)
	want(t, start(p, actor), nil, "")
	err := p.Allow(t.Context(), policy.PerformInvocation,
		policy.Source{Key: other, Capabilities: []string{"wasmcloud:keyvalue"}, Issuer: "A", Issued: time.Unix(1_700_000_000, 0), Expires: time.Unix(1_800_000_000, 0)},
		policy.Target{Key: actor, Issuer: "A"})
	want(t, err, nil, "")
	const host = `"host":{"publicKey":"N","issuer":"C","latticeId":"default","labels":{"site":"lab"},"clusterIssuers":["C"]}`
	for i, want := range []string{
		`"source":{"publicKey":"","contractId":"","linkName":"","capabilities":[],"issuer":"","issuedOn":"","expiresAt":1900000060,"expired":false},` +
			`"target":{"publicKey":"` + actor + `","issuer":"A","contractId":"","linkName":""},` + host + `,"action":"start_actor"}`,
		`"source":{"publicKey":"` + other + `","contractId":"","linkName":"","capabilities":["wasmcloud:keyvalue"],"issuer":"A","issuedOn":"1700000000","expiresAt":1800000000,"expired":true},` +
			`"target":{"publicKey":"` + actor + `","issuer":"A","contractId":"","linkName":""},` + host + `,"action":"perform_invocation"}`,
	} {
		id, rest, _ := strings.Cut(s.requests[i], ",")
		if rest != want || len(id) != len(`{"requestId":"8f5c1a52-9f0e-4c9a-8f5c-1a529f0e4c9a"`) {
			t.Errorf("got\n%s\nwant\n%s", s.requests[i], want)
		}
	}
}

func TestPolicy_Allow_remembers(t *testing.T) {
	s := &service{answer: says(false, "not in this plant")}
	file := ""
	p := guard(t, s, func(o *policy.Options) { file = o.File })
	want(t, start(p, actor), policy.ErrDenied, "not in this plant")
	s.answer = says(true, "")
	want(t, start(p, actor), policy.ErrDenied, "not in this plant")
	want(t, start(p, other), nil, "")
	want(t, call(p, actor, other), nil, "")
	s.answer = away
	want(t, call(p, actor, other), nil, "")
	want(t, call(p, other, actor), policy.ErrUnanswered, "")
	if n := len(s.requests); n != 4 {
		t.Errorf("%d requests", n)
	}

	// After a restart the starts are known.
	p = guard(t, s, func(o *policy.Options) { o.File = file })
	want(t, start(p, actor), policy.ErrDenied, "not in this plant")
	want(t, start(p, other), nil, "")
	want(t, call(p, actor, other), policy.ErrUnanswered, "")
	if err := os.WriteFile(file, []byte(`{"format":1,"answers":[null,{}]`), 0o600); err != nil {
		t.Fatal(err)
	}
	p = guard(t, s, func(o *policy.Options) { o.File = file })
	want(t, start(p, other), policy.ErrUnanswered, "")
	if _, err := os.Stat(file + ".damaged"); err != nil {
		t.Error(err)
	}
}

// Whatever is no plain answer is a denial, and is not remembered.
func TestPolicy_Allow_failsClosed(t *testing.T) {
	s := &service{}
	p := guard(t, s, nil)
	for _, bad := range []string{
		"", "{", "null", "[]", `{}`, `{"permitted":true}`, `{"requestId":"other","permitted":true}`, `{"requestId":"ID"}`, `{"requestId":"ID","permitted":null}`, `{"requestId":"ID","permitted":"true"}`,
		`{"requestId":"ID","permitted":true,"message":"` + strings.Repeat("x", 64<<10) + `"}`,
	} {
		s.answer = func(id string) (string, error) { return strings.Replace(bad, "ID", id, 1), nil }
		want(t, start(p, actor), policy.ErrDenied, "policy service")
	}
	s.answer = away
	want(t, start(p, actor), policy.ErrUnanswered, "")
	s.answer = says(true, "")
	want(t, start(p, actor), nil, "")
	slow := guard(t, s, func(o *policy.Options) {
		o.Timeout = time.Millisecond
		o.Ask = func(ctx context.Context, _ []byte) ([]byte, error) { <-ctx.Done(); return nil, ctx.Err() }
	})
	want(t, start(slow, actor), policy.ErrUnanswered, "none within 1ms")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	want(t, slow.Allow(ctx, policy.StartActor, policy.Source{}, policy.Target{}), context.Canceled, "")
}

func TestPolicy_Change(t *testing.T) {
	s := &service{answer: says(true, "")}
	file := ""
	p := guard(t, s, func(o *policy.Options) { file = o.File })
	want(t, start(p, actor), nil, "")
	for _, bad := range []string{"", "{}", `{"requestId":"x","permitted":false}`, `{"requestId":"` + s.last + `"}`} {
		if got := string(p.Change([]byte(bad))); got != `{"success":false}` {
			t.Errorf("%s: got %s", bad, got)
		}
	}
	want(t, start(p, actor), nil, "")
	if got := string(p.Change([]byte(`{"request_id":"` + s.last + `","permitted":false,"message":"enough\n"}`))); got != `{"success":true}` {
		t.Errorf("got %s", got)
	}
	want(t, start(p, actor), policy.ErrDenied, "enough")
	p = guard(t, s, func(o *policy.Options) { o.File = file })
	want(t, start(p, actor), policy.ErrDenied, "enough")
	if got := string(p.Change([]byte(`{"requestId":"` + s.last + `","permitted":true}`))); got != `{"success":true}` {
		t.Errorf("got %s", got)
	}
	want(t, start(p, actor), nil, "")
}

// A change that overtakes the answer that it is about is not lost.
func TestPolicy_Change_overtakes(t *testing.T) {
	s := &service{}
	p := guard(t, s, nil)
	s.answer = func(id string) (string, error) {
		if got := string(p.Change([]byte(`{"requestId":"` + id + `","permitted":false,"message":"not any more"}`))); got != `{"success":true}` {
			t.Errorf("got %s", got)
		}
		return says(true, "")(id)
	}
	want(t, start(p, actor), policy.ErrDenied, "not any more")
	want(t, start(p, actor), policy.ErrDenied, "not any more")
	if n := len(s.requests); n != 1 {
		t.Errorf("%d requests", n)
	}
}

// An answer about what one issuer has signed says nothing about what another one signs for the same key.
func TestPolicy_Allow_issuers(t *testing.T) {
	s := &service{answer: says(true, "")}
	p := guard(t, s, nil)
	by := func(source, target string) error {
		return p.Allow(t.Context(), policy.PerformInvocation, policy.Source{Key: other, Issuer: source}, policy.Target{Key: actor, Issuer: target})
	}
	want(t, by("A", "A"), nil, "")
	s.answer = says(false, "somebody else")
	want(t, by("B", "A"), policy.ErrDenied, "somebody else")
	want(t, by("A", "B"), policy.ErrDenied, "somebody else")
	want(t, by("A", "A"), nil, "")
}

// Who asks the same at the same time asks once.
func TestPolicy_Allow_together(t *testing.T) {
	s := &service{answer: says(true, "")}
	p := guard(t, s, nil)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if err := call(p, actor, other); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := len(s.requests); n != 1 {
		t.Errorf("%d requests", n)
	}
}

func TestPolicy_Allow_bounded(t *testing.T) {
	s := &service{answer: says(true, "")}
	p := guard(t, s, nil)
	want(t, call(p, actor, other), nil, "")
	for i := range 8192 {
		want(t, call(p, actor, fmt.Sprint(i)), nil, "")
	}
	n := len(s.requests)
	want(t, call(p, actor, fmt.Sprint(8191)), nil, "")
	want(t, call(p, actor, other), nil, "")
	if len(s.requests) != n+1 {
		t.Errorf("%d requests more, want 1: the oldest is forgotten", len(s.requests)-n)
	}
}

func TestRules(t *testing.T) {
	rules := &policy.Rules{List: []policy.Rule{
		{Actions: []policy.Action{policy.PerformInvocation}, Contract: "acme:*", Target: actor, Permit: true},
		{Actions: []policy.Action{policy.StartActor}, Target: other, Message: "not this one"},
		{Actions: []policy.Action{policy.StartActor, policy.StartProvider}, TargetIssuer: "A", Permit: true},
		{Target: "greenhouse/*"},
	}}
	p := guard(t, nil, func(o *policy.Options) { o.Rules = rules })
	want(t, call(p, other, actor), nil, "")
	want(t, call(p, actor, other), policy.ErrDenied, "no rule fits")
	want(t, start(p, actor), nil, "")
	want(t, start(p, other), policy.ErrDenied, "not this one")
	want(t, p.Allow(t.Context(), policy.StartActor, policy.Source{}, policy.Target{Key: "greenhouse/x"}), policy.ErrDenied, "rule 4")
	want(t, p.Allow(t.Context(), policy.StartProvider, policy.Source{}, policy.Target{Key: "V", Issuer: "B"}), policy.ErrDenied, "no rule fits")

	// They stand in for a service that is away, and for that time only.
	s := &service{answer: away}
	p = guard(t, s, func(o *policy.Options) { o.Rules = rules })
	want(t, start(p, actor), nil, "")
	s.answer = says(false, "by the service")
	want(t, start(p, actor), policy.ErrDenied, "by the service")
}

func TestNew_options(t *testing.T) {
	if _, err := policy.New(policy.Options{}); err == nil {
		t.Error("without anybody to ask")
	}
}

func FuzzPolicy_Change(f *testing.F) {
	for _, text := range []string{``, `{}`, `{"requestId":"x","permitted":true,"message":"y"}`, `{"request_id":"x","permitted":false}`, `{"requestId":1}`, `{"requestId":"\u0000","permitted":null}`} {
		f.Add([]byte(text))
	}
	s := &service{answer: says(true, "")}
	p, err := policy.New(policy.Options{Ask: s.ask, Host: func() policy.Host { return policy.Host{} }, File: filepath.Join(f.TempDir(), "policy.json"), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if got := string(p.Change(data)); got != `{"success":false}` {
			t.Fatalf("got %s", got)
		}
		s.answer = func(string) (string, error) { return string(data), nil }
		if err := start(p, actor); err == nil { // the id is another one each time
			t.Fatal("permitted")
		}
	})
}
