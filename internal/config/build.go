package config

import (
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/edged-io/edged/internal/oci"
	"github.com/edged-io/edged/internal/topic"
)

// builder turns a manifest into an App and notes what is wrong with it.
type builder struct {
	*document
	files  fs.FS // of the folder of the app
	app    *App
	m      *manifest
	names  map[string]string // what has a name, by kind and name: the path of the first
	links  map[linkKey]int   // index in app.Links
	lines  map[string]string // GPIO lines: the path of the first owner
	count  map[string]int    // sources by capability
	queues map[string]bool   // names of queues that have a receiver
}

type linkKey struct{ actor, contract, name string }

// LoadApp reads the app in a folder. The error is a Faults.
func LoadApp(dir string) (*App, error) {
	app, faults := loadApp(dir)
	if err := faults.err(); err != nil {
		return nil, err
	}
	return app, nil
}

// loadApp returns what could be read, nil if nothing, and all that is wrong with it.
func loadApp(dir string) (*App, Faults) {
	path := filepath.Join(dir, ManifestName)
	unread := func(err error) (*App, Faults) {
		return nil, Faults{{File: path, Line: 1, Reason: "cannot be read: " + plainCause(err).Error()}}
	}
	// A root keeps the manifest and what it names inside the folder, symbolic links included.
	root, err := os.OpenRoot(dir)
	if err != nil {
		return unread(err)
	}
	defer root.Close() // only read from
	data, err := readFile(ManifestName, root.OpenFile)
	if err != nil {
		return unread(err)
	}
	return decodeApp(dir, data, root.FS())
}

// decodeApp builds the app of a manifest. files are those of the app's folder.
func decodeApp(dir string, data []byte, files fs.FS) (*App, Faults) {
	doc := parse(filepath.Join(dir, ManifestName), data)
	if doc.faults != nil {
		return nil, doc.faults
	}
	var m manifest
	doc.decode(table{values: doc.values}, &m)
	sum := sha256.Sum256(data)
	b := newBuilder(doc, files, &m, &App{Dir: dir, Digest: "sha256:" + hex.EncodeToString(sum[:]), Name: m.Name, Version: m.Version})
	if b.checkName("name", m.Name) && strings.HasPrefix(m.Name, AssembledPrefix) {
		b.fault("name", "%q: names that begin with %s are those of what the control interface has started", clip(m.Name), AssembledPrefix)
	}
	if m.Version == "" || len(m.Version) > 64 || strings.ContainsFunc(m.Version, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		b.fault("version", "must be 1 to 64 printable characters without spaces, got %q", clip(m.Version))
	}
	b.actors()
	b.providers()
	b.streams()
	b.grants()
	b.httpConflicts()
	b.subscriptions()
	return b.app, doc.faults
}

func newBuilder(doc *document, files fs.FS, m *manifest, app *App) *builder {
	return &builder{
		document: doc, files: files, m: m, app: app,
		names:  make(map[string]string),
		links:  make(map[linkKey]int),
		lines:  make(map[string]string),
		count:  make(map[string]int),
		queues: make(map[string]bool),
	}
}

// named checks a name and that nothing of its kind has it yet.
func (b *builder) named(kind, path, name string) {
	if !b.checkName(path, name) {
		return
	}
	b.unique(kind, path, name)
}

func (b *builder) unique(kind, path, name string) {
	if first, ok := b.names[kind+" "+name]; ok {
		b.fault(path, "%s %q is there already, in line %d", kind, name, b.line(first))
		return
	}
	b.names[kind+" "+name] = path
}

func (b *builder) actors() {
	for i, a := range b.m.Actors {
		path := item("actor", i)
		b.named("actor", child(path, "name"), a.Name)
		ref := b.code(path, "module", a.Module, a.Digest, a.OCI)
		l := a.Limits
		if l.MinInstances > l.Instances {
			b.fault(child(child(path, "limits"), "min_instances"), "is %d, and limits.instances is %d", l.MinInstances, l.Instances)
		}
		b.app.Actors = append(b.app.Actors, Actor{Name: a.Name, Module: a.Module, Ref: ref, Limits: l.limits()})
	}
}

// code checks where code comes from: the file under a key of its table, a digest or a reference to a registry. It returns the reference, "" for a file.
func (b *builder) code(path, key, file, digest, oci string) (ref string) {
	if file == "" && digest == "" && oci == "" {
		b.fault(child(path, key), "required, or digest or oci")
	}
	if file != "" {
		b.checkModule(child(path, key), file)
	}
	if digest != "" {
		b.checkReference(child(path, "digest"), digest, "sha256:")
	}
	if oci != "" {
		b.checkReference(child(path, "oci"), oci, "")
	}
	switch {
	case file != "" && digest != "":
		b.fault(child(path, "digest"), "there is a %s already", key)
	case oci != "" && file+digest != "":
		b.fault(child(path, "oci"), "there is a %s or digest already", key)
	}
	return digest + oci
}

