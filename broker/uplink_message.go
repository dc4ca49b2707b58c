package broker

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/edged-io/edged/internal/event"
	"github.com/edged-io/edged/internal/topic"
	"github.com/edged-io/edged/store"
)

const (
	// defaultHubMessage is what a hub is taken to accept, header included, when
	// EDGE_UP does not say: the max_payload of a NATS server left as it is.
	defaultHubMessage = 1 << 20
	// maxHubHeader is what JetStream takes of headers.
	maxHubHeader = 1<<16 - 1
	// maxHubSubject leaves room in a protocol line of 4 KiB, the default of
	// NATS servers, for a reply subject and two sizes. A hub closes the link
	// for a longer one.
	maxHubSubject = 4096 - 256
	// maxStoneSubject is how much of its subject a tombstone tells.
	maxStoneSubject = 16 << 10
	// batchHeaderRoom is what the headers of a batch take, beside the filter of
	// the lane.
	batchHeaderRoom = 200
)

// Reasons in Edged-Tombstone.
const (
	stoneTooLarge = "too-large" // for the hub
	stoneRefused  = "refused"   // by the hub, for good
)

// outMsg is a message on its way to the hub.
type outMsg struct {
	seq   uint64
	time  time.Time
	msg   *nats.Msg
	size  int
	entry entry // of the digest; noted when it was sent
}

// lanePrefix is what the subject of a message has before it in its lane.
func lanePrefix(device, stream string) string { return subjectUp + device + "." + stream + "." }

// tombstoneSubject takes the tombstones of messages whose own subject the hub
// may not take.
func tombstoneSubject(prefix string) string { return prefix + "$tombstone" }

// lift turns a stored message into one of the lane. Its body stays as it is; its
// Nats-… headers become Edged-Nats-…, because the hub would obey them.
//
// refused says why the hub would never take it, "" if it may.
func (l *uplinkLane) lift(m store.Message) (out outMsg, refused string) {
	subject := l.prefix + m.Subject
	out = outMsg{seq: m.Seq, time: m.Time, msg: &nats.Msg{Subject: subject, Header: l.headers(m), Data: m.Data}}
	header := headerSize(out.msg.Header) + batchHeaderRoom + len(l.filter)
	out.size = header + len(m.Data)
	switch {
	case len(m.Header) > event.MaxHeaderBytes || header > maxHubHeader:
		return out, fmt.Sprintf("headers of %d bytes, the hub takes %d", header, maxHubHeader)
	case out.size > l.maxMsg:
		return out, fmt.Sprintf("%d bytes with headers, the hub takes %d", out.size, l.maxMsg)
	case len(subject) > maxHubSubject:
		return out, fmt.Sprintf("subject of %d bytes, the hub takes %d", len(subject), maxHubSubject)
	case !topic.ValidSubject(subject):
		return out, "the subject is not one to publish to"
	}
	return out, ""
}

// tombstone takes the place of a message that the hub refuses.
func (l *uplinkLane) tombstone(m store.Message, reason string) outMsg {
	h := nats.Header{headerTombstone: {reason}}
	l.stamp(h, m)
	subject := l.prefix + m.Subject
	if reason != stoneTooLarge || len(subject) > maxHubSubject || !topic.ValidSubject(subject) {
		subject = tombstoneSubject(l.prefix)
		h.Set(headerSubject, headerValue(m.Subject[:min(len(m.Subject), maxStoneSubject)]))
	}
	return outMsg{seq: m.Seq, time: m.Time, msg: &nats.Msg{Subject: subject, Header: h}, size: headerSize(h) + batchHeaderRoom + len(l.filter)}
}

// headers returns the message's own headers, fit for the hub, and ours.
func (l *uplinkLane) headers(m store.Message) nats.Header {
	h := make(nats.Header, 4)
	event.Header(m.Header).RenamePrefix("Nats-", "Edged-").Each(func(name, value []byte) bool {
		if headerName(string(name)) {
			h[string(name)] = append(h[string(name)], headerValue(string(value)))
		}
		return true
	})
	for name := range h {
		for _, ours := range [...]string{headerEpoch, headerSeq, headerTime, headerTombstone, headerSubject} {
			if strings.EqualFold(name, ours) {
				delete(h, name) // nobody else speaks in our name
			}
		}
	}
	l.stamp(h, m)
	return h
}

func (l *uplinkLane) stamp(h nats.Header, m store.Message) {
	h[headerEpoch] = []string{l.epoch}
	h[headerSeq] = []string{strconv.FormatUint(m.Seq, 10)}
	h[headerTime] = []string{stampTime(m.Time)}
}

func stampTime(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

// headerSize is what h takes on the wire.
func headerSize(h nats.Header) int {
	n := len("NATS/1.0\r\n\r\n")
	for name, values := range h {
		for _, v := range values {
			n += len(name) + len(": \r\n") + len(v)
		}
	}
	return n
}

// headerName says whether a name can stand in a header block.
func headerName(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == ':' || r >= 0x7f })
}

// headerValue returns a value as it can stand in a header block: with spaces for
// control characters, and otherwise byte for byte.
func headerValue(s string) string {
	control := func(c byte) bool { return c < ' ' && c != '\t' || c == 0x7f }
	b := []byte(s)
	for i, c := range b {
		if control(c) {
			b[i] = ' '
		}
	}
	return string(bytes.TrimSpace(b))
}

// sameMessage says whether the hub's message is ours. It has our epoch and our
// sequence, which a restored store gives to other messages too; those were
// stored at another time.
func sameMessage(hub hubLast, ours store.Message) bool {
	if hub.time != stampTime(ours.Time) {
		return false
	}
	return hub.tombstone || hub.size == len(ours.Data) && (hub.data == nil || bytes.Equal(hub.data, ours.Data))
}

// sealBatch puts the headers of an atomic batch onto its messages. The first carries the
// condition: that the last message of the lane is the one the hub told us of.
func sealBatch(batch []outMsg, id, filter string, expect uint64, reply string) {
	for i := range batch {
		m := batch[i].msg
		m.Reply = ""
		m.Header["Nats-Batch-Id"] = []string{id}
		m.Header["Nats-Batch-Sequence"] = []string{strconv.Itoa(i + 1)}
	}
	first, last := batch[0].msg, batch[len(batch)-1].msg
	first.Header["Nats-Expected-Last-Subject-Sequence"] = []string{strconv.FormatUint(expect, 10)}
	first.Header["Nats-Expected-Last-Subject-Sequence-Subject"] = []string{filter}
	last.Header["Nats-Batch-Commit"] = []string{"1"}
	first.Reply, last.Reply = reply, reply
}
