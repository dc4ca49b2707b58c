package blobstore

import (
	"encoding/base64"
	"fmt"
	"math"
	"strings"

	"github.com/edged-io/edged/providers"
	"github.com/edged-io/edged/sdk/go/msgpack"
)

// operation is one of the contract. Requests are structs or bare values; one without a
// result answers with nothing.
type operation struct {
	isStruct bool
	do       func(c *call, payload []byte) ([]byte, error)
}

// operations are by name, without "Blobstore.".
var operations = map[string]operation{
	"ContainerExists":  {false, containerExists},
	"CreateContainer":  {false, createContainer},
	"GetContainerInfo": {false, containerInfo},
	"ListContainers":   {false, listContainers},
	"RemoveContainers": {false, removeContainers},
	"ObjectExists":     {true, objectExists},
	"GetObjectInfo":    {true, objectInfo},
	"ListObjects":      {true, listObjects},
	"RemoveObjects":    {true, removeObjects},
	"PutObject":        {true, putObject},
	"GetObject":        {true, getObject},
	"PutChunk":         {true, putChunk},
}

func containerExists(c *call, payload []byte) ([]byte, error) {
	name, err := readName(payload)
	if err != nil {
		return nil, err
	}
	_, ok, err := c.container(name)
	if err != nil {
		return nil, err
	}
	r := newReply(c.form, 1)
	r.bool(ok)
	return r.b, nil
}

// createContainer leaves alone what is there: it can be repeated.
func createContainer(c *call, payload []byte) ([]byte, error) {
	name, err := readName(payload)
	if err != nil {
		return nil, err
	}
	if _, ok, err := c.container(name); err != nil || ok {
		return nil, err
	}
	all, err := c.turn.Keys(c.bucket.space(), keyContainer, "", MaxContainers)
	if err != nil {
		return nil, err
	}
	if len(all) >= MaxContainers {
		return nil, because(providers.ErrUnavailable, "bucket %s has %d containers, and may have no more: %w", c.bucket.name, len(all), ErrBucketFull)
	}
	return nil, c.put(keyContainer+name, container{newName(), c.p.o.Now().UnixNano()}.encode())
}

func (r *reply) container(name string, info container) {
	r.structure(member{"containerId", func() { r.text(name) }}, r.time("createdAt", info.created))
}

func containerInfo(c *call, payload []byte) ([]byte, error) {
	name, err := readName(payload)
	if err != nil {
		return nil, err
	}
	info, err := c.in(name)
	if err != nil {
		return nil, err
	}
	r := newReply(c.form, len(name))
	r.container(name, info)
	return r.b, nil
}

func listContainers(c *call, payload []byte) ([]byte, error) {
	if !msgpack.IsNothing(payload) {
		return nil, because(providers.ErrFormat, "it takes no argument")
	}
	keys, err := c.turn.Keys(c.bucket.space(), keyContainer, "", MaxContainers)
	if err != nil {
		return nil, err
	}
	r := newReply(c.form, 64*len(keys))
	r.array(len(keys))
	for _, key := range keys {
		name := strings.TrimPrefix(key, keyContainer)
		info, _, err := c.container(name)
		if err != nil {
			return nil, err
		}
		r.container(name, info)
	}
	return r.b, nil
}

// removeContainers removes them with all that is in them. One that is not there is
// none to remove.
func removeContainers(c *call, payload []byte) ([]byte, error) {
	d := providers.Decoder(payload)
	names := readNames(d)
	if err := d.Done(); err != nil {
		return nil, because(providers.ErrFormat, "%w", err)
	}
	return c.each(names, func(name string) error {
		info, ok, err := c.container(name)
		if err != nil || !ok {
			return err
		}
		// What is in it can not be reached any more, and is removed later.
		if err := c.put(keyGone+info.number, []byte{}); err != nil {
			return err
		}
		_, err = c.remove(keyContainer + name)
		if err == nil {
			c.turn.AfterCommit(c.p.notify)
		}
		return err
	})
}

