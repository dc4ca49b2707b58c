package child

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/edged-io/edged/internal/cgroup"
)

// setUser has the process run as the user of its limits, who owns the folder that it
// works in.
func (in *instance) setUser(a *syscall.SysProcAttr, dir string) error {
	name := in.spec.Limits.User
	if name == "" {
		return nil
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("it is to run as user %s, which only root can have: run edged as root, or leave user out", name)
	}
	u, err := user.Lookup(name)
	if err != nil {
		if u, err = user.LookupId(name); err != nil {
			return fmt.Errorf("there is no user %.40q on this box", name)
		}
	}
	uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
	if err := errors.Join(err1, err2); err != nil {
		return fmt.Errorf("user %s: %w", name, err)
	}
	a.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	// It has to get to its program and to its folder, and to nothing beside them: the
	// way there can be walked then, and not be looked at.
	for _, on := range []string{filepath.Dir(in.m.o.Dir), in.m.o.Dir, filepath.Join(in.m.o.Dir, programsDir), filepath.Join(in.m.o.Dir, workDir)} {
		info, err := os.Stat(on)
		if err == nil && info.Mode().Perm()&0o011 != 0o011 {
			err = os.Chmod(on, info.Mode().Perm()|0o011)
		}
		if err != nil {
			return err
		}
	}
	if err := handOver(dir, int(uid), int(gid)); err != nil {
		return fmt.Errorf("give %s to user %s: %w", dir, name, err)
	}
	return nil
}

// handOver makes a user the owner of a folder and of what is in it, if it was another's
// until now. The folder comes last, so that one that was not finished is done again.
func handOver(dir string, uid, gid int) error {
	root, err := os.OpenRoot(dir) // nothing beside the folder, wherever a link leads
	if err != nil {
		return err
	}
	defer root.Close() // only looked at
	if info, err := root.Stat("."); err != nil || int(info.Sys().(*syscall.Stat_t).Uid) == uid {
		return err
	}
	err = fs.WalkDir(root.FS(), ".", func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == "." {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		if !info.IsDir() && info.Sys().(*syscall.Stat_t).Nlink > 1 {
			return nil // it may have another name elsewhere, and be somebody else's there
		}
		return root.Lchown(path, uid, gid)
	})
	if err != nil {
		return err
	}
	return root.Chown(".", uid, gid)
}

// group is the cgroup of a process; nil where the box may make none.
type group struct {
	*cgroup.Group
	log *slog.Logger
}

// newGroup makes the cgroup of a process. Without one the process runs without limits,
// and what leaves its process group outlives it.
func (in *instance) newGroup() *group {
	log := in.m.log.With("provider", in.title(), "link", in.id.link)
	tree, err := in.m.tree()
	var g *cgroup.Group
	var limited error
	l := in.spec.Limits
	want := cgroup.Limits{Memory: l.Memory, Tasks: l.Tasks, Percent: l.Percent}
	if err == nil {
		g, limited, err = tree.New(in.m.groups+in.login.User, want)
	}
	if err = errors.Join(err, limited); err != nil && want != (cgroup.Limits{}) {
		in.unlimited.Do(func() { log.Warn("provider runs without its limits", "err", err) })
	}
	if g == nil {
		return nil
	}
	return &group{g, log}
}

// admit has a process begin in the group.
func (g *group) admit(a *syscall.SysProcAttr) {
	if g != nil {
		a.UseCgroupFD, a.CgroupFD = true, g.FD()
	}
}

// kill ends what is in the group.
func (g *group) kill() {
	if g == nil {
		return
	}
	if err := g.Kill(); err != nil {
		g.log.Debug("cgroup not killed", "err", err)
	}
}

// remove gives the group up. The kernel may take a moment to see that it is empty.
func (g *group) remove() {
	if g == nil {
		return
	}
	if err := g.Remove(); err != nil {
		g.log.Debug("cgroup stays until the next start", "err", err)
	}
}
