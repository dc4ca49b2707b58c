package httpserver

import (
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// budget bounds what all bodies, of requests and of answers, take in memory.
type budget struct {
	mu   sync.Mutex // guards left
	left int64
}

func (b *budget) take(n int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if int64(n) > b.left {
		return false
	}
	b.left -= int64(n)
	return true
}

func (b *budget) give(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.left += int64(n)
}

// hold takes n bytes of the budget for the exchange, until drop or its end.
func (x *exchange) hold(n int) error {
	if !x.p.bodies.take(n) {
		return errMemory
	}
	x.held += n
	return nil
}

func (x *exchange) drop(n int) {
	x.p.bodies.give(n)
	x.held -= n
}

// Why a body is not read.
var (
	errTooLarge = errors.New("the body is too large")
	errBody     = errors.New("the body can not be read")
	errSlow     = errors.New("the body did not come in time")
	errMemory   = errors.New("the bodies of requests take all the memory they may")
)

// firstBuffer is what is read of a body before more room is made.
const firstBuffer = 16 << 10

// read reads the body. What there is of it is held.
func (x *exchange) read(pl *place) (body []byte, err error) {
	r := x.r
	if r.ContentLength > pl.MaxBody {
		return nil, errTooLarge
	}
	if r.Body == nil || r.ContentLength == 0 {
		return nil, nil
	}
	// The answer, or 100 Continue before it, may take a while from here.
	_ = x.rc.SetReadDeadline(time.Now().Add(pl.ReadTimeout))
	_ = x.rc.SetWriteDeadline(time.Now().Add(pl.ReadTimeout + pl.WriteTimeout))
	most := pl.MaxBody + 1
	if r.ContentLength > 0 {
		most = r.ContentLength
	}
	size := min(firstBuffer, most) // not what the client announces: it may never come
	for {
		if err := x.hold(int(size) - cap(body)); err != nil {
			return body, err
		}
		next := make([]byte, len(body), size)
		copy(next, body)
		body = next
		for len(body) < cap(body) {
			n, err := r.Body.Read(body[len(body):cap(body)])
			body = body[:len(body)+n]
			if err == io.EOF {
				return body, x.ended(pl, body)
			}
			if err != nil {
				return body, readError(err)
			}
		}
		switch {
		case int64(len(body)) > pl.MaxBody:
			return body, errTooLarge
		case r.ContentLength > 0 && int64(len(body)) == r.ContentLength:
			return body, x.ended(pl, body)
		}
		size = min(4*size, most)
	}
}

// ended is for a body that is there. From here on the client may take its time.
func (x *exchange) ended(pl *place, body []byte) error {
	if int64(len(body)) > pl.MaxBody {
		return errTooLarge
	}
	_ = x.rc.SetReadDeadline(time.Time{}) // fails where the client has gone
	return nil
}

func readError(err error) error {
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return errSlow
	}
	return errBody
}
