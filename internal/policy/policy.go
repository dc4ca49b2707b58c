// Package policy asks whether something may happen that signatures and links alone would allow: that an actor or a provider starts, and that
// an actor is called from elsewhere in the lattice.
//
// A Policy asks a policy service of wasmCloud, a program that answers requests on a topic, and remembers each answer until the service
// takes it back. Where the service can not be reached, a file of rules decides, if there is one; a box may have the rules alone. What nobody
// permits is denied.
//
// Answers about starts are kept in a file: what was permitted to start once starts again after a reboot without a network.
//
// The messages are those of classic wasmCloud hosts, as JSON. The package knows nothing of NATS.
package policy

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"
)

// Errors of Allow. Trying again later helps with ErrUnanswered.
var (
	ErrDenied     = errors.New("denied by policy")
	ErrUnanswered = errors.New("the policy service gives no answer, and what it has not permitted is denied")
)

// Action is what somebody is about to do.
type Action string

// The actions of classic hosts.
const (
	StartActor        Action = "start_actor"
	StartProvider     Action = "start_provider"
	PerformInvocation Action = "perform_invocation"
)

// Source is who calls: zero but for PerformInvocation.
type Source struct {
	Key          string // M or V
	Contract     string // of a provider
	LinkName     string // of a provider
	Capabilities []string
	Issuer       string // A key
	Issued       time.Time
	Expires      time.Time // zero for never
}

// Target is who starts or is called.
type Target struct {
	Key      string // M or V; "app/name" of an unsigned actor
	Issuer   string // A key; "" of what is unsigned
	Contract string // of a provider
	LinkName string // of a provider
}

// Host is who asks.
type Host struct {
	Key     string // N
	Issuer  string // C
	Lattice string
	Labels  map[string]string
	Issuers []string // C keys whose invocations it believes
}

// Options are what a Policy is made from. Ask or Rules must be there.
type Options struct {
	// Ask sends a request to the policy service and returns its answer; nil for none. Its error wraps ErrUnanswered if nobody answered.
	Ask func(ctx context.Context, request []byte) ([]byte, error)
	// Timeout of a request; 0 for one second.
	Timeout time.Duration
	// Rules decide where nobody answers, or alone; nil for none.
	Rules *Rules
	// Host is asked for with each request.
	Host func() Host
	// File keeps the answers about starts.
	File   string
	Logger *slog.Logger
	Now    func() time.Time // nil for time.Now
}

const (
	defaultTimeout = time.Second
	maxAnswer      = 64 << 10 // bytes
	maxMessage     = 1 << 10  // bytes of a reason that are kept
	maxRemembered  = 8192     // answers; the oldest are asked for again
	maxKept        = 1024     // of them, about starts
)

// Policy decides. All methods may be called from any goroutine.
type Policy struct {
	o   Options
	log *slog.Logger

	saving sync.Mutex // held while the file is written

	mu      sync.Mutex // guards what follows
	answers map[string]*answer
	ids     map[string]string // keys of answers, by request id
	order   []string          // keys of answers, the oldest first
	asking  map[string]chan struct{}
	sent    map[string]*response // requests under way, by id, and how their answers were changed meanwhile; nil for not
	away    bool                 // nobody answered the last request
}

// answer is what the service said, by the key of what it was about.
type answer struct {
	Key       string `json:"key"`
	RequestID string `json:"request_id"`
	Permitted bool   `json:"permitted"`
	Message   string `json:"message,omitempty"`
	Start     bool   `json:"-"`
}

