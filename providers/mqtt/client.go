package mqtt

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	pahopackets "github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/edged-io/edged/internal/topic"
	"github.com/edged-io/edged/store"
)

// ClientOptions are what a Client needs to know. URL and ClientID are required; with Filters or Outbox also Store; with Filters also Stage.
type ClientOptions struct {
	// URL is the broker: tcp:// or mqtt://; ssl://, tls:// or mqtts:// for TLS; ws:// or wss:// for websockets. A port that is left out is 1883,
	// 8883, 80 or 443.
	URL string
	// ClientID names the session with the broker. It must be the same after each start, and no other client's.
	ClientID string
	// Clean is for a session that ends with the connection: what is sent while there is none is lost, and what was on its way to the broker is
	// published anew.
	Clean bool
	// Login says who the box is, and whom it trusts.
	Login Login
	// Will is what the broker publishes when the box has gone without saying so; nil for nothing.
	Will *Will
	// Filters are what the box wants from the broker.
	Filters []Filter
	// Outbox is a stream whose messages go to the broker; nil for none.
	Outbox *Outbox

	Store *store.DB
	// Stage adds a message to a turn: to its stream. An error that is store.ErrTooLarge, store.ErrNoStream or ErrRefused means never;
	// any other that trying again later can help.
	Stage func(t *store.Turn, m store.Message) error
	// DeadLetter keeps a message that can never be stored; it is acknowledged to the broker once DeadLetter has returned nil. reason is
	// "too-large" or "rejected". Of a message that was too large for MaxMessage only the beginning is there. Nil means that such messages are
	// counted, logged and acknowledged.
	DeadLetter func(ctx context.Context, m store.Message, reason string, cause error) error
	Logger     *slog.Logger
	// Health is told when things change: nil when the client is connected and all is well, else what is wrong, for the one who must act. It is called
	// from one goroutine at a time. Nil tells nobody.
	Health func(error)

	// MaxMessage bounds the payload, in bytes. 0 means 1 MiB.
	MaxMessage int
	// Window is how many messages may be on their way to the disk; the connection is not read from when there are more. 0 means 256.
	Window int
	// KeepAlive is the interval of pings. 0 means 30 s.
	KeepAlive time.Duration
	// MinBackoff and MaxBackoff bound the wait before a new attempt to connect. 0 means 500 ms and 60 s.
	MinBackoff, MaxBackoff time.Duration
	// Failpoint, in tests, is called at the points named by the constants Failpoint…, and may end the process there.
	Failpoint func(name string)
}

// Login is how a client and a broker come to know each other. Files are read again at each attempt to connect.
type Login struct {
	User         string // "" for none
	PasswordFile string // holds the password, without the line's end; "" for none
	CA           string // certificates in PEM that the broker's must lead to; "" for those of the system
	Cert, Key    string // certificate of the box and its key, in PEM; "" for none
}

// Will is a last will.
type Will struct {
	Topic   string
	Payload []byte
	QoS     byte
	Retain  bool
}

// Filter is one topic filter to subscribe to, with the quality of service to ask for. With a Group it is a shared subscription: each message goes to
// one client of the group.
type Filter struct {
	Topic string
	QoS   byte
	Group string
}

// shared is the filter as the broker gets it.
func (f Filter) shared() string {
	if f.Group == "" {
		return f.Topic
	}
	return "$share/" + f.Group + "/" + f.Topic
}

// Outbox is a stream whose messages a client publishes, in order, and acknowledges once the broker has them.
type Outbox struct {
	// Stream is its name, and Subscription that of the position in it, which must be there.
	Stream, Subscription string
	// QoS and Retain are what messages are published with.
	QoS    byte
	Retain bool
}

