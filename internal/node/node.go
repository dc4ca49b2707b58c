// Package node puts a box together: it opens the parts in order, wires them to
// one another, runs them, and ends them in reverse.
//
// It is the one place that sees everything. A part knows the lattice and the
// store; which actor gets which message, which provider serves which link, and
// what happens when an app changes, is decided here, from the device file and
// the manifests.
//
// A box comes up with what works. An app that can not run is left out, and the
// log and the health of the box say so; the others run.
package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/edged-io/edged/broker"
	"github.com/edged-io/edged/internal/config"
	"github.com/edged-io/edged/internal/oci"
	"github.com/edged-io/edged/internal/ota"
	"github.com/edged-io/edged/internal/policy"
	"github.com/edged-io/edged/lattice"
	"github.com/edged-io/edged/lattice/metadata"
	"github.com/edged-io/edged/lattice/rpc"
	"github.com/edged-io/edged/providers"
	"github.com/edged-io/edged/providers/blobstore"
	"github.com/edged-io/edged/providers/child"
	"github.com/edged-io/edged/providers/gpio"
	"github.com/edged-io/edged/providers/httpserver"
	"github.com/edged-io/edged/providers/keyvalue"
	"github.com/edged-io/edged/providers/logging"
	"github.com/edged-io/edged/providers/messaging"
	"github.com/edged-io/edged/providers/mqtt"
	"github.com/edged-io/edged/providers/numbergen"
	"github.com/edged-io/edged/providers/pubsub"
	"github.com/edged-io/edged/runtime"
	"github.com/edged-io/edged/store"
)

// Options are what New needs to know.
type Options struct {
	// Device is the device file.
	Device *config.Device
	// Version of the program, for status and logs.
	Version string
	// Logger takes the log of all parts.
	Logger *slog.Logger
	// Faults is told what is wrong with manifests, as FILE:LINE lines.
	Faults func(error)
	// MachineID tells one machine from another, so that a copied store is
	// noticed; nil reads /etc/machine-id.
	MachineID func() (string, error)
	// Compiler is a command that compiles actors apart from the box, as
	// runtime.Options has it; nil for none.
	Compiler []string
	// Now is the wall clock; nil for the machine's own, which may be known to be
	// right. It stamps messages, says when those that wait for a time are due, and
	// a signature is held against it the first time it is seen. Nothing else
	// depends on it.
	Now func() time.Time
	// Failpoint, in tests of crashes, is called at named points and may end the
	// process there.
	Failpoint func(point string)
	// Encode, in tests, has every call within the box go through its encoding and its
	// token, as if it came from elsewhere.
	Encode bool
	// Cores is how many actors may compute at once for longer than a moment; 0 for
	// GOMAXPROCS. The scheduler should have one processor more.
	Cores int
	// MemoryLimit is what the kernel lets the process have, in bytes; 0 for any
	// amount. Actors and turns get a part of it; see memory.go.
	MemoryLimit int64
	// HubPing is the interval of pings on the link to the hub; 0 leaves it to the
	// broker.
	HubPing time.Duration
}

// Node is a box. Build it with New, then Run it once.
type Node struct {
	o        Options
	wall     func() time.Time // nil is the machine's own
	log      *slog.Logger
	stateDir string
	registry *prometheus.Registry

	db       *store.DB
	broker   *broker.Server
	bus      *lattice.Bus
	runtime  *runtime.Host
	gpio     *gpio.Provider
	http     *httpserver.Provider
	pubsub   *pubsub.Provider
	keyvalue *keyvalue.Provider
	blobs    *blobstore.Provider
	builtin  map[string]providers.Provider // by the name that links give
	listener *mqtt.Listener                // nil without one
	updates  *ota.Agent
	admin    net.Listener // nil without one
	link     *nats.Conn   // into the account of the lattice
	calls    *nats.Conn   // the same, of lattice
	identity identity
	lattice  *rpc.Lattice
	socket   net.Listener
	health   health

	references *oci.Fetcher                 // of code that is no file of an app
	waiting    []func(context.Context) bool // try to start what was left out at boot, until they return true
	guard      *policy.Policy               // nil where nobody is asked
	meters     meters
	failures   failures
	applied    chan struct{} // closed when the apps run; clients are let in then
	serving    chan struct{} // closed when the box is ready; it calls nobody before

	booting      bool          // code that is not in the cache comes later; apply guards it
	late         []*actor      // whose code does; written at boot
	compiles     atomic.Bool   // some of it is not there yet
	maxAwait     time.Duration // of a call
	compileAgain time.Duration // after a compiler was killed

	telling         sync.Mutex    // held while addresses are written
	addressesUntold chan struct{} // tells runAddresses; it has room for one
	addressesAgain  time.Duration

	apply     gate // held while apps change
	apps      appSet
	processes *child.Manager // providers that are programs of their own
	// providersChanged tells runObjects; it has room for one.
	providersChanged chan struct{}
	provided         map[string]provided // those of apps, by id; apply guards it
	bridge           bridges
	core             core

	metadata  *metadata.Metadata
	configs   *metadata.Configs
	commanded commanded
	started   time.Time
	stopping  chan time.Duration // how long the box has to stop, once somebody asked for it

	lastSeen store.Stats // Alive's own
}

