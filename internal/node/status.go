package node

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/edged-io/edged/broker"
	"github.com/edged-io/edged/internal/ota"
	"github.com/edged-io/edged/providers/gpio"
	"github.com/edged-io/edged/store"
)

// Status is what `edged status --json` prints of a box.
type Status struct {
	Device   string         `json:"device"`
	Version  string         `json:"version"`
	Epoch    string         `json:"epoch"`
	Link     string         `json:"link"` // "up" or "down"
	Desired  *DesiredStatus `json:"desired"`
	Reported *ota.Reported  `json:"reported"`
	Apps     []AppStatus    `json:"apps"`
	Streams  []StreamStatus `json:"streams"`
	Turns    []TurnStatus   `json:"turns"`
	Dead     int            `json:"dead_letters"`
	Problems []string       `json:"problems"`
	Reload   *ReloadStatus  `json:"reload"` // null before the first
}

// ReloadStatus is how the last reload of the apps folder ended. Whoever sent a
// signal for it waits until Count has grown.
type ReloadStatus struct {
	Count uint64    `json:"count"` // since the box started
	Time  time.Time `json:"time"`
	Error string    `json:"error"` // "" when what is in the folder runs
}

// AppStatus is an app that runs.
type AppStatus struct {
	Name    string   `json:"name"`
	Version string   `json:"version"`
	Digest  string   `json:"digest"`
	Actors  []string `json:"actors"` // keys
	// Compiling are the keys of those whose code is being compiled, or waits for it:
	// it was not in the cache when the box started.
	Compiling []string `json:"compiling"`
}

// TurnStatus counts the turns that a version of an actor committed since the
// box started.
type TurnStatus struct {
	App     string `json:"app"`
	Actor   string `json:"actor"`
	Version string `json:"version"`
	Turns   uint64 `json:"turns"`
}

// StreamStatus is a stream on disk. Acked is the last sequence up to which the
// hub, or without an uplink every subscription, has acknowledged; Lag is how
// many messages are beyond it.
type StreamStatus struct {
	Name    string `json:"name"`
	First   uint64 `json:"first"`
	Last    uint64 `json:"last"`
	Acked   uint64 `json:"acked"`
	Lag     uint64 `json:"lag"`
	Bytes   int64  `json:"bytes"`
	Dropped uint64 `json:"dropped"`
	// Messages are those it holds; Undeclared says that no app that runs declares
	// it: it takes nothing in, and can be removed.
	Messages   int64      `json:"messages"`
	Undeclared bool       `json:"undeclared"`
	Delayed    int64      `json:"delayed"` // parked until they are due
	Durability string     `json:"durability"`
	Priority   int        `json:"priority"`
	AtRisk     RiskStatus `json:"at_risk"`
	// Of an uplinked stream: what the messages beyond Acked hold, about; bytes per
	// second that go up; what the hub holds; and why the lane does not go on, "" if
	// it does.
	BacklogBytes int64             `json:"backlog_bytes"`
	Rate         int64             `json:"rate"`
	Hub          *broker.HubHolds  `json:"hub,omitempty"`
	Waits        string            `json:"waits,omitempty"`
	Reasons      map[string]uint64 `json:"dropped_by_reason,omitempty"`
}

// RiskStatus is what a power cut right now would take of what publishers were
// told is stored.
type RiskStatus struct {
	Messages int64 `json:"messages"`
	Bytes    int64 `json:"bytes"`
	Ms       int64 `json:"ms"` // how long the oldest of it is at risk
}

// Status returns the state of the box now.
func (n *Node) Status() Status {
	s := Status{
		Device: n.o.Device.Device.ID, Version: n.o.Version, Link: "down",
		Streams: n.streams(), Dead: n.db.DeadLetterCount(),
	}
	s.Epoch = n.epoch()
	if n.broker.LinkUp() {
		s.Link = "up"
	}
	if n.updates != nil {
		u := n.updates.Status()
		s.Desired, s.Reported = desiredOf(u.Desired), u.Reported
	}
	s.Apps, s.Turns, s.Reload = n.health.status()
	if s.Problems = n.problems(); s.Problems == nil {
		s.Problems = []string{}
	}
	return s
}

