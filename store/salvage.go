package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	bolt "go.etcd.io/bbolt"
)

// Salvage does to a damaged store in dir what Open does: it sets the file aside
// in quarantine/ and puts one in its place that holds everything that can be
// read. The report says what was lost. A store without damage is left as it is.
// It fails with ErrLocked while a process has the store open. It needs as much
// room on the disk as what can be read takes, and no more memory than Check.
func Salvage(ctx context.Context, dir string) (Report, error) {
	r, err := salvageLocked(ctx, filepath.Join(dir, fileName))
	if err != nil {
		return Report{}, err
	}
	return *r, nil
}

func salvageLocked(ctx context.Context, path string) (r *Report, err error) {
	lock, err := lockDir(filepath.Dir(path))
	if err == nil {
		defer func() { err = errors.Join(err, lock.Close()) }()
		err = removeStale(path)
	}
	if err == nil {
		if _, _, err = checkFile(path); errors.Is(err, ErrDamaged) {
			var o Options
			o.setDefaults()
			if r, err = salvage(ctx, path, o); err == nil {
				err = quarantineOf(r, path)
			}
			return r, err
		}
	}
	if err != nil {
		return nil, fmt.Errorf("salvage store %s: %w", path, err)
	}
	f, err := openPlain(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	a := newAudit(ctx, f, false)
	if err := a.file(path); err != nil {
		return nil, err
	}
	a.conclude()
	return a.r, quarantineOf(a.r, path)
}

// salvage sets the damaged file at path aside and puts one in its place that
// holds everything in it that can be read and has the right checksum.
//
// A power cut at any point leaves either the damaged file at path, and the next
// start does this again, or the new one.
func salvage(ctx context.Context, path string, o Options) (_ *Report, err error) {
	f, err := openPlain(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	s := &salvager{audit: newAudit(ctx, f, false)}
	tmp := path + salvagedSuffix
	defer func() {
		if err != nil {
			err = errors.Join(full(err), ignoreMissing(os.Remove(tmp)))
		}
	}()
	if err := s.writeTo(tmp, path, o); err != nil {
		return nil, err
	}
	s.r.Aside, err = setAside(path)
	if err != nil {
		return nil, err
	}
	if err := writeReport(s.r); err != nil {
		return nil, err
	}
	if err := os.Rename(tmp, path); err != nil {
		return nil, err
	}
	s.r.log(o.Logger)
	return s.r, syncDir(filepath.Dir(path))
}

// setAside gives the file a second name in the quarantine; it has one already
// if a crash came between this and the rename.
func setAside(path string) (string, error) {
	dir := filepath.Join(filepath.Dir(path), QuarantineDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	us, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	for n := 1; ; n++ {
		aside := filepath.Join(dir, fmt.Sprintf("%s%d.db", asidePrefix, n))
		err := os.Link(path, aside)
		if errors.Is(err, os.ErrExist) {
			if there, err := os.Stat(aside); err == nil && os.SameFile(us, there) {
				return aside, nil
			}
			continue
		}
		if err != nil {
			return "", err
		}
		return aside, errors.Join(syncDir(dir), syncDir(filepath.Dir(path)))
	}
}

// writeReport puts what is known of a file that was set aside beside it. A
// power cut may take it; then the file is named without what was lost.
func writeReport(r *Report) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(r.Aside+reportSuffix, append(b, '\n'), 0o600)
}

// salvager writes what an audit can read into a new file, as it reads it. What
// has been written serves as the index of what is known.
type salvager struct {
	*audit
	to     *bolt.DB
	tx     *bolt.Tx // under way
	size   int      // of what it has written
	maxSub uint32
	newest time.Duration // the own clock when the newest message was stored, or parked
}

func (s *salvager) writeTo(tmp, path string, o Options) (err error) {
	info, err := s.f.Stat()
	if err != nil {
		return err
	}
	opt := boltOptions(o)
	opt.MaxSize = max(opt.MaxSize, clampInt(info.Size()+fileSlack)) // the file may be from when the limit was higher
	opt.NoSync = true                                               // until it is whole
	if s.to, err = newFile(tmp, opt); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.to.Close()) }()
	s.carry = s.put
	defer recoverDamage(&err)
	for _, step := range []func() error{
		func() error { return s.file(path) },
		s.scan,
		s.commit,
		s.recount,
		s.mend,
		s.commit,
		s.to.Sync,
	} {
		if err := step(); err != nil {
			if s.tx != nil {
				_ = s.tx.Rollback()
			}
			return err
		}
	}
	s.conclude()
	return nil
}

