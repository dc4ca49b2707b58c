package wire

import (
	"maps"
	"slices"
	"strings"

	"github.com/edged-io/edged/sdk/go/msgpack"
)

// Response answers an Invocation.
type Response struct {
	Payload []byte // empty where it is in the object store, and on failure
	ID      string // of the invocation
	Failed  bool
	Error   string // why it failed, in words for the caller
	Length  uint64 // of the payload, wherever it is
	Trace   map[string]string
	// Text has Append write the payload as a str. Providers of the original Go kit
	// read nothing else; hosts want bin.
	Text bool
}

// Object is the name of the payload in the object store.
func (r *Response) Object() string { return r.ID + "-r" }

// Chunked says whether the payload is in the object store.
func (r *Response) Chunked() bool { return !r.Failed && r.Length > uint64(len(r.Payload)) }

var responseFields = []string{"msg", "invocation_id", "error", "content_length", "traceContext"}

// Append appends the envelope to b. A success has no key "error": readers of
// several kits take an empty text for a failure.
func (r *Response) Append(b []byte) []byte {
	fields := 3
	if r.Failed {
		fields++
	}
	if r.Trace != nil {
		fields++
	}
	b = msgpack.AppendMapHeader(b, fields)
	b = msgpack.AppendString(b, "msg")
	if r.Text {
		b = msgpack.AppendString(b, string(r.Payload))
	} else {
		b = msgpack.AppendBin(b, r.Payload)
	}
	b = appendText(b, "invocation_id", r.ID)
	if r.Failed {
		b = appendText(b, "error", r.Error)
	}
	b = msgpack.AppendUint(msgpack.AppendString(b, "content_length"), r.Length)
	if r.Trace != nil {
		b = appendTrace(b, r.Trace)
	}
	return b
}

// DecodeResponse reads an envelope. Its Payload may be a part of b. An error that
// is nil or empty is none: several kits always write one. Errors wrap ErrMalformed.
func DecodeResponse(b []byte) (Response, error) {
	var r Response
	var fault error
	d := msgpack.NewDecoder(b)
	if !isStruct(d) {
		return r, malformed("a response is a map")
	}
	for name := range fields(d, responseFields, &fault) {
		switch name {
		case "msg":
			r.Payload = d.Bin()
		case "invocation_id":
			r.ID = d.Str()
		case "error":
			r.Error = d.Str()
		case "content_length":
			r.Length = d.Uint()
		case "traceContext":
			r.Trace = readTrace(d)
		default:
			d.Skip()
		}
	}
	if err := ended(d, fault); err != nil {
		return r, err
	}
	if len(r.ID) > MaxID {
		return r, malformed("invocation_id of %d bytes, at most %d", len(r.ID), MaxID)
	}
	if r.Failed = r.Error != ""; r.Failed {
		r.Error = strings.ToValidUTF8(r.Error[:min(len(r.Error), MaxError)], "")
		r.Payload, r.Length = nil, 0 // what comes beside an error means nothing
		return r, nil
	}
	if r.Length > 0 && r.Length < uint64(len(r.Payload)) {
		return r, malformed("content_length is %d, the payload has %d bytes", r.Length, len(r.Payload))
	}
	return r, nil
}

// appendTrace writes an empty map for none: a nil stops readers of two kits.
func appendTrace(b []byte, trace map[string]string) []byte {
	b = msgpack.AppendMapHeader(msgpack.AppendString(b, "traceContext"), len(trace))
	for _, key := range slices.Sorted(maps.Keys(trace)) {
		b = appendText(b, key, trace[key])
	}
	return b
}

// readTrace takes what is text in a trace context, up to a bound. No call fails
// for the rest of it.
func readTrace(d *msgpack.Decoder) map[string]string {
	if d.Kind() != msgpack.Map {
		d.Skip()
		return nil
	}
	var trace map[string]string
	for range d.Map() {
		if d.Kind() != msgpack.Str {
			d.Skip()
			d.Skip()
			continue
		}
		key := d.Str()
		if d.Kind() != msgpack.Str {
			d.Skip()
			continue
		}
		value := d.Str()
		if len(trace) >= maxTrace || key == "" || len(key)+len(value) > MaxName {
			continue
		}
		if trace == nil {
			trace = make(map[string]string)
		}
		trace[key] = value
	}
	return trace
}
