package child

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	mathrand "math/rand/v2"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/edged-io/edged/internal/claims"
	"github.com/edged-io/edged/lattice"
	"github.com/edged-io/edged/lattice/wire"
)

// instance is a provider of the Manager.
type instance struct {
	m        *Manager
	id       id
	spec     Spec
	program  string      // "" where it is remote
	told     []wire.Link // of a remote one: those in its line
	login    login
	seed     claims.Seed // of the key it signs with
	subject  string
	inbox    string        // what its inboxes begin with
	first    chan error    // how the first start went; has room
	again    chan struct{} // has it tried again at once; has room
	dropping sync.Once
	// What is told once, and not at each start.
	unlimited, unconfined sync.Once
	ready                 atomic.Pointer[chan struct{}] // closed when the process has answered, or had time for it

	// Guarded by Manager.mu.
	status Status
	cancel context.CancelFunc // nil before it was launched
	done   chan struct{}
	gone   bool // it is not to be launched any more
}

// login is a user of NATS.
type login struct {
	User     string `json:"user"`
	Password string `json:"password"`
}

func (m *Manager) newInstance(s Spec, program string) (*instance, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	seed := m.o.Cluster
	if !s.ClusterSeed {
		var err error
		if seed, err = claims.Generate(claims.Cluster); err != nil {
			return nil, err
		}
	}
	sum := sha256.Sum256([]byte(s.Key + " " + s.LinkName))
	ready := make(chan struct{})
	in := &instance{
		m: m, id: id{s.Key, s.LinkName}, spec: s, program: program, seed: seed,
		login:   login{"provider-" + hex.EncodeToString(sum[:12]), rand.Text()},
		inbox:   m.o.Inbox + "." + hex.EncodeToString(sum[:12]),
		subject: wire.ProviderSubject(m.o.Lattice, s.Key, s.LinkName),
		first:   make(chan error, 1), again: make(chan struct{}, 1),
		status: Status{
			Key: s.Key, LinkName: s.LinkName, Contract: s.Contract, Name: s.Name, Version: s.Version, Revision: s.Revision, Issuer: s.issuer, Ref: s.Ref,
			Annotations: s.Annotations, App: s.App, State: Idle, Health: HealthUnknown, Since: time.Now(),
		},
	}
	in.ready.Store(&ready)
	return in, nil
}

// seeds is a Trust that also spares a provider the signature of each call, once both
// ends have a seed that nobody else has; *rpc.Lattice does.
type seeds interface {
	ShareSeed(provider, link string, seed claims.Seed)
	UnshareSeed(provider, link string)
}

// enter gives the provider what it needs to take part.
func (in *instance) enter() error {
	publish, subscribe := in.permissions()
	if err := in.m.o.Users.PutUser(in.login.User, in.login.Password, publish, subscribe); err != nil {
		return err
	}
	if !in.spec.ClusterSeed {
		if err := in.m.o.Trust.TrustProvider(in.seed.Key(), in.spec.Key); err != nil {
			return err
		}
		if s, ok := in.m.o.Trust.(seeds); ok {
			s.ShareSeed(in.id.key, in.id.link, in.seed)
		}
	}
	if !in.status.Remote {
		in.m.o.Bus.Replace(in.entity(), in.call)
	}
	return nil
}

// leave takes it away.
func (in *instance) leave() {
	if !in.status.Remote {
		in.m.o.Bus.Remove(in.entity())
	}
	if !in.spec.ClusterSeed {
		in.m.o.Trust.DistrustProvider(in.seed.Key())
		if s, ok := in.m.o.Trust.(seeds); ok {
			s.UnshareSeed(in.id.key, in.id.link)
		}
	}
	in.m.o.Users.RemoveUser(in.login.User)
}

func (in *instance) entity() lattice.Entity { return lattice.Entity{Key: in.id.key, Link: in.id.link} }

