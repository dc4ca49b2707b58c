package ota

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/edged-io/edged/internal/atomicfile"
	"github.com/edged-io/edged/internal/claims"
)

const (
	partMark = ".part"
	// saveEvery is how many bytes of a download a power cut may cost.
	saveEvery = 2 << 20
)

// errContent says that an artifact was received which is not what its name promises.
var errContent = errors.New("artifact on the hub has another content than its name says")

// part says how far an unfinished download has come; it is kept beside it.
type part struct {
	Object string `json:"object"` // id of the object's chunks on the hub
	Seq    uint64 `json:"seq"`    // of the last chunk that is in the file
	Size   int64  `json:"size"`   // bytes in the file that are synced
}

// fetcher brings artifacts from the hub into the local folder.
type fetcher struct {
	hub     hub
	place   func(digest string) string // of an artifact
	room    string                     // path on the disk that must have room
	reserve int64                      // bytes of the disk that stay free
	reached func(point string)         // for the tests of power cuts
}

// fetch brings the artifact with the given digest, unless it is there. Its bytes are
// on disk and equal to the digest when fetch returns nil. What was received stays
// when it fails, and the next call goes on behind it, after a reboot too. An error
// that wraps errContent has cost a whole download and will come again.
func (f fetcher) fetch(ctx context.Context, digest string) error {
	if info, err := os.Lstat(f.place(digest)); err == nil && info.Mode().IsRegular() {
		return nil
	}
	bind, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	objects, err := f.hub.js.ObjectStore(bind, ArtifactsBucket)
	if err != nil {
		return fmt.Errorf("object store %s: %w", ArtifactsBucket, err)
	}
	info, err := objects.GetInfo(bind, digest)
	if err != nil {
		return fmt.Errorf("artifact %s: %w", digest, err)
	}
	if err := checkObject(info, digest); err != nil {
		return fmt.Errorf("artifact %s: %w", digest, err)
	}
	stream, err := f.hub.js.Stream(bind, "OBJ_"+ArtifactsBucket)
	if err != nil {
		return fmt.Errorf("object store %s: %w", ArtifactsBucket, err)
	}
	d, err := f.open(digest, info)
	if err != nil {
		return fmt.Errorf("artifact %s: %w", digest, err)
	}
	if err := f.hasRoom(d.want - d.Size); err != nil {
		return fmt.Errorf("artifact %s: %w", digest, errors.Join(err, d.file.Close()))
	}
	if err := d.receive(ctx, stream); err != nil {
		return fmt.Errorf("artifact %s: %w", digest, errors.Join(err, d.save(), d.file.Close()))
	}
	if err := d.finish(f.place(digest)); err != nil {
		return fmt.Errorf("artifact %s: %w", digest, err)
	}
	return nil
}

// hasRoom refuses a download that would leave the box's messages without space.
func (f fetcher) hasRoom(bytes int64) error {
	var st syscall.Statfs_t
	if err := syscall.Statfs(f.room, &st); err != nil {
		return fmt.Errorf("free space of %s: %w", f.room, err)
	}
	if free := int64(st.Bavail) * int64(st.Bsize); free-bytes < f.reserve {
		return fmt.Errorf("%d bytes do not fit: %d are free, and %d of them are for messages", bytes, free, f.reserve)
	}
	return nil
}

// checkObject spares a download whose end can be seen already. Somebody may upload a
// better object under the name, so its errors do not wrap errContent.
func checkObject(info *jetstream.ObjectInfo, digest string) error {
	switch {
	case info.Size > claims.MaxAppFile:
		return fmt.Errorf("object has %d bytes, limit %d", info.Size, claims.MaxAppFile)
	case info.Opts != nil && info.Opts.Link != nil:
		return errors.New("object is a link")
	case info.NUID == "" || strings.ContainsAny(info.NUID, ".*> \t"):
		return errors.New("object has no id")
	case info.Digest != objectDigest(digest):
		return fmt.Errorf("object has digest %.80q", info.Digest)
	}
	return nil
}

