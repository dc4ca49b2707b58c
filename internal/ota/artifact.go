package ota

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/edged-io/edged/internal/claims"
)

// ErrNoArtifact says that there is no such artifact, on the box or on its hub.
var ErrNoArtifact = errors.New("no such artifact")

// Artifact makes a file at path with the content that has the digest, from what the box fetched for its apps or else from the hub. Its bytes are on disk and equal
// to the digest when Artifact returns nil. What was received stays beside it, under names that begin with path and ".part", for the next call
// to go on with. It may be called from any goroutine, for one path from one at a time.
func (a *Agent) Artifact(ctx context.Context, digest, path string) error {
	if _, err := claims.ParseDigest(digest); err != nil {
		return err
	}
	// Nobody writes to an artifact once it has its name, so that a second name is as good as a copy.
	if err := place(a.disk.artifact(digest), path); err == nil || !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if a.hub == nil {
		return fmt.Errorf("artifact %s: %w: the box has no hub to ask", digest, ErrNoArtifact)
	}
	f := fetcher{
		hub: *a.hub, place: func(string) string { return path }, room: a.disk.root, reserve: a.opts.ReserveBytes, reached: func(string) {},
	}
	err := f.fetch(ctx, digest)
	if errors.Is(err, jetstream.ErrObjectNotFound) || errors.Is(err, jetstream.ErrBucketNotFound) {
		return fmt.Errorf("%w: %w", ErrNoArtifact, err)
	}
	return err
}
