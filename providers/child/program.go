package child

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strings"

	"github.com/edged-io/edged/internal/atomicfile"
	"github.com/edged-io/edged/internal/claims"
)

// Folders in Options.Dir.
const (
	programsDir = "programs" // unpacked, by key and hash
	workDir     = "work"     // where each provider works; it stays
	attachedDir = "attached" // what remote providers were told
)

// checkProgram says whether a file can be started.
func checkProgram(path string) error {
	if !filepath.IsAbs(path) {
		return fmt.Errorf("%w: %q is not an absolute path", ErrProgram, path)
	}
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", ErrProgram, err)
	case !info.Mode().IsRegular():
		return fmt.Errorf("%w: %s is not a file", ErrProgram, path)
	case info.Mode()&0o111 == 0:
		return fmt.Errorf("%w: %s is not executable: chmod +x", ErrProgram, path)
	}
	return nil
}

// unpack verifies the archive of s, completes s from its claims, and returns the path
// of the program for this machine, which is used until releaseProgram. What was
// unpacked before is used again: it has the hash in its name.
func (m *Manager) unpack(ctx context.Context, s *Spec) (path string, err error) {
	f, err := os.Open(s.Archive)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrProgram, err)
	}
	defer f.Close() // only read from
	h := sha256.New()
	if _, err := io.Copy(h, io.LimitReader(f, claims.MaxArchive+1)); err != nil {
		return "", fmt.Errorf("archive: %w", err)
	}
	digest := claims.Digest([sha256.Size]byte(h.Sum(nil)))
	tmp, err := os.CreateTemp(filepath.Join(m.o.Dir, programsDir), "new-*")
	if err != nil {
		return "", fmt.Errorf("unpack: %w", err)
	}
	defer func() { _ = os.Remove(tmp.Name()) }() // it has another name if all went well
	defer tmp.Close()                            // checked below
	targets := claims.Targets(goruntime.GOOS, goruntime.GOARCH)
	var p claims.SignedProvider
	hash := sha256.New()
	err = m.o.Admit(ctx, "provider:"+digest, func(policy claims.Policy) error {
		hash.Reset()
		if err := tmp.Truncate(0); err != nil {
			return err
		}
		if _, err := tmp.Seek(0, io.SeekStart); err != nil {
			return err
		}
		p, err = claims.ExtractArchive(io.MultiWriter(tmp, hash), f, policy, targets...)
		return err
	})
	if err != nil {
		return "", err
	}
	if err := s.complete(p); err != nil {
		return "", err
	}
	return m.install(tmp, p.Key.String(), hash.Sum(nil))
}

// copied returns the path of a copy of the program of s, which is used until
// releaseProgram.
func (m *Manager) copied(s *Spec) (path string, err error) {
	f, err := os.Open(s.Program)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrProgram, err)
	}
	defer f.Close() // only read from
	tmp, err := os.CreateTemp(filepath.Join(m.o.Dir, programsDir), "new-*")
	if err != nil {
		return "", fmt.Errorf("copy: %w", err)
	}
	defer func() { _ = os.Remove(tmp.Name()) }() // it has another name if all went well
	defer tmp.Close()                            // checked below
	hash := sha256.New()
	switch n, err := io.Copy(io.MultiWriter(tmp, hash), io.LimitReader(f, claims.MaxArchive+1)); {
	case err != nil:
		return "", fmt.Errorf("copy: %w", err)
	case n > claims.MaxArchive:
		return "", fmt.Errorf("%w: %s has more than %d bytes", ErrProgram, s.Program, claims.MaxArchive)
	}
	return m.install(tmp, s.Key, hash.Sum(nil))
}

// install makes a program of a file.
func (m *Manager) install(tmp *os.File, key string, hash []byte) (path string, err error) {
	path = filepath.Join(m.o.Dir, programsDir, key+"-"+hex.EncodeToString(hash[:16]))
	if !sameFile(path, hash) {
		if err := errors.Join(tmp.Chmod(0o755), tmp.Sync(), tmp.Close()); err != nil {
			return "", fmt.Errorf("unpack: %w", err)
		}
		if err := errors.Join(os.Rename(tmp.Name(), path), atomicfile.SyncDir(filepath.Dir(path))); err != nil {
			return "", fmt.Errorf("unpack: %w", err)
		}
	}
	m.mu.Lock()
	m.programs[path]++
	m.mu.Unlock()
	m.dropOld(key)
	return path, nil
}

// complete takes from the claims what the spec leaves out, and compares the rest.
func (s *Spec) complete(p claims.SignedProvider) error {
	take := func(what string, field *string, signed string) error {
		if *field == "" {
			*field = signed
		} else if *field != signed {
			return fmt.Errorf("the archive is signed for %s %.60q, and not for %.60q: %w", what, signed, *field, claims.ErrHash)
		}
		return nil
	}
	if err := take("the key", &s.Key, p.Key.String()); err != nil {
		return err
	}
	if p.Contract != "" || s.Contract == "" {
		if err := take("the contract", &s.Contract, p.Contract); err != nil {
			return err
		}
	}
	if s.Name == "" {
		s.Name = p.Name
	}
	s.Version, s.Revision, s.issuer = p.Ver, p.EffectiveRev(), p.Issuer.String()
	return nil
}

// sameFile says whether the file at path has that hash, and can be started.
func sameFile(path string, hash []byte) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close() // only read from
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode().Perm() == 0o755 && string(h.Sum(nil)) == string(hash)
}

// releaseProgram gives an unpacked program back. The last one of a key stays, for the
// next start.
func (m *Manager) releaseProgram(path string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.programs[path] > 1 {
		m.programs[path]--
	} else {
		delete(m.programs, path)
	}
}

// dropOld deletes unpacked programs of a provider that nobody uses.
func (m *Manager) dropOld(key string) {
	dir := filepath.Join(m.o.Dir, programsDir)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return // it stays until the next start
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if strings.HasPrefix(e.Name(), key+"-") && m.programs[path] == 0 {
			_ = os.Remove(path) // it stays until the next start
		}
	}
}
