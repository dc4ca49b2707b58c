package blobstore

import (
	"fmt"
	"math"
	"unicode/utf8"

	"github.com/edged-io/edged/providers"
	"github.com/edged-io/edged/sdk/go/msgpack"
)

// form is how an actor writes its payloads, and reads the answers. Kits of before
// August 2023 write CBOR behind 0x7f, some of them structs as arrays, others as maps.
type form int32

const (
	plain    form = iota // MessagePack
	cborRow              // CBOR, structs as arrays
	cborPair             // CBOR, structs as maps
)

// The first byte of a payload that has more.
const (
	markMsgpack = 0xc1
	markCBOR    = 0x7f
)

// open returns a payload as MessagePack, and its form: before, where it tells none.
// isStruct says that the payload is a struct.
func open(payload []byte, before form, isStruct bool) ([]byte, form, error) {
	if len(payload) > MaxChunk+MaxChunk/8 {
		return nil, before, fmt.Errorf("payload of %d bytes: send at most %d at a time", len(payload), MaxChunk)
	}
	switch {
	case len(payload) == 0:
		return nil, before, nil
	case len(payload) == 1 || payload[0] != markCBOR:
		return payload, plain, nil
	}
	out, err := fromCBOR(payload[1:])
	switch {
	case err != nil:
		return nil, before, err
	case isStruct && msgpack.NewDecoder(out).Kind() == msgpack.Map:
		return out, cborPair, nil
	case isStruct || before == plain:
		return out, cborRow, nil
	}
	return out, before, nil
}

// Members of structs, in the order in which they stand where a struct is an array.
var (
	objectMembers   = []string{"containerId", "objectId"}
	listMembers     = []string{"containerId", "startWith", "continuation", "endWith", "endBefore", "maxItems"}
	removeMembers   = []string{"containerId", "objects"}
	putMembers      = []string{"chunk", "contentType", "contentEncoding"}
	getMembers      = []string{"objectId", "containerId", "rangeStart", "rangeEnd"}
	putChunkMembers = []string{"chunk", "streamId", "cancelAndRemove"}
	chunkMembers    = []string{"objectId", "containerId", "bytes", "offset", "isLast"}
	receivedMembers = []string{"cancelDownload"}
)

// chunk is a part of an object.
type chunk struct {
	object, container string
	bytes             []byte
	offset            uint64
	last              bool
}

func readChunk(d *msgpack.Decoder) (c chunk) {
	providers.Struct(d, chunkMembers, func(name string) {
		switch name {
		case "objectId":
			c.object = d.Str()
		case "containerId":
			c.container = d.Str()
		case "bytes":
			c.bytes = d.Bin()
		case "offset":
			c.offset = d.Uint()
		case "isLast":
			c.last = d.Bool()
		default:
			d.Skip()
		}
	})
	return c
}

// request is every field that an operation can have; each uses some.
type request struct {
	container, object string
	chunk             chunk
	contentType       string
	contentEncoding   string
	stream            string
	cancel            bool
	names             []string
	start, end        *uint64 // of a range
	list              listing
}

type listing struct {
	prefix, continuation, endWith, endBefore string
	most                                     int
}

// read reads a struct with those members.
func read(payload []byte, members []string) (r request, err error) {
	d := providers.Decoder(payload)
	providers.Struct(d, members, func(name string) { r.read(d, name) })
	if err := d.Done(); err != nil {
		return r, because(providers.ErrFormat, "%w", err)
	}
	return r, r.check()
}

func (r *request) read(d *msgpack.Decoder, name string) {
	switch name {
	case "containerId":
		r.container = d.Str()
	case "objectId":
		r.object = d.Str()
	case "chunk":
		r.chunk = readChunk(d)
	case "contentType":
		r.contentType = d.Str()
	case "contentEncoding":
		r.contentEncoding = d.Str()
	case "streamId":
		r.stream = d.Str()
	case "cancelAndRemove":
		r.cancel = d.Bool()
	case "objects":
		r.names = readNames(d)
	case "rangeStart":
		r.start = readOffset(d)
	case "rangeEnd":
		r.end = readOffset(d)
	case "startWith":
		r.list.prefix = d.Str()
	case "continuation":
		r.list.continuation = d.Str()
	case "endWith":
		r.list.endWith = d.Str()
	case "endBefore":
		r.list.endBefore = d.Str()
	case "maxItems":
		r.list.most = int(d.IntIn(0, math.MaxUint32))
	default:
		d.Skip()
	}
}

// check refuses text that nobody could have been given.
func (r *request) check() error {
	for _, s := range []string{r.contentType, r.contentEncoding, r.list.prefix, r.list.endWith, r.list.endBefore} {
		if !utf8.ValidString(s) {
			return because(providers.ErrFormat, "%.80q is not UTF-8", s)
		}
	}
	if len(r.contentType) > MaxType || len(r.contentEncoding) > MaxType {
		return because(providers.ErrFormat, "content type or encoding of more than %d bytes", MaxType)
	}
	return nil
}

func readOffset(d *msgpack.Decoder) *uint64 {
	if d.TakeNil() {
		return nil
	}
	n := d.Uint()
	return &n
}

