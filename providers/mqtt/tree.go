package mqtt

import (
	"strings"
	"sync"

	"github.com/mochi-mqtt/server/v2/packets"
)

// subscription is one topic filter of a session.
type subscription struct {
	Filter            string `json:"f"` // as the client wrote it, "$share/…" included
	QoS               byte   `json:"q,omitempty"`
	NoLocal           bool   `json:"nl,omitempty"`
	RetainAsPublished bool   `json:"rap,omitempty"`
	RetainHandling    byte   `json:"rh,omitempty"`
	ID                int    `json:"id,omitempty"` // subscription identifier; 0 for none
}

func subscriptionOf(s packets.Subscription) subscription {
	return subscription{
		Filter: strings.Clone(s.Filter), QoS: s.Qos, NoLocal: s.NoLocal,
		RetainAsPublished: s.RetainAsPublished, RetainHandling: s.RetainHandling, ID: s.Identifier,
	}
}

const sharePrefix = "$share/"

// splitShare takes "$share/group/filter" apart; group is "" for a filter that is not shared.
func splitShare(filter string) (group, rest string) {
	after, ok := strings.CutPrefix(filter, sharePrefix)
	if !ok {
		return "", filter
	}
	group, rest, _ = strings.Cut(after, "/")
	return group, rest
}

// tree finds the subscriptions that match a topic. Its methods may be called from any goroutine.
type tree struct {
	mu   sync.Mutex // guards all nodes
	root node
}

// node is one level of topic filters.
type node struct {
	children map[string]*node
	subs     map[*session]subscription
	shared   map[string]*shareGroup
}

// shareGroup is the sessions that share one filter; each message goes to one of them.
type shareGroup struct {
	members []shareMember
	next    int
}

type shareMember struct {
	session *session
	sub     subscription
}

// match is what one session gets of one message.
type match struct {
	qos    byte
	retain bool  // retain as published
	ids    []int // subscription identifiers
}

// add adds or replaces a subscription and says whether it is new.
func (t *tree) add(s *session, sub subscription) (isNew bool) {
	group, filter := splitShare(sub.Filter)
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.root.reach(filter)
	if group == "" {
		_, had := n.subs[s]
		if n.subs == nil {
			n.subs = make(map[*session]subscription)
		}
		n.subs[s] = sub
		return !had
	}
	g := n.shared[group]
	if g == nil {
		g = &shareGroup{}
		if n.shared == nil {
			n.shared = make(map[string]*shareGroup)
		}
		n.shared[group] = g
	}
	for i := range g.members {
		if g.members[i].session == s {
			g.members[i].sub = sub
			return false
		}
	}
	g.members = append(g.members, shareMember{s, sub})
	return true
}

// remove takes a subscription away and the levels that are empty then.
func (t *tree) remove(s *session, filter string) {
	group, filter := splitShare(filter)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.root.remove(strings.Split(filter, "/"), s, group)
}

func (n *node) reach(filter string) *node {
	for rest, more := filter, true; more; {
		var level string
		level, rest, more = strings.Cut(rest, "/")
		child := n.children[level]
		if child == nil {
			child = &node{}
			if n.children == nil {
				n.children = make(map[string]*node)
			}
			n.children[strings.Clone(level)] = child
		}
		n = child
	}
	return n
}

func (n *node) remove(levels []string, s *session, group string) {
	if len(levels) > 0 {
		child := n.children[levels[0]]
		if child == nil {
			return
		}
		child.remove(levels[1:], s, group)
		if len(child.children)+len(child.subs)+len(child.shared) == 0 {
			delete(n.children, levels[0])
		}
		return
	}
	if group == "" {
		delete(n.subs, s)
		return
	}
	g := n.shared[group]
	if g == nil {
		return
	}
	for i := range g.members {
		if g.members[i].session == s {
			g.members = append(g.members[:i], g.members[i+1:]...)
			break
		}
	}
	if len(g.members) == 0 {
		delete(n.shared, group)
	}
}

// find returns what each session gets of a message on topic from the client origin. A session with several filters that match gets it once, with the
// highest quality of service among them (MQTT 3.1.1, 3.3.5).
func (t *tree) find(topic, origin string) map[*session]match {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.root.children) == 0 {
		return nil
	}
	found := make(map[*session]match)
	t.root.find(topic, true, topic[:min(1, len(topic))] == "$", origin, found)
	return found
}

func (n *node) find(rest string, more, system bool, origin string, found map[*session]match) {
	if c := n.children["#"]; c != nil && !system {
		c.collect(origin, found) // also the level above it: "a/#" matches "a"
	}
	if !more {
		n.collect(origin, found)
		return
	}
	level, rest, more := strings.Cut(rest, "/")
	if c := n.children["+"]; c != nil && !system { // wildcards of the first level do not match "$…" (MQTT 4.7.2)
		c.find(rest, more, false, origin, found)
	}
	if c := n.children[level]; c != nil {
		c.find(rest, more, false, origin, found)
	}
}

func (n *node) collect(origin string, found map[*session]match) {
	for s, sub := range n.subs {
		if sub.NoLocal && origin != "" && s.id == origin {
			continue
		}
		found[s] = found[s].with(sub)
	}
	for _, g := range n.shared {
		if m := g.pick(); m != nil {
			found[m.session] = found[m.session].with(m.sub)
		}
	}
}

func (m match) with(sub subscription) match {
	m.qos = max(m.qos, sub.QoS)
	m.retain = m.retain || sub.RetainAsPublished
	if sub.ID > 0 {
		m.ids = append(m.ids, sub.ID)
	}
	return m
}

// pick takes the members in turn, those that are connected first.
func (g *shareGroup) pick() *shareMember {
	for i := range g.members {
		m := &g.members[(g.next+i)%len(g.members)]
		if m.session.online.Load() {
			g.next = (g.next + i + 1) % len(g.members)
			return m
		}
	}
	if len(g.members) == 0 {
		return nil
	}
	g.next = (g.next + 1) % len(g.members)
	return &g.members[g.next]
}

// matches says whether a topic filter without "$share" matches a topic.
func matches(filter, topic string) bool {
	if strings.HasPrefix(topic, "$") && !strings.HasPrefix(filter, "$") {
		return false
	}
	for {
		f, fRest, fMore := strings.Cut(filter, "/")
		if f == "#" {
			return true
		}
		t, tRest, tMore := strings.Cut(topic, "/")
		if f != "+" && f != t {
			return false
		}
		if !tMore {
			return !fMore || fRest == "#"
		}
		if !fMore {
			return false
		}
		filter, topic = fRest, tRest
	}
}
