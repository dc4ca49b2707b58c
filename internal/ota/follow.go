package ota

import (
	"context"
	"errors"
	"reflect"
	"time"

	"github.com/edged-io/edged/internal/claims"
)

// follow reads the desired state whenever there is a reason to: a change was seen,
// the link came up, or it is time. A watch alone would go deaf without notice when a
// hub is restarted or is another one than before, so it only wakes the reader.
func (a *Agent) follow(ctx context.Context) {
	retry := backoff{least: a.opts.RetryMin, most: a.opts.RetryMax}
	away := false
	for ctx.Err() == nil {
		err := a.followOnce(ctx, func() {
			if away {
				a.log.Info("hub answers again")
			}
			away = false
			retry.reset()
		})
		if err == nil || ctx.Err() != nil {
			continue
		}
		if !away {
			a.log.Warn("desired state cannot be read; trying again", "err", err)
		}
		away = true
		a.pause(ctx, a.poke, retry.next())
	}
}

// followOnce reads the desired state, and again at each change, until something goes
// wrong, ctx ends, or the watch has to be renewed. Reached is called after each
// reading that worked.
func (a *Agent) followOnce(ctx context.Context, reached func()) error {
	changed := make(chan struct{}, 1)
	// The watch comes first: a change after the first reading is then not missed.
	stop, err := a.hub.watch(ctx, DesiredBucket, func() { signal(changed) })
	if err != nil {
		return err
	}
	defer stop()
	last, due := "", false
	for {
		d, err := a.hub.desired(ctx)
		if err != nil && !errors.Is(err, ErrDesired) {
			return err
		}
		reached()
		a.offer(d, err)
		now := ""
		if d != nil {
			now = d.key()
		}
		if due && now != last {
			return nil // the watch missed it
		}
		last, due = now, false
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-a.poke:
			return nil
		case <-time.After(jitter(a.opts.Poll)):
			due = true
		}
	}
}

// pause waits for a token or until d is over.
func (a *Agent) pause(ctx context.Context, token <-chan struct{}, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-token:
	case <-t.C:
	}
}

// offer takes note of what the hub wants: d, or nothing if d is nil, or something
// unreadable if err is not nil.
func (a *Agent) offer(d *Desired, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	invalid := ""
	if err != nil {
		invalid = limit(err.Error())
	}
	if invalid != a.invalid {
		if invalid != "" {
			a.log.Error("desired state is refused", "err", err)
		}
		a.invalid = invalid
		signal(a.report)
	}
	if d == nil || a.want != nil && a.want.key() == d.key() {
		return
	}
	a.want = d
	if a.cut != nil && a.cutKey != d.key() {
		a.cut()
	}
	signal(a.wake)
}

// keepReporting brings what is reported to the hub, and sees to it that it stays
// there: the hub may be another one than before.
func (a *Agent) keepReporting(ctx context.Context) {
	retry := backoff{least: a.opts.RetryMin, most: a.opts.RetryMax}
	failing := false
	for ctx.Err() == nil {
		err := a.reportOnce(ctx)
		wait := jitter(a.opts.Poll)
		if err != nil && ctx.Err() == nil {
			if !failing {
				a.log.Warn("state cannot be reported; trying again", "err", err)
			}
			wait = retry.next()
		} else {
			retry.reset()
		}
		failing = err != nil
		a.pause(ctx, a.report, wait)
	}
}

// reportOnce puts the report unless the hub has the same already.
func (a *Agent) reportOnce(ctx context.Context) error {
	want := a.reported()
	have, err := a.hub.reported(ctx)
	if err == nil && have != nil && reflect.DeepEqual(*have, want) {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	// Whatever kept the old report from being read, a new one may go through.
	return a.hub.put(ctx, ReportedBucket, want)
}

// policy is what signatures are held against. Dates count only for what was never
// tried here.
func (a *Agent) policy(t try) claims.Policy {
	p := claims.Policy{Issuers: a.opts.Issuers, AnyIssuer: a.opts.AllowUnsigned && len(a.opts.Issuers) == 0}
	if !t.admitted {
		p.Admission = a.opts.Now()
	}
	return p
}
