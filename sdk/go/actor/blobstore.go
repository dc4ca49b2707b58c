package actor

import "github.com/edged-io/edged/sdk/go/msgpack"

// Blobs are objects of any size in containers, by the actor's default link. What is
// put or removed in a call is so when the call is committed, and not at all when it
// fails.
var Blobs Blobstore

// Blobstore is objects behind a link (wasmcloud:blobstore). What is not there is
// ErrNoTopic, a bucket or box without room for more ErrUnavailable.
type Blobstore struct {
	Link string // "" for the default one
}

// blobPart is how many bytes are put or got at a time.
const blobPart = 128 << 10

// An ObjectInfo tells what is known of an object.
type ObjectInfo struct {
	Container, Name              string
	Length                       int64
	ContentType, ContentEncoding string // "" if there is none
}

// A Chunk is a part of an object.
type Chunk struct {
	Container, Object string
	Bytes             []byte
	Offset            int64 // within the object
	Last              bool
}

func (s Blobstore) call(operation string, payload []byte) (*msgpack.Decoder, error) {
	link := s.Link
	if link == "" {
		link = "default"
	}
	answer, err := CallLink(link, "wasmcloud:blobstore", "Blobstore."+operation, payload)
	return msgpack.NewDecoder(answer), err
}

// CreateContainer makes a container. One that is there already stays as it is.
func (s Blobstore) CreateContainer(name string) error {
	_, err := s.call("CreateContainer", msgpack.AppendString(nil, name))
	return err
}

// RemoveContainers removes containers with all that is in them.
func (s Blobstore) RemoveContainers(names ...string) error {
	d, err := s.call("RemoveContainers", appendNames(nil, names))
	if err != nil {
		return err
	}
	return failedItem("RemoveContainers", d)
}

// Containers lists the names of containers.
func (s Blobstore) Containers() (names []string, err error) {
	d, err := s.call("ListContainers", nil)
	if err != nil {
		return nil, err
	}
	for range d.Array() {
		for range d.Map() {
			if string(d.Key()) == "containerId" {
				names = append(names, d.Str())
			} else {
				d.Skip()
			}
		}
	}
	return names, d.Done()
}

// Put stores an object, in place of the one that is there, or, with an error, nothing of
// it. contentType may be "".
func (s Blobstore) Put(container, object, contentType string, data []byte) error {
	if len(data) <= blobPart {
		_, err := s.putObject(Chunk{container, object, data, 0, true}, contentType)
		return err
	}
	u, err := s.Create(container, object, contentType)
	if err != nil {
		return err
	}
	if _, err = u.Write(data); err == nil {
		err = u.Close()
	}
	if err != nil {
		_ = u.Cancel() // what is there takes room, also if the actor goes on
	}
	return err
}

func (s Blobstore) putObject(c Chunk, contentType string) (stream string, err error) {
	n := 1
	if contentType != "" {
		n++
	}
	b := appendChunk(msgpack.AppendString(msgpack.AppendMapHeader(nil, n), "chunk"), c)
	if contentType != "" {
		b = msgpack.AppendString(msgpack.AppendString(b, "contentType"), contentType)
	}
	d, err := s.call("PutObject", b)
	if err != nil {
		return "", err
	}
	for range d.Map() {
		if string(d.Key()) == "streamId" {
			stream = d.Str()
		} else {
			d.Skip()
		}
	}
	return stream, d.Done()
}

// An Upload is an object that comes in several parts, in one call or over several. To
// go on with it in a later call, keep its fields.
type Upload struct {
	Store             Blobstore
	Container, Object string
	ID                string
	Offset            int64 // how much is there
}

// Create begins an upload. The object is there when it is closed; until then the one
// before is.
func (s Blobstore) Create(container, object, contentType string) (*Upload, error) {
	id, err := s.putObject(Chunk{Container: container, Object: object}, contentType)
	if err != nil {
		return nil, err
	}
	return &Upload{s, container, object, id, 0}, nil
}

// Write adds to the object.
func (u *Upload) Write(p []byte) (n int, err error) {
	for n < len(p) {
		end := min(n+blobPart, len(p))
		if err := u.send(p[n:end], false, false); err != nil {
			return n, err
		}
		u.Offset += int64(end - n)
		n = end
	}
	return n, nil
}

