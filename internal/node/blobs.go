package node

import (
	"path/filepath"
	"slices"

	"github.com/edged-io/edged/providers/blobstore"
	"github.com/edged-io/edged/store"
)

// minFree is how much of the disk objects leave to the store, which is beside them.
const minFree = 64 << 20

// openBlobs makes the provider of objects. Their files are beside the store; those of a
// store that was damaged are set aside with it.
func (n *Node) openBlobs() (*blobstore.Provider, error) {
	o := blobstore.Options{
		Store: n.db, Dir: filepath.Join(n.stateDir, "blobs"), MaxBytes: int64(n.o.Device.Limits.Blobs), MinFree: minFree,
		Call: n.bus.Call, Now: n.o.Now, Logger: n.part("blobstore"), Registerer: n.registry,
		Failed: func(err error, outcome string) { n.failures.went("", outcome, err) },
	}
	damaged, err := store.Quarantined(n.stateDir)
	if err != nil || slices.ContainsFunc(damaged, func(a store.Aside) bool { return a.Store }) {
		o.Lost = filepath.Join(n.stateDir, "quarantine", "blobs")
	}
	return blobstore.New(o)
}
