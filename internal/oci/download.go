package oci

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/errcode"

	"github.com/edged-io/edged/internal/claims"
)

// tellEvery is how often the log says how far a download is.
const tellEvery = time.Minute

// maxTries is how often a download may be cut off without a byte between.
const maxTries = 4

// These end one try of a download.
var (
	errStalled = errors.New("no byte for too long")
	errShort   = fmt.Errorf("has fewer bytes than it says: %w", io.ErrUnexpectedEOF)
)

// wait pauses between two tries, longer each time.
func wait(ctx context.Context, tries int) error {
	d := time.Second << min(tries, 5)
	select {
	case <-time.After(d/2 + rand.N(d)):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// download is an artifact on its way. Its layers are received one behind the other into one file, the part, whose length says how far it is.
type download struct {
	fetcher  *Fetcher
	repo     *remote.Repository
	ref      reference
	manifest manifest
	file     *os.File
	size     int64     // of the file
	told     time.Time // when the log was told how far it is
}

// run receives what is missing and returns the digest of the content, which is in the cache then. When it fails, the part stays.
func (d *download) run(ctx context.Context) (string, error) {
	c := d.fetcher.cache
	part := c.path(d.manifest.digest) + partMark
	if err := c.makeRoom(part, d.manifest.size); err != nil {
		return "", err
	}
	defer c.leave(part)
	var err error
	if d.file, err = os.OpenFile(part, os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return "", err
	}
	if err := d.receive(ctx); err != nil {
		return "", errors.Join(err, d.file.Sync(), d.file.Close())
	}
	digest := d.manifest.layers[0].Digest.String()
	if len(d.manifest.layers) > 1 {
		if _, err := d.file.Seek(0, io.SeekStart); err != nil {
			return "", errors.Join(err, d.file.Close())
		}
		if digest, err = digestOf(d.file); err != nil {
			return "", errors.Join(err, d.file.Close())
		}
	}
	return digest, c.adopt(d.file, digest)
}

// receive tries until all is there, as long as each few tries bring something.
func (d *download) receive(ctx context.Context) error {
	best := int64(-1)
	for tries := 0; ; tries++ {
		err := d.try(ctx)
		if err == nil {
			return nil
		}
		err = explain(ctx, d.ref, err)
		if d.size > best {
			best, tries = d.size, 0
		}
		if !errors.Is(err, ErrUnreachable) || tries+1 >= maxTries {
			return err
		}
		if err := d.fetcher.pause(ctx, tries); err != nil {
			return err
		}
	}
}

// try goes through the layers: it checks what is there, and receives the rest.
func (d *download) try(ctx context.Context) error {
	info, err := d.file.Stat()
	if err != nil {
		return err
	}
	if d.size = info.Size(); d.size > d.manifest.size {
		if err := d.cut(0); err != nil {
			return err
		}
	}
	start := int64(0)
	for _, l := range d.manifest.layers {
		if err := d.layer(ctx, start, l); err != nil {
			return err
		}
		start += l.Size
	}
	return nil
}

// layer completes one layer, whose bytes begin at start.
func (d *download) layer(ctx context.Context, start int64, l ocispec.Descriptor) error {
	had := min(max(d.size-start, 0), l.Size)
	sum := sha256.New()
	if _, err := io.Copy(sum, io.NewSectionReader(d.file, start, had)); err != nil {
		return err
	}
	if had < l.Size {
		if err := d.body(ctx, start, had, l, sum); err != nil {
			return err
		}
	}
	got := claims.Digest([sha256.Size]byte(sum.Sum(nil)))
	if got == l.Digest.String() {
		return nil
	}
	if err := d.cut(start); err != nil {
		return err
	}
	if had == 0 {
		return fmt.Errorf("layer %s is %s: %w", l.Digest, got, ErrContent)
	}
	return d.layer(ctx, start, l) // a power cut has spoiled what was there
}

// body receives a layer from the byte at had on.
func (d *download) body(ctx context.Context, start, had int64, l ocispec.Descriptor, sum hash.Hash) (err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stall := time.AfterFunc(d.fetcher.stall, func() { cancel(errStalled) })
	defer stall.Stop()
	defer func() {
		if err != nil && errors.Is(context.Cause(ctx), errStalled) {
			err = errStalled
		}
	}()
	in, from, err := d.open(ctx, l, had)
	if errors.Is(err, errShort) {
		return errors.Join(d.cut(start), err)
	}
	if err != nil {
		return err
	}
	defer in.Close() // what was received is checked
	if from != had { // a registry that sends all or nothing
		had = 0
		sum.Reset()
		if err := d.cut(start); err != nil {
			return err
		}
	}
	to := io.MultiWriter(io.NewOffsetWriter(d.file, start+had), sum)
	buf := make([]byte, 128<<10)
	for left := l.Size - had; left > 0; {
		n, err := in.Read(buf[:min(left, int64(len(buf)))])
		if n > 0 {
			stall.Reset(d.fetcher.stall)
			if _, err := to.Write(buf[:n]); err != nil {
				return err
			}
			left -= int64(n)
			d.size = start + l.Size - left
			d.tell()
		}
		if err != nil && left > 0 {
			return fmt.Errorf("%w after %d of %d bytes: %w", io.ErrUnexpectedEOF, l.Size-left, l.Size, err)
		}
	}
	return nil
}

// tell says how far the download is.
func (d *download) tell() {
	if f := d.fetcher.opts.Progress; f != nil {
		f(d.ref.String(), d.size, d.manifest.size)
	}
	if now := time.Now(); now.Sub(d.told) >= tellEvery {
		d.told = now
		d.fetcher.log.Info("fetching", "ref", d.ref.String(), "received", d.size, "bytes", d.manifest.size)
	}
}

// open asks for a layer from a byte on, and returns what is sent and where it begins: there, or at 0.
func (d *download) open(ctx context.Context, l ocispec.Descriptor, from int64) (io.ReadCloser, int64, error) {
	scheme, ref := "https", d.repo.Reference
	if d.repo.PlainHTTP {
		scheme = "http"
	}
	address := fmt.Sprintf("%s://%s/v2/%s/blobs/%s", scheme, ref.Host(), ref.Repository, l.Digest)
	req, err := http.NewRequestWithContext(auth.AppendRepositoryScope(ctx, ref, auth.ActionPull), http.MethodGet, address, nil)
	if err != nil {
		return nil, 0, err
	}
	if from > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", from, l.Size-1))
	}
	resp, err := d.repo.Client.Do(req)
	if err != nil {
		return nil, 0, err
	}
	switch {
	case resp.StatusCode == http.StatusOK:
		return resp.Body, 0, nil
	case resp.StatusCode == http.StatusPartialContent && strings.HasPrefix(resp.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-", from)):
		return resp.Body, from, nil
	}
	err = &errcode.ErrorResponse{Method: req.Method, URL: req.URL, StatusCode: resp.StatusCode}
	if from > 0 && resp.StatusCode == http.StatusRequestedRangeNotSatisfiable {
		err = errShort
	}
	return nil, 0, errors.Join(err, resp.Body.Close())
}

// cut shortens the part.
func (d *download) cut(size int64) error {
	d.size = size
	return d.file.Truncate(size)
}