// Close ends the upload.
func (u *Upload) Close() error { return u.send(nil, true, false) }

// Cancel gives the upload up. One that is neither closed nor cancelled takes room until
// the box gives it up after a day.
func (u *Upload) Cancel() error { return u.send(nil, true, true) }

func (u *Upload) send(p []byte, last, cancel bool) error {
	b := msgpack.AppendString(msgpack.AppendMapHeader(nil, 3), "chunk")
	b = appendChunk(b, Chunk{u.Container, u.Object, p, u.Offset, last})
	b = msgpack.AppendString(msgpack.AppendString(b, "streamId"), u.ID)
	b = msgpack.AppendBool(msgpack.AppendString(b, "cancelAndRemove"), cancel)
	_, err := u.Store.call("PutChunk", b)
	return err
}

// Get returns an object, all of it: mind the memory of the actor.
func (s Blobstore) Get(container, object string) ([]byte, error) {
	var all []byte
	for {
		c, err := s.GetRange(container, object, int64(len(all)), blobPart)
		if err != nil {
			return nil, err
		}
		if all = append(all, c...); len(c) < blobPart {
			return all, nil
		}
	}
}

// GetRange returns up to n bytes of an object, at most 128 KiB, from an offset on: fewer
// where the object ends.
func (s Blobstore) GetRange(container, object string, offset int64, n int) ([]byte, error) {
	n = min(n, blobPart)
	if n <= 0 {
		return nil, nil
	}
	// A range that ends with byte 0 stands for none: take one more, and leave it.
	end := max(offset+int64(n)-1, 1)
	c, _, err := s.get(container, object, offset, end)
	return c.Bytes[:min(len(c.Bytes), n)], err
}

// Send returns the first part of an object, and has the rest be sent to the actor, to
// what OnChunk has registered, once the call is committed.
func (s Blobstore) Send(container, object string) (Chunk, error) {
	c, _, err := s.get(container, object, 0, 0)
	return c, err
}

func (s Blobstore) get(container, object string, start, end int64) (c Chunk, length int64, err error) {
	n := 2
	if end > 0 {
		n = 4
	}
	b := msgpack.AppendMapHeader(nil, n)
	b = msgpack.AppendString(msgpack.AppendString(b, "objectId"), object)
	b = msgpack.AppendString(msgpack.AppendString(b, "containerId"), container)
	if end > 0 {
		b = msgpack.AppendInt(msgpack.AppendString(b, "rangeStart"), start)
		b = msgpack.AppendInt(msgpack.AppendString(b, "rangeEnd"), end)
	}
	d, err := s.call("GetObject", b)
	if err != nil {
		return c, 0, err
	}
	ok, why := false, ""
	for range d.Map() {
		switch string(d.Key()) {
		case "success":
			ok = d.Bool()
		case "error":
			why = d.Str()
		case "initialChunk":
			c = decodeChunk(d)
		case "contentLength":
			length = d.Int()
		default:
			d.Skip()
		}
	}
	if err := d.Done(); err != nil {
		return c, 0, err
	}
	if !ok {
		return c, 0, &HostError{"Blobstore.GetObject", "blobstore: " + ErrNoTopic.Error() + ": " + why}
	}
	return c, length, nil
}

// OnChunk registers what is done with the parts of objects that Send asked for. Each
// comes in a call of its own, in order; an error has it come again, ten times. cancel
// ends it.
func OnChunk(h func(Chunk) (cancel bool, err error)) {
	Handle("ChunkReceiver.ReceiveChunk", func(payload []byte) ([]byte, error) {
		d := msgpack.NewDecoder(payload)
		c := decodeChunk(d)
		if err := d.Done(); err != nil {
			return nil, err
		}
		cancel, err := h(c)
		if err != nil {
			return nil, err
		}
		return msgpack.AppendBool(msgpack.AppendString(msgpack.AppendMapHeader(nil, 1), "cancelDownload"), cancel), nil
	})
}

// Info tells of an object.
func (s Blobstore) Info(container, object string) (ObjectInfo, error) {
	d, err := s.call("GetObjectInfo", appendObject(container, object))
	if err != nil {
		return ObjectInfo{}, err
	}
	return decodeObjectInfo(d), d.Done()
}

