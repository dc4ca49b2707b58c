package control

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// eventTypePrefix begins the types of all events.
const eventTypePrefix = "com.wasmcloud.lattice."

// An event is what is told, without its envelope. data is a struct or map.
type event struct {
	name string // the type, without its prefix
	data any
}

// envelope is a CloudEvents 1.0 event in structured JSON.
type envelope struct {
	Spec        string `json:"specversion"`
	ID          string `json:"id"`
	Source      string `json:"source"`
	Type        string `json:"type"`
	Time        string `json:"time"`
	ContentType string `json:"datacontenttype"`
	Data        any    `json:"data"`
}

// A reporter tells the lattice what changed. It keeps the state that it told last.
type reporter struct {
	host    Host
	subject string // wasmbus.evt.{lattice}
	every   time.Duration
	log     *slog.Logger
	publish func(subject string, data []byte) error
	changed chan struct{} // holds one

	mu    sync.Mutex // guards last; held while events are published, so that they leave in order
	last  State
	cut   bool   // events do not leave; it is logged when that begins and ends
	lost  int    // since then
	cause string // why
}

func newReporter(h Host, lattice string, every time.Duration, log *slog.Logger) *reporter {
	return &reporter{host: h, subject: eventsPrefix + lattice, every: every, log: log, changed: make(chan struct{}, 1)}
}

// wake has the differences told soon.
func (r *reporter) wake() {
	select {
	case r.changed <- struct{}{}:
	default: // they will be told together
	}
}

// run tells that the host is there, what changes, and at intervals what there is.
func (r *reporter) run(ctx context.Context) {
	r.started()
	tick := time.NewTicker(r.every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			r.differences()
			r.heartbeat()
		case <-r.changed:
			r.differences()
		case <-ctx.Done():
			r.differences()
			return
		}
	}
}

// started tells of the host, and of actors and providers that run already. Links, labels and configurations that are there are not news: all
// hosts of the lattice have them.
func (r *reporter) started() {
	r.mu.Lock()
	defer r.mu.Unlock()
	st := r.host.State()
	r.last = st
	r.last.Actors, r.last.Providers = nil, nil
	up := uptime(st)
	r.send(st, event{"host_started", map[string]any{
		"labels": some(st.Labels), "friendly_name": st.FriendlyName, "uptime_seconds": int64(up / time.Second), "version": semver(st.Version),
	}})
	r.send(st, diff(r.last, st)...)
	r.last = st
	r.send(st, event{"host_heartbeat", beat(st)})
}

// differences tells what has changed since it was told last.
func (r *reporter) differences() {
	r.mu.Lock()
	defer r.mu.Unlock()
	st := r.host.State()
	r.send(st, diff(r.last, st)...)
	r.last = st
}

// heartbeat tells what there is, and how providers are.
func (r *reporter) heartbeat() {
	r.mu.Lock()
	defer r.mu.Unlock()
	st := r.last
	r.send(st, event{"host_heartbeat", beat(st)})
	for _, p := range st.Providers {
		if p.Health != HealthUnknown {
			r.send(st, event{"health_check_status", healthOf(st, p)})
		}
	}
}

// stopped tells that the host goes.
func (r *reporter) stopped() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.send(r.last, event{"host_stopped", map[string]any{"labels": some(r.last.Labels)}})
}

// failed tells and logs what a command came to.
func (r *reporter) failed(events []event, what string, err error) {
	r.log.Warn(what, "err", err)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.send(r.host.State(), events...)
}

// send publishes each event on both of its subjects. What does not leave is lost: the next heartbeat has the state. It is called with mu held.
func (r *reporter) send(st State, events ...event) {
	for _, e := range events {
		b, err := json.Marshal(envelope{
			Spec: "1.0", ID: uuid(), Source: st.ID, Type: eventTypePrefix + e.name,
			Time: time.Now().UTC().Format("2006-01-02T15:04:05.000Z"), ContentType: "application/json", Data: e.data,
		})
		if err == nil {
			err = r.publish(r.subject, b)
		}
		if err == nil {
			err = r.publish(r.subject+"."+e.name, b)
		}
		r.note(err)
	}
}

// note logs when events begin not to leave, and when they leave again.
func (r *reporter) note(err error) {
	switch {
	case err != nil && !r.cut:
		r.cut, r.lost, r.cause = true, 1, err.Error()
		r.log.Warn("events do not leave; the state that they tell is in later heartbeats", "err", err)
	case err != nil:
		r.lost++
	case r.cut:
		r.log.Info("events leave again", "lost", r.lost, "cause", r.cause)
		r.cut = false
	}
}

// uuid is a random UUID, version 4 (RFC 9562, 5.4).
func uuid() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// LinkID is the id of a link in the metadata of a lattice: the hash of what it is told apart by.
func LinkID(actor, contract, name string) string {
	sum := sha256.Sum256([]byte(actor + contract + name))
	return strings.ToUpper(hex.EncodeToString(sum[:]))
}
