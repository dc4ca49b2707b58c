package child

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/edged-io/edged/internal/atomicfile"
	"github.com/edged-io/edged/internal/claims"
	"github.com/edged-io/edged/lattice/wire"
)

// Remote says which provider somebody else starts, and how it reaches the lattice.
type Remote struct {
	Key      string // "V…"
	LinkName string // "" for "default"
	Contract string
	Name     string // for people; may be empty
	Config   string // config_json of the host data
	// URL is where it connects to, "" for the NATS listener of the box. With a URL of
	// another server it logs in there by the JWT and seed of a user, or not at all.
	URL, JWT, Seed string
	ClusterSeed    bool // as in Spec
	OwnInbox       bool // the same
	App            string
}

// attached is what a remote provider was told, as it is kept: the program may run for
// longer than this process.
type attached struct {
	Version int         `json:"version"`
	Remote  Remote      `json:"remote"`
	Login   login       `json:"login"`
	Own     string      `json:"own_seed"` // it signs with; "" with ClusterSeed
	Told    []wire.Link `json:"links"`    // that were in its line
}

const attachedVersion = 1

// Attach makes known a provider that somebody else starts, and returns the line for its
// stdin, which is a secret. It is never started or stopped from here, but its health is
// followed, and it is told of links; this lasts until Detach, also over restarts of the
// box. Attached again, it gets another line, and the one before is worth nothing any
// more. Errors: ErrRunning for one that runs here, ErrListener. OwnInbox does not go with
// URL.
func (m *Manager) Attach(ctx context.Context, r Remote) ([]byte, error) {
	r.LinkName = cmp.Or(r.LinkName, defaultLink)
	in, err := m.newRemote(r)
	if err == nil && r.OwnInbox && r.URL != "" {
		err = fmt.Errorf("only providers that log in here can be kept to inboxes of their own: what one may read at %s is up to the permissions of its login there", r.URL)
	}
	if err != nil {
		return nil, fmt.Errorf("attach provider %s: %w", r.Key, err)
	}
	m.mu.Lock()
	old := m.providers[in.id]
	in.told = m.sortedLinks(in.id)
	m.mu.Unlock()
	line, err := in.remoteLine(r)
	switch {
	case err != nil:
	case old != nil && !old.status.Remote:
		err = ErrRunning
	case old != nil:
		m.drop(old)
		fallthrough
	default:
		err = errors.Join(in.keep(r), ctx.Err())
	}
	if err == nil {
		err = m.add(in)
	}
	if err != nil {
		return nil, fmt.Errorf("attach provider %s: %w", r.Key, err)
	}
	return line, nil
}

// Detach forgets a provider that was attached; its line is worth nothing any more.
// Its links stay. The error is ErrUnknown for one that is not attached.
func (m *Manager) Detach(_ context.Context, key, link string) error {
	link = cmp.Or(link, defaultLink)
	m.mu.Lock()
	in := m.providers[id{key, link}]
	m.mu.Unlock()
	if in == nil || !in.status.Remote {
		return fmt.Errorf("detach provider %s, link name %s: %w", key, link, ErrUnknown)
	}
	m.drop(in)
	if err := os.Remove(m.attachedPath(in.id)); err != nil {
		return fmt.Errorf("detach provider %s: %w", key, err)
	}
	return nil
}

func (m *Manager) newRemote(r Remote) (*instance, error) {
	in, err := m.newInstance(Spec{
		Key: r.Key, LinkName: r.LinkName, Contract: r.Contract, Name: r.Name, Config: r.Config, ClusterSeed: r.ClusterSeed, OwnInbox: r.OwnInbox, App: r.App,
	}, "")
	if err != nil {
		return nil, err
	}
	in.status.Remote, in.status.State = true, Away
	return in, nil
}

// remoteLine is the host data of a provider elsewhere.
func (in *instance) remoteLine(r Remote) ([]byte, error) {
	h := in.hostData(newID(), in.told)
	switch u, err := url.Parse(r.URL); {
	case r.URL == "":
		if err = in.logIn(&h); err != nil {
			return nil, err
		}
	case err != nil || u.Host == "" || strings.ContainsAny(r.URL, " \r\n"):
		return nil, fmt.Errorf("%.80q is not a URL of a NATS server, such as nats://hub.example.com:4222", r.URL)
	default:
		h.URL, h.UserJWT, h.UserSeed = r.URL, r.JWT, r.Seed
		h.Edged = nil // what its user may do there is not the box's to say
	}
	return h.Line()
}

func (m *Manager) attachedPath(i id) string {
	return filepath.Join(m.o.Dir, attachedDir, i.key+"."+i.link+".json")
}

// keep writes down what the provider was told, before anybody can use it.
func (in *instance) keep(r Remote) error {
	a := attached{Version: attachedVersion, Remote: r, Login: in.login, Told: in.told}
	a.Remote.JWT, a.Remote.Seed = "", "" // of a server elsewhere, and in the line only
	if !r.ClusterSeed {
		a.Own = in.seed.Reveal()
	}
	b, err := json.Marshal(a)
	if err != nil {
		return err
	}
	return atomicfile.Replace(in.m.attachedPath(in.id), append(b, '\n'), 0o600)
}

// readAttached makes those known that were attached before. One whose file can not be
// read is moved aside.
func (m *Manager) readAttached() error {
	dir := filepath.Join(m.o.Dir, attachedDir)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if filepath.Ext(path) != ".json" || atomicfile.IsTemp(e.Name()) {
			continue
		}
		in, err := m.readOne(path)
		if err == nil {
			m.providers[in.id] = in
			err = in.enter()
		}
		if err != nil {
			m.log.Error("attached provider can not be read, its file is moved aside: attach it again", "file", path, "err", err)
			if err := os.Rename(path, path+".bad"); err != nil {
				return err
			}
		}
	}
	return nil
}

func (m *Manager) readOne(path string) (*instance, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var a attached
	d := json.NewDecoder(bytes.NewReader(b))
	if err := d.Decode(&a); err != nil {
		return nil, err
	}
	if a.Version != attachedVersion {
		return nil, fmt.Errorf("it is of version %d, want %d", a.Version, attachedVersion)
	}
	in, err := m.newRemote(a.Remote)
	if err != nil {
		return nil, err
	}
	in.login, in.told = a.Login, a.Told
	if !a.Remote.ClusterSeed {
		in.seed, err = claims.ParseSeed(a.Own)
	}
	return in, err
}

// follow asks a remote provider how it is until ctx ends, and notices when it goes and
// comes.
func (in *instance) follow(ctx context.Context) {
	log := in.m.log.With("provider", in.title(), "link", in.id.link)
	in.watch(ctx, log, nil, watchOptions{
		every: in.m.t.remote, unwell: in.m.t.away,
		answered: func() {
			log.Info("attached provider answers")
			in.update(func(s *Status) {
				s.State, s.Err = Running, ""
				if s.Instance == "" {
					s.Instance = newID()
				}
			})
			// It may have begun anew, with its line, or have missed something.
			in.m.catchUp(ctx, in.id, byActor(in.told), true)
		},
		silent: func(err error) {
			log.Warn("attached provider does not answer", "err", err)
			in.update(func(s *Status) { s.State, s.Err, s.Instance = Away, err.Error(), "" })
		},
	})
}

func byActor(links []wire.Link) linksOf {
	of := make(linksOf, len(links))
	for _, l := range links {
		of[l.Actor] = l
	}
	return of
}
