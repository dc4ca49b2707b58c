package broker

import (
	"encoding/json"
	"errors"
	"strconv"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/edged-io/edged/store"
)

// Ack tells where a message went: stream and sequence, and whether it is a
// repeat of the one with that sequence. It is empty for a message of no stream.
type Ack = store.Receipt

// ackJSON is the answer of JetStream to a publisher whose message is stored. One
// that is parked has no sequence yet.
func ackJSON(a Ack) []byte {
	b := make([]byte, 0, 64+len(a.Stream))
	b = append(b, `{"stream":`...)
	b = strconv.AppendQuote(b, a.Stream) // names hold nothing that JSON quotes otherwise
	b = append(b, `,"seq":`...)
	b = strconv.AppendUint(b, a.Seq, 10)
	if a.Duplicate {
		b = append(b, `,"duplicate":true`...)
	}
	if !a.Due.IsZero() {
		b = append(a.Due.UTC().AppendFormat(append(b, `,"due":"`...), time.RFC3339Nano), '"')
	}
	return append(b, '}')
}

// refusal is the answer of JetStream to a publisher whose message is not
// stored, in the codes that its clients know.
type refusal struct {
	Code        int    `json:"code"`
	ErrCode     uint16 `json:"err_code"`
	Description string `json:"description"`
}

func (r *refusal) Error() string { return r.Description }

// refuse makes a refusal with one of JetStream's errors, and what it
// says of itself where description is "".
func refuse(id server.ErrorIdentifier, description string) *refusal {
	e := server.ApiErrors[id]
	if description == "" {
		description = e.Description
	}
	return &refusal{Code: e.Code, ErrCode: e.ErrCode, Description: description}
}

// refusalOf is what a publisher is told about err. Details stay here: err may
// name what is not the publisher's business.
func refusalOf(err error) *refusal {
	var r *refusal
	switch {
	case errors.As(err, &r):
		return r
	case errors.Is(err, store.ErrTooLarge):
		return refuse(server.JSStreamMessageExceedsMaximumErr, "")
	case errors.Is(err, store.ErrFull):
		return refuse(server.JSStreamStoreFailedF, "stream is full: "+err.Error())
	case errors.Is(err, store.ErrNoStream):
		return refuse(server.JSStreamNotFoundErr, "")
	default:
		return refuse(server.JSInsufficientResourcesErr, "the store of the box failed")
	}
}

func (r *refusal) json() []byte {
	b, err := json.Marshal(struct {
		Error *refusal `json:"error"`
	}{r})
	if err != nil { // a struct of numbers and a string
		panic(err)
	}
	return b
}