// New reads the answers that were kept. A file that makes no sense is set aside and reported.
func New(o Options) (*Policy, error) {
	if o.Ask == nil && o.Rules == nil || o.Host == nil || o.File == "" || o.Logger == nil {
		return nil, errors.New("policy: Ask or Rules, Host, File and Logger are needed")
	}
	if o.Timeout == 0 {
		o.Timeout = defaultTimeout
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	p := &Policy{o: o, log: o.Logger, answers: make(map[string]*answer), ids: make(map[string]string), asking: make(map[string]chan struct{}),
		sent: make(map[string]*response)}
	return p, p.load()
}

// Allow returns nil if something may happen, else why not: the error wraps ErrDenied or ErrUnanswered, or is that of ctx.
func (p *Policy) Allow(ctx context.Context, action Action, s Source, t Target) error {
	if p.o.Ask == nil {
		return p.o.Rules.decide(action, s, t)
	}
	key := keyOf(action, s, t)
	for {
		p.mu.Lock()
		if a := p.answers[key]; a != nil {
			p.mu.Unlock()
			return a.verdict()
		}
		other, asking := p.asking[key]
		if !asking {
			p.asking[key] = make(chan struct{})
			p.mu.Unlock()
			break
		}
		p.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	id := newID()
	p.mu.Lock()
	p.sent[id] = nil
	p.mu.Unlock()
	a, err := p.ask(ctx, id, key, action, s, t)
	if ctx.Err() != nil && err != nil {
		err = ctx.Err()
	}
	p.mu.Lock()
	close(p.asking[key])
	delete(p.asking, key)
	change := p.sent[id]
	delete(p.sent, id)
	if err == nil {
		if change != nil { // it was quicker than the answer that it changes
			a.Permitted, a.Message = *change.Permitted, change.Message
		}
		p.remember(a)
	}
	away := errors.Is(err, ErrUnanswered)
	changed := p.away != away && (err == nil || away)
	p.away = p.away != changed
	p.mu.Unlock()
	if err == nil && a.Start {
		p.save()
	}
	switch {
	case changed && away:
		p.log.Warn("policy service does not answer", "rules", p.o.Rules != nil, "err", err)
	case changed:
		p.log.Info("policy service answers")
	}
	if away && p.o.Rules != nil {
		return p.o.Rules.decide(action, s, t)
	}
	if err != nil {
		return err
	}
	return a.verdict()
}

// keyOf names what an answer is about: (action, source, target), whatever their dates. What has the same key but another issuer is another one:
// anybody can sign for a key. Issuers may be long, and texts have spaces, so a hash has the last word.
func keyOf(action Action, s Source, t Target) string {
	about := []string{string(action), s.Key, s.Contract, s.LinkName, t.Key, t.Contract, t.LinkName}
	sum := sha256.Sum256(fmt.Appendf(nil, "%q", append(slices.Clone(about), s.Issuer, t.Issuer)))
	return strings.Join(append(about, hex.EncodeToString(sum[:16])), " ")
}

func (a *answer) verdict() error {
	switch {
	case a.Permitted:
		return nil
	case a.Message == "":
		return ErrDenied
	}
	return fmt.Errorf("%w: %s", ErrDenied, a.Message)
}

// ask sends one request. An answer that makes no sense is a denial that is not remembered.
func (p *Policy) ask(ctx context.Context, id, key string, action Action, s Source, t Target) (*answer, error) {
	request, err := json.Marshal(p.request(id, action, s, t))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, p.o.Timeout)
	defer cancel()
	data, err := p.o.Ask(ctx, request)
	if err != nil && ctx.Err() != nil {
		return nil, fmt.Errorf("%w: none within %s", ErrUnanswered, p.o.Timeout)
	}
	if err != nil {
		return nil, err
	}
	r, err := decodeAnswer(data)
	if err != nil {
		return nil, fmt.Errorf("%w: the policy service answers nonsense: %w", ErrDenied, err)
	}
	if r.id() != id {
		return nil, fmt.Errorf("%w: the policy service answers another request", ErrDenied)
	}
	return &answer{Key: key, RequestID: id, Permitted: *r.Permitted, Message: r.Message, Start: action != PerformInvocation}, nil
}

// remember keeps an answer until the service takes it back. Call it with p.mu held.
func (p *Policy) remember(a *answer) {
	p.answers[a.Key], p.ids[a.RequestID] = a, a.Key
	p.order = append(p.order, a.Key)
	starts := 0
	for _, b := range p.answers {
		if b.Start {
			starts++
		}
	}
	for i := 0; i < len(p.order) && (len(p.answers) > maxRemembered || starts > maxKept); {
		old := p.answers[p.order[i]]
		if len(p.answers) <= maxRemembered && !old.Start {
			i++
			continue
		}
		if old.Start {
			starts--
		}
		delete(p.ids, old.RequestID)
		delete(p.answers, old.Key)
		p.order = append(p.order[:i], p.order[i+1:]...)
	}
}

// Change takes a message of the changes topic: another answer to a request of this host. It returns what to answer if somebody wants to know.
// What runs is not stopped by it; what is asked from now on is decided by it.
func (p *Policy) Change(data []byte) (reply []byte) {
	const yes, no = `{"success":true}`, `{"success":false}`
	r, err := decodeAnswer(data)
	if err != nil {
		p.log.Warn("a change of policy makes no sense", "err", err)
		return []byte(no)
	}
	p.mu.Lock()
	a := p.answers[p.ids[r.id()]]
	if _, underWay := p.sent[r.id()]; underWay {
		p.sent[r.id()] = &r
		p.mu.Unlock()
		return []byte(yes)
	}
	if a == nil { // it is about a request of another host
		p.mu.Unlock()
		return []byte(no)
	}
	changed := *a
	changed.Permitted, changed.Message = *r.Permitted, r.Message
	p.answers[a.Key] = &changed
	p.mu.Unlock()
	p.log.Info("policy is changed", "about", a.Key, "permitted", changed.Permitted, "message", changed.Message)
	if a.Start {
		p.save()
	}
	return []byte(yes)
}

// clip makes one short line of a reason.
func clip(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, strings.ToValidUTF8(s, ""))
	if len(s) > maxMessage {
		s = strings.ToValidUTF8(s[:maxMessage], "") + "…"
	}
	return s
}

// newID makes a UUID of version 4.
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // it never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
