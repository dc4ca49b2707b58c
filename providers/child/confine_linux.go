package child

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What Landlock can keep from a process, by the version of its interface
// (landlock(7)); and what of it there is to a file that is no folder.
const (
	landlockFirst  = 0x1fff // version 1
	landlockOfFile = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_READ_FILE |
		unix.LANDLOCK_ACCESS_FS_TRUNCATE | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV | unix.LANDLOCK_ACCESS_FS_RESOLVE_UNIX
	scopeSignal = 1 << 1 // version 6
)

// landlockVersion is that of the kernel, 0 where it has none.
func landlockVersion() int {
	v, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return 0
	}
	return int(v)
}

// confine keeps what is in the private files and folders from the calling thread, and
// from all that is started by it, for good; own are excepted. They can not send signals
// to, or look into, processes that are not theirs either. The thread must be one that
// ends with what it is for.
func confine(private, own []string) error {
	version := landlockVersion()
	if version < 1 {
		return errors.New("the kernel has no Landlock")
	}
	rights := uint64(landlockFirst)
	for at, right := range map[int]uint64{2: unix.LANDLOCK_ACCESS_FS_REFER, 3: unix.LANDLOCK_ACCESS_FS_TRUNCATE, 5: unix.LANDLOCK_ACCESS_FS_IOCTL_DEV} {
		if version >= at {
			rights |= right
		}
	}
	attr := unix.LandlockRulesetAttr{Handled_access_fs: rights}
	size := unsafe.Sizeof(attr.Handled_access_fs)
	if version >= 6 {
		attr.Scoped = scopeSignal
		size = unsafe.Offsetof(attr.Scoped) + unsafe.Sizeof(attr.Scoped)
	}
	create := func() (uintptr, unix.Errno) {
		fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), size, 0)
		return fd, errno
	}
	attr.Handled_access_fs |= unix.LANDLOCK_ACCESS_FS_RESOLVE_UNIX // newer kernels keep sockets, too
	fd, errno := create()
	if errno == unix.EINVAL {
		attr.Handled_access_fs = rights
		fd, errno = create()
	}
	if rights = attr.Handled_access_fs; errno != 0 {
		return fmt.Errorf("landlock: %w", errno)
	}
	rules := int(fd)
	defer unix.Close(rules)
	allow := func(path string) error { return allowBelow(rules, path, rights) }
	if err := besides("/", resolved(private), allow); err != nil {
		return err
	}
	for _, path := range resolved(own) {
		if err := allow(path); err != nil {
			return err
		}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("landlock: %w", err)
	}
	if _, _, errno := unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, uintptr(rules), 0, 0); errno != 0 {
		return fmt.Errorf("landlock: %w", errno)
	}
	return nil
}

// resolved are those paths that are there, without symbolic links in them.
func resolved(paths []string) (all []string) {
	for _, p := range paths {
		path, err := filepath.EvalSymlinks(p)
		if err == nil {
			path, err = filepath.Abs(path)
		}
		if err == nil {
			all = append(all, path)
		}
	}
	return all
}

// besides calls allow for everything in dir but what is private.
func besides(dir string, private []string, allow func(path string) error) error {
	inside := false
	for _, p := range private {
		if p == dir {
			return nil
		}
		inside = inside || strings.HasPrefix(p, strings.TrimSuffix(dir, "/")+"/")
	}
	if !inside {
		return allow(dir)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("landlock: %w", err)
	}
	for _, e := range entries {
		if e.Type()&os.ModeSymlink != 0 {
			continue // where it leads is allowed by itself
		}
		if err := besides(filepath.Join(dir, e.Name()), private, allow); err != nil {
			return err
		}
	}
	return nil
}

// allowBelow adds a rule for a file, or a folder with all that is in it.
func allowBelow(rules int, path string, rights uint64) error {
	f, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EACCES) {
		return nil // it has gone meanwhile, or nobody of this user gets there
	} else if err != nil {
		return fmt.Errorf("landlock: %s: %w", path, err)
	}
	defer unix.Close(f)
	var st unix.Stat_t
	if err := unix.Fstat(f, &st); err != nil {
		return fmt.Errorf("landlock: %s: %w", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		rights &= landlockOfFile
	}
	// The kernel's struct is packed: 8 bytes and 4.
	attr := unix.LandlockPathBeneathAttr{Allowed_access: rights, Parent_fd: int32(f)}
	if _, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(rules), unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(&attr)), 0, 0, 0); errno != 0 {
		return fmt.Errorf("landlock: %s: %w", path, errno)
	}
	return nil
}
