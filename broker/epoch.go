package broker

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/edged-io/edged/store"
)

// spaceHub is the space of the store in which the pumps keep what they know.
const spaceHub = "$hub"

const keyEpoch = "epoch"

// maxFormer bounds how many epochs that ended are remembered.
const maxFormer = 16

// Why an epoch ended.
const (
	// epochMoved: the store woke up on another machine. All it held then is
	// what the old epoch held.
	epochMoved = "moved"
	// epochDiverged: the hub has messages of the epoch that are not the
	// store's, so the store was restored or is one of two copies.
	epochDiverged = "diverged"
)

// formerEpoch is an epoch that ended.
type formerEpoch struct {
	ID     string    `json:"id"`
	Ended  string    `json:"ended"` // epochMoved or epochDiverged
	Time   time.Time `json:"time"`
	Bounds bounds    `json:"until,omitempty"`
}

// bounds are the last sequences of streams.
type bounds map[string]uint64

type epochRecord struct {
	Current string        `json:"current"`
	Machine string        `json:"machine"` // a hash; "" while not known
	Former  []formerEpoch `json:"former,omitempty"`
}

// epochs knows which epoch the store is in. An epoch numbers messages: within
// it a sequence of a stream is one message, for ever. Its methods may be called
// from any goroutine.
type epochs struct {
	db  *store.DB
	log *slog.Logger
	now func() time.Time

	mu  sync.Mutex // guards rec
	rec epochRecord
}

// MachineID returns what names this machine, the content of /etc/machine-id,
// or "" if there is none.
func MachineID() (string, error) {
	b, err := os.ReadFile("/etc/machine-id")
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("machine id: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// machineHash is what the store keeps of a machine id, which is not to be
// shown to others.
func machineHash(id string) string {
	if id == "" {
		return ""
	}
	sum := sha256.Sum256([]byte("edged epoch " + id))
	return hex.EncodeToString(sum[:8])
}

func newEpochID() string { return rand.Text()[:16] }

// openEpochs reads the epoch of the store, gives it one if it has none, and a
// new one if it was last used on another machine.
func openEpochs(ctx context.Context, db *store.DB, machineID string, log *slog.Logger, now func() time.Time) (*epochs, error) {
	e := &epochs{db: db, log: log, now: now}
	machine := machineHash(machineID)
	moved := false
	err := db.Do(ctx, func(_ context.Context, t *store.Turn) error {
		e.rec, moved = epochRecord{}, false
		if _, err := getRecord(t, keyEpoch, &e.rec); err != nil {
			return err
		}
		switch {
		case e.rec.Current == "":
			e.rec = epochRecord{Current: newEpochID(), Machine: machine}
		case machine == "" || machine == e.rec.Machine:
			return nil // not knowing the machine is no reason to think it another
		case e.rec.Machine == "":
			e.rec.Machine = machine
		default:
			e.rec = e.rec.next(epochMoved, lastSequences(db), now())
			e.rec.Machine, moved = machine, true
		}
		return putRecord(t, keyEpoch, e.rec)
	})
	if err != nil {
		return nil, fmt.Errorf("epoch of the store: %w", err)
	}
	if moved {
		log.Warn("this store was last used on another machine and begins a new epoch",
			"epoch", e.rec.Current, "former", e.rec.Former[0].ID)
	}
	return e, nil
}

// next returns the record after the current epoch has ended.
func (r epochRecord) next(ended string, until bounds, now time.Time) epochRecord {
	former := append([]formerEpoch{{ID: r.Current, Ended: ended, Time: now.UTC(), Bounds: until}}, r.Former...)
	return epochRecord{Current: newEpochID(), Machine: r.Machine, Former: former[:min(len(former), maxFormer)]}
}

func lastSequences(db *store.DB) bounds {
	b := make(bounds)
	for _, s := range db.Streams() {
		b[s.Name] = s.Last
	}
	return b
}

// current returns the id of the epoch.
func (e *epochs) current() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.rec.Current
}

// find returns the former epoch with that id.
func (e *epochs) find(id string) (formerEpoch, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, f := range e.rec.Former {
		if f.ID == id {
			return f, true
		}
	}
	return formerEpoch{}, false
}

// diverge ends epoch id because the hub holds other messages under it. If it
// has ended already, nothing changes.
func (e *epochs) diverge(ctx context.Context, id string) error {
	e.mu.Lock()
	rec := e.rec
	e.mu.Unlock()
	if rec.Current != id {
		return nil
	}
	next := rec.next(epochDiverged, nil, e.now())
	changed := false
	err := e.db.Do(ctx, func(_ context.Context, t *store.Turn) error {
		var stored epochRecord
		if ok, err := getRecord(t, keyEpoch, &stored); err != nil || !ok || stored.Current != id {
			changed = false
			return err
		}
		changed = true
		return putRecord(t, keyEpoch, next)
	})
	if err != nil {
		return fmt.Errorf("new epoch after %s: %w", id, err)
	}
	if changed {
		e.mu.Lock()
		e.rec = next
		e.mu.Unlock()
	}
	return nil
}

// getRecord reads a record of the pumps in a turn.
func getRecord(t *store.Turn, key string, to any) (ok bool, err error) {
	value, ok, err := t.Get(spaceHub, key)
	if err != nil || !ok {
		return false, err
	}
	if err := json.Unmarshal(value, to); err != nil {
		return false, fmt.Errorf("%s in space %s: %w", key, spaceHub, err)
	}
	return true, nil
}

// putRecord stages a record of the pumps.
func putRecord(t *store.Turn, key string, v any) error {
	value, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return t.Put(spaceHub, key, value)
}
