package broker

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/edged-io/edged/internal/event"
)

// maxControlLine bounds a protocol line, and with it subject and reply
// together. The server's default is 4 KiB, less than a long MQTT topic needs.
const maxControlLine = 16 << 10

// MaxSubject bounds a subject, with the one that answers go to, so that they fit
// into a line with the rest: the server ends a connection for a longer one.
const MaxSubject = maxControlLine - 1024

// maxClosedClients is how many connections that are gone the server remembers, for
// questions that nobody asks here: the fewest it can.
const maxClosedClients = 1

// startTimeout is how long a server may take to listen, and to let in who connects
// inside the process. Where a start meets other work it takes seconds.
const startTimeout = 30 * time.Second

// embedded is the NATS server inside, with the logins of its accounts. They are
// born with the process.
type embedded struct {
	ns        *server.Server
	opts      *server.Options // as the server was made with
	listens   bool            // to clients from outside the process
	hub       HubOptions
	log       *serverLog
	app, link Login
	users     *users
}

func newEmbedded(o *Options) (*embedded, error) {
	e := &embedded{
		hub:     o.Hub,
		listens: o.Listen != "",
		log:     newServerLog(o.Logger),
		app:     Login{"app", rand.Text()},
		link:    Login{"link", rand.Text()},
	}
	e.users = newUsers(e.app, e.link)
	app, link := server.NewAccount(AccountApp), server.NewAccount(AccountLink)
	so := &server.Options{
		ServerName: o.Device,
		NoSigs:     true, NoLog: true,
		MaxPayload:     maxPayload(o.MaxMessage),
		MaxControlLine: maxControlLine,
		Accounts:       []*server.Account{app, link},
		// Who clients are is for users to say. The server has to know of one only to
		// tell them that they may come without a login.
		CustomClientAuthentication: e.users,
		Users:                      []*server.User{{Username: e.app.User, Password: e.app.Password, Account: app}},
		NoAuthUser:                 e.app.User,
		AlwaysEnableNonce:          true, // for logins by a key

		PingInterval:          o.Hub.Ping,
		MaxPingsOut:           2,
		MaxClosedClients:      maxClosedClients,
		DisableShortFirstPing: true,
		DontListen:            true, // until listen
	}
	if o.Listen != "" {
		host, port, err := splitListen(o.Listen)
		if err != nil {
			return nil, err
		}
		if port == 0 {
			port = server.RANDOM_PORT
		}
		so.Host, so.Port = host, port
	}
	if err := share(app, link, o.Hub.Share); err != nil {
		return nil, err
	}
	if o.Hub.URL != "" {
		remote, err := leafRemote(&o.Hub)
		if err != nil {
			return nil, err
		}
		remote.Disabled = o.Hub.After != nil
		so.LeafNode.Remotes = []*server.RemoteLeafOpts{remote}
		so.LeafNode.ReconnectInterval = o.Hub.Reconnect
		so.LeafNode.DialTimeout = 5 * time.Second
	}
	ns, err := server.NewServer(so)
	if err != nil {
		return nil, fmt.Errorf("embedded NATS server: %w", err)
	}
	ns.SetLoggerV2(e.log, false, false, false)
	e.ns, e.opts, e.users.ns = ns, so, ns
	return e, nil
}

// callHub makes the leaf connection once HubOptions.After is closed. A remote
// that begins as a disabled one can only be enabled by a reload.
func (e *embedded) callHub(ctx context.Context) error {
	if e.hub.URL == "" || e.hub.After == nil {
		return nil
	}
	select {
	case <-e.hub.After:
	case <-ctx.Done():
		return nil
	}
	remote, err := leafRemote(&e.hub)
	if err != nil {
		return err
	}
	next := e.opts.Clone()
	next.LeafNode.Remotes = []*server.RemoteLeafOpts{remote}
	if err := e.ns.ReloadOptions(next); err != nil {
		return fmt.Errorf("call the hub: %w", err)
	}
	return nil
}

// maxPayload is what the embedded server lets through. It is more than a message
// may have, because the uplink adds headers, and never less than a hub sends: a
// server closes the leaf connection for a larger message, and that would be so
// again after each reconnect.
func maxPayload(maxMessage int) int32 {
	return int32(max(maxMessage, maxDownMessage) + event.MaxHeaderBytes)
}

// start returns when clients inside this process can connect, or with the reason
// why not.
func (e *embedded) start() error {
	e.ns.Start() // returns when its goroutines run
	if e.ns.ReadyForConnections(startTimeout) {
		return nil
	}
	err := e.log.fatal()
	if err == nil {
		err = errors.New("not ready in time")
	}
	return fmt.Errorf("embedded NATS server: %w", err)
}

// listen lets in clients from outside the process, if there is an address for
// them.
func (e *embedded) listen() error {
	if !e.listens {
		return nil
	}
	e.ns.AcceptLoop(make(chan struct{})) // returns when it listens, or does not
	if err := e.log.fatal(); err != nil {
		return fmt.Errorf("embedded NATS server: %w", err)
	}
	return nil
}

// stop ends the server and waits for its goroutines.
func (e *embedded) stop() {
	e.ns.Shutdown()
	e.ns.WaitForShutdown()
}
