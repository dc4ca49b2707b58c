package blobstore

import (
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/edged-io/edged/providers"
	"github.com/edged-io/edged/sdk/go/msgpack"
	"github.com/edged-io/edged/store"
)

// Keys of a bucket begin with what they are of. Objects and uploads are by the number
// of their container and not by its name: so a container goes away with one record, and
// what was in it is removed later.
const (
	keyContainer = "c/" // and name → container
	keyObject    = "o/" // number of the container, "/" and name → object
	keyUpload    = "u/" // the same → upload
	keyDownload  = "d/" // id → download
	keyGone      = "x/" // number of a container that is no more → empty
)

func objectKey(container, name string) string { return keyObject + container + "/" + name }
func uploadKey(container, name string) string { return keyUpload + container + "/" + name }

// container is a record. Its number is never used again.
type container struct {
	number  string
	created int64 // nanoseconds since 1970, as all times by the wall clock
}

// object is a record.
type object struct {
	file                         string
	length                       int64
	contentType, contentEncoding string
	modified                     int64
}

// upload is a record: an object with what is there of it. Its stream id is its file.
type upload struct {
	object
	since time.Duration // of the last part, by the store's own clock
}

// download is a record: what is still to go to an actor.
type download struct {
	actor, link       string
	container, object string
	file              string
	next, end         int64
	form              form
	since             time.Duration
}

// Records are arrays whose length tells their version.
const (
	containerParts = 2
	objectParts    = 5
	uploadParts    = 6
	downloadParts  = 9
)

func (c container) encode() []byte {
	b := msgpack.AppendArrayHeader(nil, containerParts)
	return msgpack.AppendInt(msgpack.AppendString(b, c.number), c.created)
}

func (o object) append(b []byte) []byte {
	b = msgpack.AppendInt(msgpack.AppendString(b, o.file), o.length)
	b = msgpack.AppendString(msgpack.AppendString(b, o.contentType), o.contentEncoding)
	return msgpack.AppendInt(b, o.modified)
}

func (o object) encode() []byte { return o.append(msgpack.AppendArrayHeader(nil, objectParts)) }

func (u upload) encode() []byte {
	return msgpack.AppendInt(u.append(msgpack.AppendArrayHeader(nil, uploadParts)), int64(u.since))
}

func (d download) encode() []byte {
	b := msgpack.AppendArrayHeader(nil, downloadParts)
	for _, s := range []string{d.actor, d.link, d.container, d.object, d.file} {
		b = msgpack.AppendString(b, s)
	}
	for _, n := range []int64{d.next, d.end, int64(d.form), int64(d.since)} {
		b = msgpack.AppendInt(b, n)
	}
	return b
}

// stored reads a record of so many parts.
func stored(v []byte, parts int, read func(d *msgpack.Decoder)) error {
	d := msgpack.NewDecoder(v)
	if n := d.Array(); n != parts {
		return fmt.Errorf("stored record has %d parts, not %d", n, parts)
	}
	read(d)
	if err := d.Done(); err != nil {
		return fmt.Errorf("stored record: %w", err)
	}
	return nil
}

func decodeContainer(v []byte) (c container, err error) {
	err = stored(v, containerParts, func(d *msgpack.Decoder) { c.number, c.created = d.Str(), d.Int() })
	return c, err
}

func (o *object) read(d *msgpack.Decoder) {
	o.file, o.length = d.Str(), d.Int()
	o.contentType, o.contentEncoding, o.modified = d.Str(), d.Str(), d.Int()
}

func decodeObject(v []byte) (o object, err error) {
	err = stored(v, objectParts, o.read)
	return o, err
}

func decodeUpload(v []byte) (u upload, err error) {
	err = stored(v, uploadParts, func(d *msgpack.Decoder) {
		u.read(d)
		u.since = time.Duration(d.Int())
	})
	return u, err
}

func decodeDownload(v []byte) (l download, err error) {
	err = stored(v, downloadParts, func(d *msgpack.Decoder) {
		l.actor, l.link, l.container, l.object, l.file = d.Str(), d.Str(), d.Str(), d.Str(), d.Str()
		l.next, l.end, l.form, l.since = d.Int(), d.Int(), form(d.IntIn(int64(plain), int64(cborPair))), time.Duration(d.Int())
	})
	return l, err
}

// fileOf returns the file that a record refers to, "" for none, and whether it makes
// sense.
func fileOf(key string, v []byte) (file string, err error) {
	switch {
	case strings.HasPrefix(key, keyObject):
		o, err := decodeObject(v)
		return o.file, err
	case strings.HasPrefix(key, keyUpload):
		u, err := decodeUpload(v)
		return u.file, err
	case strings.HasPrefix(key, keyDownload):
		l, err := decodeDownload(v)
		return l.file, err
	}
	return "", nil
}

// isFileName says whether a name is one that newName makes.
func isFileName(name string) bool {
	b, err := hex.DecodeString(name)
	return err == nil && len(b) == nameBytes && strings.ToLower(name) == name
}

// container returns that of a name, and false if there is none.
func (c *call) container(name string) (container, bool, error) {
	if err := checkContainer(name); err != nil {
		return container{}, false, err
	}
	v, ok, err := c.turn.Get(c.bucket.space(), keyContainer+name)
	if err != nil || !ok {
		return container{}, false, err
	}
	r, err := decodeContainer(v)
	if err != nil {
		return r, false, fmt.Errorf("container %q: %w", name, err)
	}
	return r, true, nil
}

// in is container for an operation that needs it.
func (c *call) in(name string) (container, error) {
	r, ok, err := c.container(name)
	if err == nil && !ok {
		err = because(providers.ErrNoTopic, "there is no container %q: create it first", name)
	}
	return r, err
}

// put stages a record, and counts the file it refers to in place of the one before.
func (c *call) put(key string, v []byte) error {
	return c.p.change(c.turn, c.bucket.space(), key, v)
}

// remove stages the removal of a record, and tells whether there was one.
func (c *call) remove(key string) (bool, error) {
	_, ok, err := c.turn.Get(c.bucket.space(), key)
	if err != nil || !ok {
		return false, err
	}
	return true, c.p.change(c.turn, c.bucket.space(), key, nil)
}

// change stages a record, nil for its removal.
func (p *Provider) change(t *store.Turn, space, key string, v []byte) error {
	old, ok, err := t.Get(space, key)
	if err != nil {
		return err
	}
	w := p.work(t)
	if ok {
		file, err := fileOf(key, old)
		if err != nil {
			p.log.Warn("a record of the blobstore makes no sense and is replaced", "space", space, "err", err)
		} else {
			w.refer(file, -1)
		}
	}
	if v == nil {
		return t.Delete(space, key)
	}
	file, err := fileOf(key, v)
	if err != nil {
		return err
	}
	w.refer(file, 1)
	return t.PutWithin(space, key, v, 0)
}
