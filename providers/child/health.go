package child

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/edged-io/edged/lattice/wire"
	"github.com/edged-io/edged/sdk/go/msgpack"
)

// once starts the process and follows it until it ends, and then returns why, or
// until ctx ends, and then ends it.
func (in *instance) once(ctx context.Context, log *slog.Logger) error {
	ready := *in.ready.Load()
	select {
	case <-ready: // that of the process before
		ready = make(chan struct{})
		in.ready.Store(&ready)
	default: // some may wait for it already
	}
	opened := sync.OnceFunc(func() { close(ready) })
	defer opened()
	p, out, told, err := in.begin(log)
	select {
	case in.first <- err: // Start may wait for it
	default:
	}
	if err != nil {
		return err
	}
	patient := time.AfterFunc(in.m.t.first, opened) // some never answer, and serve all the same
	in.watch(ctx, log, p.exited, watchOptions{
		patience: in.m.t.first, every: in.m.t.every, unwell: in.m.t.unwell,
		answered: func() {
			in.m.catchUp(ctx, in.id, told, false)
			opened()
		},
	})
	patient.Stop()
	if ctx.Err() != nil {
		in.end(p, log)
		return nil
	}
	if p.err == nil {
		return errors.New("it ended by itself, with status 0")
	}
	if last := out.lastLine(); last != "" {
		return fmt.Errorf("%w: %q", p.err, last)
	}
	return p.err
}

// begin starts the process.
func (in *instance) begin(log *slog.Logger) (p *process, out *output, told linksOf, err error) {
	instance := newID()
	in.m.mu.Lock()
	links := in.m.sortedLinks(in.id)
	in.m.mu.Unlock()
	h := in.hostData(instance, links)
	if err = in.logIn(&h); err != nil {
		return nil, nil, nil, err
	}
	line, err := h.Line()
	if err != nil {
		return nil, nil, nil, err
	}
	dir := filepath.Join(in.m.o.Dir, workDir, in.id.key+"."+in.id.link)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, nil, err
	}
	out = newOutput(log)
	if p, err = in.start(dir, line, out); err != nil {
		return nil, nil, nil, err
	}
	pid := p.cmd.Process.Pid
	log.Info("provider started", "pid", pid)
	in.update(func(s *Status) {
		s.State, s.Health, s.HealthText, s.PID, s.Instance, s.Err, s.NextTry = Running, HealthUnknown, "", pid, instance, "", time.Time{}
	})
	return p, out, byActor(links), nil
}

// end ends a process: it is asked to, then told by signals. It takes as long as
// timing says, and a second for the pipes.
func (in *instance) end(p *process, log *slog.Logger) {
	body, err := json.Marshal(map[string]string{"host_id": in.m.o.Host.String()})
	if err == nil {
		ctx, cancel := context.WithTimeout(context.Background(), in.m.t.ask)
		defer cancel()
		var asked sync.WaitGroup
		asked.Go(func() {
			if _, err := in.m.o.Conn.RequestWithContext(ctx, in.subject+wire.SuffixShutdown, body); errors.Is(err, nats.ErrNoResponders) {
				cancel() // it can not be asked; some end without an answer, so that others are waited for
			}
		})
		select {
		case <-p.exited:
		case <-ctx.Done():
		}
		cancel()
		asked.Wait()
	}
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		select {
		case <-p.exited:
			log.Info("provider stopped", "pid", p.cmd.Process.Pid)
			return
		default:
		}
		p.signal(s)
		if s == syscall.SIGTERM {
			select {
			case <-p.exited:
			case <-time.After(in.m.t.term):
				log.Warn("provider does not end when it is asked to, it is killed", "pid", p.cmd.Process.Pid)
			}
		}
	}
	<-p.exited
}

// watchOptions are what differs between those that were started here and others.
type watchOptions struct {
	patience time.Duration // before it is unhealthy because it does not answer
	every    time.Duration // between questions to one that is well
	unwell   time.Duration // and to one that is not
	answered func()        // the first time, and again after it did not
	silent   func(error)   // when it does not answer any more; may be nil
}

