package runtime

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/edged-io/edged/sdk/go/msgpack"
)

// Limits of an actor. The zero value of a field means its default.
type Limits struct {
	MemoryBytes      uint64        // of one instance; default 32 MiB
	Time             time.Duration // of one call, waiting for host calls included; default 5 s
	Steps            uint64        // of one call: loop rounds and function entries; 0 for no bound but Time
	MinInstances     int           // kept warm once they were made; default 1
	MaxInstances     int           // calls in progress at once; further ones wait; default 8
	CallsPerInstance int           // after which an instance is replaced, 1 for one of its own for each call; 0 for no bound
}

func (l Limits) withDefaults() Limits {
	if l.MemoryBytes == 0 {
		l.MemoryBytes = 32 << 20
	}
	if l.Time <= 0 {
		l.Time = 5 * time.Second
	}
	if l.MaxInstances <= 0 {
		l.MaxInstances = 8
	}
	if l.MinInstances <= 0 {
		l.MinInstances = 1
	}
	l.MinInstances = min(l.MinInstances, l.MaxInstances)
	return l
}

// An Actor is a loaded module with an identity and limits. Its methods may be
// called concurrently.
type Actor struct {
	identity string
	limits   Limits
	host     *Host
	module   *module
	output   *guestLog
	pool     *pool

	meters meters
	share  share // of the cores
	deaths deaths
	memory atomic.Int64 // bytes that its instances hold

	released sync.Once // the module
}

// Identity is the name under which the actor was loaded.
func (a *Actor) Identity() string { return a.identity }

// Call has the actor handle an operation. It waits while MaxInstances calls are
// in progress, as long as ctx lets it; the time limit begins when the guest
// does. Whatever the guest asks of the host is done under ctx, with the call's
// deadline. The response is the caller's.
//
// Errors: a *GuestError if the actor answered with one; a *TrapError, which is
// ErrMemory where a refused growth was the reason; ErrTimeLimit; ErrStepLimit;
// ErrDeadlock; ErrHostMemory; ErrClosed; the cause of ctx if it ended first.
func (a *Actor) Call(ctx context.Context, operation string, payload []byte) ([]byte, error) {
	return a.CallAppend(ctx, nil, operation, payload)
}

// CallAppend is Call for a caller with a buffer: it appends the response to dst
// and returns the extended slice, or dst as it is with an error. With room in
// dst, a call allocates nothing.
func (a *Actor) CallAppend(ctx context.Context, dst []byte, operation string, payload []byte) ([]byte, error) {
	in, err := a.acquire(ctx, operation)
	if err != nil {
		a.meters.failed(ctx, err)
		return dst, err
	}
	defer a.release(in)
	response, err := in.serve(ctx, dst, operation, payload)
	if err != nil {
		return dst, err
	}
	return response, nil
}

// acquire returns an instance for one call.
func (a *Actor) acquire(ctx context.Context, operation string) (*instance, error) {
	for {
		in, slot, err := a.pool.acquire(ctx)
		if in == nil && err == nil {
			in, err = a.make(ctx, operation, slot)
		} else if err != nil {
			err = fmt.Errorf("actor %s: %s: %w", a.identity, operation, err)
		}
		if !errors.Is(err, errCrowded) {
			return in, err
		}
	}
}

// errCrowded: there is no memory for another instance, but there are others.
var errCrowded = errors.New("wait for an instance that there is")

// make makes an instance in a slot of the pool.
func (a *Actor) make(ctx context.Context, operation string, slot int) (*instance, error) {
	waited, err := a.deaths.wait(ctx)
	if waited {
		a.meters.restarts.Add(1)
	}
	if err != nil {
		a.pool.drop(slot)
		return nil, fmt.Errorf("actor %s: %s: wait for an instance, too many of them have died: %w", a.identity, operation, err)
	}
	var in *instance
	if err = a.host.memory.hasRoom(a.pool.largest()); err == nil {
		in, err = newInstance(ctx, a, slot)
	}
	switch noMemory := errors.Is(err, ErrHostMemory); {
	case noMemory && a.pool.crowd(slot):
		return nil, errCrowded
	case noMemory:
		return nil, err
	case err != nil:
		if ctx.Err() == nil {
			a.deaths.note(clock(), 0)
		}
		a.pool.drop(slot)
		return nil, err
	}
	a.meters.started.Add(1)
	a.pool.enter(in)
	return in, nil
}

// release ends a call, and gives the instance to the next one if it may have it.
func (a *Actor) release(in *instance) {
	in.end()
	switch {
	case in.dead:
		if !in.left { // others are not to pay for callers that leave
			a.deaths.note(clock(), in.stackBytes())
		}
		in.discard()
	case in.outgrown(), in.usedUp():
		a.meters.recycled.Add(1)
		in.discard()
	default:
		a.pool.put(in)
	}
}

// The operation by which an actor is asked for its health, and one that none knows.
const (
	healthRequest = "HealthRequest"
	noOperation   = "NoSuchOperation"
)

// emptyMap is a request without fields: with no bytes at all, Rust actors fail.
var emptyMap = []byte{0x80}

// Healthy asks the actor for its health. An actor that does not know the
// question is healthy, as long as it answers. The error is ErrUnhealthy with
// the actor's reason, or what Call returns.
func (a *Actor) Healthy(ctx context.Context) error {
	response, err := a.Call(ctx, "Actor."+healthRequest, emptyMap)
	var guest *GuestError
	switch {
	case err == nil:
	case !errors.As(err, &guest):
		return err
	case guest.Text == "" || NotHandled(err) || a.saysToAll(ctx, guest.Text):
		return nil
	default:
		return fmt.Errorf("%w: %w", ErrUnhealthy, err)
	}
	healthy, message := true, ""
	d := msgpack.NewDecoder(response)
	for range d.Map() {
		switch string(d.Key()) {
		case "healthy":
			healthy = d.Bool()
		case "message":
			message = d.Str()
		default:
			d.Skip()
		}
	}
	// An answer in another form is an answer.
	if d.Done() == nil && !healthy {
		return fmt.Errorf("%w: actor %s: %s", ErrUnhealthy, a.identity, cleanText([]byte(message)))
	}
	return nil
}

// saysToAll says whether the error that the actor gave when it was asked for its
// health says nothing about that: it gives the same one, but for the name, where
// it is asked for what does not exist. Guests without a library have words of
// their own for what they do not know, and some never look at the operation.
func (a *Actor) saysToAll(ctx context.Context, text string) bool {
	_, err := a.Call(ctx, "Actor."+noOperation, emptyMap)
	var guest *GuestError
	return errors.As(err, &guest) && strings.ReplaceAll(guest.Text, noOperation, healthRequest) == text
}

// Close refuses further calls, waits for those in progress, which their time
// limit bounds, and frees what the actor holds. When ctx ends first, Close says
// so and can be called again. Calling it after it succeeded does nothing.
func (a *Actor) Close(ctx context.Context) error {
	if err := a.pool.close(ctx); err != nil {
		return fmt.Errorf("close actor %s: %w", a.identity, err)
	}
	var err error
	a.released.Do(func() {
		a.host.forget(a)
		a.host.fair.forget(&a.share)
		if err = a.host.release(ctx, a.module); err != nil {
			err = fmt.Errorf("close actor %s: %w", a.identity, err)
		}
	})
	return err
}

// discard closes an instance that was entered into the pool.
func (in *instance) discard() {
	in.close()
	in.actor.meters.discarded.Add(1)
	in.actor.pool.drop(in.slot)
}
