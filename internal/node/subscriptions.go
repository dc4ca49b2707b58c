package node

import (
	"cmp"
	"slices"

	"github.com/edged-io/edged/broker"
)

// SubscriptionStatus is a subscription on disk. Acked is its position: all up to
// there is done with. Counts but Pending are since the box started.
type SubscriptionStatus struct {
	Name        string `json:"name"`
	Stream      string `json:"stream"`
	Acked       uint64 `json:"acked"`
	Pending     uint64 `json:"pending"` // messages beyond Acked that are not done with
	InFlight    int    `json:"in_flight"`
	Retrying    int    `json:"retrying"` // messages that failed and will be tried again
	Delivered   uint64 `json:"delivered"`
	Redelivered uint64 `json:"redelivered"`
	Failed      uint64 `json:"failed"`
	DeadLetters uint64 `json:"dead_letters"`
	Paused      bool   `json:"paused"`
	// Undeclared says that no app has it: it keeps messages for nobody until the
	// next reload.
	Undeclared bool `json:"undeclared"`
}

// subscriptions returns those of apps, by stream and name.
func (n *Node) subscriptions() []SubscriptionStatus {
	stats := make(map[string]broker.SubscriptionStats)
	for _, s := range n.broker.Stats().Subscriptions {
		stats[s.Name] = s
	}
	all := []SubscriptionStatus{}
	for name, stream := range n.db.Subscriptions() {
		if isSystem(name) || isOutbox(name, stream) {
			continue
		}
		p, err := n.db.Position(name)
		if err != nil {
			continue // deleted meanwhile
		}
		s := SubscriptionStatus{Name: name, Stream: stream, Acked: p.Floor, Retrying: len(p.Attempts)}
		if b, ok := stats[name]; ok {
			s.Pending, s.InFlight, s.Paused = b.Pending, b.InFlight, b.Paused
			s.Delivered, s.Redelivered, s.Failed, s.DeadLetters = b.Delivered, b.Redelivered, b.Failed, b.DeadLetters
		} else {
			s.Undeclared = true
			if info, err := n.db.Stream(stream); err == nil && info.Last > p.Floor {
				s.Pending = info.Last - p.Floor - min(uint64(len(p.Above)), info.Last-p.Floor)
			}
		}
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b SubscriptionStatus) int {
		return cmp.Or(cmp.Compare(a.Stream, b.Stream), cmp.Compare(a.Name, b.Name))
	})
	return all
}
