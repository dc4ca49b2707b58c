package metadata

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

const (
	// requestTimeout is for a hub to answer, and for the watch to bring what the hub
	// has taken, or what kept it from taking it.
	requestTimeout = 10 * time.Second
	// unwatchTimeout is for a hub that is away when the watch ends.
	unwatchTimeout = 500 * time.Millisecond
	// loudRecords are told one by one when they do not read; the rest are counted.
	loudRecords = 8
)

// Run keeps the copy and the bucket of the hub the same until ctx ends, and returns
// nil then.
func (m *Metadata) Run(ctx context.Context) error {
	tries, failing := 0, false
	for ctx.Err() == nil {
		up, changed := m.o.Link()
		if !up {
			m.setStatus(false, "")
			wait(ctx, changed, 0)
			continue
		}
		s, end := context.WithCancel(ctx)
		linked := make(chan struct{})
		go func() { // is waited for below
			defer close(linked)
			wait(s, changed, 0)
			end()
		}()
		err := m.session(s, func() {
			if failing {
				m.log.Info("the metadata of the lattice is the hub's again", "bucket", m.bucket)
			}
			tries, failing = 0, false
		})
		end()
		<-linked
		if ctx.Err() != nil {
			break
		}
		if now, _ := m.o.Link(); !now || err == nil {
			m.setStatus(false, "")
			continue
		}
		m.setStatus(false, err.Error())
		if !failing {
			m.log.Warn("the metadata of the lattice is not kept up to date with the hub; what is known here holds, trying again", "err", err)
		}
		failing = true
		pause := min(m.o.retryMax, m.o.retryMin<<min(tries, 20))
		tries++
		wait(ctx, changed, pause/2+rand.N(pause/2+1))
	}
	m.setStatus(false, "")
	return nil
}

// wait returns when ctx ends, changed is closed, or d is over; 0 is for ever.
func wait(ctx context.Context, changed <-chan struct{}, d time.Duration) {
	var over <-chan time.Time
	if d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		over = t.C
	}
	select {
	case <-ctx.Done():
	case <-changed:
	case <-over:
	}
}

func (m *Metadata) setStatus(synced bool, err string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.status = Status{Synced: synced, Err: err}
}

// session is the conversation with a hub, from one connection to the next.
type session struct {
	*Metadata
	kv      jetstream.KeyValue
	created time.Time            // of the bucket
	seen    uint64               // the highest revision
	due     uint64               // the highest that the bucket had at the last look
	rev     map[string]uint64    // of each key
	asked   map[string]time.Time // keys whose change was sent, and what came of it was not seen yet
	loud    int
}

// errDeaf ends a session whose watch missed something.
var errDeaf = errors.New("the watch of the bucket missed a change")

// session joins the lattice, tells joined once it has, and follows it until ctx ends or
// something goes wrong.
func (m *Metadata) session(ctx context.Context, joined func()) error {
	s := &session{Metadata: m, rev: make(map[string]uint64), asked: make(map[string]time.Time)}
	m.mu.Lock()
	clear(m.leftOut)
	m.mu.Unlock()
	if err := s.open(ctx); err != nil {
		return err
	}
	updates, stop, err := s.watch(ctx)
	if err != nil {
		return err
	}
	defer stop()
	if err := s.join(ctx, updates); err != nil {
		return err
	}
	joined()
	m.setStatus(true, "")
	look := time.NewTicker(m.o.look/2 + rand.N(m.o.look/2+1))
	defer look.Stop()
	for {
		if err := s.send(ctx); err != nil {
			return err
		}
		confirm := s.confirm()
		select {
		case <-ctx.Done():
			return nil
		case e, ok := <-updates:
			if !ok {
				return errDeaf
			}
			if err := s.update(append([]jetstream.KeyValueEntry{e}, ready(updates)...)); err != nil {
				return err
			}
		case <-m.wake:
		case <-confirm:
			return errDeaf
		case <-look.C:
			if err := s.look(ctx); err != nil {
				return err
			}
		}
	}
}