// permissions are the subjects of a provider: its own, those of actors, its inboxes, and,
// where that is granted, the object store that large payloads go through.
func (in *instance) permissions() (publish, subscribe []string) {
	own := in.subject
	publish, subscribe = []string{"wasmbus.rpc." + in.m.o.Lattice + ".*"}, []string{own, own + ".>", in.inbox + ".>"}
	if !in.spec.OwnInbox {
		subscribe = append(subscribe, "_INBOX.>") // kits choose the name of theirs
	}
	if in.m.o.Objects {
		publish = append(publish, in.m.objects()...)
	}
	return publish, subscribe
}

// objects are the subjects of the object store: to write and delete payloads, and to read
// them in the ways that kits have. The bucket is not theirs to make: who makes it says
// where it takes its messages from.
func (m *Manager) objects() []string {
	bucket, chunks, meta := "OBJ_"+m.o.Lattice, "$O."+m.o.Lattice+".C.", "$O."+m.o.Lattice+".M."
	all := []string{chunks + "*", meta + "*", "$JS.FC." + bucket + ".>"}
	api := []string{"$JS.API."}
	if d := m.o.JetStreamDomain; d != "" {
		api = append(api, "$JS."+d+".API.")
	}
	for _, a := range api {
		all = append(all, a+"INFO")
		if m.o.Hubless {
			all = append(all, a+"STREAM.CREATE."+bucket)
		}
		for _, verb := range []string{"STREAM.INFO.", "STREAM.PURGE.", "STREAM.MSG.GET.", "DIRECT.GET."} {
			all = append(all, a+verb+bucket)
		}
		all = append(all,
			a+"DIRECT.GET."+bucket+"."+meta+"*",
			a+"CONSUMER.CREATE."+bucket+".*."+chunks+"*", a+"CONSUMER.CREATE."+bucket, // the second of clients from before NATS 2.9
			a+"CONSUMER.INFO."+bucket+".*", a+"CONSUMER.DELETE."+bucket+".*", a+"CONSUMER.MSG.NEXT."+bucket+".*",
		)
	}
	return all
}

// update changes the status and tells of it.
func (in *instance) update(change func(*Status)) {
	in.m.mu.Lock()
	was := in.status.State
	change(&in.status)
	if in.status.State != was {
		in.status.Since = time.Now()
	}
	s := in.status
	in.m.mu.Unlock()
	if in.m.o.Changed != nil {
		in.m.o.Changed(s)
	}
}

func (in *instance) current() Status {
	in.m.mu.Lock()
	defer in.m.mu.Unlock()
	return in.status
}

func (in *instance) state() State { return in.current().State }

// wake has a provider that waits, or was given up, tried at once.
func (in *instance) wake() {
	select {
	case in.again <- struct{}{}:
	default:
	}
}

// run keeps the process running until ctx ends.
func (in *instance) run(ctx context.Context) {
	log := in.m.log.With("provider", in.title(), "link", in.id.link)
	tries, pause := 0, time.Duration(0)
	for ctx.Err() == nil {
		begun := time.Now()
		err := in.once(ctx, log)
		if ctx.Err() != nil {
			return
		}
		if time.Since(begun) >= in.m.t.steady {
			tries, pause = 0, 0
		}
		tries++
		pause = min(max(2*pause, in.m.t.least), in.m.t.most)
		wait := pause/2 + mathrand.N(pause/2+1) // boxes that lost one server do not return together
		timer := time.NewTimer(wait)
		if tries < in.m.t.tries {
			log.Warn("provider ended, it is started again", "err", err, "tries", tries, "pause", wait.Round(time.Millisecond))
			in.update(func(s *Status) {
				s.State, s.Health, s.PID, s.Err, s.NextTry = Waiting, HealthUnknown, 0, err.Error(), time.Now().Add(wait)
			})
		} else {
			timer.Stop()
			log.Error("provider is given up: start it again when what is wrong is mended", "err", err, "tries", tries)
			in.update(func(s *Status) {
				s.State, s.Health, s.PID, s.NextTry = Failed, HealthUnknown, 0, time.Time{}
				s.Err = fmt.Sprintf("given up after %d starts: %v", tries, err)
			})
		}
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-in.again: // a link has changed, which may be what was wrong
			tries, pause = 0, 0
		}
		timer.Stop()
		if ctx.Err() == nil {
			in.m.restarts.Inc()
			in.update(func(s *Status) { s.Restarts, s.State = s.Restarts+1, Waiting })
		}
	}
}

