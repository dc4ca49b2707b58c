package node

import (
	"cmp"
	"slices"

	"github.com/edged-io/edged/lattice"
	"github.com/edged-io/edged/runtime"
)

// ActorStatus is an actor that runs. Its counters begin with the box, and go on
// when another version takes its place.
type ActorStatus struct {
	Key       string        `json:"key"` // M… of a signed one, else app/name
	App       string        `json:"app"`
	Name      string        `json:"name"`
	Version   string        `json:"version"` // of the app
	Digest    string        `json:"digest"`  // of the module
	Idle      int           `json:"idle"`    // instances that wait for a call
	Busy      int           `json:"busy"`    // calls that are served now
	Waiting   int64         `json:"waiting"` // calls that wait to be served
	Memory    uint64        `json:"memory"`  // bytes, of all instances
	Calls     uint64        `json:"calls"`   // ended, in any way
	Errors    uint64        `json:"errors"`  // answers that were errors
	Traps     uint64        `json:"traps"`
	Steps     uint64        `json:"steps"` // of all calls
	Timeouts  uint64        `json:"timeouts"`
	Cancelled uint64        `json:"cancelled"`
	Limits    []LimitStatus `json:"limits"`
	// Failure is the last call of this version that failed; null for none.
	Failure *FailureStatus `json:"failure"`
}

// LimitStatus is a limit of an actor, and how often it was met: calls, publishes
// or lines of the log, by what it is about.
type LimitStatus struct {
	Name  string `json:"name"`
	Limit int64  `json:"limit"`
	Unit  string `json:"unit"` // of Limit
	Met   uint64 `json:"met"`
}

// actors returns those that run, by app and name.
func (n *Node) actors() []ActorStatus {
	all := []ActorStatus{}
	for _, a := range n.health.actors() {
		s, met := a.meter.stats()
		l := a.config.Limits
		limits := []LimitStatus{
			{limitMemory.String(), l.Memory, "bytes", 0},
			{limitTime.String(), l.Time.Milliseconds(), "ms", 0},
			{limitSteps.String(), l.Steps, "steps", 0},
			{limitCalls.String(), int64(l.Calls), "calls", 0},
			{limitInstances.String(), int64(l.Instances), "calls", 0},
			{limitLogRate.String(), int64(l.LogRate), "lines/s", 0},
			{limitPublishRate.String(), int64(l.PublishRate), "messages/s", 0},
			{limitState.String(), l.State, "bytes", 0},
			{limitTurn.String(), n.staged(), "bytes", 0},
			{limitDepth.String(), lattice.MaxDepth, "calls", 0},
			{limitRestarts.String(), runtime.MaxRestarts, "instances/s", 0},
		}
		for i := range limits {
			limits[i].Met = met[i]
		}
		all = append(all, ActorStatus{
			Key: a.key, App: a.app, Name: a.config.Name, Version: a.version, Digest: a.digest,
			Idle: s.Idle, Busy: s.Busy, Waiting: max(a.meter.calls.Load()-int64(s.Busy), 0), Memory: s.MemoryBytes,
			Calls: s.Calls, Errors: s.GuestErrors, Traps: s.Traps, Steps: s.Steps, Timeouts: s.Timeouts, Cancelled: s.Cancelled, Limits: limits,
			Failure: a.failed.Load(),
		})
	}
	slices.SortFunc(all, func(a, b ActorStatus) int { return cmp.Or(cmp.Compare(a.App, b.App), cmp.Compare(a.Name, b.Name)) })
	return all
}
