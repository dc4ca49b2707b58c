package broker

import (
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/edged-io/edged/internal/topic"
)

// Errors of users.
var (
	ErrUserTaken = errors.New("there is a user of that name")
	ErrUserName  = errors.New("name of a user must match " + userName.String())
)

const userName = deviceID

// Login is a user of the embedded server.
type Login struct{ User, Password string }

// LogValue keeps the password out of logs.
func (l Login) LogValue() slog.Value { return slog.StringValue(l.User) }

// Permissions are what a user may do: subjects, with wildcards, of each kind. An
// empty list is for nothing.
type Permissions struct {
	Publish   []string `json:"publish"`
	Subscribe []string `json:"subscribe"`
}

func (p Permissions) check() error {
	for _, list := range [][]string{p.Publish, p.Subscribe} {
		for _, s := range list {
			if !topic.ValidFilter(s) {
				return fmt.Errorf("permission %.80q: not a subject", s)
			}
		}
	}
	return nil
}

const (
	// maxAnswers is how often a user may answer one request: once, and more often
	// for kits that answer once for each actor.
	maxAnswers = 64
	// answerTime is how late it may do so.
	answerTime = 2 * time.Minute
)

// server returns the same in the words of the embedded server. Beside what it may
// publish, a user may answer what it was asked.
func (p Permissions) server() *server.Permissions {
	sp := &server.Permissions{
		// Nil would be for everything.
		Publish:   &server.SubjectPermission{Allow: append([]string{}, p.Publish...)},
		Subscribe: &server.SubjectPermission{Allow: slices.Clone(p.Subscribe)},
		Response:  &server.ResponsePermission{MaxMsgs: maxAnswers, Expires: answerTime},
	}
	if len(p.Subscribe) == 0 {
		sp.Subscribe.Deny = []string{">"}
	}
	return sp
}

// users are those of the embedded server. A client that says nothing of itself is
// the user app. It is the server's authenticator: users come and go without a reload,
// which would look at every client and every account again.
type users struct {
	ns *server.Server // set before it starts

	mu    sync.RWMutex // guards known
	known map[string]user
}

type user struct {
	password string
	account  string
	perms    *server.Permissions // nil for all
}

func newUsers(app, link Login) *users {
	return &users{known: map[string]user{
		app.User:  {password: app.Password, account: AccountApp},
		link.User: {password: link.Password, account: AccountLink},
	}}
}

// Check says who a client is; the server calls it.
func (u *users) Check(c server.ClientAuthentication) bool {
	o := c.GetOpts()
	if o.Username == "" && o.Password == "" && o.Token == "" && o.Nkey == "" && o.JWT == "" {
		return u.register(c, user{account: AccountApp})
	}
	// The lock is held until the client is registered, so that remove finds it.
	u.mu.RLock()
	defer u.mu.RUnlock()
	known, ok := u.known[o.Username]
	if subtle.ConstantTimeCompare([]byte(known.password), []byte(o.Password)) != 1 || !ok {
		return false
	}
	return u.register(c, known)
}

func (u *users) register(c server.ClientAuthentication, known user) bool {
	account, err := u.ns.LookupAccount(known.account)
	if err != nil {
		return false
	}
	c.RegisterUser(&server.User{Account: account, Permissions: known.perms})
	return true
}

func (u *users) add(name string, p Permissions) (Login, error) {
	if !userName.MatchString(name) {
		return Login{}, fmt.Errorf("user %.80q: %w", name, ErrUserName)
	}
	if err := p.check(); err != nil {
		return Login{}, fmt.Errorf("user %s: %w", name, err)
	}
	l := Login{User: name, Password: rand.Text()}
	u.mu.Lock()
	defer u.mu.Unlock()
	if _, taken := u.known[name]; taken {
		return Login{}, fmt.Errorf("user %s: %w", name, ErrUserTaken)
	}
	u.known[name] = user{password: l.Password, account: AccountLink, perms: p.server()}
	return l, nil
}

const minPassword = 16

func (u *users) put(l Login, p Permissions) error {
	if !userName.MatchString(l.User) {
		return fmt.Errorf("user %.80q: %w", l.User, ErrUserName)
	}
	if err := p.check(); err != nil {
		return fmt.Errorf("user %s: %w", l.User, err)
	}
	if len(l.Password) < minPassword {
		return fmt.Errorf("user %s: a password of less than %d characters", l.User, minPassword)
	}
	u.mu.RLock()
	known, taken := u.known[l.User]
	u.mu.RUnlock()
	if taken && known.perms == nil {
		return fmt.Errorf("user %s: %w", l.User, ErrUserTaken)
	}
	u.remove(l.User)
	u.mu.Lock()
	defer u.mu.Unlock()
	u.known[l.User] = user{password: l.Password, account: AccountLink, perms: p.server()}
	return nil
}

// remove forgets a user that add made, and cuts its connections.
func (u *users) remove(name string) {
	u.mu.Lock()
	known, ok := u.known[name]
	if ok = ok && known.perms != nil; ok {
		delete(u.known, name)
	}
	u.mu.Unlock()
	if !ok {
		return
	}
	z, err := u.ns.Connz(&server.ConnzOptions{Username: true, User: name, Limit: math.MaxInt32})
	if err != nil {
		return // the server is gone, and its connections with it
	}
	for _, c := range z.Conns {
		_ = u.ns.DisconnectClientByID(c.Cid) // it went by itself, or it goes now
	}
}

// AddUser makes a user of the account LINK, for a program that is not to be trusted
// with all of it: it may publish and subscribe to what p lists, and answer what it is
// asked. The user lasts until RemoveUser, or the end of the process. name matches
// [A-Za-z0-9_-]{1,64}; the error wraps ErrUserName, or ErrUserTaken. What p lists has
// to be subjects.
//
// Clients in every language take the login in the URL: nats://USER:PASSWORD@HOST:PORT.
// Neither needs to be escaped there.
func (s *Server) AddUser(name string, p Permissions) (Login, error) { return s.nats.users.add(name, p) }

// PutUser is AddUser with a login of the caller's, for programs that keep theirs when
// this process ends. A user of that name is replaced, and its connections are cut. The
// password is 16 characters at least.
func (s *Server) PutUser(l Login, p Permissions) error { return s.nats.users.put(l, p) }

// RemoveUser forgets a user that AddUser or PutUser made and cuts its connections; one that is
// not there is no error.
func (s *Server) RemoveUser(name string) { s.nats.users.remove(name) }
