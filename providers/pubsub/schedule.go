package pubsub

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/edged-io/edged/internal/event"
	"github.com/edged-io/edged/store"
)

// maxSchedule is how far a delay or a time to live may reach.
const maxSchedule = 10 * 365 * 24 * time.Hour

// schedule gives a message what the extensions of its event say: notbefore, a time
// or "+" and a duration, parks it until then; ttl, a duration or seconds, is how
// long it is of use.
func schedule(m *store.Message, e event.Event) (err error) {
	if s, ok := e.Extensions["notbefore"]; ok {
		if long, relative := strings.CutPrefix(s, "+"); relative {
			m.Delay, err = span(long)
		} else {
			m.NotBefore, err = time.Parse(time.RFC3339, s)
		}
		if err != nil {
			return fmt.Errorf(`the extension notbefore is %.80q, want a time such as "2026-01-31T08:00:00Z" or a delay such as "+90s"`, s)
		}
	}
	if s, ok := e.Extensions["ttl"]; ok {
		if m.TTL, err = span(s); err != nil || m.TTL == 0 {
			return fmt.Errorf(`the extension ttl is %.80q, want a duration such as "1h" or seconds`, s)
		}
	}
	return nil
}

// span reads a duration with units, or seconds.
func span(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil {
		n, err := strconv.ParseUint(s, 10, 31)
		if err != nil {
			return 0, err
		}
		d = time.Duration(n) * time.Second
	}
	if d < 0 || d > maxSchedule {
		return 0, strconv.ErrRange
	}
	return d, nil
}
