// Package oci brings the code that references name to the box: actors and provider archives from OCI registries, files of the box, and
// artifacts of the hub.
//
// A reference is HOST[:PORT]/NAME:TAG or HOST[:PORT]/NAME@sha256:… for a registry, file:///PATH or /PATH for a file, and sha256:… for
// content that has this digest, wherever it comes from. A Fetcher copies what a reference names into its cache, once for each content, and
// hands out a file there that nobody changes any more.
//
// Guarantees: the file that Fetch returns has the digest that Fetch returns, and where the reference or a manifest promised one, that one.
// What was fetched once is there without the registry. A download that was cut off goes on behind what was received. Whatever a registry
// answers, no more is read or kept than the limits allow. What was handed out since the start is not removed from the cache.
//
// What is left to others: who signed the content and whether it is to run.
//
// The protocol is that of the OCI distribution specification 1.1, the media types are those of wasmCloud.
package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/edged-io/edged/internal/claims"
)

// Errors that callers tell apart. Trying again later helps with ErrUnreachable only.
var (
	ErrReference   = errors.New("not a reference")                  // malformed
	ErrRefused     = errors.New("the box refuses such a reference") // files or latest, without the switch
	ErrNotFound    = errors.New("not found")                        // the registry, the disk or the hub says so
	ErrLogin       = errors.New("the registry wants another login") // or one at all
	ErrUnreachable = errors.New("not reachable")                    // nobody answered, or asked for patience
	ErrContent     = errors.New("not what it should be")            // media type, size, digest
)

// Options are what a Fetcher may do. The zero value of each but Dir and Logger is its default.
type Options struct {
	Dir    string // of the cache; it is made, and belongs to the Fetcher alone
	Logger *slog.Logger

	Files       bool     // references to files of the box are allowed
	Latest      bool     // the tag latest is allowed, and is what no tag stands for
	Insecure    []string // HOST[:PORT] of registries that are spoken to without TLS
	CA          []byte   // certificates in PEM that count beside those of the system
	Logins      map[string]Login
	MaxBytes    int64 // of one artifact; 0 for 256 MiB
	CacheBytes  int64 // of all that is kept; 0 for 1 GiB
	ReserveDisk int64 // bytes of the disk that stay free

	// Hub, if not nil, makes a file of the content that has the digest, from the artifacts of the hub. It may leave files beside it whose names begin
	// with that of the path and ".part", to go on with. Its error wraps ErrNotFound if there is no such artifact, or ErrUnreachable.
	Hub func(ctx context.Context, digest, path string) error
	// Progress, if not nil, is told how many bytes of a download are there; total is what the manifest promises. It must not block.
	Progress func(ref string, done, total int64)
}

// A Login is who the box is to a registry. Token is sent as it is where there is no user. It prints nothing of it.
type Login struct {
	User, Password, Token string
}

// LogValue keeps a login out of logs.
func (Login) LogValue() slog.Value { return slog.StringValue("[login]") }

// String keeps a login out of texts.
func (Login) String() string { return "[login]" }

// GoString keeps a login out of %#v.
func (Login) GoString() string { return "[login]" }

const (
	maxAtOnce    = 2                // downloads
	stallTimeout = time.Minute      // without a byte
	askTimeout   = 20 * time.Second // for a manifest; then what is held is used
)

// Fetcher fetches. All methods may be called at any time.
type Fetcher struct {
	opts   Options
	log    *slog.Logger
	client *http.Client
	cache  *cache
	slots  chan struct{}                              // one token for each download
	pause  func(ctx context.Context, tries int) error // between two tries of a download
	stall  time.Duration                              // without a byte, after which one ends

	mu     sync.Mutex // guards what follows
	logins map[string]Login
	busy   map[string]chan struct{} // by reference; closed when its fetch is over
}

// New opens the cache in Options.Dir. A damaged index is set aside and reported, and what it held is fetched again.
func New(opts Options) (*Fetcher, error) {
	if opts.Dir == "" || opts.Logger == nil {
		return nil, errors.New("oci: Dir and Logger are needed")
	}
	if opts.MaxBytes == 0 {
		opts.MaxBytes = claims.MaxAppFile
	}
	if opts.CacheBytes == 0 {
		opts.CacheBytes = 1 << 30
	}
	client, err := newClient(opts.CA)
	if err != nil {
		return nil, fmt.Errorf("oci: %w", err)
	}
	c, err := openCache(opts)
	if err != nil {
		return nil, fmt.Errorf("oci: %w", err)
	}
	f := &Fetcher{
		opts: opts, log: opts.Logger, client: client, cache: c, slots: make(chan struct{}, maxAtOnce), pause: wait, stall: stallTimeout,
		logins: make(map[string]Login), busy: make(map[string]chan struct{}),
	}
	f.SetLogins(opts.Logins)
	return f, nil
}