// checkReference checks a reference that an app may have. A file is none: an app is the same on each box.
func (b *builder) checkReference(path, ref, prefix string) {
	switch err := oci.CheckReference(ref); {
	case err != nil:
		b.fault(path, "%v", err)
	case prefix != "" && !strings.HasPrefix(ref, prefix):
		b.fault(path, "want %s and 64 hexadecimal digits, got %q", prefix, clip(ref))
	case prefix == "" && (strings.HasPrefix(ref, "sha256:") || strings.HasPrefix(ref, "/") || strings.HasPrefix(ref, "file:")):
		b.fault(path, "want HOST/NAME:TAG or HOST/NAME@sha256:…, got %q", clip(ref))
	}
}

func (b *builder) checkModule(path, file string) {
	if !filepath.IsLocal(file) || strings.Contains(file, `\`) || file == "." {
		b.fault(path, "want a file in the folder of the app, got %q", clip(file))
		return
	}
	info, err := fs.Stat(b.files, file)
	switch {
	case err != nil:
		b.fault(path, "file %q: %v", clip(file), plainCause(err))
	case !info.Mode().IsRegular():
		b.fault(path, "%q is not a file", clip(file))
	}
}

// actor checks the name of an actor of the app and returns it. It may be left out where there is one.
func (b *builder) actor(path, name string) string {
	switch {
	case name == "" && len(b.m.Actors) == 1:
		return b.m.Actors[0].Name
	case name == "":
		b.fault(path, "required, since the app has %d actors", len(b.m.Actors))
	case !slices.ContainsFunc(b.m.Actors, func(a actorTable) bool { return a.Name == name }):
		b.fault(path, "the app has no actor %q", clip(name))
	}
	return name
}

func (b *builder) streams() {
	type held struct{ path, subject string }
	var all []held
	for i, s := range b.m.Streams {
		path := item("stream", i)
		b.named("stream", child(path, "name"), s.Name)
		if len(s.Subjects) == 0 {
			b.fault(child(path, "subjects"), "must not be empty")
		}
		for j, subject := range s.Subjects {
			at := item(child(path, "subjects"), j)
			if !b.checkSubject(at, subject, topic.ValidFilter) {
				continue
			}
			for _, h := range all {
				if topic.Overlap(h.subject, subject) {
					b.fault(at, "%q overlaps %q in line %d", clip(subject), clip(h.subject), b.line(h.path))
					break
				}
			}
			all = append(all, held{at, subject})
		}
		c := Stream{
			Name: s.Name, Subjects: s.Subjects, Uplink: s.Uplink,
			MaxBytes: int64(s.MaxBytes), MaxMsgs: s.MaxMsgs, MaxAge: s.MaxAge, DropOldest: s.OnFull == "drop-oldest",
			Priority: s.Priority, Dedupe: s.Dedupe,
		}
		c.Memory, c.BatchFor = b.durability(child(path, "durability"), s.Durability)
		b.app.Streams = append(b.app.Streams, c)
	}
}

// maxBatch is the longest time that a message may be in memory alone.
const maxBatch = time.Minute

// durability reads when a message of a stream is acknowledged.
func (b *builder) durability(path, s string) (memory bool, batch time.Duration) {
	long, ok := strings.CutPrefix(s, "batch:")
	switch d, err := time.ParseDuration(long); {
	case ok && (err != nil || d < time.Millisecond || d > maxBatch):
		b.fault(path, "is %q, want batch: with a duration from 1ms to %s", clip(s), maxBatch)
	case ok:
		return false, d
	case s != "synced" && s != "memory" && s != "": // "" has a fault already
		b.fault(path, "is %q, want synced, memory or batch: with a duration, such as batch:50ms", clip(s))
	}
	return s == "memory", 0
}

// checkSubject checks a subject or subject filter.
func (b *builder) checkSubject(path, s string, valid func(string) bool) bool {
	switch {
	case !valid(s):
		b.fault(path, "not a legal subject: %q", clip(s))
	case topic.Reserved(s):
		b.fault(path, "%q is reserved", clip(s))
	default:
		return true
	}
	return false
}

// checkOperation checks the name of an operation of an actor.
func (b *builder) checkOperation(path, name string) {
	if len(name) > 128 || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		b.fault(path, "not the name of an operation: %q", clip(name))
	}
}
