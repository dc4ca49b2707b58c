package httpserver

import (
	"context"
	"crypto/rand"
	"errors"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/edged-io/edged/lattice"
	"github.com/edged-io/edged/store"
)

// statusGone is in metrics and log for a client that did not wait for its
// answer.
const statusGone = 499

// failed answers a request that was not handled. What is wrong with the actor
// is nobody's business outside: the answer has a number which is in the log.
func (x *exchange) failed(pl *place, err error) {
	h := x.w.Header()
	refuse := func(status int, words string) { x.refuse(status, words) }
	later := func(status int, words string) {
		h.Set("Retry-After", "1")
		refuse(status, words)
	}
	switch {
	case errors.Is(err, errTooLarge):
		h.Set("Connection", "close") // what is left of it is not read
		refuse(http.StatusRequestEntityTooLarge, "the body is larger than allowed")
	case errors.Is(err, errSlow):
		h.Set("Connection", "close")
		refuse(http.StatusRequestTimeout, "the body did not come in time")
	case errors.Is(err, errBody):
		h.Set("Connection", "close")
		refuse(http.StatusBadRequest, "the body can not be read")
	case x.gone():
		x.status = statusGone
	case errors.Is(err, errMemory):
		h.Set("Connection", "close")
		later(http.StatusServiceUnavailable, "too many requests, try again")
	case errors.Is(err, errCrowded):
		later(http.StatusServiceUnavailable, "too many requests, try again")
	case errors.Is(err, context.Canceled), errors.Is(err, errStopping), errors.Is(err, ErrBusy), errors.Is(err, lattice.ErrNoEntity):
		later(http.StatusServiceUnavailable, "not available now, try again")
	case errors.Is(err, ErrTimeLimit), errors.Is(err, errHandlerTime), errors.Is(err, context.DeadlineExceeded):
		x.report(pl, http.StatusGatewayTimeout, "no answer in time", err)
	case errors.Is(err, store.ErrFull):
		h.Set("Retry-After", "30")
		x.report(pl, http.StatusInsufficientStorage, "the box is full", err)
	case errors.Is(err, store.ErrFailed), errors.Is(err, store.ErrClosed), errors.Is(err, store.ErrDeadlock):
		h.Set("Retry-After", "1")
		x.report(pl, http.StatusServiceUnavailable, "not available now, try again", err)
	default:
		x.report(pl, http.StatusInternalServerError, "the request can not be answered", err)
	}
}

// gone says whether the client does not wait any more.
func (x *exchange) gone() bool {
	ctx := x.r.Context()
	return ctx.Err() != nil && !errors.Is(context.Cause(ctx), errStopping)
}

// report is refuse for what somebody should look at.
func (x *exchange) report(pl *place, status int, words string, err error) {
	id := strings.ToLower(rand.Text()[:10])
	if !x.told(pl, Failure{id, x.r.Method, x.r.URL.EscapedPath(), status, err}) {
		id = "" // nobody would find it
	}
	x.refuseAs(status, words, id)
}

// told says whether the failure is in the log.
func (x *exchange) told(pl *place, f Failure) bool {
	if x.p.o.Failed != nil {
		if taken, told := x.p.o.Failed(f); taken {
			return told
		}
	}
	ok, left := x.p.noise.allow(time.Now())
	if !ok {
		return false
	}
	if left > 0 {
		x.p.log.Warn("requests failed that are not told one by one", "count", left)
	}
	x.p.log.Warn("request failed", "id", f.ID, "app", pl.app, "actor", x.p.o.ActorName(pl.actor), "method", f.Method, "path", f.Path, "status", f.Status, "err", f.Err)
	return true
}

// noise bounds the lines that failures make in the log: clients decide how many
// there are.
type noise struct {
	mu     sync.Mutex // guards what follows
	tokens int
	filled time.Time
	left   int // failures that were not told
}

// A burst, and then one a second.
const noiseBurst = 20

// allow says whether a failure is told, and how many before it were not.
func (n *noise) allow(now time.Time) (ok bool, left int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.filled.IsZero() {
		n.tokens, n.filled = noiseBurst, now
	}
	if more := int(now.Sub(n.filled) / time.Second); more > 0 {
		n.tokens = min(n.tokens+more, noiseBurst)
		n.filled = n.filled.Add(time.Duration(more) * time.Second)
	}
	if n.tokens == 0 {
		n.left++
		return false, 0
	}
	n.tokens--
	left, n.left = n.left, 0
	return true, left
}
