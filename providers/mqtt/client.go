package mqtt

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/edged-io/edged/internal/topic"
	"github.com/edged-io/edged/store"
)

// ClientOptions are what a Client needs to know. URL and ClientID are required; with Filters also Store and Stage.
type ClientOptions struct {
	// URL is the broker: tcp:// or mqtt://; ssl://, tls:// or mqtts:// for TLS; ws:// or wss:// for websockets. A port that is left out is 1883,
	// 8883, 80 or 443.
	URL string
	// ClientID names the session with the broker. It must be the same after each start, and no other client's.
	ClientID string
	// Username and Password are for the broker; "" for none.
	Username, Password string
	TLS                *tls.Config
	// Filters are what the box wants from the broker.
	Filters []Filter

	Store *store.DB
	// Stage adds a message to a turn: to its stream. An error that is store.ErrTooLarge, store.ErrNoStream or ErrRefused means never;
	// any other that trying again later can help.
	Stage func(t *store.Turn, m store.Message) error
	// DeadLetter keeps a message that can never be stored; it is acknowledged to the broker once DeadLetter has returned nil. reason is
	// "too-large" or "rejected". Of a message that was too large for MaxMessage only the beginning is there. Nil means that such messages are
	// counted, logged and acknowledged.
	DeadLetter func(ctx context.Context, m store.Message, reason string, cause error) error
	Logger     *slog.Logger

	// MaxMessage bounds the payload, in bytes. 0 means 1 MiB.
	MaxMessage int
	// Window is how many messages may be on their way to the disk; the connection is not read from when there are more. 0 means 256.
	Window int
	// KeepAlive is the interval of pings. 0 means 30 s.
	KeepAlive time.Duration
	// MinBackoff and MaxBackoff bound the wait before a new attempt to connect. 0 means 500 ms and 60 s.
	MinBackoff, MaxBackoff time.Duration
}

// Filter is one topic filter to subscribe to, with the quality of service to ask for: 0 or 1.
type Filter struct {
	Topic string
	QoS   byte
}

func (o *ClientOptions) setDefaults() (*url.URL, error) {
	u, err := url.Parse(o.URL)
	if err != nil {
		return nil, fmt.Errorf("MQTT broker %q: %w", o.URL, err)
	}
	switch {
	case u.Hostname() == "":
		return nil, fmt.Errorf("MQTT broker %s: no host", u.Redacted())
	case defaultPorts[u.Scheme] == "":
		return nil, fmt.Errorf("MQTT broker %s: scheme is none of tcp, mqtt, ssl, tls, mqtts, ws, wss", u.Redacted())
	case o.ClientID == "" || len(o.ClientID) > MaxClientID:
		return nil, fmt.Errorf("MQTT broker %s: client id of 1 to %d bytes is required", u.Redacted(), MaxClientID)
	case len(o.Filters) > 0 && (o.Store == nil || o.Stage == nil):
		return nil, fmt.Errorf("MQTT broker %s: a store is required to receive", u.Redacted())
	}
	for _, f := range o.Filters {
		if !validFilter(f.Topic) || f.QoS > 1 {
			return nil, fmt.Errorf("MQTT broker %s: filter %q with QoS %d: not a topic filter with QoS 0 or 1", u.Redacted(), f.Topic, f.QoS)
		}
	}
	if u.Port() == "" {
		u.Host = net.JoinHostPort(u.Hostname(), defaultPorts[u.Scheme])
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	orElse(&o.MaxMessage, 1<<20)
	orElse(&o.Window, 256)
	orElse(&o.KeepAlive, 30*time.Second)
	orElse(&o.MinBackoff, 500*time.Millisecond)
	orElse(&o.MaxBackoff, time.Minute)
	return u, nil
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
	o      ClientOptions
	url    *url.URL
	log    *slog.Logger
	failed condition // messages that can not be stored now

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
	DeadLetters uint64 // of these, refused for good
	Published   uint64 // messages that the broker has acknowledged
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

// Run keeps the session connected until ctx ends. A broker that can not be reached is no error: it is tried again, after a wait with jitter that grows
// up to MaxBackoff. A client runs once.
func (c *Client) Run(ctx context.Context) error {
	wait := c.o.MinBackoff
	for away := false; ; {
		l := newLink(c)
		err := l.serve(ctx, func() {
			c.stats.connects.Add(1)
			c.log.Info("MQTT broker connected", "client", c.o.ClientID)
			away = false
			c.setLink(l)
		})
		c.setLink(nil)
		if ctx.Err() != nil {
			return nil
		}
		if !away {
			c.log.Warn("MQTT broker away", "client", c.o.ClientID, "err", err)
			away = true
		}
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
// until ctx ends. ErrRefused is for a topic that can not be published to; after any other error the broker may have the message or not, so
// a caller that sends it again offers at least once.
func (c *Client) Publish(ctx context.Context, name string, qos byte, payload []byte, retained bool) error {
	if _, err := topic.Subject(name); err != nil || qos > 1 {
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