// SetLogins adds or replaces the logins of registries, by HOST[:PORT]. One without anything in it is removed.
func (f *Fetcher) SetLogins(logins map[string]Login) {
	f.mu.Lock()
	defer f.mu.Unlock()
	changed := maps.Clone(f.logins)
	for host, l := range logins {
		if host = strings.ToLower(host); l == (Login{}) {
			delete(changed, host)
		} else {
			changed[host] = l
		}
	}
	f.logins = changed
}

func (f *Fetcher) login(host string) Login {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.logins[strings.ToLower(host)]
}

// Fetch returns a file with what ref names, and the digest of the file's content, "sha256:" and 64 hexadecimal digits. It asks the registry
// what a tag means now. If nobody answers, what the tag meant last is good enough, and the log says so. A digest that is held is not asked for.
// The errors wrap one of those of this package, or are of the disk or of ctx.
func (f *Fetcher) Fetch(ctx context.Context, ref string) (path, digest string, err error) {
	r, err := f.parse(ref)
	if err != nil {
		return "", "", fmt.Errorf("fetch %.300q: %w", ref, err)
	}
	leave, err := f.enter(ctx, r.String())
	if err != nil {
		return "", "", fmt.Errorf("fetch %s: %w", r, err)
	}
	defer leave()
	digest, err = f.fetch(ctx, r)
	if err != nil && errors.Is(err, ErrUnreachable) && ctx.Err() == nil {
		if held, ok := f.cache.held(r.String()); ok {
			f.log.Warn("reference can not be looked up now; what it named last is used", "ref", r.String(), "digest", held.Digest, "err", err)
			digest, err = held.Digest, nil
		}
	}
	if err != nil {
		return "", "", fmt.Errorf("fetch %s: %w", r, err)
	}
	return f.cache.path(digest), digest, nil
}

// Held returns what Fetch returned last for ref, without asking anybody; false if it is not there, or damaged.
func (f *Fetcher) Held(ref string) (path, digest string, ok bool) {
	r, err := f.parse(ref)
	if err != nil {
		return "", "", false
	}
	if r.kind == byDigest {
		return f.cache.path(r.text), r.text, f.cache.take(r.text)
	}
	e, ok := f.cache.held(r.String())
	return f.cache.path(e.Digest), e.Digest, ok
}

// fetch returns the digest of content that is in the cache then.
func (f *Fetcher) fetch(ctx context.Context, r reference) (digest string, err error) {
	switch r.kind {
	case byDigest:
		return r.text, f.fetchDigest(ctx, r.text)
	case byPath:
		return f.copyFile(r)
	}
	return f.pull(ctx, r)
}

func (f *Fetcher) fetchDigest(ctx context.Context, digest string) error {
	if f.cache.take(digest) {
		return nil
	}
	if f.opts.Hub == nil {
		return fmt.Errorf("%w: the box has no such content, and no hub to ask", ErrNotFound)
	}
	path := f.cache.path(digest)
	if err := f.cache.makeRoom(path+partMark, 0); err != nil { // how much it will be is not known yet
		return err
	}
	defer f.cache.leave(path + partMark)
	if err := f.opts.Hub(ctx, digest, path); err != nil {
		return err
	}
	if !f.cache.take(digest) {
		return fmt.Errorf("artifact of the hub: %w", ErrContent)
	}
	if err := f.cache.makeRoom("", 0); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

// copyFile copies the file that a reference names into the cache.
func (f *Fetcher) copyFile(r reference) (digest string, err error) {
	path := r.text
	in, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("%w: %s is not there", ErrNotFound, path)
	}
	if err != nil {
		return "", err
	}
	defer in.Close() // it was only read
	info, err := in.Stat()
	switch {
	case err != nil:
		return "", err
	case !info.Mode().IsRegular():
		return "", fmt.Errorf("%s is not a file: %w", path, ErrContent)
	case info.Size() > f.opts.MaxBytes:
		return "", tooLarge(info.Size(), f.opts.MaxBytes)
	}
	if digest, err = digestOf(in); err != nil {
		return "", err
	}
	if !f.cache.take(digest) {
		if _, err := in.Seek(0, io.SeekStart); err != nil {
			return "", err
		}
		if err := f.cache.add(digest, info.Size(), in); err != nil {
			return "", err
		}
	}
	return digest, f.cache.remember(entry{Ref: r.String(), Digest: digest, Size: info.Size()})
}

// enter waits until nobody else fetches what has this name. Whoever waited finds it in the cache then.
func (f *Fetcher) enter(ctx context.Context, name string) (leave func(), err error) {
	for {
		f.mu.Lock()
		other, taken := f.busy[name]
		if !taken {
			done := make(chan struct{})
			f.busy[name] = done
			f.mu.Unlock()
			return func() {
				f.mu.Lock()
				delete(f.busy, name)
				f.mu.Unlock()
				close(done)
			}, nil
		}
		f.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// plain says whether a registry is spoken to without TLS.
func (f *Fetcher) plain(host string) bool {
	return slices.ContainsFunc(f.opts.Insecure, func(h string) bool { return strings.EqualFold(h, host) })
}

func tooLarge(size, limit int64) error {
	return fmt.Errorf("%d bytes are more than the limit of %d: %w", size, limit, ErrContent)
}
