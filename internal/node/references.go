package node

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/edged-io/edged/internal/oci"
	"github.com/edged-io/edged/internal/ota"
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