// open finds the bucket, and creates it as classic hosts do where it is not there. One
// that is there is used as it is.
func (s *session) open(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.o.timeout)
	defer cancel()
	js, err := jetstream.New(s.o.Conn)
	if s.o.JetStreamDomain != "" {
		js, err = jetstream.NewWithDomain(s.o.Conn, s.o.JetStreamDomain)
	}
	if err != nil {
		return err
	}
	s.kv, err = js.KeyValue(ctx, s.bucket)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		s.kv, err = js.CreateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: s.bucket, Description: s.about})
		if errors.Is(err, jetstream.ErrBucketExists) { // somebody else was quicker
			s.kv, err = js.KeyValue(ctx, s.bucket)
		}
	}
	if err != nil {
		return fmt.Errorf("hub bucket %s: %w; edged hub permissions prints what a box needs there", s.bucket, err)
	}
	info, err := s.info(ctx)
	if err != nil {
		return err
	}
	s.created, s.seen = info.Created, info.State.LastSeq // what the watch brings is not older
	return nil
}

func (s *session) info(ctx context.Context) (*jetstream.StreamInfo, error) {
	status, err := s.kv.Status(ctx)
	if err != nil {
		return nil, fmt.Errorf("hub bucket %s: %w", s.kv.Bucket(), err)
	}
	b, ok := status.(*jetstream.KeyValueBucketStatus)
	if !ok {
		return nil, fmt.Errorf("hub bucket %s: a status of another kind", s.kv.Bucket())
	}
	return b.StreamInfo(), nil
}

// watch follows all keys, first as they are, then nil, then as they change.
func (s *session) watch(ctx context.Context) (<-chan jetstream.KeyValueEntry, func(), error) {
	ctx, cancel := context.WithCancel(ctx)
	late := time.AfterFunc(s.o.timeout, cancel)
	w, err := s.kv.WatchAll(ctx)
	if !late.Stop() && err == nil {
		err = context.DeadlineExceeded
		_ = w.Stop()
	}
	if err != nil {
		cancel()
		return nil, nil, fmt.Errorf("hub bucket %s: watch: %w", s.kv.Bucket(), err)
	}
	return w.Updates(), func() {
		stopped := make(chan struct{})
		go func() { // ends with the hub's answer, the client's patience of 5 s, or the connection
			defer close(stopped)
			_ = w.Stop() // the consumer is one without a reader; the hub forgets it by itself
		}()
		go func() { // ends when the watch has; it would wait for a reader for ever
			for range w.Updates() {
			}
		}()
		select {
		case <-stopped:
		case <-time.After(unwatchTimeout): // a hub that is away must not hold up the box
		}
		cancel()
	}, nil
}

// join takes in all that the bucket has, and has what it does not know sent.
func (s *session) join(ctx context.Context, updates <-chan jetstream.KeyValueEntry) error {
	var all []jetstream.KeyValueEntry
	size := 0
	for {
		silent := time.NewTimer(s.o.timeout)
		select {
		case <-ctx.Done():
			return nil
		case <-silent.C:
			return fmt.Errorf("hub bucket %s: does not go on", s.kv.Bucket())
		case e, ok := <-updates:
			silent.Stop()
			if !ok {
				return errDeaf
			}
			if e != nil {
				all, size = append(all, e), size+len(e.Value())
				if len(all) >= batch || size > MaxRecordBytes {
					if err := s.update(all); err != nil {
						return err
					}
					all, size = nil, 0
				}
				continue
			}
		}
		break
	}
	if err := s.update(all); err != nil {
		return err
	}
	var missing []string
	s.mu.Lock()
	for key := range s.entries {
		if _, there := s.rev[key]; !there {
			missing = append(missing, key)
		}
	}
	s.mu.Unlock()
	slices.Sort(missing)
	_, err := s.merge(nil, missing)
	return err
}

// ready returns what is there without waiting.
func ready(updates <-chan jetstream.KeyValueEntry) (all []jetstream.KeyValueEntry) {
	for len(all) < batch {
		select {
		case e, ok := <-updates:
			if !ok {
				return all
			}
			all = append(all, e)
		default:
			return all
		}
	}
	return all
}

