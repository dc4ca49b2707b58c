package config_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/edged-io/edged/internal/claims"
	"github.com/edged-io/edged/internal/config"
)

func newSeed(t *testing.T, kind claims.Kind) claims.Seed {
	t.Helper()
	s, err := claims.Generate(kind)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestLoadDevice_lattice(t *testing.T) {
	dir := t.TempDir()
	host, cluster := newSeed(t, claims.Server), newSeed(t, claims.Cluster)
	write(t, dir, "host.seed", host.Reveal()+"\n")
	write(t, dir, "cluster.seed", cluster.Reveal())
	file := "[device]\nid = \"a\"\n[lattice]\nname = %q\nhost_seed_file = %q\ncluster_seed_file = %q\nissuers = [%q]\n"
	d, err := config.LoadDevice(write(t, dir, "edged.toml", fmt.Sprintf(file, "plant", "host.seed", "cluster.seed", cluster.Key())))
	if err != nil {
		t.Fatal(err)
	}
	if d.Lattice.HostSeedFile != filepath.Join(dir, "host.seed") || d.Lattice.ClusterSeedFile != filepath.Join(dir, "cluster.seed") || d.Lattice.Issuers[0] != cluster.Key().String() {
		t.Errorf("got %+v", d.Lattice)
	}
	// Each in the place of the other, a key of another kind, and the name that control can not have.
	_, err = config.LoadDevice(write(t, dir, "edged.toml", fmt.Sprintf(file, "v1", "cluster.seed", "missing.seed", host.Key())))
	wantFaults(t, err,
		`4: lattice.name: "v1" is a version of the control interface`,
		"5: lattice.host_seed_file: not a file with the seed of a server (SN…): edged keys gen server --out FILE makes one",
		"6: lattice.cluster_seed_file: cannot be read: no such file",
		"7: lattice.issuers[0]: not the public key of a cluster",
	)
	if strings.Contains(err.Error(), cluster.Reveal()) {
		t.Error("a seed is in the faults")
	}
}