// New opens what the box holds: its state, its listeners, its hardware. It
// starts nothing. The error is store.ErrLocked or store.ErrUnusable if the
// state can not be used.
func New(o Options) (_ *Node, err error) {
	d := o.Device
	if o.Failpoint == nil {
		o.Failpoint = func(string) {}
	}
	if o.Faults == nil {
		o.Faults = func(error) {}
	}
	wall := o.Now
	if o.Now == nil {
		o.Now = time.Now
	}
	n := &Node{
		provided: make(map[string]provided),
		o:        o, wall: wall, log: o.Logger, stateDir: d.Device.StateDir,
		registry: prometheus.NewRegistry(), bus: lattice.NewBus(), applied: make(chan struct{}), serving: make(chan struct{}),
		core: core{up: make(chan struct{})}, apply: newGate(), started: o.Now(), stopping: make(chan time.Duration, 1),
		maxAwait:        maxAwait,
		compileAgain:    compileAgainMin,
		addressesUntold: make(chan struct{}, 1), addressesAgain: addressesAgain,
	}
	n.bus.SetLattice(d.Lattice.Name)
	n.bridge.log, n.failures.log = n.part("bridges"), n.part("actors")
	defer func() {
		if err != nil {
			err = errors.Join(err, n.close())
		}
	}()
	for _, open := range []func() error{
		n.openStore, n.openIdentity, n.openGuard, n.openCommanded, n.openBroker, n.openLattice, n.openMetadata, n.openProcesses, n.openControl, n.openProviders, n.openRuntime, n.openListeners, n.openUpdates, n.openReferences,
	} {
		if err := open(); err != nil {
			return nil, err
		}
	}
	return n, nil
}

func (n *Node) part(name string) *slog.Logger { return n.log.With("part", name) }

func (n *Node) openStore() error {
	d := n.o.Device
	if err := os.MkdirAll(n.stateDir, 0o700); err != nil {
		return fmt.Errorf("state directory: %w: %w", store.ErrUnusable, err)
	}
	db, err := store.Open(store.Options{
		Dir:        n.stateDir,
		MaxBytes:   int64(d.Store.MaxBytes),
		MaxMessage: int(d.Limits.MaxMessage) + 64<<10, // its subject comes on top
		MaxStaged:  n.staged(),
		MaxState:   int64(d.Limits.State),
		Logger:     n.part("store"),
		Now:        n.wall,
		Failpoint: func(point string) error {
			n.o.Failpoint(point)
			return nil
		},
	})
	n.db = db
	return err
}

func (n *Node) openBroker() (err error) {
	d := n.o.Device
	o := broker.Options{
		Store: n.db, Logger: n.part("broker"), Device: d.Device.ID, Listen: d.NATS.Listen, After: n.applied,
		MaxMessage: int(d.Limits.MaxMessage), Registerer: n.registry, Failpoint: n.o.Failpoint,
		Failed: n.failures.delivery,
	}
	if d.Hub != nil {
		o.Hub = broker.HubOptions{
			URL: d.Hub.URL, Credentials: d.Hub.Credentials, Domain: d.Hub.JetStreamDomain,
			Groups: d.Device.Groups, Share: d.Hub.Share, MaxRate: int(d.Hub.MaxRate), Ping: n.o.HubPing, After: n.serving,
		}
	}
	n.broker, err = broker.New(o)
	return err
}

