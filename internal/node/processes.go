package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"time"

	"github.com/edged-io/edged/broker"
	"github.com/edged-io/edged/providers/child"
)

// openProcesses makes what runs providers that are programs of their own, and follows
// those that somebody else has started.
func (n *Node) openProcesses() (err error) {
	o := child.Options{
		Conn: n.link, Lattice: n.o.Device.Lattice.Name, Bus: n.bus, Call: n.lattice.Call, Trust: n.lattice, Users: users{n.broker}, URL: n.providersURL,
		Host: n.identity.host.Key(), Cluster: n.identity.cluster, Issuers: n.identity.issuers,
		Admit: n.admit, Permit: n.permitProvider, Dir: filepath.Join(n.stateDir, "providers"), Logger: n.part("providers"), Changed: n.processChanged, Registerer: n.registry,
		Private: n.private(), Inbox: broker.LatticeInbox(n.o.Device.Lattice.Name, n.o.Device.Device.ID), Objects: n.o.Device.Lattice.ProviderObjects,
		Hubless: n.o.Device.Hub == nil,
	}
	if o.Dir, err = filepath.Abs(o.Dir); err != nil {
		return err
	}
	if n.o.Device.Hub != nil {
		o.JetStreamDomain = n.o.Device.Hub.JetStreamDomain
	}
	n.providersChanged = make(chan struct{}, 1)
	n.processes, err = child.New(o)
	return err
}

// private are the files that hold what the box alone may know.
func (n *Node) private() []string {
	d := n.o.Device
	all := []string{n.stateDir, d.Lattice.HostSeedFile, d.Lattice.ClusterSeedFile}
	if d.Hub != nil {
		all = append(all, d.Hub.Credentials)
	}
	for _, l := range d.Registry.Login {
		all = append(all, l.PasswordFile, l.TokenFile)
	}
	return slices.DeleteFunc(all, func(path string) bool { return path == "" })
}

// users are those of the embedded server, as providers need them.
type users struct{ broker *broker.Server }

func (u users) PutUser(name, password string, publish, subscribe []string) error {
	return u.broker.PutUser(broker.Login{User: name, Password: password}, broker.Permissions{Publish: publish, Subscribe: subscribe})
}

func (u users) RemoveUser(name string) { u.broker.RemoveUser(name) }

// providersURL is where programs on this box reach its NATS server, "" where it does
// not listen.
func (n *Node) providersURL() string {
	addr := n.broker.Addr()
	if addr == "" { // the server does not run yet
		addr = n.o.Device.NATS.Listen
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return ""
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return natsURL(net.JoinHostPort(host, port))
}

// processChanged keeps the health of the box true to that of a provider.
func (n *Node) processChanged(s child.Status) {
	name := s.Key + " " + s.LinkName
	if s.Name != "" {
		name = s.Name + " " + s.LinkName
	}
	switch {
	case s.State == child.Failed || s.State == child.Waiting:
		n.health.degrade("provider", name, errors.New(s.Err))
	case s.Health == child.Unhealthy:
		n.health.degrade("provider", name, errors.New("not well: "+s.HealthText))
	case s.Health == child.Healthy || s.State == child.Stopped: // one that was just started again is not well yet
		n.health.recover("provider", name)
	}
	select {
	case n.providersChanged <- struct{}{}:
	default: // runObjects has not taken the last one yet
	}
	n.hostChanged()
}

// ProviderStatus is a provider that is a program of its own, or that was attached.
type ProviderStatus struct {
	Key      string    `json:"key"`
	LinkName string    `json:"link_name"`
	Contract string    `json:"contract"`
	Name     string    `json:"name"`
	Version  string    `json:"version"`
	Revision int64     `json:"revision"`
	App      string    `json:"app"`
	Remote   bool      `json:"remote"`
	State    string    `json:"state"`
	Health   string    `json:"health"`
	Message  string    `json:"message"` // of its health
	PID      int       `json:"pid"`
	Since    time.Time `json:"since"`
	Restarts int       `json:"restarts"`
	Error    string    `json:"error"`
}

func (n *Node) providerStatus() []ProviderStatus {
	var all []ProviderStatus
	for _, s := range n.processes.Running() {
		all = append(all, ProviderStatus{
			s.Key, s.LinkName, s.Contract, s.Name, s.Version, s.Revision, s.App, s.Remote, string(s.State), string(s.Health), s.HealthText,
			s.PID, s.Since.UTC(), s.Restarts, s.Err,
		})
	}
	return all
}

// AttachRequest asks for the line of a provider that somebody else starts.
type AttachRequest struct {
	Key         string `json:"key"`
	LinkName    string `json:"link_name"`
	Contract    string `json:"contract"`
	Name        string `json:"name"`
	Config      string `json:"config"`
	URL         string `json:"url"` // of another server than the box's
	JWT         string `json:"jwt"`
	Seed        string `json:"seed"`
	ClusterSeed bool   `json:"cluster_seed"`
	OwnInbox    bool   `json:"own_inbox"`
}

// Attached is the answer: what goes to the stdin of the provider.
type Attached struct {
	Line string `json:"line"`
}

// maxAttach bounds a request to attach.
const maxAttach = 1 << 20

func (n *Node) attachProvider(r *http.Request) (any, error) {
	var a AttachRequest
	d := json.NewDecoder(io.LimitReader(r.Body, maxAttach))
	d.DisallowUnknownFields()
	if err := d.Decode(&a); err != nil {
		return nil, fmt.Errorf("%w: %w", errRequest, err)
	}
	line, err := n.processes.Attach(r.Context(), child.Remote{
		Key: a.Key, LinkName: a.LinkName, Contract: a.Contract, Name: a.Name, Config: a.Config, URL: a.URL, JWT: a.JWT, Seed: a.Seed, ClusterSeed: a.ClusterSeed, OwnInbox: a.OwnInbox,
	})
	if err != nil && !errors.Is(err, child.ErrRunning) {
		err = fmt.Errorf("%w: %w", errRequest, err)
	}
	return Attached{string(line)}, err
}

func (n *Node) detachProvider(r *http.Request) (any, error) {
	return struct{}{}, n.processes.Detach(r.Context(), r.PathValue("key"), r.PathValue("link"))
}
