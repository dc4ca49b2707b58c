package broker

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/edged-io/edged/internal/claims"
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
		Publish: &server.SubjectPermission{Allow: append([]string{}, p.Publish...)},
		// What the hub answers the box is for the box, also where p has all inboxes.
		Subscribe: &server.SubjectPermission{Allow: slices.Clone(p.Subscribe), Deny: []string{boxInboxes + ">"}},
		Response:  &server.ResponsePermission{MaxMsgs: maxAnswers, Expires: answerTime},
	}
	if len(p.Subscribe) == 0 {
		sp.Subscribe.Deny = append(sp.Subscribe.Deny, ">")
	}
	return sp
}

// users are those of the embedded server. A client that says nothing of itself is
// the user app. It is the server's authenticator: users come and go without a reload,
// which would look at every client and every account again.
type users struct {
	ns *server.Server // set before it starts

	mu    sync.RWMutex // guards what follows
	known map[string]user
	keyed map[uint64]string // users of connections that came by a key; some may be gone
}

type user struct {
	password string
	key      func() claims.Key // in place of the password
	name     string            // "" for those of the box itself
	account  string
	perms    *server.Permissions // nil for all
}

func newUser(l Login, p Permissions) user {
	return user{password: l.Password, key: keyOf(l), name: l.User, account: AccountLink, perms: p.server()}
}

func newUsers(app, link Login) *users {
	return &users{keyed: make(map[uint64]string), known: map[string]user{
		app.User:  {password: app.Password, key: keyOf(app), account: AccountApp},
		link.User: {password: link.Password, key: keyOf(link), account: AccountLink},
	}}
}

// keyOf returns the key of a login, which is made when it is asked for: most never are.
func keyOf(l Login) func() claims.Key {
	return sync.OnceValue(func() claims.Key {
		_, seed := claims.NATSUser(l.User, l.Password)
		return seed.Key()
	})
}

// byToken is how the box itself logs in. The server hangs up on those that came by a name
// and a password when it begins to call the hub, since that is a reload and they are not
// among its own users; not on these, nor on those that came by a key, which takes longer.
func byToken(l Login) nats.Option { return nats.Token(l.Password) }

// Check says who a client is; the server calls it.
func (u *users) Check(c server.ClientAuthentication) bool {
	o := c.GetOpts()
	if o.Username == "" && o.Password == "" && o.Token == "" && o.Nkey == "" && o.Sig == "" {
		return u.register(c, user{account: AccountApp})
	}
	// The lock is held until the client is registered, so that remove finds it.
	u.mu.Lock()
	defer u.mu.Unlock()
	if o.Sig != "" {
		known, ok := u.bySignature(c.GetNonce(), o.Sig)
		if ok && known.name != "" {
			u.noteKeyed(c.GetID(), known.name)
		}
		return ok && u.register(c, known)
	}
	if o.Token != "" {
		known, ok := u.byToken(o.Token)
		return ok && u.register(c, known)
	}
	known, ok := u.known[o.Username]
	if subtle.ConstantTimeCompare([]byte(known.password), []byte(o.Password)) != 1 || !ok {
		return false
	}
	return u.register(c, known)
}

// byToken finds whose password the token is, of the users of the box itself. Call it with
// u.mu held.
func (u *users) byToken(token string) (user, bool) {
	for _, k := range u.known {
		if k.name == "" && subtle.ConstantTimeCompare([]byte(k.password), []byte(token)) == 1 {
			return k, true
		}
	}
	return user{}, false
}

// bySignature finds who has signed what the server has sent to this client. The server
// drops the token that comes with it, so it tries them all; they are few. Call it with
// u.mu held.
func (u *users) bySignature(nonce []byte, sig string) (user, bool) {
	raw, err := base64.RawURLEncoding.DecodeString(sig)
	if err != nil { // the other form that clients have
		raw, err = base64.StdEncoding.DecodeString(sig)
	}
	if err != nil || len(nonce) == 0 {
		return user{}, false
	}
	for _, k := range u.known {
		if k.key().Verify(nonce, raw) == nil {
			return k, true
		}
	}
	return user{}, false
}

// maxKeyed is how many connections that came by a key may be noted before those that
// are gone are forgotten.
const maxKeyed = 64

// noteKeyed notes who a connection is. Call it with u.mu held.
func (u *users) noteKeyed(id uint64, name string) {
	if len(u.keyed) >= maxKeyed {
		maps.DeleteFunc(u.keyed, func(id uint64, _ string) bool { return u.ns.GetClient(id) == nil })
	}
	u.keyed[id] = name
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
	u.known[name] = newUser(l, p)
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
	u.known[l.User] = newUser(l, p)
	return nil
}

// remove forgets a user that add made, and cuts its connections.
func (u *users) remove(name string) {
	u.mu.Lock()
	known, ok := u.known[name]
	if ok = ok && known.perms != nil; ok {
		delete(u.known, name)
	}
	var cut []uint64
	for id, of := range u.keyed {
		if of == name && ok {
			delete(u.keyed, id)
			cut = append(cut, id)
		}
	}
	u.mu.Unlock()
	if !ok {
		return
	}
	for _, id := range cut {
		_ = u.ns.DisconnectClientByID(id) // it went by itself, or it goes now
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
// Most clients take the login in the URL, nats://USER:PASSWORD@HOST:PORT, where neither
// needs to be escaped. That of Rust ignores it there: it can be given what
// claims.NATSUser makes of the login, a token and a seed.
func (s *Server) AddUser(name string, p Permissions) (Login, error) { return s.nats.users.add(name, p) }

// PutUser is AddUser with a login of the caller's, for programs that keep theirs when
// this process ends. A user of that name is replaced, and its connections are cut. The
// password is 16 characters at least.
func (s *Server) PutUser(l Login, p Permissions) error { return s.nats.users.put(l, p) }

// RemoveUser forgets a user that AddUser or PutUser made and cuts its connections; one that is
// not there is no error.
func (s *Server) RemoveUser(name string) { s.nats.users.remove(name) }
