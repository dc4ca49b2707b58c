package broker

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/edged-io/edged/internal/event"
)

// Headers by which a publisher asks for something.
const (
	headerTTL         = "Nats-TTL"
	headerNotBefore   = "Edged-Not-Before"
	headerProducerSeq = "Edged-Producer-Seq"
	headerSource      = "Edged-Source"
	headerEventSource = "ce-source"
)

// identify gives a message the identity that its header or body implies, and what
// its headers ask for, where it has nothing of the kind already.
func identify(m *Message) error {
	if m.ID == "" {
		m.ID = event.Identity(event.Header(m.Header), m.Data)
	}
	return readAsks(m)
}

// asks are the values of such headers, nil where there is none.
type asks struct {
	ttl, notBefore, producerSeq, source, eventSource []byte
	twice                                            string // one that is there twice
}

// note takes one header.
func (a *asks) note(name, value []byte) {
	for _, h := range [...]struct {
		name string
		to   *[]byte
	}{
		{headerTTL, &a.ttl}, {headerNotBefore, &a.notBefore}, {headerProducerSeq, &a.producerSeq},
		{headerSource, &a.source}, {headerEventSource, &a.eventSource},
	} {
		if len(h.name) != len(name) || !strings.EqualFold(h.name, string(name)) {
			continue
		}
		switch {
		case *h.to == nil:
			*h.to = append([]byte{}, value...)
		case h.to != &a.eventSource: // which means something without us
			a.twice = h.name
		}
	}
}

// readAsks takes what the headers of a message ask the box for: when it comes, how
// long it is of use, and which number its producer gave it. What the message has
// already stays.
func readAsks(m *Message) (err error) {
	if len(m.Header) == 0 {
		return nil
	}
	var a asks
	event.Header(m.Header).Each(func(name, value []byte) bool {
		a.note(name, value)
		return true
	})
	if a.twice != "" {
		return refuse(server.JSBadRequestErr, "header "+a.twice+" is there twice")
	}
	if a.ttl != nil && m.TTL == 0 {
		if m.TTL, err = parseTTL(string(a.ttl)); err != nil {
			return refuse(server.JSMessageTTLInvalidErr, "header "+headerTTL+": "+err.Error())
		}
	}
	if a.notBefore != nil && m.NotBefore.IsZero() && m.Delay == 0 {
		if m.NotBefore, m.Delay, err = parseNotBefore(string(a.notBefore)); err != nil {
			return refuse(server.JSBadRequestErr, "header "+headerNotBefore+": "+err.Error())
		}
	}
	if a.producerSeq != nil && m.ProducerSeq == 0 {
		return a.readProducer(m)
	}
	return nil
}

// maxProducer bounds the name of a producer.
const maxProducer = 4096

func (a *asks) readProducer(m *Message) error {
	source := a.source
	if len(source) == 0 {
		source = a.eventSource
	}
	n, err := strconv.ParseUint(string(a.producerSeq), 10, 64)
	switch {
	case err != nil || n == 0:
		return refuse(server.JSBadRequestErr, "header "+headerProducerSeq+" is not a number from 1 on")
	case len(source) == 0:
		return refuse(server.JSBadRequestErr, "header "+headerProducerSeq+" needs one that names the producer, "+headerSource+" or "+headerEventSource)
	case len(source) > maxProducer:
		return refuse(server.JSBadRequestErr, fmt.Sprintf("the name of the producer has %d bytes, at most %d", len(source), maxProducer))
	}
	m.Producer, m.ProducerSeq = string(source), n
	return nil
}

// parseTTL reads a time to live as JetStream does: whole seconds, or a duration
// with its unit; "never" is 0.
func parseTTL(s string) (time.Duration, error) {
	if s == "never" {
		return 0, nil
	}
	d, err := parseSpan(s)
	if err == nil && d == 0 {
		err = fmt.Errorf("%q is no time", s)
	}
	return d, err
}

// parseSpan reads whole seconds, or a duration with its unit, up to maxDelay.
func parseSpan(s string) (time.Duration, error) {
	if len(s) > 64 {
		return 0, fmt.Errorf("%.64q is too long", s)
	}
	d, err := time.ParseDuration(s)
	if n, nerr := strconv.ParseInt(s, 10, 64); nerr == nil {
		d, err = maxDelay+1, nil
		if n <= int64(maxDelay/time.Second) {
			d = time.Duration(n) * time.Second
		}
	}
	switch {
	case err != nil:
		return 0, fmt.Errorf("%q is neither whole seconds nor a duration such as 90s", s)
	case d < 0:
		return 0, fmt.Errorf("%q is negative", s)
	case d > maxDelay:
		return 0, fmt.Errorf("%q is more than ten years", s)
	}
	return d, nil
}

// parseNotBefore reads a time of day in RFC 3339, or "+" and a duration.
func parseNotBefore(s string) (at time.Time, delay time.Duration, err error) {
	if span, ok := strings.CutPrefix(s, "+"); ok {
		delay, err = parseSpan(span)
		return at, delay, err
	}
	if len(s) > 64 {
		return at, 0, fmt.Errorf("%.64q is too long", s)
	}
	if at, err = time.Parse(time.RFC3339, s); err != nil {
		return time.Time{}, 0, fmt.Errorf("%q is neither a time such as 2026-01-02T15:04:05Z nor a delay such as +90s", s)
	}
	if y := at.Year(); y < 1970 || y > 2200 {
		return time.Time{}, 0, fmt.Errorf("%q is out of range", s)
	}
	return at, 0, nil
}