func (o *ClientOptions) setDefaults() (*url.URL, error) {
	u, err := url.Parse(o.URL)
	if err != nil {
		return nil, fmt.Errorf("MQTT broker %q: %w", o.URL, err)
	}
	if err := o.check(u); err != nil {
		return nil, fmt.Errorf("MQTT broker %s: %w", u.Redacted(), err)
	}
	if u.Port() == "" {
		u.Host = net.JoinHostPort(u.Hostname(), defaultPorts[u.Scheme])
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Health == nil {
		o.Health = func(error) {}
	}
	if o.Failpoint == nil {
		o.Failpoint = func(string) {}
	}
	orElse(&o.MaxMessage, 1<<20)
	orElse(&o.Window, 256)
	orElse(&o.KeepAlive, 30*time.Second)
	orElse(&o.MinBackoff, 500*time.Millisecond)
	orElse(&o.MaxBackoff, time.Minute)
	return u, nil
}

func (o *ClientOptions) check(u *url.URL) error {
	switch {
	case u.Hostname() == "":
		return errors.New("no host")
	case defaultPorts[u.Scheme] == "":
		return errors.New("scheme is none of tcp, mqtt, ssl, tls, mqtts, ws, wss")
	case o.ClientID == "" || len(o.ClientID) > MaxClientID:
		return fmt.Errorf("client id of 1 to %d bytes is required", MaxClientID)
	case len(o.Filters) > 0 && (o.Store == nil || o.Stage == nil), o.Outbox != nil && o.Store == nil:
		return errors.New("a store is required, and a way into it to receive")
	case (o.Login.Cert == "") != (o.Login.Key == ""):
		return errors.New("a certificate and its key belong together")
	case o.Outbox != nil && (o.Outbox.QoS > 2 || o.Outbox.QoS == 2 && o.Clean):
		return errors.New("QoS to publish with is 0, 1 or, with a session, 2")
	}
	for _, f := range o.Filters {
		if !validFilter(f.Topic) || f.QoS > 2 || strings.ContainsAny(f.Group, "/+#") {
			return fmt.Errorf("filter %q with QoS %d: not a topic filter with QoS 0, 1 or 2", f.shared(), f.QoS)
		}
	}
	if w := o.Will; w != nil {
		if _, err := topic.Subject(w.Topic); err != nil || w.QoS > 2 {
			return fmt.Errorf("will on topic %.80q with QoS %d: %w", w.Topic, w.QoS, ErrRefused)
		}
	}
	return nil
}

var defaultPorts = map[string]string{
	"tcp": "1883", "mqtt": "1883", "ssl": "8883", "tls": "8883", "mqtts": "8883", "ws": "80", "wss": "443",
}

func orElse[T int | time.Duration](value *T, standard T) {
	if *value <= 0 {
		*value = standard
	}
}

func secure(u *url.URL) bool { return u.Scheme == "ssl" || u.Scheme == "tls" || u.Scheme == "mqtts" }

// clientKey names a session with a broker in keys of the store.
func clientKey(url, clientID string) string {
	sum := sha256.Sum256([]byte(url + "\x00" + clientID))
	return hex.EncodeToString(sum[:16])
}

// Client holds one session with an external broker. Build it with NewClient; Run keeps it connected. Publish and Stats may be called from any
// goroutine.
type Client struct {
	o       ClientOptions
	url     *url.URL
	log     *slog.Logger
	failed  condition // messages that can not be stored now
	told    string    // what Health was told last; of Run's goroutine
	hangUps hangUps   // of Run's goroutine

	stats struct{ received, repeats, dropped, deadLetters, published, connects atomic.Uint64 }

	mu      sync.Mutex // guards what follows
	current *link      // nil while there is no connection
	changed chan struct{}
}

// ClientStats counts what the client did since it was made.
type ClientStats struct {
	Connected   bool
	Connects    uint64
	Received    uint64 // messages from the broker
	Repeats     uint64 // of these, recognised as sent again
	Dropped     uint64 // of these, of QoS 0 and not stored
	DeadLetters uint64 // of these, and of those to be published, refused for good
	Published   uint64 // messages that the broker has: acknowledged, or of QoS 0 and written
}

// NewClient checks the options. It connects to nobody before Run.
func NewClient(o ClientOptions) (*Client, error) {
	u, err := o.setDefaults()
	if err != nil {
		return nil, err
	}
	return &Client{o: o, url: u, log: o.Logger.With("broker", u.Redacted()), changed: make(chan struct{})}, nil
}

// Stats returns the counters.
func (c *Client) Stats() ClientStats {
	c.mu.Lock()
	connected := c.current != nil
	c.mu.Unlock()
	return ClientStats{
		Connected: connected, Connects: c.stats.connects.Load(), Received: c.stats.received.Load(), Repeats: c.stats.repeats.Load(),
		Dropped: c.stats.dropped.Load(), DeadLetters: c.stats.deadLetters.Load(), Published: c.stats.published.Load(),
	}
}

// Run keeps the session connected until ctx ends. A broker that can not be reached, or that refuses the box, is no error: it is tried again, after a wait
// with jitter that grows up to MaxBackoff. A client runs once.
func (c *Client) Run(ctx context.Context) error {
	for wait := c.o.MinBackoff; ; {
		l := newLink(c)
		published := c.stats.published.Load()
		err := l.serve(ctx, func(lacks error) {
			c.stats.connects.Add(1)
			c.tell(lacks)
			c.setLink(l)
		})
		c.setLink(nil)
		if ctx.Err() != nil {
			return nil
		}
		c.tell(c.blame(l, published, err))
		if l.useful.Load() {
			wait = c.o.MinBackoff
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait/2 + rand.N(wait/2+1)):
		}
		wait = min(2*wait, c.o.MaxBackoff)
	}
}