// update takes in entries of the bucket.
func (s *session) update(all []jetstream.KeyValueEntry) error {
	theirs := make(map[string]record)
	for _, e := range all {
		if e == nil {
			continue
		}
		key := e.Key()
		s.seen = max(s.seen, e.Revision())
		if strings.HasPrefix(key, componentPrefix) {
			s.tell(key, errors.New("hosts of 1.x are in this lattice, and can not share it with others; give them another name"))
		}
		if !s.is(key) || e.Revision() <= s.rev[key] {
			continue
		}
		s.rev[key] = e.Revision()
		delete(s.asked, key)
		delete(theirs, key)
		if e.Operation() != jetstream.KeyValuePut {
			theirs[key] = record{}
			continue
		}
		r, err := s.decode(key, e.Value())
		if err != nil {
			// What is known here stays. If it changes here, that takes its place there.
			s.mu.Lock()
			s.leftOut[key] = struct{}{}
			s.mu.Unlock()
			s.tell(key, err)
			continue
		}
		theirs[key] = r
	}
	changed, err := s.merge(theirs, nil)
	if err == nil && changed {
		s.o.Changed()
	}
	return err
}

// tell says that a record is left out, some times in a session.
func (s *session) tell(key string, err error) {
	if s.loud < loudRecords {
		s.log.Warn("a record of the lattice is left out", "key", key, "err", err)
	}
	s.loud++
}

// send has the hub take the changes that it does not have. What comes of it the watch
// brings: the change itself, or the one that was quicker.
func (s *session) send(ctx context.Context) error {
	s.mu.Lock()
	keys := make([]string, 0, len(s.pending))
	for key := range s.pending {
		if _, asked := s.asked[key]; !asked {
			keys = append(keys, key)
		}
	}
	s.mu.Unlock()
	slices.Sort(keys)
	for _, key := range keys[:min(len(keys), batch)] {
		s.mu.Lock()
		e := s.entries[key]
		s.mu.Unlock()
		if !e.pending {
			continue
		}
		if e.now.none() && s.rev[key] == 0 { // the bucket never had it
			if _, err := s.merge(map[string]record{key: {}}, nil); err != nil {
				return err
			}
			continue
		}
		if err := s.sendOne(ctx, key, e.now); err != nil {
			return err
		}
	}
	if len(keys) > batch {
		signal(s.wake)
	}
	return nil
}

func (s *session) sendOne(ctx context.Context, key string, r record) error {
	ctx, cancel := context.WithTimeout(ctx, s.o.timeout)
	defer cancel()
	var err error
	if r.none() {
		err = s.kv.Delete(ctx, key, jetstream.LastRevision(s.rev[key]))
	} else {
		_, err = s.kv.Update(ctx, key, r.value, s.rev[key])
	}
	if err != nil && !errors.Is(err, jetstream.ErrKeyRevisionMismatch) {
		return fmt.Errorf("hub bucket %s: %s: %w", s.kv.Bucket(), key, err)
	}
	s.asked[key] = time.Now()
	return nil
}

// confirm tells when the watch should have brought the first of what was asked.
func (s *session) confirm() <-chan time.Time {
	var first time.Time
	for _, at := range s.asked {
		if first.IsZero() || at.Before(first) {
			first = at
		}
	}
	if first.IsZero() {
		return nil
	}
	return time.After(time.Until(first.Add(s.o.timeout)))
}

// look ends the session if the bucket is another one than before, or has what the
// watch did not bring.
func (s *session) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.o.timeout)
	defer cancel()
	info, err := s.info(ctx)
	if err != nil {
		return err
	}
	if !info.Created.Equal(s.created) || info.State.LastSeq < s.seen {
		return errors.New("the bucket of the hub is another one than before")
	}
	if s.due > s.seen {
		return errDeaf
	}
	s.due = info.State.LastSeq
	return nil
}