// watch asks a provider how it is until ctx ends or exited is closed.
func (in *instance) watch(ctx context.Context, log *slog.Logger, exited <-chan struct{}, o watchOptions) {
	asking, cancel := context.WithCancel(ctx)
	var asked sync.WaitGroup
	defer asked.Wait()
	defer cancel()
	type answer struct {
		health wire.Health
		err    error
	}
	answers := make(chan answer, 1)
	begun := time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	known, answering := false, false
	for {
		select {
		case <-ctx.Done():
			return
		case <-exited:
			return
		case <-timer.C:
			asked.Go(func() {
				h, err := in.ask(asking)
				answers <- answer{h, err}
			})
		case a := <-answers:
			if a.err == nil && !answering {
				answering = true
				o.answered()
			}
			if a.err != nil && answering && o.silent != nil {
				answering = false
				o.silent(a.err)
			}
			pause := o.every
			switch {
			case a.err != nil && !known && time.Since(begun) < o.patience:
				timer.Reset(in.m.t.poll)
				continue
			case a.err != nil || !a.health.Healthy:
				pause = o.unwell
			}
			known = true
			in.noteHealth(log, a.health, a.err)
			timer.Reset(pause)
		}
	}
}

// ask asks a provider how it is.
func (in *instance) ask(ctx context.Context) (wire.Health, error) {
	ctx, cancel := context.WithTimeout(ctx, in.m.o.Timeout)
	defer cancel()
	// Kits ignore what is asked, but some hosts send this, and none sends what is not
	// MessagePack.
	question := msgpack.AppendBool(msgpack.AppendString(msgpack.AppendMapHeader(nil, 1), "placeholder"), true)
	m, err := in.m.o.Conn.RequestWithContext(ctx, in.subject+wire.SuffixHealth, question)
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		return wire.Health{}, errors.New("it does not listen")
	case errors.Is(err, context.DeadlineExceeded):
		return wire.Health{}, fmt.Errorf("it has not answered within %s", in.m.o.Timeout)
	case err != nil:
		return wire.Health{}, err
	}
	return wire.DecodeHealth(m.Data)
}

// noteHealth keeps an answer, and logs a change.
func (in *instance) noteHealth(log *slog.Logger, h wire.Health, err error) {
	is, text := Unhealthy, h.Message
	if err != nil {
		text = err.Error()
	} else if h.Healthy {
		is = Healthy
	}
	text = text[:min(len(text), maxLine)]
	switch was := in.current().Health; {
	case is == was:
	case is == Unhealthy:
		log.Warn("provider is not well", "err", text)
	case was == Unhealthy:
		log.Info("provider is well again")
	}
	in.update(func(s *Status) { s.Health, s.HealthText = is, text })
}

// settle is how long a provider that answers about its health may take until it hears
// of links.
const settle = 250 * time.Millisecond

// catchUp tells a provider that has begun to listen what has changed since it was
// told of its links; with always also what has not, which it may have missed while it
// could not be reached. It does so once more a moment later, unless ctx ends before.
func (m *Manager) catchUp(ctx context.Context, at id, told linksOf, always bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tellChanged(at, told, always)
	time.AfterFunc(settle, func() { // ends by itself
		m.mu.Lock()
		defer m.mu.Unlock()
		if ctx.Err() == nil {
			m.tellChanged(at, told, always)
		}
	})
}

// tellChanged tells a provider what has changed. Call it with m.mu held.
func (m *Manager) tellChanged(at id, told linksOf, always bool) {
	for actor, old := range told {
		if _, ok := m.links[at][actor]; !ok {
			m.tell(at, wire.SuffixDelete, old)
		}
	}
	for _, now := range m.sortedLinks(at) {
		switch old, ok := told[now.Actor]; {
		case !ok:
			m.tell(at, wire.SuffixPut, now)
		case !sameLink(now, old):
			m.tell(at, wire.SuffixDelete, old)
			m.tellLater(at, now)
		case always:
			m.tell(at, wire.SuffixPut, now)
		}
	}
}
