package store

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	bolt "go.etcd.io/bbolt"
)

// QuarantineDir is the folder, beside the store, where damaged files go.
const QuarantineDir = "quarantine"

// Quarantined returns the damaged files that were set aside in the folder of a
// store, by name. They are there until somebody removes them.
func Quarantined(dir string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(dir, QuarantineDir))
	if err != nil {
		return nil, ignoreMissing(err)
	}
	var files []string
	for _, e := range entries {
		files = append(files, filepath.Join(dir, QuarantineDir, e.Name()))
	}
	return files, nil
}

// salvage sets the damaged file at path aside and puts one in its place that
// holds everything in it that can be read and has the right checksum.
//
// A power cut at any point leaves either the damaged file at path, and the next
// start does this again, or the new one.
func salvage(path string, o Options) error {
	s := newSalvage()
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	s.read(f)
	if err := f.Close(); err != nil {
		return err
	}
	s.mend()
	tmp := path + salvagedSuffix
	if err := s.writeTo(tmp, o); err != nil {
		return errors.Join(err, ignoreMissing(os.Remove(tmp)))
	}
	aside, err := setAside(path)
	if err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	s.report(o.Logger, aside)
	return syncDir(filepath.Dir(path))
}

// setAside gives the file a second name in the quarantine.
func setAside(path string) (string, error) {
	dir := filepath.Join(filepath.Dir(path), QuarantineDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	for n := 1; ; n++ {
		aside := filepath.Join(dir, fmt.Sprintf("store-%d.db", n))
		err := os.Link(path, aside)
		if errors.Is(err, os.ErrExist) {
			continue
		}
		if err != nil {
			return "", err
		}
		return aside, syncDir(dir)
	}
}

// salvaged is what could be read of a damaged file.
type salvaged struct {
	buckets  map[string]map[string][]byte // sealed values
	lost     map[string]int               // values with a wrong checksum, by bucket
	pages    int                          // pages that could not be read
	rootless bool
	found    int // messages and streams found outside the tree
	streams  map[uint32]*salvagedStream
	maxSub   uint32
}

type salvagedStream struct {
	name string
	old  counters
	counters
	gaps []string
}

func newSalvage() *salvaged {
	s := &salvaged{
		buckets: make(map[string]map[string][]byte),
		lost:    make(map[string]int),
		streams: make(map[uint32]*salvagedStream),
	}
	for _, b := range allBuckets {
		s.buckets[string(b)] = make(map[string][]byte)
	}
	return s
}

func (s *salvaged) read(f *os.File) {
	w := &walker{f: f, meta: metaPage{pageSize: 4096}, visited: make(map[uint64]bool)}
	if info, err := f.Stat(); err == nil {
		w.meta.pages = uint64(info.Size()) / 4096
	}
	defer func() {
		if s.pages = w.lost; s.pages > 0 || s.rootless {
			s.scan(w)
		}
	}()
	metas := readMetas(f)
	if len(metas) == 0 {
		s.rootless = true
		return
	}
	w.meta = metas[0]
	w.tree(metas[0].root, 0, func(flags uint32, name, value []byte) {
		to, ok := s.buckets[string(name)]
		if !ok || flags&leafBucket == 0 {
			return
		}
		w.bucket(value, func(k, v []byte) {
			if _, err := unseal(k, v); err != nil {
				s.lost[string(name)]++
				return
			}
			to[string(k)] = slices.Clone(v)
		})
	})
}

// scan looks for messages, and for the streams they belong to, in pages that
// the tree does not lead to. Some of those are left over from before, so that a
// message which was consumed may come back; of state and positions, where an
// old value is worse than none, nothing is taken from them.
func (s *salvaged) scan(w *walker) {
	for id := uint64(2); id < w.meta.pages; id++ {
		b, err := w.page(id)
		if err != nil || binary.LittleEndian.Uint16(b[8:]) != pageLeaf {
			continue
		}
		w.elements(b, 0, func(flags uint32, k, v []byte) {
			switch {
			case flags&leafBucket == 0:
				s.find(k, v)
			case len(v) >= 16 && binary.LittleEndian.Uint64(v) == 0:
				w.bucket(v, s.find) // a small bucket is inside the page of its parent
			}
		})
	}
}

// find takes a message or a stream that was found outside the tree, unless it is
// known.
func (s *salvaged) find(k, v []byte) {
	var r streamRecord
	bucket := bucketMessages
	if _, _, ok := splitSeqKey(k); ok {
		if _, err := decodeParked(k, v); err == nil {
			bucket = bucketDelayed
		} else if _, _, err := decodeMessage(k, v); err != nil {
			return
		}
	} else if bucket = bucketStreams; getJSON(k, v, &r) != nil || r.ID == 0 || r.Config.Name != string(k) {
		return
	}
	if _, known := s.bucket(bucket)[string(k)]; !known {
		s.bucket(bucket)[string(k)] = slices.Clone(v)
		s.found++
	}
}

func (s *salvaged) bucket(name []byte) map[string][]byte { return s.buckets[string(name)] }

// mend makes the parts agree: counters with messages, messages and
// subscriptions with streams, positions with subscriptions.
func (s *salvaged) mend() {
	delete(s.bucket(bucketMeta), string(versionKey))
	for name, v := range s.bucket(bucketStreams) {
		var r streamRecord
		if getJSON([]byte(name), v, &r) != nil {
			delete(s.bucket(bucketStreams), name)
			continue
		}
		st := &salvagedStream{name: name}
		key := idKey(r.ID)
		if v, ok := s.bucket(bucketCounters)[string(key)]; ok {
			st.old, _ = decodeCounters(key, v) // its checksum was right
		}
		s.streams[r.ID] = st
	}
	s.mendMessages()
	s.mendDelayed()
	s.mendSubscriptions()
	clear(s.bucket(bucketCounters))
	for id, st := range s.streams {
		st.last = max(st.last, st.old.last)
		st.dropped = st.old.dropped
		if st.msgs == 0 {
			st.first = st.last + 1
		}
		key := idKey(id)
		s.bucket(bucketCounters)[string(key)] = st.encode(key)
	}
}

// mendMessages counts the messages of each stream, in order, and finds what is
// missing between them.
func (s *salvaged) mendMessages() {
	messages := s.bucket(bucketMessages)
	keys := make([]string, 0, len(messages))
	for k := range messages {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		id, seq, ok := splitSeqKey([]byte(k))
		m, _, err := decodeMessage([]byte(k), messages[k])
		if !ok || err != nil {
			delete(messages, k)
			s.lost[string(bucketMessages)]++
			continue
		}
		st := s.stream(id)
		switch {
		case st.msgs == 0:
			st.first = seq
		case seq > st.last+1:
			st.gaps = append(st.gaps, fmt.Sprintf("%d-%d", st.last+1, seq-1))
		}
		st.last = seq
		st.msgs++
		st.bytes += m.size()
	}
	for k := range s.bucket(bucketIDs) {
		id, seq, ok := splitSeqKey([]byte(k))
		if _, known := s.streams[id]; !ok || !known {
			delete(s.bucket(bucketIDs), k)
			continue
		}
		s.streams[id].old.last = max(s.streams[id].old.last, seq)
	}
}

// stream returns the stream with that id; one whose record is lost gets
// another name, under which its messages can be found.
func (s *salvaged) stream(id uint32) *salvagedStream {
	st, ok := s.streams[id]
	if !ok {
		st = &salvagedStream{name: fmt.Sprintf("recovered-%d", id)}
		s.streams[id] = st
		s.putRecord(bucketStreams, st.name, streamRecord{ID: id, Config: StreamConfig{Name: st.name}})
	}
	return st
}

func (s *salvaged) putRecord(bucket []byte, key string, r any) {
	body, _ := json.Marshal(r) // plain structs of our own
	s.bucket(bucket)[key] = seal([]byte(key), body)
}

// mendSubscriptions drops what has no stream, and lets a subscription whose
// position is lost begin with the first message there is.
func (s *salvaged) mendSubscriptions() {
	byName := make(map[string]*salvagedStream)
	for _, st := range s.streams {
		byName[st.name] = st
	}
	positions := make(map[string][]byte)
	for name, v := range s.bucket(bucketSubs) {
		var r subscriptionRecord
		if getJSON([]byte(name), v, &r) != nil || byName[r.Stream] == nil {
			delete(s.bucket(bucketSubs), name)
			continue
		}
		s.maxSub = max(s.maxSub, r.ID)
		key := idKey(r.ID)
		p, err := decodePosition(key, s.bucket(bucketPositions)[string(key)])
		st := byName[r.Stream]
		if err != nil {
			p = position{floor: max(st.first, 1) - 1}
			s.lost[string(bucketPositions)]++
		}
		st.old.last = max(st.old.last, p.floor)
		positions[string(key)] = p.encode(key)
	}
	s.buckets[string(bucketPositions)] = positions
}

// writeTo writes all of it to a new file.
func (s *salvaged) writeTo(path string, o Options) error {
	b, err := newFile(path, o)
	if err != nil {
		return err
	}
	for _, name := range allBuckets {
		if err := fill(b, name, s.bucket(name)); err != nil {
			return errors.Join(err, b.Close())
		}
	}
	err = b.Update(func(tx *bolt.Tx) error {
		var maxStream uint32
		for id := range s.streams {
			maxStream = max(maxStream, id)
		}
		last := uint64(0)
		if k, _ := tx.Bucket(bucketDead).Cursor().Last(); len(k) == 8 {
			last = binary.BigEndian.Uint64(k)
		}
		return errors.Join(
			tx.Bucket(bucketStreams).SetSequence(uint64(maxStream)),
			tx.Bucket(bucketSubs).SetSequence(uint64(s.maxSub)),
			tx.Bucket(bucketDead).SetSequence(last),
		)
	})
	return errors.Join(err, b.Close())
}

// fill writes the entries in order, in transactions of a bounded size.
func fill(b *bolt.DB, bucket []byte, entries map[string][]byte) error {
	keys := make([]string, 0, len(entries))
	for k := range entries {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for part := range slices.Chunk(keys, groupTurns) {
		err := b.Update(func(tx *bolt.Tx) error {
			to := tx.Bucket(bucket)
			to.FillPercent = 1
			for _, k := range part {
				if err := to.Put([]byte(k), entries[k]); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// report names what was lost.
func (s *salvaged) report(log *slog.Logger, aside string) {
	log.Warn("damaged store set aside, what could be read was carried over",
		"file", aside, "unreadable_pages", s.pages, "no_root", s.rootless, "found_outside", s.found, "damaged_values", s.lost)
	ids := make([]uint32, 0, len(s.streams))
	for id := range s.streams {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b uint32) int { return cmp.Compare(s.streams[a].name, s.streams[b].name) })
	for _, id := range ids {
		st := s.streams[id]
		missing := st.old.msgs - st.msgs
		if missing <= 0 && len(st.gaps) == 0 {
			continue
		}
		log.Error("stream lost messages", "stream", st.name, "kept", st.msgs,
			"first", st.first, "last", st.last, "lost", missing, "gaps", strings.Join(st.gaps[:min(len(st.gaps), 16)], " "))
	}
}
