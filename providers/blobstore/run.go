package blobstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/edged-io/edged/internal/atomicfile"
	"github.com/edged-io/edged/store"
)

const (
	// forgotten is how long an upload may stand still, and a download may wait for its
	// actor, before it is given up.
	forgotten = 24 * time.Hour
	// sweepEvery is how often that is looked at.
	sweepEvery = time.Hour
	// sweepBatch is how many records are removed in one turn.
	sweepBatch = 64
	// retryEvery is when what could not be done is tried again.
	retryEvery = 30 * time.Second
)

// notify has Run look at what there is to do.
func (p *Provider) notify() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// open finds out which files there are, and which records refer to them.
func (p *Provider) open() error {
	s := p.files
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	unread := 0
	for _, info := range p.db.Spaces(Space) {
		bucket := strings.TrimPrefix(info.Name, Space)
		err := p.db.List(info.Name, "", func(key string, v []byte) error {
			file, err := fileOf(key, v)
			if d, bad := decodeDownload(v); strings.HasPrefix(key, keyDownload) && bad == nil {
				p.queue(downloadID{info.Name, key}, d.actor)
			}
			switch {
			case err != nil:
				unread++
				p.log.Warn("a record makes no sense and is left alone", "space", info.Name, "key", key, "err", err)
			case file != "":
				s.found(file, bucket)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	orphans, err := p.adopt()
	if err == nil && unread > 0 && len(orphans) > 0 {
		// They may be what those records refer to, which a newer edged reads.
		p.log.Warn("files that no object refers to are left alone, as long as there are records that make no sense", "files", len(orphans), "records", unread)
		return nil
	}
	return errors.Join(err, p.discard(orphans))
}

// adopt counts the files in the folder, and returns those without a record.
func (p *Provider) adopt() (orphans []string, err error) {
	s := p.files
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, err
	}
	there := make(map[string]bool, len(entries))
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || !info.Mode().IsRegular() || !isFileName(e.Name()) {
			p.log.Warn("what is in the folder of the blobstore and is not its own is left alone", "name", e.Name())
			continue
		}
		f := s.all[e.Name()]
		if f == nil {
			orphans = append(orphans, e.Name())
			continue
		}
		there[e.Name()] = true
		f.size = info.Size()
		s.count(f.bucket, f.size, 1)
	}
	missing := 0
	for name, f := range s.all {
		if !there[name] {
			missing++
			s.count(f.bucket, 0, 1)
		}
	}
	if missing > 0 {
		p.log.Error("files of objects are gone", "files", missing, "folder", s.dir)
	}
	return orphans, nil
}

// discard removes files without a record, or puts them where Lost says.
func (p *Provider) discard(names []string) error {
	if len(names) == 0 {
		return nil
	}
	to := p.o.Lost
	if to == "" {
		p.log.Info("files that no object refers to are removed", "files", len(names))
		for _, name := range names {
			if err := os.Remove(p.files.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		return nil
	}
	p.log.Warn("files of objects whose records are lost are set aside", "files", len(names), "folder", to)
	if err := os.MkdirAll(to, 0o700); err != nil {
		return err
	}
	for _, name := range names {
		if err := os.Rename(p.files.path(name), filepath.Join(to, name)); err != nil {
			return err
		}
	}
	return errors.Join(atomicfile.SyncDir(to), atomicfile.SyncDir(p.files.dir))
}

// Run sends the parts of downloads, and removes what is not needed any more, until ctx
// ends.
func (p *Provider) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	retry := time.NewTimer(0)
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-p.wake:
		case <-tick.C:
			if err := p.expire(ctx); err != nil && ctx.Err() == nil {
				p.log.Warn("uploads that stand still are not given up", "err", err)
			}
		case <-retry.C:
		}
		p.mu.Lock()
		queued := p.queued
		p.queued = nil
		p.mu.Unlock()
		for _, id := range queued {
			wg.Go(func() { p.deliver(ctx, id) })
		}
		if err := errors.Join(p.empty(ctx), p.files.clean()); err != nil && ctx.Err() == nil {
			p.log.Warn("what objects leave behind is not all removed", "err", err)
			retry.Reset(retryEvery)
		}
	}
}

// empty removes what was in containers that are no more.
func (p *Provider) empty(ctx context.Context) error {
	for _, info := range p.db.Spaces(Space) {
		var numbers []string
		err := p.db.List(info.Name, keyGone, func(key string, _ []byte) error {
			numbers = append(numbers, strings.TrimPrefix(key, keyGone))
			return nil
		})
		if err != nil {
			return err
		}
		for _, number := range numbers {
			if err := p.emptyContainer(ctx, info.Name, number); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *Provider) emptyContainer(ctx context.Context, space, number string) error {
	for left := true; left; {
		err := p.db.Do(ctx, func(_ context.Context, t *store.Turn) error {
			left = false
			for _, prefix := range []string{objectKey(number, ""), uploadKey(number, "")} {
				keys, err := t.Keys(space, prefix, "", sweepBatch)
				if err != nil {
					return err
				}
				for _, key := range keys {
					if err := p.change(t, space, key, nil); err != nil {
						return err
					}
				}
				left = left || len(keys) > 0
			}
			if left {
				return nil
			}
			return t.Delete(space, keyGone+number)
		})
		if err != nil {
			return fmt.Errorf("empty a container: %w", err)
		}
	}
	return nil
}

// expire gives up uploads and downloads that stand still.
func (p *Provider) expire(ctx context.Context) error {
	for _, info := range p.db.Spaces(Space) {
		var old []string
		for _, prefix := range []string{keyUpload, keyDownload} {
			err := p.db.List(info.Name, prefix, func(key string, v []byte) error {
				if p.still(key, v) {
					old = append(old, key)
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
		for _, key := range old {
			err := p.db.Do(ctx, func(_ context.Context, t *store.Turn) error {
				v, ok, err := t.Get(info.Name, key)
				if err != nil || !ok || !p.still(key, v) {
					return err
				}
				return p.change(t, info.Name, key, nil)
			})
			if err != nil {
				return err
			}
		}
		if len(old) > 0 {
			p.log.Info("uploads and downloads that stood still are given up", "space", info.Name, "count", len(old))
		}
	}
	return nil
}

// still says whether nothing has happened to an upload or download for long.
func (p *Provider) still(key string, v []byte) bool {
	var since time.Duration
	if strings.HasPrefix(key, keyUpload) {
		u, err := decodeUpload(v)
		if err != nil {
			return false
		}
		since = u.since
	} else {
		d, err := decodeDownload(v)
		if err != nil {
			return false
		}
		since = d.since
	}
	return p.db.Age(since) > p.forgotten
}
