package ota

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/edged-io/edged/internal/atomicfile"
	"github.com/edged-io/edged/internal/claims"
)

// Names below the state directory.
const (
	appsDir      = "apps"
	artifactsDir = "artifacts"
	stateName    = "state.json"
	currentName  = "current"
	rollbackName = "rollback"
	stagingMark  = ".staging-"
)

// Staged is one release of an app, whole on the box's disk.
type Staged struct {
	App, Version string
	Manifest     string // digest of app.toml
	Release      string // as of Desired.Release
	Dir          string // the folder: app.toml, the app's other files, app.sig if signed; not to be written to
}

// disk is the part of the state directory that is ours. Its methods are for one
// goroutine at a time.
type disk struct{ root string }

func (d disk) appsDir() string           { return filepath.Join(d.root, appsDir) }
func (d disk) stateFile() string         { return filepath.Join(d.appsDir(), stateName) }
func (d disk) appDir(app string) string  { return filepath.Join(d.appsDir(), app) }
func (d disk) artifact(dg string) string { return filepath.Join(d.root, artifactsDir, hexOf(dg)) }

// hexOf is the part of a digest that serves as a file name.
func hexOf(digest string) string { return strings.TrimPrefix(digest, "sha256:") }

func (d disk) staged(desired Desired) Staged {
	r := desired.Release()
	return Staged{
		App: desired.App, Version: desired.Version, Manifest: desired.Manifest, Release: r,
		Dir: filepath.Join(d.appDir(desired.App), hexOf(r)),
	}
}

// create makes the folders. Their names are made durable with the first app in them,
// so that no start waits for the disk.
func (d disk) create() error {
	for _, dir := range []string{d.appsDir(), filepath.Join(d.root, artifactsDir)} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	return nil
}

// intact says whether the folder of desired holds exactly its files. It reads all
// of them.
func (d disk) intact(desired Desired) error {
	files, err := claims.DigestApp(d.staged(desired).Dir)
	if err != nil {
		return err
	}
	if !maps.Equal(files, desired.all()) {
		return fmt.Errorf("app folder %s holds other files than release %s: %w", d.staged(desired).Dir, desired.Release(), errDamaged)
	}
	return nil
}

// stage builds the folder of desired from the artifacts, which must be there. When
// it returns nil, all of it is on disk under its final name. An artifact that turns
// out to be damaged is removed, so that the next try fetches it again.
func (d disk) stage(desired Desired) error {
	s := d.staged(desired)
	temp := filepath.Join(d.appDir(desired.App), stagingMark+hexOf(s.Release))
	// What is in the way is left over from a power cut, or damaged.
	if err := errors.Join(os.RemoveAll(temp), os.RemoveAll(s.Dir), os.MkdirAll(temp, 0o755)); err != nil {
		return fmt.Errorf("stage %s: %w", s.App, err)
	}
	files := desired.all()
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := place(d.artifact(files[name]), filepath.Join(temp, filepath.FromSlash(name))); err != nil {
			return fmt.Errorf("stage %s: %s: %w", s.App, name, err)
		}
	}
	if err := d.checkStaged(temp, files); err != nil {
		return fmt.Errorf("stage %s: %w", s.App, err)
	}
	if err := writeSignature(temp, desired.Sig); err != nil {
		return fmt.Errorf("stage %s: %w", s.App, err)
	}
	if err := syncTree(temp); err != nil {
		return fmt.Errorf("stage %s: %w", s.App, err)
	}
	// Everything below is durable, so the final name never leads to half a release.
	if err := os.Rename(temp, s.Dir); err != nil {
		return fmt.Errorf("stage %s: %w", s.App, err)
	}
	if err := errors.Join(atomicfile.SyncDir(d.appDir(s.App)), atomicfile.SyncDir(d.appsDir()), atomicfile.SyncDir(d.root)); err != nil {
		return fmt.Errorf("stage %s: %w", s.App, err)
	}
	return nil
}

func (d disk) checkStaged(dir string, want map[string]string) error {
	got, err := claims.DigestApp(dir)
	if err != nil {
		return err
	}
	for name, digest := range want {
		if got[name] != digest {
			return errors.Join(fmt.Errorf("artifact %s: %w", digest, errDamaged), os.Remove(d.artifact(digest)))
		}
	}
	return nil
}

