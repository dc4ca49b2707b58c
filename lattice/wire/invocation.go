package wire

import "github.com/edged-io/edged/sdk/go/msgpack"

// Invocation is a call of an operation, as it is sent to who serves the target.
type Invocation struct {
	Origin    Entity
	Target    Entity
	Operation string // "Service.Method"
	Payload   []byte // empty where it is in the object store; then Length says how much is there
	ID        string
	Token     string            // see Sign
	Host      string            // key of the host or, from some hosts, of the cluster that sends it
	Length    uint64            // of the payload, wherever it is; 0 from old peers that send none
	Trace     map[string]string // W3C trace context; may be nil
}

// Object is the name of the payload in the object store.
func (i *Invocation) Object() string { return i.ID }

// Chunked says whether the payload is in the object store.
func (i *Invocation) Chunked() bool { return i.Length > uint64(len(i.Payload)) }

var invocationFields = []string{
	"origin", "target", "operation", "msg", "id", "encoded_claims", "host_id", "content_length", "traceContext",
}

// Append appends the envelope to b.
func (i *Invocation) Append(b []byte) []byte {
	b = msgpack.AppendMapHeader(b, len(invocationFields))
	b = i.Origin.append(msgpack.AppendString(b, "origin"))
	b = i.Target.append(msgpack.AppendString(b, "target"))
	b = appendText(b, "operation", i.Operation)
	b = msgpack.AppendBin(msgpack.AppendString(b, "msg"), i.Payload)
	b = appendText(b, "id", i.ID)
	b = appendText(b, "encoded_claims", i.Token)
	b = appendText(b, "host_id", i.Host)
	b = msgpack.AppendUint(msgpack.AppendString(b, "content_length"), i.Length)
	return appendTrace(b, i.Trace)
}

// DecodeInvocation reads an envelope. Its Payload may be a part of b. Errors wrap
// ErrMalformed; where the id could be read it is in the result all the same, so
// that the sender can be answered.
func DecodeInvocation(b []byte) (Invocation, error) {
	var i Invocation
	var fault error
	d := msgpack.NewDecoder(b)
	if !isStruct(d) {
		return i, malformed("an invocation is a map")
	}
	for name := range fields(d, invocationFields, &fault) {
		switch name {
		case "origin":
			i.Origin = readEntity(d, &fault)
		case "target":
			i.Target = readEntity(d, &fault)
		case "operation":
			i.Operation = d.Str()
		case "msg":
			i.Payload = d.Bin()
		case "id":
			i.ID = d.Str()
		case "encoded_claims":
			i.Token = d.Str()
		case "host_id":
			i.Host = d.Str()
		case "content_length":
			i.Length = d.Uint()
		case "traceContext":
			i.Trace = readTrace(d)
		default:
			d.Skip()
		}
		if fault != nil {
			break
		}
	}
	if n := len(i.ID); n > MaxID {
		i.ID = ""
		return i, malformed("id of %d bytes, at most %d", n, MaxID)
	}
	if err := ended(d, fault); err != nil {
		return i, err
	}
	return i, i.check()
}

func (i *Invocation) check() error {
	switch {
	case i.ID == "":
		return malformed("no id")
	case i.Operation == "":
		return malformed("no operation")
	case len(i.Operation) > MaxOperation:
		return malformed("operation of %d bytes, at most %d", len(i.Operation), MaxOperation)
	case len(i.Token) > MaxToken:
		return malformed("token of %d bytes, at most %d", len(i.Token), MaxToken)
	case len(i.Host) > MaxName:
		return malformed("host_id of %d bytes, at most %d", len(i.Host), MaxName)
	case i.Length > 0 && i.Length < uint64(len(i.Payload)):
		return malformed("content_length is %d, the payload has %d bytes", i.Length, len(i.Payload))
	}
	if err := i.Origin.check("origin"); err != nil {
		return err
	}
	return i.Target.check("target")
}