// openProviders makes the built-in providers and lets actors reach them.
func (n *Node) openProviders() (err error) {
	device := n.o.Device.Device.ID
	n.gpio, err = gpio.New(gpio.Options{
		Device: device, Store: n.db, Logger: n.part("gpio"), Publish: n.publishEvent,
	})
	if err != nil {
		return err
	}
	n.keyvalue = keyvalue.New(n.db)
	n.pubsub = pubsub.New(n.db, streams{n}, device)
	if n.blobs, err = n.openBlobs(); err != nil {
		return err
	}
	client, err := n.openHTTPClient()
	if err != nil {
		return err
	}
	n.builtin = map[string]providers.Provider{
		config.ProviderKeyValue:   n.keyvalue,
		config.ProviderBlobStore:  n.blobs,
		config.ProviderPubSub:     n.pubsub,
		config.ProviderMessaging:  messaging.New(n.db, coreBroker{n}, int(n.o.Device.Limits.MaxMessage), broker.MaxSubject),
		config.ProviderGPIO:       n.gpio,
		config.ProviderHTTPServer: n.openHTTP(),
		config.ProviderHTTPClient: client,
		config.ProviderLogging: logging.New(func(ctx context.Context, actor string, level slog.Level, text string) {
			n.meterOf(actor).log.line(ctx, level, "", text)
		}),
		config.ProviderNumberGen: numbergen.Provider{},
	}
	for name, p := range n.builtin {
		e := lattice.Entity{Key: name}
		if _, err := n.bus.Handle(e, p.Call); err != nil {
			return err
		}
		if name == config.ProviderLogging || name == config.ProviderNumberGen {
			n.bus.Builtin(p.Contract(), e)
		}
	}
	return nil
}

func (n *Node) openRuntime() (err error) {
	n.runtime, err = runtime.New(runtime.Options{
		CacheDir:    filepath.Join(n.stateDir, "cache"),
		Compiler:    n.o.Compiler,
		Logger:      n.part("runtime"),
		Cores:       n.o.Cores,
		Call:        n.hostCall,
		MemoryBytes: uint64(n.guestMemory()),
		Output: func(ctx context.Context, actor string, level slog.Level, stream string, text []byte) {
			if l := n.meterOf(actor).log; l.admits(ctx, level, len(text)) { // most lines of a flood are not
				l.write(ctx, level, stream, string(text))
			}
		},
	})
	if err == nil && n.runtime.CacheFault() != nil {
		n.health.degrade("compilation cache", "", n.runtime.CacheFault())
	}
	return err
}

func (n *Node) openListeners() (err error) {
	d := n.o.Device
	if d.MQTT.Listen != "" {
		n.listener, err = mqtt.NewListener(mqtt.ListenerOptions{
			Listen: d.MQTT.Listen, Store: n.db, Broker: n.broker.NewPort(), Logger: n.part("mqtt"),
			MaxMessage: int(d.Limits.MaxMessage),
		})
		if err != nil {
			return err
		}
	}
	if d.Admin.Listen != "" {
		if n.admin, err = net.Listen("tcp", d.Admin.Listen); err != nil {
			return fmt.Errorf("admin listener: %w", err)
		}
	}
	n.socket, err = listenSocket(SocketPath(n.stateDir))
	return err
}

// close gives up what New took. Run does it too, after it ended the parts.
func (n *Node) close() error {
	var errs []error
	if n.socket != nil {
		errs = append(errs, ignoreClosed(n.socket.Close()))
	}
	if n.admin != nil {
		errs = append(errs, ignoreClosed(n.admin.Close()))
	}
	for _, nc := range []*nats.Conn{n.link, n.calls} {
		if nc != nil {
			nc.Close()
		}
	}
	n.core.close()
	n.failures.close()
	if n.gpio != nil {
		n.gpio.Close()
	}
	if n.runtime != nil {
		errs = append(errs, n.runtime.Close(context.Background()))
	}
	if n.db != nil {
		errs = append(errs, n.db.Close())
	}
	return errors.Join(errs...)
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