// place makes to a hard link of from, or a copy where the file system has no links.
func place(from, to string) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	if err := os.Link(from, to); err == nil || errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return copyFile(from, to)
}

func copyFile(from, to string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o444)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	if _, err := io.Copy(out, in); err != nil {
		return err
	}
	return out.Sync()
}

// writeSignature makes app.sig in dir hold sig, or removes it if sig is empty.
func writeSignature(dir, sig string) error {
	path := filepath.Join(dir, claims.SignatureFile)
	if sig != "" {
		return atomicfile.WriteFile(path, []byte(sig), 0o444)
	}
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// syncTree makes the names in dir and in all folders below it durable.
func syncTree(dir string) error {
	return filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil || !e.IsDir() {
			return err
		}
		return atomicfile.SyncDir(p)
	})
}

// load finds what each app runs: its current release or, if that is damaged, the
// one before. What is damaged is told by app; the others come up.
func (d disk) load() (running map[string]Desired, damaged map[string]error, err error) {
	entries, err := os.ReadDir(d.appsDir())
	if err != nil {
		return nil, nil, err
	}
	running, damaged = map[string]Desired{}, map[string]error{}
	for _, e := range entries {
		if !e.IsDir() || !appName.MatchString(e.Name()) {
			continue
		}
		for _, which := range []string{currentName, rollbackName} {
			desired, err := d.loadRelease(e.Name(), which)
			if errors.Is(err, fs.ErrNotExist) && (which == rollbackName || !d.hasRollback(e.Name())) {
				break // it was never committed, or never twice
			}
			if err == nil {
				err = d.intact(desired)
			}
			if err == nil {
				running[e.Name()] = desired
				break
			}
			damaged[e.Name()] = errors.Join(damaged[e.Name()], fmt.Errorf("%s release: %w", which, err))
		}
	}
	return running, damaged, nil
}

// hasRollback says whether an app has a release before its current one. That is
// never written without a current one, so a missing one is damage.
func (d disk) hasRollback(app string) bool {
	_, err := os.Lstat(filepath.Join(d.appDir(app), rollbackName))
	return err == nil
}

// prune removes what no app runs or could go back to. Keep is a release on its way,
// or nil.
func (d disk) prune(keep *Desired) error {
	entries, err := os.ReadDir(d.appsDir())
	if err != nil {
		return err
	}
	artifacts := map[string]bool{}
	note := func(desired Desired) {
		for _, digest := range desired.digests() {
			artifacts[hexOf(digest)] = true
		}
	}
	if keep != nil {
		note(*keep)
	}
	var faults []error
	for _, e := range entries {
		if !e.IsDir() || !appName.MatchString(e.Name()) {
			continue
		}
		kept, err := d.pruneApp(e.Name(), keep)
		faults = append(faults, err)
		for _, desired := range kept {
			note(desired)
		}
	}
	faults = append(faults, d.pruneArtifacts(artifacts, keep != nil))
	return errors.Join(faults...)
}

func (d disk) pruneApp(app string, keep *Desired) (kept []Desired, err error) {
	names := map[string]bool{currentName: true, rollbackName: true}
	for _, which := range []string{currentName, rollbackName} {
		desired, err := d.loadRelease(app, which)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err // which folder it named is unknown, so all of them stay
		}
		kept = append(kept, desired)
		names[hexOf(desired.Release())] = true
	}
	if keep != nil && keep.App == app {
		names[hexOf(keep.Release())] = true
		names[stagingMark+hexOf(keep.Release())] = true
	}
	return kept, removeOthers(d.appDir(app), func(name string) bool { return names[name] })
}

// pruneArtifacts keeps unfinished downloads while an update is under way.
func (d disk) pruneArtifacts(keep map[string]bool, unfinished bool) error {
	return removeOthers(filepath.Join(d.root, artifactsDir), func(name string) bool {
		base, _, part := strings.Cut(name, partMark)
		return keep[base] && (!part || unfinished)
	})
}

func removeOthers(dir string, keep func(name string) bool) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var faults []error
	for _, e := range entries {
		if !keep(e.Name()) {
			faults = append(faults, os.RemoveAll(filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(faults...)
}
