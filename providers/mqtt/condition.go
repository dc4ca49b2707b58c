package mqtt

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"
)

// condition is something that should not last. It is logged when it begins and, with a count, when it has not been seen for a while.
type condition struct {
	mu    sync.Mutex // guards what follows
	count uint64
	last  time.Time
}

// calm is how long a condition must not have been seen to have ended.
const calm = 20 * time.Second

func (c *condition) begin(log *slog.Logger, text string, args ...any) {
	c.mu.Lock()
	c.count++
	c.last = time.Now()
	first := c.count == 1
	c.mu.Unlock()
	if first {
		log.Warn(text, args...)
	}
}

func (c *condition) end(log *slog.Logger, text string, now time.Time) {
	c.mu.Lock()
	count := c.count
	if count == 0 || now.Sub(c.last) < calm {
		c.mu.Unlock()
		return
	}
	c.count = 0
	c.mu.Unlock()
	log.Info(text, "count", count)
}

// connLog tells the story of one connection.
type connLog struct {
	log    *slog.Logger
	remote string
}

func (l connLog) started(s *session, version byte, present bool) {
	l.log.Debug("client connected", "client", s.id, "remote", l.remote, "version", version, "resumed", present)
}

// ended says why. That a client has gone is no news; that it was sent away is.
func (l connLog) ended(ctx context.Context, s *session, err error) {
	id := ""
	if s != nil {
		id = s.id
	}
	level := slog.LevelDebug
	if err != nil && !errors.Is(err, errClosed) && !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
		level = slog.LevelInfo
	}
	l.log.Log(ctx, level, "client disconnected", "client", id, "remote", l.remote, "err", err)
}
