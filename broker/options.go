// Package broker is the box's own NATS server and what stands behind its
// subjects: streams, subscriptions, delivery, and the way to the hub.
//
// The nouns. The embedded server has two accounts: APP, where local clients
// without a login land, and LINK, which the leaf connection to the hub belongs
// to; what is published in one is not seen in the other, except the subjects
// that Options.Share names. A stream is a set of subjects of APP whose messages are
// kept; every other subject is core NATS, best effort. A subscription reads a
// stream from its own durable position and hands each message to a function,
// in a turn.
//
// What it guarantees: an acknowledgement leaves after the fsync; what a handler
// stages in its turn is committed together with the acknowledgement of the
// message, or not at all; a message is handed out again until it is
// acknowledged or has become a dead letter.
//
// What it leaves to others: the bytes on disk (package store), MQTT, actors.
package broker

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/edged-io/edged/internal/nameform"
	"github.com/edged-io/edged/internal/topic"
	"github.com/edged-io/edged/store"
)

// Names of the two accounts of the embedded server.
const (
	AccountApp  = "APP"
	AccountLink = "LINK"
)

// Options are what New needs to know. Zero values mean the defaults.
type Options struct {
	Store  *store.DB    // required; outlives Run
	Logger *slog.Logger // nil discards
	// Device is the id of the box, [A-Za-z0-9_-]{1,64}. Required.
	Device string
	// Listen is where local NATS clients connect, as HOST:PORT with port 0 for
	// any. "" means no listener: clients in this process only.
	Listen string
	// After holds back the clients that connect there until it is closed, so that
	// none publishes to a subject whose stream is not configured yet. Nil lets them
	// in at once.
	After <-chan struct{}
	// MaxMessage bounds a message with its headers, in bytes. 0 means 1 MiB.
	MaxMessage int
	// Hub is the way to the hub; a zero value means there is none.
	Hub HubOptions
	// Registerer takes the metrics; nil means none.
	Registerer prometheus.Registerer
	// Failed, if not nil, is told of each attempt by a function that failed, and
	// what becomes of the message; the server does not log that itself then. It is
	// called from several goroutines and must not block.
	Failed func(Failure)
	// Grace is how long handlers may go on after the end of Run was asked for,
	// before their context is cancelled. 0 means 2 s.
	Grace time.Duration
	// Failpoint, in tests, is called at named points with the name, and may end
	// the process there: "ingest-after-sync-before-ack",
	// "deliver-before-commit", "deliver-after-commit", "uplink-after-hub-ack",
	// "downlink-before-ack".
	Failpoint func(name string)
}

// HubOptions say where the hub is.
type HubOptions struct {
	// URL of the hub's leaf node port: nats-leaf://, tls://, ws:// or wss://. ""
	// means no hub.
	URL string
	// Credentials is the name of a credentials file. "" means none.
	Credentials string
	// Domain is the JetStream domain of the hub.
	Domain string
	// Groups are the groups of boxes that this one belongs to.
	Groups []string
	// Share names subjects of APP that the lattice sees too, with wildcards.
	Share []string
	// MaxRate bounds what goes up, in bytes per second over all streams. 0 means no
	// bound.
	MaxRate int
	// After holds the first call to the hub back until it is closed. Nil means
	// that the box calls as soon as it runs.
	After <-chan struct{}
	// Reconnect is the pause between attempts. 0 means 1 s.
	Reconnect time.Duration
	// Ping is the interval of pings on the link. A link that stays silent for
	// three of them is given up. 0 means 10 s.
	Ping time.Duration

	timing pumpTiming // of tests
}

const deviceID = nameform.Form(64)

// setDefaults fills in what was left out and returns all faults together.
func (o *Options) setDefaults() error {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.MaxMessage <= 0 {
		o.MaxMessage = 1 << 20
	}
	if o.Grace <= 0 {
		o.Grace = 2 * time.Second
	}
	if o.Failpoint == nil {
		o.Failpoint = func(string) {}
	}
	if o.Hub.Reconnect <= 0 {
		o.Hub.Reconnect = time.Second
	}
	if o.Hub.Ping <= 0 {
		o.Hub.Ping = 10 * time.Second
	}
	return o.check()
}

func (o *Options) check() error {
	var faults []error
	if o.Store == nil {
		faults = append(faults, errors.New("no store"))
	}
	if !deviceID.MatchString(o.Device) {
		faults = append(faults, fmt.Errorf("device id %q: must match %s", o.Device, deviceID))
	}
	if o.Listen != "" {
		if _, _, err := splitListen(o.Listen); err != nil {
			faults = append(faults, err)
		}
	}
	if o.Hub.URL != "" {
		if _, err := parseHubURL(o.Hub.URL); err != nil {
			faults = append(faults, err)
		}
		if o.Hub.Credentials != "" {
			// A file that cannot be read must not keep the box from working.
			if _, err := os.Stat(o.Hub.Credentials); err != nil {
				o.Logger.Warn("credentials of the hub cannot be read", "err", err)
			}
		}
	}
	for i, s := range o.Hub.Share {
		if !topic.ValidFilter(s) || reservedFilter(s) {
			faults = append(faults, fmt.Errorf("share %q: not a subject that can be shared", s))
			continue
		}
		for _, other := range o.Hub.Share[:i] {
			if topic.ValidFilter(other) && topic.Overlap(s, other) {
				faults = append(faults, fmt.Errorf("share %q overlaps share %q", s, other))
			}
		}
	}
	return errors.Join(faults...)
}

// splitListen parses HOST:PORT.
func splitListen(addr string) (host string, port int, err error) {
	host, p, err := net.SplitHostPort(addr)
	if err == nil {
		port, err = strconv.Atoi(p)
	}
	if err == nil && (port < 0 || port > 65535) {
		err = errors.New("port out of range")
	}
	if err != nil {
		return "", 0, fmt.Errorf("listen address %q: %w", addr, err)
	}
	return host, port, nil
}

var hubSchemes = []string{"nats-leaf", "nats", "tls", "ws", "wss"}

// parseHubURL accepts the schemes of a leaf connection and adds the port that
// leaf nodes have where the URL has none.
func parseHubURL(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil {
		return nil, errors.New("hub url: not a URL") // the cause would repeat a password
	}
	if !slices.Contains(hubSchemes, u.Scheme) || u.Hostname() == "" {
		return nil, fmt.Errorf("hub url %s: must be nats-leaf://, tls://, ws:// or wss:// with a host", u.Redacted())
	}
	if u.Port() == "" {
		port := map[string]string{"ws": "80", "wss": "443"}[u.Scheme]
		if port == "" {
			port = "7422"
		}
		u.Host = net.JoinHostPort(u.Hostname(), port)
	}
	return u, nil
}

// reservedFilter says whether a filter takes in subjects that belong to NATS:
// a stream of replies, or of the API, would answer itself.
func reservedFilter(filter string) bool {
	return topic.Overlap(filter, "$SYS.>") || topic.Overlap(filter, "$JS.>") || topic.Overlap(filter, "_INBOX.>")
}
