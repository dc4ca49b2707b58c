package metadata

import (
	"context"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/edged-io/edged/internal/claims"
)

// Configs keeps the named configurations of a lattice, as Metadata keeps links: in the
// bucket CONFIGDATA_{lattice}, in the form of hosts of version 1 of the control interface
// (a JSON object of texts under its name), and in a copy on the box. Where both sides
// changed one after a time apart, that of the lattice holds. What hosts of 0.81 and later
// keep there for single actors and providers is left alone.
type Configs struct{ m *Metadata }

// NewConfigs reads the copy. It starts nothing.
func NewConfigs(o Options) (*Configs, error) {
	m, err := newMetadata(o, keeps{
		bucket: "CONFIGDATA_" + o.Lattice, about: "configurations of a lattice", space: "configs/" + o.Lattice,
		is: IsConfigName, decode: decodeConfig,
	})
	return &Configs{m}, err
}

// IsConfigName says whether a configuration of that name can be shared: with letters,
// digits, "_", "-", "=" and single "." between them, and not one that begins with the key of
// an actor or provider and "_".
func IsConfigName(name string) bool {
	if len(name) > maxText || slices.Contains(strings.Split(name, "."), "") {
		return false
	}
	for _, c := range []byte(name) {
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("_-=.", c) >= 0) {
			return false
		}
	}
	key, _, ofOne := strings.Cut(name, "_")
	_, err := claims.Parse(key)
	return !ofOne || err != nil
}

// Put puts a configuration, all of it. It is on disk when Put returns.
func (c *Configs) Put(name string, values map[string]string) error {
	r := newConfig(values)
	if !IsConfigName(name) {
		return faulty("configuration %.80q: the name has other characters than letters, digits, _, -, = and .", name)
	}
	if err := r.check(); err != nil {
		return err
	}
	return c.m.change(name, r, true)
}

// Delete deletes a configuration; one that is not there is no error.
func (c *Configs) Delete(name string) error { return c.m.change(name, record{}, true) }

// Run keeps the copy and the bucket of the hub the same until ctx ends, and returns nil
// then.
func (c *Configs) Run(ctx context.Context) error { return c.m.Run(ctx) }

// Synced says whether the hub has all, and the copy has all that the hub has.
func (c *Configs) Synced() bool { return c.m.Status().Synced }

// All returns the configurations by name. Their values are not to be changed.
func (c *Configs) All() map[string]map[string]string {
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	all := make(map[string]map[string]string)
	for name, e := range c.m.entries {
		if !e.now.none() {
			all[name] = e.now.config
		}
	}
	return all
}

func newConfig(values map[string]string) record {
	if values == nil {
		values = map[string]string{}
	}
	return record{config: maps.Clone(values), value: mustJSON(values)}
}

// decodeConfig reads the value of a name of the bucket, whoever wrote it.
func decodeConfig(_ string, value []byte) (record, error) {
	if len(value) > MaxRecordBytes {
		return record{}, faulty("%d bytes, %d are allowed", len(value), MaxRecordBytes)
	}
	f, err := readFields(value)
	if err != nil {
		return record{}, faulty("%s", err)
	}
	values := make(map[string]string)
	for k := range f.all {
		values[k] = f.text(k)
	}
	if f.err != nil {
		return record{}, faulty("%s", f.err)
	}
	r := newConfig(values)
	return r, r.check()
}

// checkConfig says what is wrong with the values of a configuration.
func checkConfig(values map[string]string) error {
	for k, v := range values {
		if !utf8.ValidString(k) || !utf8.ValidString(v) {
			return faulty("configuration: value %.80q is not UTF-8", k)
		}
	}
	return nil
}