// objectDigest is a digest as the object store of NATS writes it.
func objectDigest(digest string) string {
	sum, err := claims.ParseDigest(digest)
	if err != nil {
		return ""
	}
	return "SHA-256=" + base64.URLEncoding.EncodeToString(sum[:])
}

// download is one artifact on its way.
type download struct {
	part
	digest  string
	chunks  string // subject of the object's chunks
	want    int64  // bytes
	path    string // of the unfinished file; that of its part adds ".json"
	file    *os.File
	sum     hash.Hash
	saved   int64 // bytes when part was saved last
	reached func(string)
}

// open finds what a former try left, if it is of the same object.
func (f fetcher) open(digest string, info *jetstream.ObjectInfo) (*download, error) {
	d := &download{
		digest: digest, want: int64(info.Size), sum: sha256.New(), reached: f.reached,
		chunks: "$O." + ArtifactsBucket + ".C." + info.NUID,
		path:   f.place(digest) + partMark,
	}
	if err := readJSON(d.path+".json", &d.part); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, errDamaged) {
		return nil, err
	}
	file, err := os.OpenFile(d.path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	d.file = file
	st, err := file.Stat()
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	if d.Object != info.NUID || d.Size < 0 || d.Size > st.Size() || d.Size > d.want {
		d.part = part{Object: info.NUID}
	}
	// Behind Size there may be anything after a power cut.
	if err := file.Truncate(d.Size); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	if _, err := io.Copy(d.sum, file); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	d.saved = d.Size
	return d, nil
}

// receive asks for one chunk after the other. It is one round trip per chunk, which
// a slow link hardly notices, and nothing is in flight that could be lost.
func (d *download) receive(ctx context.Context, stream jetstream.Stream) error {
	for d.Size < d.want {
		m, err := d.chunk(ctx, stream)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return errors.Join(d.restart(), fmt.Errorf("a chunk is missing behind byte %d: %w", d.Size, err))
		}
		if err != nil {
			return err
		}
		if len(m.Data) == 0 || d.Size+int64(len(m.Data)) > d.want {
			return errors.Join(d.restart(), fmt.Errorf("chunks add up to more than %d bytes: %w", d.want, errContent))
		}
		if _, err := d.file.Write(m.Data); err != nil {
			return err
		}
		d.sum.Write(m.Data)
		d.Size += int64(len(m.Data))
		d.Seq = m.Sequence
		if d.Size-d.saved >= saveEvery {
			if err := d.save(); err != nil {
				return err
			}
			d.reached("part saved")
		}
	}
	return nil
}

func (d *download) chunk(ctx context.Context, stream jetstream.Stream) (*jetstream.RawStreamMsg, error) {
	ctx, cancel := context.WithTimeout(ctx, chunkTimeout)
	defer cancel()
	return stream.GetMsg(ctx, d.Seq+1, jetstream.WithGetMsgSubject(d.chunks))
}

// save syncs the bytes first: a part never promises what a power cut could take.
func (d *download) save() error {
	if err := d.file.Sync(); err != nil {
		return err
	}
	if err := writeJSON(d.path+".json", d.part); err != nil {
		return err
	}
	d.saved = d.Size
	return nil
}

// restart forgets what was received.
func (d *download) restart() error {
	d.part = part{Object: d.Object}
	d.sum.Reset()
	if _, err := d.file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return d.file.Truncate(0)
}

// finish gives the file its name, if it is what the name promises, and closes it.
func (d *download) finish(to string) error {
	if got := claims.Digest([sha256.Size]byte(d.sum.Sum(nil))); got != d.digest {
		return errors.Join(fmt.Errorf("received %s: %w", got, errContent), d.restart(), d.save(), d.file.Close())
	}
	if err := errors.Join(d.file.Chmod(0o444), d.file.Sync(), d.file.Close()); err != nil {
		return err
	}
	if err := os.Rename(d.path, to); err != nil {
		return err
	}
	if err := os.Remove(d.path + ".json"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return atomicfile.SyncDir(filepath.Dir(to))
}