// each does something for each name, and answers with what went wrong. An error of the
// store ends it: then nothing is done.
func (c *call) each(names []string, do func(name string) error) ([]byte, error) {
	if len(names) > MaxNames {
		return nil, because(providers.ErrTooLarge, "more than %d names", MaxNames)
	}
	why := make(map[string]string)
	for _, name := range names {
		if err := do(name); kindOf(err) != nil {
			why[name] = err.Error()
		} else if err != nil {
			return nil, err
		}
	}
	seen := make(map[string]bool, len(why))
	failed := make([]string, 0, len(why))
	for _, name := range names {
		if why[name] != "" && !seen[name] {
			seen[name] = true
			failed = append(failed, name)
		}
	}
	r := newReply(c.form, 64*len(failed))
	r.failures(failed, why)
	return r.b, nil
}

// object returns one by the names in a request, and false if there is none. Without a
// container there is none.
func (c *call) object(containerName, name string) (o object, ok bool, err error) {
	if err := checkObject(name); err != nil {
		return o, false, err
	}
	in, ok, err := c.container(containerName)
	if err != nil || !ok {
		return o, false, err
	}
	v, ok, err := c.turn.Get(c.bucket.space(), objectKey(in.number, name))
	if err != nil || !ok {
		return o, false, err
	}
	if o, err = decodeObject(v); err != nil {
		return o, false, fmt.Errorf("object %q: %w", name, err)
	}
	return o, true, nil
}

func objectExists(c *call, payload []byte) ([]byte, error) {
	q, err := read(payload, objectMembers)
	if err != nil {
		return nil, err
	}
	_, ok, err := c.object(q.container, q.object)
	if err != nil {
		return nil, err
	}
	r := newReply(c.form, 1)
	r.bool(ok)
	return r.b, nil
}

func (r *reply) object(container, name string, o object) {
	r.structure(
		member{"objectId", func() { r.text(name) }},
		member{"containerId", func() { r.text(container) }},
		member{"contentLength", func() { r.uint(uint64(o.length)) }},
		r.time("lastModified", o.modified),
		r.textMember("contentType", o.contentType),
		r.textMember("contentEncoding", o.contentEncoding),
	)
}

func objectInfo(c *call, payload []byte) ([]byte, error) {
	q, err := read(payload, objectMembers)
	if err != nil {
		return nil, err
	}
	o, ok, err := c.object(q.container, q.object)
	if err == nil && !ok {
		err = because(providers.ErrNoTopic, "there is no object %q in container %q", q.object, q.container)
	}
	if err != nil {
		return nil, err
	}
	r := newReply(c.form, 256+len(q.object))
	r.object(q.container, q.object, o)
	return r.b, nil
}

// maxListed is about how long an answer with objects gets.
const maxListed = 512 << 10

// listObjects lists by name. Its token is what comes before the next page: the prefix of
// the first page, and the last name of this one.
func listObjects(c *call, payload []byte) ([]byte, error) {
	q, err := read(payload, listMembers)
	if err != nil {
		return nil, err
	}
	in, err := c.in(q.container)
	if err != nil {
		return nil, err
	}
	l, after := q.list, ""
	if l.continuation != "" {
		if l.prefix, after, err = readToken(l.continuation); err != nil {
			return nil, err
		}
	}
	if l.most <= 0 || l.most > MaxNames {
		l.most = MaxNames
	}
	base := objectKey(in.number, "")
	if after != "" {
		after = base + after
	}
	if len(base+l.prefix) > MaxObjectName+len(base) {
		return nil, because(providers.ErrFormat, "startWith of %d bytes, at most %d", len(l.prefix), MaxObjectName)
	}
	keys, err := c.turn.Keys(c.bucket.space(), base+l.prefix, after, l.most+1) // one more tells whether there is one
	if err != nil {
		return nil, err
	}
	more, size, last := len(keys) > l.most, 0, ""
	keys = keys[:min(len(keys), l.most)]
	page := newReply(c.form, 128*len(keys))
	n := 0
	for _, key := range keys {
		name := key[len(base):]
		if l.endWith != "" && name > l.endWith || l.endBefore != "" && name >= l.endBefore {
			more = false
			break
		}
		if size > maxListed {
			more = true
			break
		}
		o, ok, err := c.object(q.container, name)
		if err != nil {
			return nil, err
		}
		if last = name; !ok {
			continue // removed meanwhile
		}
		before := len(page.b)
		page.object(q.container, name, o)
		size += len(page.b) - before
		n++
	}
	r := newReply(c.form, len(page.b)+2*MaxObjectName)
	items := page.b[len(newReply(c.form, 0).b):]
	r.structure(
		member{"objects", func() { r.array(n); r.b = append(r.b, items...) }},
		member{"isLast", func() { r.bool(!more) }},
		r.textMember("continuation", token(more, l.prefix, last)),
	)
	return r.b, nil
}

