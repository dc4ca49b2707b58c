package broker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
)

// errNoDelivery names a subscription that is not configured.
var errNoDelivery = errors.New("not configured")

// Pause keeps messages of these subscriptions from being handed out, and
// returns when no handler of theirs runs any more. Messages wait in their
// streams. If ctx ends first they stay paused; Resume ends it.
func (s *Server) Pause(ctx context.Context, names ...string) error {
	for _, name := range names {
		d := s.work.get(name)
		if d == nil {
			return fmt.Errorf("pause subscription %s: %w", name, errNoDelivery)
		}
		if err := d.gate.pause(ctx); err != nil {
			return fmt.Errorf("pause subscription %s: %w", name, err)
		}
	}
	return nil
}

// Resume goes on after Pause with the next message in order, or with the one
// whose last attempt failed. A deliver that is not nil takes the place of the
// subscription's own.
func (s *Server) Resume(name string, deliver func(ctx context.Context, m Message, attempt int) error) error {
	d := s.work.get(name)
	if d == nil {
		return fmt.Errorf("resume subscription %s: %w", name, errNoDelivery)
	}
	d.gate.resume(deliver)
	return nil
}

func (w *work) get(name string) *delivery {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.deliveries[name]
}

// all returns the deliveries by name.
func (w *work) all() []*delivery {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := make([]*delivery, 0, len(w.deliveries))
	for _, d := range w.deliveries {
		all = append(all, d)
	}
	slices.SortFunc(all, func(a, b *delivery) int { return cmp.Compare(a.sub.Name, b.sub.Name) })
	return all
}

// same says whether a subscription can go on as b but for its Deliver.
func (d *delivery) same(b Subscription) bool {
	a := d.sub
	backoff := slices.Equal(a.Backoff, b.Backoff)
	return backoff && a.Stream == b.Stream && a.Filter == b.Filter && a.MaxInFlight == b.MaxInFlight &&
		a.AckWait == b.AckWait && a.MaxDeliver == b.MaxDeliver && a.OrderedBy == b.OrderedBy &&
		a.AtMostOnce == b.AtMostOnce && a.Ephemeral == b.Ephemeral && a.PushTo == b.PushTo && a.Pull == b.Pull
}

// restDeliveries brings the deliveries to rest that subs changes or leaves out.
// If that fails they all go on.
func (s *Server) restDeliveries(ctx context.Context, subs []Subscription) error {
	for _, d := range s.work.all() {
		if d.staysIn(subs) {
			continue
		}
		if err := d.gate.rest(ctx); err != nil {
			s.wakeDeliveries()
			return fmt.Errorf("subscription %s: wait for its handlers: %w", d.sub.Name, err)
		}
	}
	return nil
}

// wakeDeliveries ends what restDeliveries began, when nothing is changed after
// all.
func (s *Server) wakeDeliveries() {
	for _, d := range s.work.all() {
		d.gate.wake()
	}
}

// staysIn says whether subs leaves the subscription as it is.
func (d *delivery) staysIn(subs []Subscription) bool {
	return slices.ContainsFunc(subs, func(sub Subscription) bool { return sub.Name == d.sub.Name && d.same(sub) })
}

// setDeliveries makes the deliveries those of subs. Those that go are at rest.
func (s *Server) setDeliveries(subs []Subscription) error {
	w := &s.work
	gone := w.which(func(d *delivery) bool { return !d.staysIn(subs) })
	for _, d := range gone {
		if d.stop != nil {
			d.stop()
			<-d.gone // it has saved its position, which a successor reads
		}
	}
	err := s.endEphemeral(gone, subs)
	w.mu.Lock()
	defer w.mu.Unlock()
	for name := range gone {
		delete(w.deliveries, name)
	}
	for _, sub := range subs {
		if d := w.deliveries[sub.Name]; d != nil {
			d.gate.swap(sub.Deliver)
			continue
		}
		d := newDelivery(s, sub)
		if old := gone[sub.Name]; old != nil {
			d.gate.paused = old.gate.isPaused()
		}
		w.deliveries[sub.Name] = d
		d.startIn(w)
	}
	return err
}

// endEphemeral deletes those of the subscriptions that went that were to live no
// longer.
func (s *Server) endEphemeral(gone map[string]*delivery, subs []Subscription) error {
	var errs []error
	for name, d := range gone {
		stays := slices.ContainsFunc(subs, func(sub Subscription) bool { return sub.Name == name })
		if d.sub.Ephemeral && !stays {
			if err := s.o.Store.DeleteSubscription(name); err != nil {
				errs = append(errs, fmt.Errorf("end subscription %s: %w", name, err))
			}
		}
	}
	return errors.Join(errs...)
}

// which returns some of the deliveries by name.
func (w *work) which(of func(*delivery) bool) map[string]*delivery {
	w.mu.Lock()
	defer w.mu.Unlock()
	some := make(map[string]*delivery)
	for name, d := range w.deliveries {
		if of(d) {
			some[name] = d
		}
	}
	return some
}

// startIn starts the delivery if the server runs. Call it with w.mu held.
func (d *delivery) startIn(w *work) {
	if w.start != nil {
		d.stop = w.start(d.run)
	}
}

// pumpRun is the pump of one uplinked stream.
type pumpRun struct {
	stop func() // nil until it was started
	gone chan struct{}
}

// startIn starts the pump if the server runs and has a hub. Call it with w.mu
// held.
func (p *pumpRun) startIn(w *work, stream string) {
	if w.start == nil || w.pumps == nil {
		return
	}
	pumps := w.pumps
	p.stop = w.start(func(ctx context.Context) {
		defer close(p.gone)
		pumps.up(ctx, stream)
	})
}

// keepForHub lets uplinked streams keep their messages until the hub has them,
// and the others not. A box without a hub owes it nothing.
func (s *Server) keepForHub(streams []Stream) error {
	have := s.o.Store.Subscriptions()
	for _, st := range streams {
		name := uplinkSubscription(st.Name)
		switch _, kept := have[name]; {
		case st.Uplink && s.o.Hub.URL != "":
			if err := ensureUplink(s.o.Store, st.Name); err != nil {
				return fmt.Errorf("uplink of stream %s: %w", st.Name, err)
			}
		case !st.Uplink && kept:
			if err := s.o.Store.DeleteSubscription(name); err != nil {
				return fmt.Errorf("end uplink of stream %s: %w", st.Name, err)
			}
			s.log.Info("stream is not uplinked any more", "stream", st.Name)
		}
	}
	return nil
}

// setUplinks runs a pump for each uplinked stream, and none for others.
func (s *Server) setUplinks(streams []Stream) error {
	uplinked := make(map[string]bool)
	for _, st := range streams {
		if st.Uplink {
			uplinked[st.Name] = true
		}
	}
	w := &s.work
	var gone []*pumpRun
	w.mu.Lock()
	for name, p := range w.uplinked {
		if !uplinked[name] {
			gone = append(gone, p)
			delete(w.uplinked, name)
		}
	}
	w.mu.Unlock()
	for _, p := range gone {
		if p.stop != nil {
			p.stop()
			<-p.gone
		}
	}
	if err := s.keepForHub(streams); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for name := range uplinked {
		if w.uplinked[name] == nil {
			p := &pumpRun{gone: make(chan struct{})}
			w.uplinked[name] = p
			p.startIn(w, name)
		}
	}
	return nil
}
