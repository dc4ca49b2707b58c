package natsbroker

import (
	"fmt"
	"slices"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/edged-io/edged/internal/event"
)

// headerOf returns the header block of a message from the server, in a fixed order. What a publisher there told its server, and not the receivers, is left out.
func headerOf(h nats.Header) (block event.Header, err error) {
	names := make([]string, 0, len(h))
	for name := range h {
		if !control(name) || strings.EqualFold(name, headerTTL) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		for _, value := range h[name] {
			if block, err = block.Append(name, value); err != nil {
				return nil, fmt.Errorf("%w: %w", ErrRefused, err)
			}
		}
	}
	return block, nil
}

// fieldsOf is the other way.
func fieldsOf(block event.Header) nats.Header {
	h := nats.Header{}
	block.Each(func(name, value []byte) bool {
		if n := string(name); !control(n) {
			h[n] = append(h[n], string(value))
		}
		return true
	})
	return h
}

// control says whether a header tells a server what to do with the message that it comes with: there it may do what nobody here meant.
func control(name string) bool {
	const prefix = "Nats-"
	return len(name) >= len(prefix) && strings.EqualFold(name[:len(prefix)], prefix) && !strings.EqualFold(name, nats.MsgIdHdr)
}

// headerTTL says how long a message is of use. It is for the box; most streams elsewhere refuse it.
const headerTTL = "Nats-TTL"
