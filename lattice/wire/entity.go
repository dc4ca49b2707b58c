package wire

import (
	"strings"

	"github.com/edged-io/edged/sdk/go/msgpack"
)

// Entity is one end of an invocation. Of an actor only Key is set.
type Entity struct {
	Key      string // "M…", "V…", or what else a peer calls itself
	Link     string // link name
	Contract string // capability contract id
}

// IsActor says whether the key is that of an actor.
func (e Entity) IsActor() bool {
	return strings.HasPrefix(e.Key, "M") || strings.HasPrefix(e.Key, "m")
}

// URL is the name of an entity in tokens.
func (e Entity) URL() string {
	if e.IsActor() {
		return "wasmbus://" + e.Key
	}
	contract := strings.ReplaceAll(plain(e.Contract), ":", "/")
	return "wasmbus://" + contract + "/" + plain(e.Link) + "/" + e.Key
}

func plain(s string) string { return strings.ToLower(strings.ReplaceAll(s, " ", "_")) }

var entityFields = []string{"public_key", "link_name", "contract_id"}

func (e Entity) append(b []byte) []byte {
	b = msgpack.AppendMapHeader(b, 3)
	b = appendText(b, "public_key", e.Key)
	b = appendText(b, "link_name", e.Link)
	return appendText(b, "contract_id", e.Contract)
}

func readEntity(d *msgpack.Decoder, fault *error) (e Entity) {
	for name := range fields(d, entityFields, fault) {
		switch name {
		case "public_key":
			e.Key = d.Str()
		case "link_name":
			e.Link = d.Str()
		case "contract_id":
			e.Contract = d.Str()
		default:
			d.Skip()
		}
	}
	return e
}

func (e Entity) check(end string) error {
	if e.Key == "" {
		return malformed("%s has no public_key", end)
	}
	if n := max(len(e.Key), len(e.Link), len(e.Contract)); n > MaxName {
		return malformed("%s has a name of %d bytes, at most %d", end, n, MaxName)
	}
	return nil
}
