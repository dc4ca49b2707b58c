package blobstore

import (
	"bytes"
	"fmt"

	"github.com/edged-io/edged/providers"
)

// putObject stores an object that comes in one part, or begins an upload. There is one
// upload of an object at a time: another one takes its place.
func putObject(c *call, payload []byte) ([]byte, error) {
	q, err := read(payload, putMembers)
	if err != nil {
		return nil, err
	}
	k := q.chunk
	if err := checkObject(k.object); err != nil {
		return nil, err
	}
	if k.offset != 0 {
		return nil, because(providers.ErrFormat, "an object begins at offset 0, not at %d: send the rest with PutChunk", k.offset)
	}
	in, err := c.in(k.container)
	if err != nil {
		return nil, err
	}
	f, err := c.p.files.create(c.bucket, c.turn)
	if err != nil {
		return nil, err
	}
	if err := c.p.work(c.turn).write(f, c.bucket, 0, k.bytes); err != nil {
		return nil, err
	}
	o := object{f.name, int64(len(k.bytes)), q.contentType, q.contentEncoding, c.p.o.Now().UnixNano()}
	r := newReply(c.form, 64)
	if k.last {
		err = c.put(objectKey(in.number, k.object), o.encode())
		r.structure(r.textMember("streamId", ""))
	} else {
		err = c.put(uploadKey(in.number, k.object), upload{o, c.p.db.Elapsed()}.encode())
		r.structure(r.textMember("streamId", f.name))
	}
	return r.b, err
}

// putChunk goes on with an upload, ends it with the last part, or gives it up.
func putChunk(c *call, payload []byte) ([]byte, error) {
	q, err := read(payload, putChunkMembers)
	if err != nil {
		return nil, err
	}
	k := q.chunk
	if err := checkObject(k.object); err != nil {
		return nil, err
	}
	in, err := c.in(k.container)
	if err != nil {
		return nil, err
	}
	key := uploadKey(in.number, k.object)
	v, ok, err := c.turn.Get(c.bucket.space(), key)
	if err != nil {
		return nil, err
	}
	var u upload
	if ok {
		if u, err = decodeUpload(v); err != nil {
			return nil, fmt.Errorf("upload of %q: %w", k.object, err)
		}
	}
	mine := ok && (q.stream == "" || q.stream == u.file)
	switch {
	case q.cancel && !mine: // it has ended, or was given up before
		return nil, nil
	case q.cancel:
		_, err := c.remove(key)
		return nil, err
	case !mine:
		return nil, because(providers.ErrNoTopic, "there is no upload of object %q in container %q, or another one took its place: begin with PutObject", k.object, k.container)
	}
	if err := c.extend(&u, k); err != nil {
		return nil, err
	}
	u.modified, u.since = c.p.o.Now().UnixNano(), c.p.db.Elapsed()
	if !k.last {
		return nil, c.put(key, u.encode())
	}
	if err := c.put(objectKey(in.number, k.object), u.object.encode()); err != nil {
		return nil, err
	}
	_, err = c.remove(key)
	return nil, err
}

// extend adds a part to an upload. One that is there already is a repeat.
func (c *call) extend(u *upload, k chunk) error {
	end := k.offset + uint64(len(k.bytes))
	switch {
	case k.offset > uint64(u.length):
		return because(providers.ErrFormat, "a part at offset %d, and %d bytes are there: send what comes between first", k.offset, u.length)
	case k.offset < uint64(u.length):
		if end > uint64(u.length) {
			return because(providers.ErrFormat, "a part at offset %d, and %d bytes are there: parts do not overlap", k.offset, u.length)
		}
		there, err := c.p.files.read(u.file, int64(k.offset), len(k.bytes))
		if err != nil {
			return err
		}
		if !bytes.Equal(there, k.bytes) {
			return because(providers.ErrFormat, "a part at offset %d is there already, with other bytes", k.offset)
		}
		return nil
	}
	f, err := c.p.files.claim(u.file, c.turn)
	if err != nil {
		return err
	}
	w := c.p.work(c.turn)
	w.refer(u.file, 0)
	if err := w.write(f, c.bucket, u.length, k.bytes); err != nil {
		return err
	}
	u.length = int64(end)
	return nil
}