func token(more bool, prefix, last string) string {
	if !more {
		return ""
	}
	return base64.RawURLEncoding.EncodeToString(msgpack.AppendString(msgpack.AppendString(nil, prefix), last))
}

func readToken(s string) (prefix, last string, err error) {
	b, err := base64.RawURLEncoding.DecodeString(s)
	d := msgpack.NewDecoder(b)
	prefix, last = d.Str(), d.Str()
	if err != nil || d.Done() != nil || len(prefix) > MaxObjectName || len(last) > MaxObjectName {
		return "", "", because(providers.ErrFormat, "continuation %.40q is none that ListObjects gave", s)
	}
	return prefix, last, nil
}

// removeObjects leaves alone what is not there: it can be repeated.
func removeObjects(c *call, payload []byte) ([]byte, error) {
	q, err := read(payload, removeMembers)
	if err != nil {
		return nil, err
	}
	in, err := c.in(q.container)
	if err != nil {
		return nil, err
	}
	return c.each(q.names, func(name string) error {
		if err := checkObject(name); err != nil {
			return err
		}
		_, err := c.remove(objectKey(in.number, name))
		return err
	})
}

// span is the part of an object that a request is for: from the first byte to the one
// before end. Both ends of a range are included, and what lies beyond the object is cut
// off. An end of 0 stands for the end of the object: some kits write it for none.
func (q *request) span(length int64) (start, end int64, err error) {
	end = length
	if q.start != nil {
		start = int64(min(*q.start, uint64(length)))
	}
	if q.end != nil && *q.end > 0 {
		if q.start != nil && *q.end < *q.start {
			return 0, 0, because(providers.ErrFormat, "rangeEnd %d comes before rangeStart %d", *q.end, *q.start)
		}
		end = int64(min(*q.end, math.MaxInt64-1, uint64(length))) + 1
		end = min(end, length)
	}
	return start, max(start, end), nil
}

func getObject(c *call, payload []byte) ([]byte, error) {
	q, err := read(payload, getMembers)
	if err != nil {
		return nil, err
	}
	o, ok, err := c.object(q.container, q.object)
	if err != nil {
		return nil, err
	}
	if !ok {
		r := newReply(c.form, 256)
		r.got(q, object{}, fmt.Sprintf("there is no object %q in container %q", q.object, q.container), nil, 0)
		return r.b, nil
	}
	start, end, err := q.span(o.length)
	if err != nil {
		return nil, err
	}
	n := min(end-start, ChunkBytes)
	part, err := c.p.files.read(o.file, start, int(n))
	if err != nil {
		return nil, fmt.Errorf("object %q: %w", q.object, err)
	}
	if start+n < end {
		d := download{
			actor: c.link.actor, link: c.link.name, container: q.container, object: q.object, file: o.file,
			next: start + n, end: end, form: c.form, since: c.p.db.Elapsed(),
		}
		if err := c.download(d); err != nil {
			return nil, err
		}
	}
	r := newReply(c.form, len(part)+512)
	r.got(q, o, "", &chunk{q.object, q.container, part, uint64(start), start+n == end}, uint64(end-start))
	return r.b, nil
}

// got is the answer to GetObject. length is how much comes, in all parts.
func (r *reply) got(q request, o object, failure string, first *chunk, length uint64) {
	part := member{"initialChunk", nil}
	if first != nil {
		part.put = func() { r.chunk(*first) }
	}
	r.structure(
		member{"success", func() { r.bool(failure == "") }},
		r.textMember("error", failure),
		part,
		member{"contentLength", func() { r.uint(length) }},
		r.textMember("contentType", o.contentType),
		r.textMember("contentEncoding", o.contentEncoding),
	)
}