func readNames(d *msgpack.Decoder) (names []string) {
	n := d.Array()
	names = make([]string, 0, min(n, MaxNames+1))
	for range n {
		if len(names) > MaxNames { // refused by who asked; no more are kept
			d.Skip()
			continue
		}
		names = append(names, d.Str())
	}
	return names
}

// readName reads a bare string.
func readName(payload []byte) (string, error) {
	d := providers.Decoder(payload)
	name := d.Str()
	if err := d.Done(); err != nil {
		return "", because(providers.ErrFormat, "%w", err)
	}
	return name, nil
}

func checkContainer(name string) error { return checkName("containerId", name, MaxContainerName) }
func checkObject(name string) error    { return checkName("objectId", name, MaxObjectName) }

func checkName(what, name string, most int) error {
	switch {
	case name == "":
		return because(providers.ErrFormat, "%s is empty", what)
	case len(name) > most:
		return because(providers.ErrTooLarge, "%s of %d bytes, at most %d", what, len(name), most)
	case !utf8.ValidString(name):
		return because(providers.ErrFormat, "%s %.80q is not UTF-8", what, name)
	}
	return nil
}

// reply writes an answer in the form of its reader.
type reply struct {
	form
	b []byte
}

func newReply(f form, size int) *reply {
	r := &reply{f, make([]byte, 0, size+64)}
	if f != plain {
		r.b = append(r.b, markCBOR)
	}
	return r
}

// member is a member of a struct: put writes its value, nil for none.
type member struct {
	name string
	put  func()
}

// structure writes a struct. What is absent is left out of a map: some readers do not
// take nil for it.
func (r *reply) structure(members ...member) {
	if r.form == cborRow {
		r.array(len(members))
		for _, m := range members {
			if m.put == nil {
				r.b = append(r.b, cborNull)
			} else {
				m.put()
			}
		}
		return
	}
	n := 0
	for _, m := range members {
		if m.put != nil {
			n++
		}
	}
	if r.form == plain {
		r.b = msgpack.AppendMapHeader(r.b, n)
	} else {
		r.b = appendCBORHead(r.b, cborMap, uint64(n))
	}
	for _, m := range members {
		if m.put != nil {
			r.text(m.name)
			m.put()
		}
	}
}

func (r *reply) array(n int) {
	if r.form == plain {
		r.b = msgpack.AppendArrayHeader(r.b, n)
	} else {
		r.b = appendCBORHead(r.b, cborArray, uint64(n))
	}
}

func (r *reply) text(s string) {
	if r.form == plain {
		r.b = msgpack.AppendString(r.b, s)
	} else {
		r.b = append(appendCBORHead(r.b, cborText, uint64(len(s))), s...)
	}
}

func (r *reply) bytes(p []byte) {
	if r.form == plain {
		r.b = msgpack.AppendBin(r.b, p)
	} else {
		r.b = append(appendCBORHead(r.b, cborBytes, uint64(len(p))), p...)
	}
}

func (r *reply) bool(v bool) {
	switch {
	case r.form == plain:
		r.b = msgpack.AppendBool(r.b, v)
	case v:
		r.b = append(r.b, cborTrue)
	default:
		r.b = append(r.b, cborFalse)
	}
}

func (r *reply) uint(n uint64) {
	if r.form == plain {
		r.b = msgpack.AppendUint(r.b, n)
	} else {
		r.b = appendCBORHead(r.b, cborUint, n)
	}
}

// textMember is a member that is absent when it is empty.
func (r *reply) textMember(name, s string) member {
	if s == "" {
		return member{name, nil}
	}
	return member{name, func() { r.text(s) }}
}

// time is a member with nanoseconds since 1970. In CBOR it is absent: kits do not agree
// on how it is written there.
func (r *reply) time(name string, nanos int64) member {
	if r.form != plain {
		return member{name, nil}
	}
	return member{name, func() {
		sec, nsec := nanos/1e9, nanos%1e9
		if nsec < 0 {
			sec, nsec = sec-1, nsec+1e9
		}
		r.b = msgpack.AppendMapHeader(r.b, 2)
		r.b = msgpack.AppendInt(msgpack.AppendString(r.b, "sec"), sec)
		r.b = msgpack.AppendUint(msgpack.AppendString(r.b, "nsec"), uint64(nsec))
	}}
}

func (r *reply) chunk(c chunk) {
	r.structure(
		member{"objectId", func() { r.text(c.object) }},
		member{"containerId", func() { r.text(c.container) }},
		member{"bytes", func() { r.bytes(c.bytes) }},
		member{"offset", func() { r.uint(c.offset) }},
		member{"isLast", func() { r.bool(c.last) }},
	)
}

// failures are the results of an operation on many: those that failed.
func (r *reply) failures(names []string, why map[string]string) {
	r.array(len(why))
	for _, name := range names {
		reason, failed := why[name]
		if !failed {
			continue
		}
		r.structure(
			member{"key", func() { r.text(name) }},
			member{"success", func() { r.bool(false) }},
			member{"error", func() { r.text(reason) }},
		)
	}
}