func (in *instance) title() string {
	if in.spec.Name == "" {
		return in.id.key
	}
	return in.spec.Name
}

// call is the provider's handler on the bus.
func (in *instance) call(ctx context.Context, inv lattice.Invocation) ([]byte, error) {
	switch s := in.current(); s.State {
	case Waiting:
		return nil, fmt.Errorf("provider %s does not run, it is started again at %s: %s: %w", in.title(), s.NextTry.Format(time.TimeOnly), s.Err, lattice.ErrNoEntity)
	case Failed:
		return nil, fmt.Errorf("provider %s does not run, it is %s: %w", in.title(), s.Err, lattice.ErrNoEntity)
	}
	select { // it subscribes some time after its start
	case <-*in.ready.Load():
	case <-ctx.Done():
	}
	if len(inv.Payload) > wire.ChunkBytes && !in.m.o.Objects {
		return nil, fmt.Errorf("provider %s: payload of %d bytes, and it may not use the object store, where one of more than %d goes: see lattice.provider_objects in the device file", in.title(), len(inv.Payload), wire.ChunkBytes)
	}
	return in.m.o.Call(ctx, inv)
}

// hostData is what the provider is told of itself, but for where to connect to.
func (in *instance) hostData(instance string, links []wire.Link) wire.HostData {
	h := wire.HostData{
		Host: in.m.o.Host.String(), Lattice: in.m.o.Lattice, LinkName: in.id.link, Provider: in.id.key, Seed: in.seed.Reveal(),
		Instance: instance, Links: links, Issuers: in.m.issuers(), Config: in.spec.Config, TimeoutMS: in.m.o.Timeout.Milliseconds(),
		Edged: &wire.Edged{Inbox: in.inbox, Objects: in.m.o.Objects},
	}
	if d := in.m.o.JetStreamDomain; d != "" {
		h.JSDomain = &d
	}
	return h
}

// logIn puts where the provider connects to, with its login, into h: in the URL, and as
// the token and seed of a user, since clients in Rust take no notice of the first.
func (in *instance) logIn(h *wire.HostData) error {
	where := in.m.o.URL()
	if where == "" {
		return ErrListener
	}
	u, err := url.Parse(where)
	if err != nil || u.Host == "" {
		return fmt.Errorf("%.80q is not a URL of a NATS server", where)
	}
	u.User = url.UserPassword(in.login.User, in.login.Password)
	token, seed := claims.NATSUser(in.login.User, in.login.Password)
	h.URL, h.UserJWT, h.UserSeed = u.String(), token, seed.Reveal()
	return nil
}

// issuers are the clusters whose invocations a provider should believe.
func (m *Manager) issuers() []string {
	all := []string{m.o.Cluster.Key().String()}
	for _, k := range m.o.Issuers {
		if s := k.String(); !slices.Contains(all, s) {
			all = append(all, s)
		}
	}
	return all
}

// environment is what the process has: little, and nothing of the box's secrets.
func (in *instance) environment(dir string) []string {
	env := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "HOME=" + dir, "TMPDIR=" + dir}
	for _, v := range os.Environ() { // as classic hosts do
		if strings.HasPrefix(v, "OTEL_") || strings.HasPrefix(v, "RUST_LOG=") {
			env = append(env, v)
		}
	}
	for k, v := range in.spec.Env { // the last of a name counts
		env = append(env, k+"="+v)
	}
	return env
}

// newID makes a random UUID (RFC 9562, version 4).
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails, as crypto/rand promises
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	h := hex.EncodeToString(b[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}
