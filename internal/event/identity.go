package event

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"
)

// MaxIdentityBytes is the longest identity.
const MaxIdentityBytes = 128

// Identity returns that by which a repeat of a message is recognised, or "" if it has nothing of the kind: its Nats-Msg-Id header, else source and id of
// the event it is, be it binary or structured. Identities of different kinds never agree, nor do those of different pairs of source and id; a long one is
// replaced by its SHA-256. For a body that is no event it costs a search for one word.
func Identity(header Header, body []byte) string {
	if id, ok := header.Get("Nats-Msg-Id"); ok && id != "" {
		return identity('n', id)
	}
	if !structuredType(header) {
		if e, ok := parseBinary(header, nil); ok {
			return identity('c', pair(e.Source, e.ID))
		}
	}
	if !candidate(body) {
		return ""
	}
	var id, source string
	version := false
	whole := members(body, func(name string, value []byte) bool {
		switch name {
		case "specversion":
			v, _ := scalar(value)
			version = strings.HasPrefix(v, "1.")
			return version
		case "id":
			id, _ = scalar(value)
		case "source":
			source, _ = scalar(value)
		}
		return true
	})
	if !whole || !version || id == "" || source == "" {
		return ""
	}
	return identity('c', pair(source, id))
}

// pair joins source and id so that they can be told apart again.
func pair(source, id string) string { return strconv.Itoa(len(source)) + ":" + source + id }

// identity marks the kind, and whether what follows is the value (":") or its hash ("#").
func identity(kind byte, value string) string {
	if 2+len(value) <= MaxIdentityBytes {
		return string(kind) + ":" + value
	}
	sum := sha256.Sum256([]byte(value))
	return string(kind) + "#" + hex.EncodeToString(sum[:])
}
