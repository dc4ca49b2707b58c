package ota

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/edged-io/edged/internal/claims"
)

// ErrRolledBack says that the box refused what was pushed, or tried it and went back.
var ErrRolledBack = errors.New("rolled back")

// ErrRefused, beside ErrRolledBack, says that it was because of the signature.
var ErrRefused = errors.New("refused")

// reportPoll is how often a waiting push reads what the box reports, besides seeing it
// change.
const reportPoll = 2 * time.Second

// PushOptions say what goes where.
type PushOptions struct {
	Domain string // JetStream domain of the hub; "" where the connection is to the hub itself
	Device string
	Dir    string // folder of the app
	// App and Version are those of the manifest in Dir.
	App, Version string
	// Progress, if not nil, is called for each step, from the calling goroutine.
	Progress func(Progress)
}

// Progress is one step of a push. Exactly one of its parts is set.
type Progress struct {
	Uploaded string    // path of a file that went to the hub
	Present  string    // path of a file that the hub had already
	Desired  *Desired  // put as the device's desired state
	Reported *Reported // new answer of the device
}

// Push brings the app in a folder to the hub and makes it the desired state of a
// device: files that the hub lacks first, so that what is desired can be fetched. A
// signature in the folder is compared with the files before; who signed is for the box
// to judge. Missing buckets are created. Push does not wait for the box; see Wait.
func Push(ctx context.Context, nc *nats.Conn, o PushOptions) (Desired, error) {
	progress := o.Progress
	if progress == nil {
		progress = func(Progress) {}
	}
	d, err := desiredOf(o)
	if err != nil {
		return Desired{}, err
	}
	if err := EnsureHub(ctx, nc, o.Domain, 1); err != nil {
		return Desired{}, err
	}
	js, err := newJetStream(nc, o.Domain)
	if err != nil {
		return Desired{}, err
	}
	objects, err := js.ObjectStore(ctx, ArtifactsBucket)
	if err != nil {
		return Desired{}, fmt.Errorf("object store %s: %w", ArtifactsBucket, err)
	}
	files := d.all()
	for _, name := range slices.Sorted(maps.Keys(files)) {
		sent, err := upload(ctx, objects, filepath.Join(o.Dir, filepath.FromSlash(name)), files[name])
		if err != nil {
			return Desired{}, fmt.Errorf("upload %s: %w", name, err)
		}
		if sent {
			progress(Progress{Uploaded: name})
		} else {
			progress(Progress{Present: name})
		}
	}
	if err := (hub{js: js, device: o.Device}).put(ctx, DesiredBucket, d); err != nil {
		return Desired{}, err
	}
	progress(Progress{Desired: &d})
	return d, nil
}

// desiredOf reads the folder.
func desiredOf(o PushOptions) (Desired, error) {
	if !appName.MatchString(o.Device) {
		return Desired{}, fmt.Errorf("device %.80q is not 1 to 64 of A-Z a-z 0-9 _ -", o.Device)
	}
	files, err := claims.DigestApp(o.Dir)
	if err != nil {
		return Desired{}, err
	}
	sig, err := claims.ReadSignature(o.Dir)
	if err != nil {
		return Desired{}, err
	}
	if sig != "" {
		app, err := claims.VerifyApp(files, sig, claims.Policy{AnyIssuer: true})
		if err != nil {
			return Desired{}, fmt.Errorf("app folder %s: %w", o.Dir, err)
		}
		if app.Name != o.App || app.Version != o.Version {
			return Desired{}, fmt.Errorf("app folder %s: signed is %q %q, the manifest says %q %q: %w",
				o.Dir, app.Name, app.Version, o.App, o.Version, claims.ErrHash)
		}
	}
	d := Desired{App: o.App, Version: o.Version, Manifest: files[claims.ManifestFile], Files: files, Sig: sig}
	if err := d.check(); err != nil {
		return Desired{}, fmt.Errorf("app folder %s: %w: %w", o.Dir, ErrDesired, err)
	}
	return d, nil
}

// upload says whether it had to send the file.
func upload(ctx context.Context, objects jetstream.ObjectStore, path, digest string) (sent bool, err error) {
	info, err := objects.GetInfo(ctx, digest)
	if err != nil && !errors.Is(err, jetstream.ErrObjectNotFound) {
		return false, err
	}
	// An object of that name with other bytes is replaced.
	if err == nil && checkObject(info, digest) == nil {
		return false, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err = objects.Put(ctx, jetstream.ObjectMeta{Name: digest}, f)
	if err != nil {
		return false, err
	}
	if info.Digest != objectDigest(digest) {
		return false, fmt.Errorf("the file changed while it was uploaded: %w", fs.ErrInvalid)
	}
	return true, nil
}

// Wait waits until the device has answered d for good, and returns that answer; the
// error wraps ErrRolledBack if it is a refusal. Each new answer on the way goes to
// o.Progress. A box that is away for long is waited for as long as ctx lasts; then the
// last answer, if any, is returned with ctx's error.
func Wait(ctx context.Context, nc *nats.Conn, o PushOptions, d Desired) (Reported, error) {
	js, err := newJetStream(nc, o.Domain)
	if err != nil {
		return Reported{}, err
	}
	h := hub{js: js, device: o.Device}
	changed := make(chan struct{}, 1)
	stop, err := h.watch(ctx, ReportedBucket, func() { signal(changed) })
	if err != nil {
		return Reported{}, err
	}
	defer stop()
	var last Reported
	for {
		r, err := h.reported(ctx)
		if ctx.Err() != nil {
			return last, ctx.Err()
		}
		if err != nil {
			return last, err
		}
		if r != nil && r.Desired == d.key() {
			if o.Progress != nil && (r.State != last.State || r.Error != last.Error) {
				o.Progress(Progress{Reported: r})
			}
			last = *r
			if r.State == RolledBack {
				why := errors.New(r.Error)
				if r.Refused {
					why = fmt.Errorf("%w: %s", ErrRefused, r.Error)
				}
				return last, fmt.Errorf("%s %s on %s: %w: %w", d.App, d.Version, o.Device, ErrRolledBack, why)
			}
			if r.Settled() {
				return last, nil
			}
		}
		select {
		case <-ctx.Done():
			return last, ctx.Err()
		case <-changed:
		case <-time.After(jitter(reportPoll)):
		}
	}
}
