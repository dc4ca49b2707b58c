package natsbroker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Login is how a client and a server come to know each other. Files are read again at each attempt to connect. At most one of Credentials, User and
// NKeyFile is given.
type Login struct {
	Credentials  string // a credentials file, JWT and seed
	User         string
	PasswordFile string // holds the password of User, without the line's end
	NKeyFile     string // holds the seed of an nkey
	CA           string // certificates in PEM that the server's must lead to; "" for those of the system
	Cert, Key    string // certificate of the box and its key, in PEM; "" for none
}

func (l *Login) check() error {
	n := 0
	for _, s := range []string{l.Credentials, l.User, l.NKeyFile} {
		if s != "" {
			n++
		}
	}
	switch {
	case n > 1:
		return errors.New("credentials, user and nkey are three ways to say who the box is, take one")
	case l.PasswordFile != "" && l.User == "":
		return errors.New("a password without a user")
	case (l.Cert == "") != (l.Key == ""):
		return errors.New("a certificate and its key belong together")
	}
	return nil
}

// maxSecretFile is the longest password file that is read.
const maxSecretFile = 1 << 20

// options reads the files. An error is a condition.
func (l *Login) options() (all []nats.Option, err error) {
	for _, name := range []string{l.Credentials, l.PasswordFile, l.NKeyFile, l.CA, l.Cert, l.Key} {
		if name == "" {
			continue
		}
		if info, err := os.Stat(name); err != nil {
			return nil, act("%w", err)
		} else if !info.Mode().IsRegular() || info.Size() > maxSecretFile {
			return nil, act("%s: want a file of at most %d bytes", name, maxSecretFile)
		}
	}
	if l.Credentials != "" {
		all = append(all, nats.UserCredentials(l.Credentials))
	}
	if l.User != "" {
		password := []byte{}
		if l.PasswordFile != "" {
			if password, err = os.ReadFile(l.PasswordFile); err != nil {
				return nil, act("%w", err)
			}
		}
		all = append(all, nats.UserInfo(l.User, string(bytes.TrimRight(password, "\r\n"))))
	}
	if l.NKeyFile != "" {
		option, err := nats.NkeyOptionFromSeed(l.NKeyFile)
		if err != nil {
			return nil, act("nkey file %s: %w", l.NKeyFile, err)
		}
		all = append(all, option)
	}
	if l.CA != "" {
		all = append(all, nats.RootCAs(l.CA))
	}
	if l.Cert != "" {
		all = append(all, nats.ClientCert(l.Cert, l.Key))
	}
	return all, nil
}

// Limits of a link.
const (
	linkTimeout  = 20 * time.Second // to connect, and for an answer
	flushTimeout = 2 * time.Second
	pingInterval = 20 * time.Second
)

// link is one connection of a Client.
type link struct {
	c      *Client
	nc     *nats.Conn
	js     jetstream.JetStream
	useful atomic.Bool // something was achieved: the next attempt need not wait long
	lost   chan error  // the first reason to end
	alone  bool        // nobody else takes what is received, and it comes in order; written before it is
}

// serve connects, calls up, and returns when the connection is lost or ctx has ended, with the reason.
func (l *link) serve(ctx context.Context, up func()) error {
	if err := l.connect(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var work sync.WaitGroup
	defer func() {
		cancel()
		work.Wait()
		_ = l.nc.FlushTimeout(flushTimeout) // the last acknowledgements; without them messages come again
		l.nc.Close()
	}()
	if err := l.receive(ctx, &work); err != nil {
		return diagnose(err)
	}
	up()
	if l.c.o.Outbox != nil {
		work.Go(func() {
			if err := l.drain(ctx); err != nil {
				l.fail(fmt.Errorf("publish from stream %s: %w", l.c.o.Outbox.Stream, err))
			}
		})
	}
	began := time.Now()
	select {
	case err := <-l.lost:
		l.useful.CompareAndSwap(false, time.Since(began) > l.c.o.MaxBackoff)
		return diagnose(err)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (l *link) connect() error {
	options, err := l.c.o.Login.options()
	if err != nil {
		return err
	}
	options = append(options,
		nats.Name(l.c.o.Name), nats.NoReconnect(), // Run does that
		nats.Timeout(linkTimeout), nats.PingInterval(pingInterval), nats.MaxPingsOutstanding(2), nats.IgnoreAuthErrorAbort(),
		nats.ClosedHandler(func(nc *nats.Conn) {
			err := nc.LastError()
			if err == nil {
				err = nats.ErrConnectionClosed
			}
			l.fail(fmt.Errorf("connection lost: %w", err))
		}),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			if errors.Is(err, nats.ErrSlowConsumer) {
				l.c.stats.dropped.Add(1)
				return
			}
			if errors.Is(err, nats.ErrPermissionViolation) {
				l.fail(err)
			}
		}),
	)
	if l.nc, err = nats.Connect(l.c.o.URL, options...); err != nil {
		return diagnose(fmt.Errorf("connect: %w", err))
	}
	if l.c.o.Domain != "" {
		l.js, err = jetstream.NewWithDomain(l.nc, l.c.o.Domain)
	} else {
		l.js, err = jetstream.New(l.nc)
	}
	if err != nil {
		l.nc.Close()
		return act("%w", err)
	}
	return nil
}

func (l *link) fail(err error) {
	select {
	case l.lost <- err:
	default:
	}
}

// diagnose marks what will not go away by itself as a condition, and says what to do.
func diagnose(err error) error {
	hint := ""
	text := fmt.Sprint(err)
	switch {
	case err == nil || isCondition(err):
		return err
	case errors.Is(err, nats.ErrAuthorization), errors.Is(err, nats.ErrAuthExpired), errors.Is(err, nats.ErrAuthRevoked), errors.Is(err, nats.ErrAccountAuthExpired),
		strings.Contains(text, "Authorization Violation"), strings.Contains(text, "nkeys: "):
		hint = "check credentials, user, password_file or nkey_file, and what the server allows this user"
	case errors.Is(err, nats.ErrPermissionViolation):
		hint = "check what the server allows this user"
	case errors.Is(err, jetstream.ErrJetStreamNotEnabled), errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount):
		hint = "qos 1 and 2 need JetStream there, for the account of this user; else use qos = 0"
	case errors.Is(err, nats.ErrSecureConnWanted), errors.Is(err, nats.ErrSecureConnRequired), strings.Contains(text, "tls: "), strings.Contains(text, "x509: "), strings.Contains(text, "certificate"):
		hint = "check ca, cert and key, the name in url, and the clocks"
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission):
	default:
		return err
	}
	if hint == "" {
		return act("%w", err)
	}
	return act("%w: %s", err, hint)
}
