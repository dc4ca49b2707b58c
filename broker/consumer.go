package broker

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// What NATS clients say to a subscription, and what they are told, is as in
// JetStream, of which a subscription is a consumer.
const (
	ackPrefix  = "$JS.ACK."
	nextPrefix = "$JS.API.CONSUMER.MSG.NEXT."

	// headerKey names the key that a message is ordered by.
	headerKey = "Edged-Key"
	// headerNatsSubject tells a client the subject under which a message is
	// stored; the one it comes on is the client's own.
	headerNatsSubject = "Nats-Subject"
)

// Statuses of an answer that is not a message.
const (
	statusBadRequest    = "400 Bad Request"
	statusNoMessages    = "404 No Messages"
	statusTimeout       = "408 Request Timeout"
	statusTooManyWait   = "409 Exceeded MaxWaiting"
	statusTooManyBytes  = "409 Message Size Exceeds MaxBytes"
	statusGoingAway     = "409 Server Shutdown"
	statusNoSuchReceive = "503" // which clients take for "no responders"
)

// statusBlock is the header of an answer without a message; more are whole
// lines.
func statusBlock(status, more string) []byte {
	return []byte("NATS/1.0 " + status + "\r\n" + more + "\r\n")
}

// subjectToken writes a name as one token of a subject: what a token cannot hold,
// and what stands in paths, is written as %XX.
func subjectToken(name string) string {
	var b strings.Builder
	for i := range len(name) {
		switch c := name[i]; {
		case c <= ' ', c == 0x7f, strings.IndexByte(`.*>%/\`, c) >= 0:
			fmt.Fprintf(&b, "%%%02X", c)
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// answerKind is what a client says of a message.
type answerKind int

const (
	answerAck      answerKind = iota + 1
	answerNak                 // again, after delay
	answerProgress            // still at it
	answerTerm                // never
	answerNext                // answerAck, and a request for more
)

// answer is what a client says of a message that it was given.
type answer struct {
	stream, subscription string
	seq, consumerSeq     uint64
	kind                 answerKind
	delay                time.Duration // of answerNak; < 0 means by the backoff
	reason               string        // of answerTerm
	next                 []byte        // of answerNext: the request
	reply                string        // where the client waits for an answer, "" if it does not
}

// done says whether the client is through with the message.
func (a *answer) done() bool {
	return a.kind == answerAck || a.kind == answerNext || a.kind == answerTerm
}

// maxReason bounds what is kept of why a client gives a message up.
const maxReason = 1024

var errAnswer = errors.New("not an acknowledgement")

// parseAnswer reads what was published to the reply subject of a message:
// $JS.ACK.<stream>.<subscription>.<delivered>.<seq>.<consumer seq>.<time>.<pending>.
func parseAnswer(subject string, data []byte) (a answer, err error) {
	rest, ok := strings.CutPrefix(subject, ackPrefix)
	tokens := strings.SplitN(rest, ".", 9)
	if !ok || len(tokens) != 7 {
		return a, errAnswer
	}
	name, err := url.PathUnescape(tokens[1])
	if err != nil || name == "" {
		return a, errAnswer
	}
	a.stream, a.subscription = tokens[0], name
	for i, to := range map[int]*uint64{3: &a.seq, 4: &a.consumerSeq} {
		if *to, err = strconv.ParseUint(tokens[i], 10, 64); err != nil {
			return a, errAnswer
		}
	}
	verb, rest2, _ := bytes.Cut(data, []byte{' '})
	arg := bytes.TrimSpace(rest2)
	switch string(verb) {
	case "", "+ACK", "+OK":
		a.kind = answerAck
	case "+WPI":
		a.kind = answerProgress
	case "+NXT":
		a.kind, a.next = answerNext, arg
	case "+TERM":
		a.kind, a.reason = answerTerm, strings.ToValidUTF8(string(arg[:min(len(arg), maxReason)]), "?")
	case "-NAK":
		a.kind, a.delay = answerNak, -1
		if len(arg) > 0 {
			a.delay, err = parseNakDelay(arg)
		}
	default:
		err = errAnswer
	}
	return a, err
}

// parseNakDelay reads {"delay":nanoseconds}.
func parseNakDelay(arg []byte) (time.Duration, error) {
	var opts struct {
		Delay *int64 `json:"delay"`
	}
	if len(arg) > maxRequest || json.Unmarshal(arg, &opts) != nil {
		return 0, errAnswer
	}
	if opts.Delay == nil {
		return -1, nil
	}
	return time.Duration(min(max(*opts.Delay, 0), int64(maxDelay))), nil
}

const (
	// maxRequest bounds the JSON of a request.
	maxRequest = 4 << 10
	// maxDelay bounds how far ahead anything is put off.
	maxDelay = 10 * 365 * 24 * time.Hour
)

// pullRequest is what a client asks a pull subscription for.
type pullRequest struct {
	Batch    int           `json:"batch"`
	Expires  time.Duration `json:"expires"` // nanoseconds
	NoWait   bool          `json:"no_wait"`
	MaxBytes int           `json:"max_bytes"`
}

// parsePullRequest reads the JSON of a request, a bare number of messages, or
// nothing, which asks for one.
func parsePullRequest(data []byte) (r pullRequest, err error) {
	data = bytes.TrimSpace(data)
	switch {
	case len(data) > maxRequest:
		return r, fmt.Errorf("longer than %d bytes", maxRequest)
	case len(data) == 0:
	case data[0] == '{':
		if json.Unmarshal(data, &r) != nil {
			return r, errors.New("not the JSON of a pull request")
		}
	default:
		if r.Batch, err = strconv.Atoi(string(data)); err != nil {
			return r, errors.New("neither a number nor JSON")
		}
	}
	if r.Batch < 0 || r.Expires < 0 || r.MaxBytes < 0 {
		return r, errors.New("a number is negative")
	}
	r.Batch, r.Expires = max(r.Batch, 1), min(r.Expires, maxDelay)
	return r, nil
}

// withSubject returns a header block with one more line in front, the subject.
// What was stored follows byte for byte.
func withSubject(header []byte, subject string) []byte {
	line := headerNatsSubject + ": " + subject + "\r\n"
	i := bytes.Index(header, []byte("\r\n"))
	if i < 0 {
		return []byte("NATS/1.0\r\n" + line + "\r\n")
	}
	b := make([]byte, 0, len(header)+len(line))
	b = append(append(b, header[:i+2]...), line...)
	return append(b, header[i+2:]...)
}

// serveConsumers listens to what NATS clients say to subscriptions, if one is for
// them. Call it with configured.mu held.
func (s *Server) serveConsumers(subs []Subscription) {
	c := &s.configured
	wanted := false
	for i := range subs {
		wanted = wanted || subs[i].remote()
	}
	switch {
	case wanted && c.consumers == nil:
		c.consumers = []*listener{
			s.local.listen(ackPrefix+">", s.takeAnswer),
			s.local.listen(nextPrefix+"*.*", s.takeRequest),
		}
	case !wanted:
		for _, l := range c.consumers {
			s.local.forget(l)
		}
		c.consumers = nil
	}
}

// takeAnswer takes what a client says of a message. Nonsense changes nothing.
func (s *Server) takeAnswer(_ *wire, m wireMsg) {
	a, err := parseAnswer(m.subject, m.data)
	d := s.work.get(a.subscription)
	if err != nil || d == nil || !d.sub.remote() {
		s.log.Debug("an acknowledgement that belongs to no message", "subject", m.subject)
		return
	}
	if a.reply = m.reply; a.kind == answerNext {
		a.reply = "" // it waits for a message there
		defer d.ask(a.next, m.reply)
	}
	d.answered(a)
}

// takeRequest takes a client's request for messages.
func (s *Server) takeRequest(w *wire, m wireMsg) {
	stream, token, _ := strings.Cut(strings.TrimPrefix(m.subject, nextPrefix), ".")
	name, err := url.PathUnescape(token)
	d := s.work.get(name)
	if m.reply == "" {
		return
	}
	if err != nil || d == nil || !d.sub.Pull || d.sub.Stream != stream {
		w.publish(m.reply, "", statusBlock(statusNoSuchReceive, ""), nil)
		return
	}
	d.ask(m.data, m.reply)
}