// begin returns a bucket of the transaction that is under way.
func (s *salvager) begun(bucket string) (_ *bolt.Bucket, err error) {
	if s.tx == nil {
		if s.tx, err = s.to.Begin(true); err != nil {
			return nil, err
		}
	}
	b := s.tx.Bucket([]byte(bucket))
	b.FillPercent = 1
	return b, nil
}

func (s *salvager) commit() error {
	if s.tx == nil {
		return nil
	}
	tx := s.tx
	s.tx, s.size = nil, 0
	return tx.Commit()
}

// put carries a value over.
func (s *salvager) put(bucket string, key, value []byte) error {
	switch {
	case bucket == string(bucketCounters), bucket == string(bucketPositions):
		return nil // written when all is known
	case bucket == string(bucketMeta) && bytes.Equal(key, versionKey):
		return nil // the new file has its own
	}
	b, err := s.begun(bucket)
	if err != nil {
		return err
	}
	if err := b.Put(key, bytes.Clone(value)); err != nil {
		return err
	}
	if s.size += len(key) + len(value); s.size > groupBytes {
		return s.commit()
	}
	return nil
}

func (s *salvager) delete(bucket string, key []byte) error {
	b, err := s.begun(bucket)
	if err != nil {
		return err
	}
	return b.Delete(key)
}

// scan looks for messages, and for the streams they belong to, in pages that
// the tree does not lead to. Some of those are left over from before, so that a
// message which was consumed may come back, where no counters tell that it was;
// of state and positions, where an old value is worse than none, nothing is
// taken from them.
func (s *salvager) scan() error {
	if s.r.Unreadable == 0 && !s.r.Rootless && len(s.r.Findings) == 0 {
		return nil
	}
	w := s.walker
	w.hole = func(hole) error { return nil }
	look := func(flags uint32, k, v []byte) error {
		switch {
		case flags == 0:
			return s.find(k, v)
		case flags == leafBucket && len(v) > bucketLen && binary.LittleEndian.Uint64(v) == 0:
			// A small bucket is inside the page of its parent.
			return w.bucket(v, 1, func(flags uint32, k, v []byte) error {
				if flags != 0 {
					return nil
				}
				return s.find(k, v)
			})
		}
		return nil
	}
	for id := uint64(2); id < w.pages; id++ {
		if err := s.ctx.Err(); err != nil {
			return context.Cause(s.ctx)
		}
		b, _ := w.page(id, 0)
		if len(b) < pageHeaderLen || binary.LittleEndian.Uint16(b[8:]) != pageLeaf {
			continue
		}
		if err := w.elements(b, id, 0, nil, nil, look); err != nil {
			return err
		}
	}
	return nil
}

// maxStreamID is more streams than a box ever had. The key of a value in a space
// begins with the length of the space's name, and so is a larger number.
const maxStreamID = 1<<24 - 1

// find takes a message or a stream that was found outside the tree, unless it is
// known, or nothing of its kind is missing.
func (s *salvager) find(k, v []byte) error {
	var r streamRecord
	if id, seq, ok := splitSeqKey(k); ok {
		if id > maxStreamID {
			return nil // it is the key of a value
		}
		if _, err := decodeParked(k, v); err == nil {
			return s.findIn(bucketDelayed, k, v)
		}
		if _, _, err := decodeMessage(k, v); err != nil {
			return nil
		}
		st := s.streams[id]
		if st != nil && st.counted && (seq < st.old.first || seq > st.old.last) {
			return nil // consumed, or of a commit that did not come to its end
		}
		return s.findIn(bucketMessages, k, v)
	}
	if getJSON(k, v, &r) != nil || r.ID == 0 || r.Config.Name != string(k) {
		return nil
	}
	if known, ok := s.names[string(k)]; !s.holed[string(bucketStreams)] || ok && known >= r.ID {
		return nil // an older one was deleted
	}
	if st := s.streams[r.ID]; st != nil && st.name != recoveredName(r.ID) {
		return nil
	}
	s.streams[r.ID] = &auditStream{name: string(k), ahead: r.Config.Durability != Synced}
	s.names[string(k)] = r.ID
	s.r.Outside++
	return s.put(string(bucketStreams), k, v)
}

func (s *salvager) findIn(bucket, k, v []byte) error {
	if !s.holed[string(bucket)] {
		return nil // all that counts was in the tree
	}
	b, err := s.begun(string(bucket))
	if err != nil || b.Get(k) != nil {
		return err
	}
	s.r.Outside++
	return s.put(string(bucket), k, v)
}