// problems returns what does not work, or wants a person to look, a line each.
func (n *Node) problems() []string {
	_, lines := n.health.problems()
	for _, a := range n.health.actors() {
		if f := a.failing.Load(); f != nil && f.InARow >= failingCalls {
			lines = append(lines, fmt.Sprintf("actor %s %s: its last %d calls failed, the last one %s: %s", a.title(), a.version, f.InARow, f.outcome(), strings.TrimPrefix(f.Error, a.who())))
		}
	}
	if err := n.db.Err(); err != nil {
		lines = append(lines, err.Error())
	}
	if n.db.Stats().DiskFull {
		lines = append(lines, "store: the disk is full: nothing is stored but what is acknowledged, and streams of priority 9; make room on the disk of "+n.stateDir)
	}
	files, err := store.Quarantined(n.stateDir)
	if err != nil {
		lines = append(lines, "store: "+err.Error())
	}
	for _, f := range files {
		if !f.Store {
			lines = append(lines, "a damaged file was set aside: look at "+f.File+", then remove it")
			continue
		}
		line := "store: a damaged file was set aside, and what could be read of it was carried over"
		if len(f.Lost) > 0 {
			line += "; lost: " + strings.Join(f.Lost, "; ")
		}
		lines = append(lines, line+": look at "+f.File+", then remove it")
	}
	for _, err := range n.updates.Damaged() {
		lines = append(lines, strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	for _, note := range n.db.Notes() {
		lines = append(lines, "store: "+note)
	}
	return append(lines, n.fullness()...)
}

// quarantined counts damaged files, and the messages that were lost with them.
func (n *Node) quarantined() (files int, messages int64) {
	all, err := store.Quarantined(n.stateDir)
	if err != nil {
		return 0, 0 // problems tells
	}
	for _, f := range all {
		messages += f.Msgs
	}
	return len(all), messages
}

func (n *Node) streams() []StreamStatus {
	all := []StreamStatus{}
	declared := n.health.declared()
	lanes := make(map[string]broker.LaneStatus)
	for _, l := range n.broker.Lanes() {
		lanes[l.Stream] = l
	}
	for _, info := range n.db.Streams() {
		s := StreamStatus{Name: info.Name, First: info.First, Last: info.Last, Bytes: info.Bytes, Messages: info.Msgs, Reasons: info.Dropped}
		_, ok := declared[info.Name]
		s.Undeclared, s.Delayed, s.Priority, s.Durability = !ok, info.Delayed, info.Priority, durability(info.StreamConfig)
		s.AtRisk = RiskStatus{info.Risk.Msgs, info.Risk.Bytes, info.Risk.Age.Milliseconds()}
		for _, d := range info.Dropped {
			s.Dropped += d
		}
		s.Acked = n.acked(info.Name, info.Last, info.First)
		s.Lag, s.BacklogBytes = broker.Backlog(n.db, info, s.Acked)
		if l, ok := lanes[info.Name]; ok {
			s.Rate, s.Waits, s.Hub = l.Rate, l.Err, &l.Hub
		}
		all = append(all, s)
	}
	return all
}

// durability is that of a stream, as a manifest has it.
func durability(c store.StreamConfig) string {
	switch c.Durability {
	case store.Memory:
		return "memory"
	case store.Batch:
		return "batch:" + c.BatchFor.String()
	}
	return "synced"
}

// acked is how far the hub has come with a stream, or, if it is not uplinked,
// the slowest of its subscriptions.
func (n *Node) acked(stream string, last, first uint64) uint64 {
	slowest, any := last, false
	for name, s := range n.db.Subscriptions() {
		if s != stream {
			continue
		}
		p, err := n.db.Position(name)
		if err != nil {
			continue // deleted meanwhile
		}
		if isSystem(name) {
			return p.Floor
		}
		slowest, any = min(slowest, p.Floor), true
	}
	if !any {
		return max(first, 1) - 1
	}
	return slowest
}

func (h *health) actors() []*actor {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.apps.actors()
}

func (h *health) running() appSet {
	h.mu.Lock()
	defer h.mu.Unlock()
	return maps.Clone(h.apps)
}

func (h *health) declared() map[string]string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.apps.declared()
}

func (h *health) status() (apps []AppStatus, turns []TurnStatus, reload *ReloadStatus) {
	h.mu.Lock()
	defer h.mu.Unlock()
	apps, turns = []AppStatus{}, []TurnStatus{}
	for _, a := range h.apps.sorted() {
		s := AppStatus{Name: a.config.Name, Version: a.config.Version, Digest: a.digest, Actors: []string{}, Compiling: []string{}}
		for _, actor := range a.actors {
			s.Actors = append(s.Actors, actor.key)
			if actor.code.runs.Load() == nil {
				s.Compiling = append(s.Compiling, actor.key)
			}
		}
		apps = append(apps, s)
	}
	for k, n := range h.counts {
		turns = append(turns, TurnStatus{k.app, k.actor, k.version, n.Load()})
	}
	slices.SortFunc(turns, func(a, b TurnStatus) int {
		return cmp.Or(cmp.Compare(a.App, b.App), cmp.Compare(a.Actor, b.Actor), cmp.Compare(a.Version, b.Version))
	})
	return apps, turns, h.reload
}

// Line is the state of a GPIO line.
type Line = gpio.LineInfo

// Alive says whether the box can still do its work; the watchdog asks, in one
// goroutine, every some seconds. Turns that waited when it asked last, and since
// then nothing was committed, mean that the disk or the store hangs.
func (n *Node) Alive() error {
	if err := n.db.Err(); err != nil {
		return err
	}
	now := n.db.Stats()
	before := n.lastSeen
	n.lastSeen = now
	if before.Queued > 0 && now.Queued > 0 && now.Commits == before.Commits {
		return fmt.Errorf("%d turns wait and nothing is committed", now.Queued)
	}
	return nil
}

func (n *Node) epoch() string { return n.broker.Epoch() }