// tell logs how things stand, and tells Health, if that is news.
func (c *Client) tell(err error) {
	kind, err := diagnose(err)
	if kind == c.told || kind == away && c.told != "" && c.told != connected {
		return // a broker that refuses the box may just hang up next time
	}
	c.told = kind
	c.o.Health(err)
	switch kind {
	case connected:
		c.log.Info("MQTT broker connected", "client", c.o.ClientID)
	case away:
		c.log.Warn("MQTT broker away", "client", c.o.ClientID, "err", err)
	default:
		c.log.Error("MQTT broker does not let the box do all it is to", "client", c.o.ClientID, "err", err)
	}
}

// What tell tells apart; other kinds are the text of an error.
const (
	connected = "connected"
	away      = "away"
)

// diagnose says whether err is the kind that comes and goes with the network, and adds what to do about one that is not.
func diagnose(err error) (kind string, said error) {
	var refused *subscribeError
	var hungUp *hangUpError
	switch text := fmt.Sprint(err); {
	case err == nil:
		return connected, nil
	case errors.As(err, &hungUp):
		return fmt.Sprint("message ", hungUp.seq), err
	case errors.As(err, &refused), errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission), errors.Is(err, errLogin):
		return text, err
	case errors.Is(err, pahopackets.ErrorRefusedBadUsernameOrPassword), errors.Is(err, pahopackets.ErrorRefusedNotAuthorised):
		return text, fmt.Errorf("%w: check user, password_file, cert and key, and what the broker allows this client", err)
	case errors.Is(err, pahopackets.ErrorRefusedIDRejected):
		return text, fmt.Errorf("%w: check client_id", err)
	case strings.Contains(text, "tls: ") || strings.Contains(text, "x509: "):
		return "TLS", fmt.Errorf("%w: check ca, cert and key, the name in url, and the clocks", err)
	}
	return away, err
}

func (c *Client) setLink(l *link) {
	c.mu.Lock()
	c.current = l
	close(c.changed)
	c.changed = make(chan struct{})
	c.mu.Unlock()
}

// link returns the connection, waiting for one until ctx ends.
func (c *Client) link(ctx context.Context) (*link, error) {
	for {
		c.mu.Lock()
		l, changed := c.current, c.changed
		c.mu.Unlock()
		if l != nil {
			return l, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// Publish sends a message to the broker and returns when the broker has acknowledged it (QoS 1), or when it is written (QoS 0). It waits for a connection
// until ctx ends. ErrRefused is for a topic that can not be published to, and of a client with an outbox; after any other error the broker may have the message or not, so
// a caller that sends it again offers at least once.
func (c *Client) Publish(ctx context.Context, name string, qos byte, payload []byte, retained bool) error {
	if _, err := topic.Subject(name); err != nil || qos > 1 || c.o.Outbox != nil {
		return fmt.Errorf("publish to topic %.80q of the MQTT broker with QoS %d: %w", name, qos, ErrRefused)
	}
	l, err := c.link(ctx)
	if err != nil {
		return fmt.Errorf("publish to topic %s of the MQTT broker: %w", name, err)
	}
	token := l.paho.Publish(name, qos, retained, payload)
	select {
	case <-token.Done():
		err = token.Error()
	case <-l.ended:
		err = ErrNotConnected
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("publish to topic %s of the MQTT broker: %w", name, err)
	}
	c.stats.published.Add(1)
	return nil
}

// never says whether an error of Stage means that the message can not be stored at any time.
func never(err error) (reason string, ok bool) {
	switch {
	case errors.Is(err, store.ErrTooLarge):
		return "too-large", true
	case errors.Is(err, store.ErrNoStream), errors.Is(err, ErrRefused):
		return "rejected", true
	}
	return "", false
}

// subjectOf returns the subject of a topic that the broker sent, or an ErrRefused.
func subjectOf(name string) (string, error) {
	if len(name) > MaxTopic {
		return "", fmt.Errorf("topic of %d bytes, at most %d: %w", len(name), MaxTopic, ErrRefused)
	}
	subject, err := topic.Subject(name)
	if err != nil {
		return "", fmt.Errorf("topic %.80q: %w: %w", name, ErrRefused, err)
	}
	if strings.HasPrefix(subject, "$") {
		return "", fmt.Errorf("topic %.80q: topics that begin with $ are the broker's: %w", name, ErrRefused)
	}
	return subject, nil
}
