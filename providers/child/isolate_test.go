package child_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/edged-io/edged/internal/claims"
	"github.com/edged-io/edged/providers/child"
)

// As root, a provider runs as another user, who gets to its program and its folder.
func TestManager_user(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	state := filepath.Join(dir, "state")
	if err := os.Mkdir(state, 0o700); err != nil {
		t.Fatal(err)
	}
	b := startBox(t, func(o *child.Options) { o.Dir = filepath.Join(state, "providers") })
	s := child.Spec{Key: newKey(t, claims.Service), Contract: "acme:test", Copy: true, Limits: child.Limits{User: "65534"}}
	s.Program = script(t, "#!/bin/sh\necho I am $(id -u), $(cat kept 2>&1)\nid -u > kept\nexec sleep 1000\n")
	err := b.Start(t.Context(), s)
	if os.Geteuid() != 0 {
		if err == nil || !strings.Contains(err.Error(), "only root can have") {
			t.Errorf("got %v", err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	b.until("itself", func() bool { return strings.Contains(b.log.String(), "I am 65534, ") })
	b.until("kept", func() bool {
		kept, err := os.ReadFile(filepath.Join(state, "providers", "work", s.Key+".default", "kept"))
		return err == nil && string(kept) == "65534\n"
	})
	if info, err := os.Stat(state); err != nil || info.Mode().Perm() != 0o711 {
		t.Errorf("state %v, %v", info.Mode(), err)
	}
}

// What a provider has kept is its own also when it becomes another user's; what has a
// second name, or is behind a link, is not.
func TestManager_user_changes(t *testing.T) {
	if os.Geteuid() != 0 {
		return // it can have no other user, see TestManager_user
	}
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	b := startBox(t, func(o *child.Options) { o.Dir = filepath.Join(dir, "providers") })
	s := child.Spec{Key: newKey(t, claims.Service), Contract: "acme:test", Copy: true, Limits: child.Limits{User: "65534"}}
	s.Program = script(t, "#!/bin/sh\necho It is: $(cat sub/kept)\nexec sleep 1000\n")
	work, other, linked := filepath.Join(dir, "providers", "work", s.Key+".default"), filepath.Join(dir, "other"), filepath.Join(dir, "linked")
	err := errors.Join(os.MkdirAll(filepath.Join(work, "sub"), 0o700), os.WriteFile(filepath.Join(work, "sub", "kept"), []byte("here"), 0o600),
		os.WriteFile(other, nil, 0o600), os.Symlink(other, filepath.Join(work, "symbolic")), os.WriteFile(linked, nil, 0o600), os.Link(linked, filepath.Join(work, "hard")))
	if err == nil {
		err = b.Start(t.Context(), s)
	}
	if err != nil {
		t.Fatal(err)
	}
	b.until("what it kept", func() bool { return strings.Contains(b.log.String(), "It is: here") })
	for _, path := range []string{other, linked} {
		if info, err := os.Stat(path); err != nil || info.Sys().(*syscall.Stat_t).Uid != 0 {
			t.Errorf("%s is another's, %v", path, err)
		}
	}
}
