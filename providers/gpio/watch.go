package gpio

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/edged-io/edged/internal/event"
)

// maxInFlight is how many edges of a line may wait to be stored. What comes on
// top is lost and counted: a contact that chatters must not fill the memory.
const maxInFlight = 256

var errTooMany = errors.New("too many edges wait to be stored")

// edgeData is the data of the event of an edge.
type edgeData struct {
	Chip  string `json:"chip"`
	Line  int    `json:"line"`
	Edge  edge   `json:"edge"`
	Level bool   `json:"level"`
}

// watchLine sends the edges of an input until ctx ends, or the line fails for
// good.
func (p *Provider) watchLine(ctx context.Context, h *held) {
	p.mu.Lock()
	conf := h.conf
	p.mu.Unlock()
	w := watcher{p: p, h: h, conf: conf}
	var err error
	if conf.debounce > 0 {
		err = w.debounced(ctx)
	} else {
		err = w.raw(ctx)
	}
	if err != nil && ctx.Err() == nil {
		p.report(h, fmt.Errorf("watch for edges, which has ended: %w", err))
	}
}

// watcher sends the edges of one line.
type watcher struct {
	p    *Provider
	h    *held
	conf config
}

// raw sends every edge the chip reports.
func (w *watcher) raw(ctx context.Context) error {
	for ctx.Err() == nil {
		e, err := w.h.dev.waitEdge(ctx, 0)
		if err != nil {
			return err
		}
		if e != edgeNone {
			w.send(e == edgeRising, time.Now())
		}
	}
	return nil
}

// debounced sends the edges that are real.
func (w *watcher) debounced(ctx context.Context) error {
	d := debouncer{wait: w.conf.debounce, settled: w.h.start, level: w.h.start}
	for ctx.Err() == nil {
		left, moving := d.left(time.Now()) // 0 while nothing moves: wait for ever
		if moving && left <= 0 {
			level, err := w.h.dev.level()
			if err != nil {
				return err
			}
			if since, real := d.settle(level, time.Now()); real {
				w.send(level, since)
			}
			continue
		}
		e, err := w.h.dev.waitEdge(ctx, left)
		if err != nil {
			return err
		}
		if e != edgeNone {
			d.see(e == edgeRising, time.Now())
		}
	}
	return nil
}

// send publishes an edge to level, if it is one of those that are wanted.
func (w *watcher) send(level bool, at time.Time) {
	h, e := w.h, edgeTo(level)
	if !w.conf.edge.has(e) {
		return
	}
	if h.inFlight.Add(1) > maxInFlight {
		w.sent(errTooMany)
		return
	}
	w.p.publish(w.conf.subject, w.p.edgeEvent(h.address, e, level, at), w.sent)
}

// sent takes the fate of an edge. It logs when edges begin to get lost, and
// when that is over.
func (w *watcher) sent(err error) {
	h := w.h
	h.inFlight.Add(-1)
	if err == nil {
		h.edges.Add(1)
		if h.losing.CompareAndSwap(true, false) {
			w.p.log.Info("edges are stored again", "line", h.String(), "actor", h.actor, "lost", h.lost.Load())
		}
		return
	}
	h.lost.Add(1)
	if h.losing.CompareAndSwap(false, true) {
		w.p.log.Warn("edges are lost", "line", h.String(), "actor", h.actor, "subject", w.conf.subject, "err", err)
	}
}

// edgeEvent is the event of an edge.
func (p *Provider) edgeEvent(a address, e edge, level bool, at time.Time) event.Event {
	data, err := json.Marshal(edgeData{Chip: a.chip, Line: a.line, Edge: e, Level: level})
	if err != nil {
		panic(err) // strings, a number and a bool always have a JSON form
	}
	return event.Event{
		ID:              p.run + "-" + strconv.FormatUint(p.events.Add(1), 10),
		Source:          "/" + p.device + "/gpio/" + a.String(),
		Type:            EventType,
		Time:            at.UTC().Format(time.RFC3339Nano),
		DataContentType: "application/json",
		Data:            data,
	}
}
