package wire

import (
	"maps"
	"slices"

	"github.com/edged-io/edged/sdk/go/msgpack"
)

// Link is a link definition: Provider serves Contract for Actor under Name. It is
// what a provider is told when a link is put or deleted.
type Link struct {
	Actor    string            `json:"actor_id"`
	Provider string            `json:"provider_id"`
	Name     string            `json:"link_name"`
	Contract string            `json:"contract_id"`
	Values   map[string]string `json:"values"` // in JSON it must not be nil: readers of old take no null
}

var linkFields = []string{"actor_id", "provider_id", "link_name", "contract_id", "values"}

// Append appends l as MessagePack to b.
func (l *Link) Append(b []byte) []byte {
	b = msgpack.AppendMapHeader(b, len(linkFields))
	b = appendText(b, "actor_id", l.Actor)
	b = appendText(b, "provider_id", l.Provider)
	b = appendText(b, "link_name", l.Name)
	b = appendText(b, "contract_id", l.Contract)
	b = msgpack.AppendMapHeader(msgpack.AppendString(b, "values"), len(l.Values))
	for _, key := range slices.Sorted(maps.Keys(l.Values)) {
		b = appendText(b, key, l.Values[key])
	}
	return b
}

// DecodeLink reads a link definition. Errors wrap ErrMalformed.
func DecodeLink(b []byte) (Link, error) {
	var l Link
	var fault error
	d := msgpack.NewDecoder(b)
	if !isStruct(d) {
		return l, malformed("a link definition is a map")
	}
	for name := range fields(d, linkFields, &fault) {
		switch name {
		case "actor_id":
			l.Actor = d.Str()
		case "provider_id":
			l.Provider = d.Str()
		case "link_name":
			l.Name = d.Str()
		case "contract_id":
			l.Contract = d.Str()
		case "values":
			l.Values = readValues(d)
		default:
			d.Skip()
		}
	}
	if err := ended(d, fault); err != nil {
		return l, err
	}
	if n := max(len(l.Actor), len(l.Provider), len(l.Name), len(l.Contract)); n > MaxName {
		return l, malformed("link with a name of %d bytes, at most %d", n, MaxName)
	}
	if l.Actor == "" {
		return l, malformed("link has no actor_id")
	}
	return l, nil
}

func readValues(d *msgpack.Decoder) map[string]string {
	values := make(map[string]string)
	for range d.Map() {
		key := d.Str()
		values[key] = d.Str()
	}
	return values
}

// Health is the answer of a provider that is asked how it is.
type Health struct {
	Healthy bool
	Message string // may be empty
}

var healthFields = []string{"healthy", "message"}

// Append appends h as MessagePack to b.
func (h *Health) Append(b []byte) []byte {
	fields := 1
	if h.Message != "" {
		fields++
	}
	b = msgpack.AppendMapHeader(b, fields)
	b = msgpack.AppendBool(msgpack.AppendString(b, "healthy"), h.Healthy)
	if h.Message != "" {
		b = appendText(b, "message", h.Message)
	}
	return b
}

// DecodeHealth reads an answer about health. Errors wrap ErrMalformed.
func DecodeHealth(b []byte) (Health, error) {
	var h Health
	var fault error
	d := msgpack.NewDecoder(b)
	if !isStruct(d) {
		return h, malformed("an answer about health is a map")
	}
	for name := range fields(d, healthFields, &fault) {
		switch name {
		case "healthy":
			h.Healthy = d.Bool()
		case "message":
			h.Message = d.Str()
		default:
			d.Skip()
		}
	}
	h.Message = h.Message[:min(len(h.Message), MaxError)]
	return h, ended(d, fault)
}
