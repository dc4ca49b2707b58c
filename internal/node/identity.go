package node

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/edged-io/edged/internal/atomicfile"
	"github.com/edged-io/edged/internal/claims"
	"github.com/edged-io/edged/store"
)

// Files in the state directory that say who the box is in the lattice, where the
// device file names no others.
const (
	hostSeedFile    = "host.seed"
	clusterSeedFile = "cluster.seed"
)

// identity is who the box is in the lattice.
type identity struct {
	host    claims.Seed // N
	cluster claims.Seed // C, signs invocations
	issuers []claims.Key
	store   string // names the store: one that begins anew has another
}

func (n *Node) openIdentity() (err error) {
	l := n.o.Device.Lattice
	if n.identity.host, err = n.seed(l.HostSeedFile, hostSeedFile, claims.Server); err != nil {
		return err
	}
	if n.identity.cluster, err = n.seed(l.ClusterSeedFile, clusterSeedFile, claims.Cluster); err != nil {
		return err
	}
	for _, text := range l.Issuers {
		k, err := claims.Parse(text)
		if err != nil {
			return fmt.Errorf("lattice.issuers: %w", err)
		}
		n.identity.issuers = append(n.identity.issuers, k)
	}
	return nil
}

// seed reads the seed that the device file names, or the box's own, which is made
// when there is none.
func (n *Node) seed(named, own string, kind claims.Kind) (claims.Seed, error) {
	if named != "" {
		s, err := readSeed(named, kind)
		if err != nil {
			return s, fmt.Errorf("%s seed: %w", kind, err)
		}
		return s, nil
	}
	path := filepath.Join(n.stateDir, own)
	s, err := readSeed(path, kind)
	switch {
	case err == nil:
		return s, nil
	case errors.Is(err, claims.ErrKey):
		// A box that is somebody else in the lattice is better than one that does not
		// start. What is left of the file stays for whoever wants to repair it.
		aside := path + ".damaged"
		if err := os.Rename(path, aside); err != nil {
			return s, fmt.Errorf("%s seed: %w: %w", kind, store.ErrUnusable, err)
		}
		n.log.Error("the file with the key of the box in the lattice is damaged: it gets a new one, under which others do not know it", "kind", kind.String(), "file", aside)
	case !errors.Is(err, fs.ErrNotExist):
		return s, fmt.Errorf("%s seed: %w: %w", kind, store.ErrUnusable, err)
	}
	if s, err = claims.Generate(kind); err != nil {
		return s, err
	}
	if err := atomicfile.WriteFile(path, []byte(s.Reveal()+"\n"), 0o600); err != nil { // a disk that is full must not keep the box from working
		n.log.Error("the key of the box in the lattice is not kept: after a restart others do not know it", "kind", kind.String(), "err", err)
		n.health.degrade("identity", kind.String(), err)
	}
	return s, nil
}

// maxSeedFile is more than a file with a seed has.
const maxSeedFile = 1 << 10

// readSeed reads a file that holds a seed of that kind and nothing else. The error
// wraps claims.ErrKey if it holds something else, which it does not show.
func readSeed(path string, kind claims.Kind) (claims.Seed, error) {
	info, err := os.Stat(path)
	if err != nil {
		return claims.Seed{}, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxSeedFile {
		return claims.Seed{}, fmt.Errorf("%s: not the file of a seed: %w", path, claims.ErrKey)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return claims.Seed{}, err
	}
	s, err := claims.ParseSeed(strings.TrimSpace(string(b)))
	if err == nil && s.Kind() != kind {
		err = fmt.Errorf("it is of kind %s, want %s: %w", s.Kind(), kind, claims.ErrKey)
	}
	if err != nil {
		return claims.Seed{}, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

// The name of the store is kept in it.
const (
	spaceNode  = "$node"
	keyStoreID = "store"
)

// nameStore reads what names the store, or makes it up.
func (n *Node) nameStore(ctx context.Context) {
	var id []byte
	err := n.db.Do(ctx, func(_ context.Context, t *store.Turn) error {
		var known bool
		var err error
		if id, known, err = t.Get(spaceNode, keyStoreID); known || err != nil {
			return err
		}
		id = []byte(rand.Text())
		return t.Put(spaceNode, keyStoreID, id)
	})
	if err != nil { // as with a full disk
		n.log.Error("the store has no name: calls that are made again after a restart are not known as repeats", "err", err)
		id = []byte(rand.Text())
	}
	n.identity.store = string(id)
}

// handledHere is handled with the name of the store in it: no other box, and not
// this one with another store, has handled a message of that name.
func (n *Node) handledHere(ctx context.Context) string {
	if of := handled(ctx); of != "" {
		return n.identity.store + "/" + of
	}
	return ""
}