// Contains says whether there is an object.
func (s Blobstore) Contains(container, object string) (bool, error) {
	d, err := s.call("ObjectExists", appendObject(container, object))
	if err != nil {
		return false, err
	}
	v := d.Bool()
	return v, d.Done()
}

// Remove removes objects. One that is not there is none to remove.
func (s Blobstore) Remove(container string, objects ...string) error {
	b := msgpack.AppendString(msgpack.AppendMapHeader(nil, 2), "containerId")
	b = appendNames(msgpack.AppendString(msgpack.AppendString(b, container), "objects"), objects)
	d, err := s.call("RemoveObjects", b)
	if err != nil {
		return err
	}
	return failedItem("RemoveObjects", d)
}

// List lists the objects whose names begin with prefix, by name: a page at a time, from
// the beginning with next "", and on with what it returned. The last page returns "".
func (s Blobstore) List(container, prefix, next string) (objects []ObjectInfo, more string, err error) {
	b := msgpack.AppendString(msgpack.AppendMapHeader(nil, 3), "containerId")
	b = msgpack.AppendString(msgpack.AppendString(b, container), "startWith")
	b = msgpack.AppendString(msgpack.AppendString(b, prefix), "continuation")
	d, err := s.call("ListObjects", msgpack.AppendString(b, next))
	if err != nil {
		return nil, "", err
	}
	last := false
	for range d.Map() {
		switch string(d.Key()) {
		case "objects":
			for range d.Array() {
				objects = append(objects, decodeObjectInfo(d))
			}
		case "isLast":
			last = d.Bool()
		case "continuation":
			more = d.Str()
		default:
			d.Skip()
		}
	}
	if last {
		more = ""
	}
	return objects, more, d.Done()
}

func appendObject(container, object string) []byte {
	b := msgpack.AppendString(msgpack.AppendMapHeader(nil, 2), "containerId")
	b = msgpack.AppendString(msgpack.AppendString(b, container), "objectId")
	return msgpack.AppendString(b, object)
}

func appendNames(b []byte, names []string) []byte {
	b = msgpack.AppendArrayHeader(b, len(names))
	for _, name := range names {
		b = msgpack.AppendString(b, name)
	}
	return b
}

func appendChunk(b []byte, c Chunk) []byte {
	b = msgpack.AppendString(msgpack.AppendMapHeader(b, 5), "objectId")
	b = msgpack.AppendString(msgpack.AppendString(b, c.Object), "containerId")
	b = msgpack.AppendString(msgpack.AppendString(b, c.Container), "bytes")
	b = msgpack.AppendString(msgpack.AppendBin(b, c.Bytes), "offset")
	b = msgpack.AppendString(msgpack.AppendInt(b, c.Offset), "isLast")
	return msgpack.AppendBool(b, c.Last)
}

func decodeChunk(d *msgpack.Decoder) (c Chunk) {
	for range d.Map() {
		switch string(d.Key()) {
		case "objectId":
			c.Object = d.Str()
		case "containerId":
			c.Container = d.Str()
		case "bytes":
			c.Bytes = d.Bin()
		case "offset":
			c.Offset = d.Int()
		case "isLast":
			c.Last = d.Bool()
		default:
			d.Skip()
		}
	}
	return c
}

func decodeObjectInfo(d *msgpack.Decoder) (o ObjectInfo) {
	for range d.Map() {
		switch string(d.Key()) {
		case "objectId":
			o.Name = d.Str()
		case "containerId":
			o.Container = d.Str()
		case "contentLength":
			o.Length = d.Int()
		case "contentType":
			o.ContentType = d.Str()
		case "contentEncoding":
			o.ContentEncoding = d.Str()
		default:
			d.Skip()
		}
	}
	return o
}

// failedItem returns the first failure among the results for many names, or nil.
func failedItem(operation string, d *msgpack.Decoder) error {
	var failed error
	for range d.Array() {
		key, ok, why := "", false, ""
		for range d.Map() {
			switch string(d.Key()) {
			case "key":
				key = d.Str()
			case "success":
				ok = d.Bool()
			case "error":
				why = d.Str()
			default:
				d.Skip()
			}
		}
		if !ok && failed == nil {
			failed = &HostError{"Blobstore." + operation, "blobstore: " + ErrUnavailable.Error() + ": " + key + ": " + why}
		}
	}
	if err := d.Done(); err != nil {
		return err
	}
	return failed
}
