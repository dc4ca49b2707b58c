package powercut

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/edged-io/edged/store"
)

// plan is what the workload is to do.
type plan struct {
	Dir   string `json:"dir"`
	Seed  uint64 `json:"seed"`
	Acts  int    `json:"acts"` // about
	Plant string `json:"plant,omitempty"`
}

// Lives of a workload: the store is closed and opened again in between. In every
// other one few hands do all, so that most turns are alone in their transaction.
const lives = 4

// storeOptions are those of the workload's store and of each state's.
func storeOptions(dir string) store.Options {
	return store.Options{Dir: dir, MaxBytes: 32 << 20}
}

// Workload uses a store as spec says and tells on file 3 what it has been told.
// It is what the process does that Run starts, and of no other use.
func Workload(spec string) error {
	var p plan
	if err := json.Unmarshal([]byte(spec), &p); err != nil {
		return fmt.Errorf("workload: %w", err)
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil || bytes.Contains(status, []byte("TracerPid:\t0\n")) {
		return errors.New("workload: this is what edged selftest powercut starts and watches; it does nothing by itself")
	}
	// Where it can not be had, the tracer is slower and sees the same.
	_ = stopOnlyAt(calls)
	w := &workload{plan: p, ledger: make(map[uint64]bool)}
	for life := range lives {
		if err := w.live(life); err != nil {
			return fmt.Errorf("workload, life %d: %w", life+1, err)
		}
	}
	return nil
}

// workload is what its hands share.
type workload struct {
	plan
	db   *store.DB
	n    atomic.Int64 // acts begun
	jobs chan uint64  // published, and to be worked on

	mu      sync.Mutex // guards what follows
	put     []uint64   // jobs left for the next life
	stored  []job      // what repeats can be made of
	ledger  map[uint64]bool
	audited uint64 // every message of the ledger up to here was told
	letters []int  // acts that left a dead letter
}

type job struct {
	id  string
	seq uint64
}

// Hands of each kind in a busy life.
const hands = 3

func (w *workload) live(life int) (err error) {
	if w.db, err = store.Open(storeOptions(w.Dir)); err != nil {
		return err
	}
	defer func() {
		h := &hand{w: w}
		a := h.begin("restart", act{})
		if err = errors.Join(err, w.db.Close()); err == nil {
			h.told(a)
		}
	}()
	if err := w.prepare(); err != nil {
		return err
	}
	n := hands
	if life%2 == 1 {
		n = 1
	}
	each := max(1, w.Acts/lives/(3*n+1))
	w.jobs = make(chan uint64, len(w.put)+n*each*maxJobs)
	for _, seq := range w.put {
		w.jobs <- seq
	}
	w.put = nil

	errs := make(chan error, 3*n)
	var publishing, working sync.WaitGroup
	start := func(wg *sync.WaitGroup, number int, do func(*hand) error) {
		h := &hand{w: w, number: number, rand: rand.New(rand.NewPCG(w.Seed+uint64(life)<<32, uint64(number)))}
		wg.Go(func() { errs <- do(h) })
	}
	some := func(times int, from []*operation) func(*hand) error {
		return func(h *hand) error {
			for range times {
				if err := from[h.rand.IntN(len(from))].run(h); err != nil {
					return err
				}
			}
			return nil
		}
	}
	for i := range n {
		start(&publishing, i, some(each, publishingActs))
	}
	for i := range n {
		start(&working, hands+i, func(h *hand) error {
			for seq := range w.jobs {
				if err := h.work(seq); err != nil {
					return err
				}
			}
			return nil
		})
	}
	for i := range n {
		keep := some(each, keepingActs)
		if i == 0 {
			half := some(each/2, keepingActs)
			keep = func(h *hand) error {
				if err := half(h); err != nil {
					return err
				}
				if err := opCompact.run(h); err != nil {
					return err
				}
				return half(h)
			}
		}
		start(&working, 2*hands+i, keep)
	}
	publishing.Wait()
	close(w.jobs)
	working.Wait()
	close(errs)
	for e := range errs {
		err = errors.Join(err, e)
	}
	return err
}

// hand is a goroutine that does one act after the other.
type hand struct {
	w      *workload
	number int
	rand   *rand.Rand
	temp   int // how far it is with its temporary stream
}

// begin says that the act begins now.
func (h *hand) begin(op string, a act) *act {
	a.N, a.Op, a.Hand = int(h.w.n.Add(1)), op, h.number
	mark(&a)
	return &a
}

// told says that the hand was told that the act is done.
func (h *hand) told(a *act) { mark(&act{N: a.N, Told: true, Seqs: a.Seqs}) }

func mark(a *act) {
	b, err := json.Marshal(a)
	if err == nil {
		_, err = syscall.Write(markFile, b)
	}
	if err != nil {
		panic("workload: mark: " + err.Error())
	}
}

// do runs fn in a turn and tells that it is done, with the sequences of the
// messages it has published.
func (h *hand) do(a *act, fn func(t *store.Turn) ([]*store.Receipt, error)) error {
	var receipts []*store.Receipt
	tell := func() {
		for _, r := range receipts {
			a.Seqs = append(a.Seqs, r.Seq)
		}
		h.told(a)
	}
	early := h.w.Plant == plantEarly
	err := h.w.db.Do(context.Background(), func(_ context.Context, t *store.Turn) (err error) {
		if early {
			t.OnQueued(tell)
		}
		receipts, err = fn(t)
		return err
	})
	if err != nil {
		return fmt.Errorf("%s: %w", a, err)
	}
	if !early {
		tell()
	}
	return nil
}

// publish stages the messages of an act.
func (a *act) publish(t *store.Turn, stream string, id func(i int) string) (receipts []*store.Receipt, err error) {
	for i := range a.K {
		m := store.Message{Subject: stream + ".made", Data: a.body(i), Delay: time.Duration(a.Delay)}
		if id != nil {
			m.ID = id(i)
		}
		r, err := t.Publish(stream, m)
		if err != nil {
			return nil, err
		}
		receipts = append(receipts, r)
	}
	return receipts, nil
}

// body is message i of an act: which one it is, and bytes that no other has.
func (a *act) body(i int) []byte {
	for len(a.bodies) <= i {
		a.bodies = append(a.bodies, a.makeBody(len(a.bodies)))
	}
	return a.bodies[i]
}

func (a *act) makeBody(i int) []byte {
	b := strconv.AppendInt(nil, int64(a.N), 10)
	b = append(b, ' ')
	b = strconv.AppendInt(b, int64(i), 10)
	b = append(b, ' ')
	for n := len(b); n < a.Size; n++ {
		b = append(b, byte('a'+(n*7+a.N*3+i)%26))
	}
	return b
}
