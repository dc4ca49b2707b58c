package node

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/edged-io/edged/internal/config"
	"github.com/edged-io/edged/internal/oci"
	"github.com/edged-io/edged/internal/ota"
	"github.com/edged-io/edged/internal/policy"
	"github.com/edged-io/edged/store"
)

// reserveDisk is what fetched code leaves free of the disk, for messages.
const reserveDisk = 32 << 20

// openReferences makes what fetches code by reference.
func (n *Node) openReferences() error {
	o, err := n.o.Device.Registry.Options()
	if err != nil {
		return err
	}
	o.Dir, o.Logger, o.ReserveDisk, o.Hub = filepath.Join(n.stateDir, "oci"), n.part("references"), reserveDisk, n.fetchArtifact
	if n.references, err = oci.New(o); err != nil {
		return fmt.Errorf("registry: %w", err)
	}
	n.references.SetLogins(n.held().logins())
	return nil
}

// fetchArtifact makes a file of an artifact of the hub.
func (n *Node) fetchArtifact(ctx context.Context, digest, path string) error {
	switch err := n.updates.Artifact(ctx, digest, path); {
	case err == nil || ctx.Err() != nil:
		return err
	case errors.Is(err, ota.ErrNoArtifact):
		return fmt.Errorf("%w: %w", oci.ErrNotFound, err)
	default:
		return fmt.Errorf("hub: %w: %w", oci.ErrUnreachable, err)
	}
}

// referenced is the space of what references of apps named when they were looked up first, as digests of content. So the code of an app stays the
// same, whatever becomes of a tag.
const referenced = "referenced"

// errNotHere says that code has to be fetched before an app can run.
var errNotHere = errors.New("is not on the box yet")

// lookup is the key of what a reference of an app named.
func lookup(c *config.App, ref string) string { return sha256Digest([]byte(c.Digest + " " + ref)) }

// known returns what a reference of an app named, "" if it was never looked up.
func (n *Node) known(ctx context.Context, c *config.App, ref string) (digest string, err error) {
	err = n.db.Do(ctx, func(_ context.Context, t *store.Turn) error {
		value, _, err := t.Get(referenced, lookup(c, ref))
		digest = string(value)
		return err
	})
	return digest, err
}

// code returns the file with the code of an actor or provider of an app: file, in its folder, or what ref names. It asks nobody, so that no
// start depends on a registry; the error wraps errNotHere if fetchCode has to be called.
func (n *Node) code(ctx context.Context, c *config.App, file, ref string) (path string, err error) {
	if ref == "" {
		return filepath.Join(c.Dir, filepath.FromSlash(file)), nil
	}
	digest, err := n.known(ctx, c, ref)
	if err != nil {
		return "", err
	}
	if digest == "" {
		digest = ref // what is named by the digest of its content may have come in another way
	}
	path, _, ok := n.references.Held(digest)
	if !ok || !strings.HasPrefix(digest, "sha256:") {
		return "", fmt.Errorf("app %s: %s %w", c.Name, ref, errNotHere)
	}
	return path, nil
}

// fetchCode brings what an app names by reference to the box. A reference that was looked up before is not looked up again, unless what it named
// is gone from the box and from the hub.
func (n *Node) fetchCode(ctx context.Context, c *config.App) error {
	for _, ref := range c.References() {
		if _, err := n.code(ctx, c, "", ref); err == nil || !errors.Is(err, errNotHere) {
			if err != nil {
				return err
			}
			continue
		}
		digest, err := n.known(ctx, c, ref)
		if err != nil {
			return err
		}
		if digest != "" {
			if _, _, err := n.references.Fetch(ctx, digest); err == nil {
				continue
			}
		}
		_, got, err := n.references.Fetch(ctx, ref)
		if err != nil {
			return fmt.Errorf("app %s: %w", c.Name, err)
		}
		if digest != "" && got != digest {
			n.log.Warn("what an app ran is lost, and its reference names something else now", "app", c.Name, "ref", ref, "was", digest, "is", got)
		}
		if err := n.db.Do(ctx, func(_ context.Context, t *store.Turn) error {
			return t.Put(referenced, lookup(c, ref), []byte(got))
		}); err != nil {
			return err
		}
	}
	return nil
}

// fetchAll does it for all apps that the box should run.
func (n *Node) fetchAll(ctx context.Context) error {
	apps, err := n.o.Device.LoadApps()
	if err != nil {
		return nil // which whoever applies them says, too
	}
	for _, s := range n.updates.Current() {
		if c, err := config.LoadApp(s.Dir); err == nil {
			apps = append(apps, c)
		}
	}
	for _, c := range apps {
		if err := n.fetchCode(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

const (
	fetchAgainMin = time.Second
	fetchAgainMax = 2 * time.Minute
)

// runReferences starts what was left out at boot because it had to wait, for its code or for an answer about it.
func (n *Node) runReferences(ctx context.Context) error {
	waiting := n.waiting // written at boot, before this runs
	for pause := fetchAgainMin; len(waiting) > 0; pause = min(2*pause, fetchAgainMax) {
		waiting = slices.DeleteFunc(waiting, func(try func(context.Context) bool) bool { return try(ctx) })
		if len(waiting) == 0 {
			break
		}
		select {
		case <-time.After(pause/2 + rand.N(pause)):
		case <-ctx.Done():
			return nil
		}
	}
	<-ctx.Done()
	return nil
}

// startLate starts an app that had to wait. It returns false if there is something to wait for still.
func (n *Node) startLate(ctx context.Context, c *config.App) bool {
	err := n.tryLate(ctx, c)
	switch {
	case ctx.Err() != nil:
		return false
	case err == nil:
		n.health.recover("app", c.Name)
		return true
	}
	n.health.degrade("app", c.Name, err)
	if !final(err) {
		return false
	}
	n.log.Error("app left out", "app", c.Name, "version", c.Version, "err", err)
	return true
}

// tryLate does it once. An app that is not there any more is no error.
func (n *Node) tryLate(ctx context.Context, c *config.App) error {
	if c.Assembled {
		if key := n.held().keyOf(c.Name); key != "" {
			return n.put(ctx, key, nil, func(*held) error { return nil })
		}
		return nil
	}
	now, err := config.LoadApp(c.Dir)
	if err != nil { // it was taken away, or is somebody's work in progress
		return nil
	}
	if err := n.fetchCode(ctx, now); err != nil {
		return err
	}
	return n.applyApp(ctx, c.Dir)
}

// mayWait says whether an error at boot is one that passes.
func mayWait(err error) bool {
	return errors.Is(err, errNotHere) || errors.Is(err, policy.ErrUnanswered)
}

// final says whether it is of no use to try again what a reference names, or what the policy service says.
func final(err error) bool {
	return !slices.ContainsFunc([]error{oci.ErrUnreachable, oci.ErrLogin, oci.ErrNotFound, policy.ErrUnanswered}, func(e error) bool { return errors.Is(err, e) })
}
