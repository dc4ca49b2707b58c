package messaging

import (
	"math"
	"time"

	"github.com/edged-io/edged/providers"
	"github.com/edged-io/edged/sdk/go/msgpack"
)

// The MessagePack of wasmcloud:messaging. A message is a map: subject as str,
// replyTo as str where there is one, body as bin. A request has timeoutMs too, and no
// replyTo.

// Members of what actors send, in the order in which they stand where a struct is an
// array.
var (
	messageMembers = []string{"subject", "replyTo", "body"}
	requestMembers = []string{"subject", "body", "timeoutMs"}
)

func decodeMessage(payload []byte, members []string) (m Message, wait time.Duration, err error) {
	d := providers.Decoder(payload)
	providers.Struct(d, members, func(name string) {
		switch name {
		case "subject":
			m.Subject = d.Str()
		case "replyTo":
			m.Reply = d.Str()
		case "body":
			m.Body = append([]byte{}, d.Bin()...)
		case "timeoutMs":
			wait = time.Duration(d.IntIn(0, math.MaxUint32)) * time.Millisecond
		default:
			d.Skip()
		}
	})
	return m, wait, d.Done()
}

// AppendMessage appends the MessagePack of m: the payload of HandleMessage, and
// the answer to Messaging.Request.
func AppendMessage(b []byte, m Message) []byte {
	n := 2
	if m.Reply != "" {
		n++
	}
	b = msgpack.AppendMapHeader(b, n)
	b = msgpack.AppendString(msgpack.AppendString(b, "subject"), m.Subject)
	if m.Reply != "" {
		b = msgpack.AppendString(msgpack.AppendString(b, "replyTo"), m.Reply)
	}
	return msgpack.AppendBin(msgpack.AppendString(b, "body"), m.Body)
}
