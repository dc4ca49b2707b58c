package child

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	"github.com/edged-io/edged/internal/claims"
	"github.com/edged-io/edged/lattice/wire"
)

const defaultLink = "default"

// A Spec says which provider is to run.
type Spec struct {
	// Key is the provider's, "V…"; "" for that of the Archive. LinkName is "" for
	// "default". Contract is "" for that of the Archive.
	Key      string
	LinkName string
	Contract string
	Name     string // for people; "" for that of the Archive
	Version  string
	Revision int64

	// One of the two: the path of a provider archive, whose signature is checked, or of
	// a program, for which the caller vouches.
	Archive string
	Program string
	// Copy has the program copied before it runs, so that its mode, and what becomes of
	// the file, do not matter.
	Copy bool

	Config string            // config_json of the host data
	Env    map[string]string // beside the few variables that every provider has
	// ClusterSeed gives the provider the cluster's key to sign with, in place of one of
	// its own: for one that calls actors on other hosts. It can then speak for anybody.
	ClusterSeed bool
	// OwnInbox keeps the provider to the inboxes that the host data name. Without it it
	// may take replies wherever it likes, and those of others: kits know no better.
	OwnInbox bool
	Limits   Limits

	issuer string // of the Archive, when it was verified

	Ref         string // where it came from; for inventories
	Annotations map[string]string
	App         string // that declares it, "" for none
}

// Limits bound a process and all it starts, where the kernel lets the box do that; 0
// is for none.
type Limits struct {
	Memory  int64 // bytes
	Tasks   int   // processes and threads
	Percent int   // of one CPU
	// User is who it runs as, a name or a number, where the box runs as root; "" for the
	// box's own.
	User string
}

func (s Spec) title() string {
	return cmp.Or(s.Name, s.Key, s.Archive, s.Program, "without a name") + ", link name " + cmp.Or(s.LinkName, defaultLink)
}

// check fills in what may be left out.
func (s *Spec) check() error {
	s.LinkName = cmp.Or(s.LinkName, defaultLink)
	key, err := claims.Parse(s.Key)
	switch {
	case err != nil || key.Kind() != claims.Service:
		return fmt.Errorf("%.60q is not the key of a provider, V and 55 letters: %w", s.Key, claims.ErrKey)
	case len(s.LinkName) > 64 || !wire.IsToken(s.LinkName):
		return fmt.Errorf("link name %.80q: want 1 to 64 letters, digits, _ and -", s.LinkName)
	case s.Contract == "":
		return errors.New("which contract does it serve? Neither the archive nor who starts it says so")
	case len(s.Contract) > wire.MaxName:
		return fmt.Errorf("contract id of %d bytes, at most %d", len(s.Contract), wire.MaxName)
	}
	return nil
}

// State is what a provider is doing.
type State string

// The states of providers.
const (
	Idle    State = "idle"    // it is started when the box runs
	Running State = "running" // its process is there, or answers where it is remote
	Waiting State = "waiting" // its process ended by itself and is started again
	Failed  State = "failed"  // it was given up
	Away    State = "away"    // a remote one does not answer
	Stopped State = "stopped" // and is not in Running any more
)

// Health is what a provider said last when it was asked.
type Health string

// What is known of a provider's health.
const (
	HealthUnknown Health = "unknown"
	Healthy       Health = "healthy"
	Unhealthy     Health = "unhealthy"
)

// Status is how a provider is.
type Status struct {
	Key         string
	LinkName    string
	Contract    string
	Name        string
	Version     string
	Revision    int64
	Issuer      string // A key that signed its archive, "" for a program
	Ref         string
	Annotations map[string]string // not to be changed
	App         string
	Remote      bool // somebody else has started it

	State      State
	Health     Health
	HealthText string    // what it said of it, or why it did not
	PID        int       // 0 without a process
	Since      time.Time // in this state
	Instance   string    // a UUID, another one after each start
	Restarts   int
	NextTry    time.Time // when State is Waiting
	Err        string    // why it does not run; "" if it does
}
