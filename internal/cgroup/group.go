package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Limits bound the processes of a Group; 0 is for none.
type Limits struct {
	Memory  int64 // bytes, with what the kernel keeps for them
	Tasks   int   // processes and threads
	Percent int   // of one CPU
}

// A Tree is the part of the cgroups, of version 2, that belongs to this process: under
// systemd that of its unit, if it has Delegate=. Its methods may be called from any
// goroutine.
type Tree struct {
	dir string

	mu     sync.Mutex // guards what follows
	limits error      // why Groups have none
	asked  bool       // limits is known
}

// OpenTree finds the part that this process is in. It changes nothing. The error says
// why there is none, or none that it may change.
func OpenTree() (*Tree, error) { return openTree("/") }

// openTree looks into the file system below root.
func openTree(root string) (*Tree, error) {
	groups, err := os.ReadFile(filepath.Join(root, "proc/self/cgroup"))
	if err != nil {
		return nil, fmt.Errorf("cgroups: %w", err)
	}
	mounts, err := os.ReadFile(filepath.Join(root, "proc/self/mountinfo"))
	if err != nil {
		return nil, fmt.Errorf("cgroups: %w", err)
	}
	point, top := mountOf(string(mounts), "cgroup2", "")
	if point == "" {
		return nil, errors.New("cgroups: there are none of version 2")
	}
	for line := range strings.Lines(string(groups)) {
		own, ok := strings.CutPrefix(strings.TrimSpace(line), "0::")
		if !ok {
			continue
		}
		below, ok := strings.CutPrefix(own, strings.TrimSuffix(top, "/"))
		if !ok {
			return nil, errors.New("cgroups: that of the process can not be seen")
		}
		// The process may have moved into a group of its own already, see enable.
		dir := strings.TrimSuffix(filepath.Join(root, point, below), "/"+ownGroup)
		t := &Tree{dir: dir}
		probe := filepath.Join(dir, probeGroup)
		if err := os.Mkdir(probe, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("cgroups: %w", err)
		}
		return t, os.Remove(probe)
	}
	return nil, errors.New("cgroups: the process is in none of version 2")
}

const (
	ownGroup   = "edged-box" // where this process is, once others are beside it
	probeGroup = "edged-probe"
)

// enable lets the groups have limits. A group with limits below it holds no processes
// itself, so this one moves into one of its own.
func (t *Tree) enable() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.asked {
		return t.limits
	}
	t.asked = true
	t.limits = func() error {
		b, err := os.ReadFile(filepath.Join(t.dir, "cgroup.controllers"))
		if err != nil {
			return err
		}
		var on []string
		for _, c := range []string{"memory", "pids", "cpu"} {
			if !hasField(string(b), c) {
				return fmt.Errorf("the controller %s is not there; under systemd, Delegate=yes gives it", c)
			}
			on = append(on, "+"+c)
		}
		control := filepath.Join(t.dir, "cgroup.subtree_control")
		enable := func() error { return os.WriteFile(control, []byte(strings.Join(on, " ")), 0) }
		if enable() == nil {
			return nil
		}
		own := filepath.Join(t.dir, ownGroup)
		if err := os.Mkdir(own, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if err := os.WriteFile(filepath.Join(own, "cgroup.procs"), []byte(strconv.Itoa(os.Getpid())), 0); err != nil {
			return err
		}
		return enable()
	}()
	if t.limits != nil {
		t.limits = fmt.Errorf("cgroups: no limits: %w", t.limits)
	}
	return t.limits
}

func hasField(list, word string) bool {
	for _, w := range strings.Fields(list) {
		if w == word {
			return true
		}
	}
	return false
}

// New makes a group, whose name begins with prefix, and ends what is in the groups
// with that prefix that are there: a process that ended without a word has left them.
// limited says why it has no limits, if it was to have some.
func (t *Tree) New(prefix string, l Limits) (g *Group, limited, err error) {
	old, err := filepath.Glob(filepath.Join(t.dir, prefix+"-*"))
	if err != nil {
		return nil, nil, fmt.Errorf("cgroups: %w", err)
	}
	for _, dir := range old { // what does not end at once is in nobody's way
		_ = os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0)
		_ = os.Remove(dir)
	}
	// A new one each time: Linux 6.14 kills what begins in one that was killed before.
	dir, err := os.MkdirTemp(t.dir, prefix+"-*")
	if err != nil {
		return nil, nil, fmt.Errorf("cgroups: %w", err)
	}
	if l != (Limits{}) {
		if limited = t.enable(); limited == nil {
			limited = l.set(dir)
		}
	}
	f, err := os.Open(dir)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("cgroups: %w", err), os.Remove(dir))
	}
	return &Group{dir, f}, limited, nil
}

// set writes the limits.
func (l Limits) set(dir string) error {
	write := func(name, value string) error { return os.WriteFile(filepath.Join(dir, name), []byte(value), 0) }
	var errs []error
	if l.Memory > 0 {
		errs = append(errs, write("memory.max", strconv.FormatInt(l.Memory, 10)), write("memory.oom.group", "1"))
		_ = write("memory.swap.max", "0") // not there without swap
	}
	if l.Tasks > 0 {
		errs = append(errs, write("pids.max", strconv.Itoa(l.Tasks)))
	}
	if l.Percent > 0 {
		errs = append(errs, write("cpu.max", strconv.Itoa(l.Percent*1000)+" 100000"))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("cgroups: %w", err)
	}
	return nil
}

// A Group holds a process and all that comes of it, whatever that does.
type Group struct {
	dir string
	f   *os.File
}

// FD is for syscall.SysProcAttr.CgroupFD. It is open until Remove.
func (g *Group) FD() int { return int(g.f.Fd()) }

// Kill ends all processes in the group. It fails on kernels before 5.14.
func (g *Group) Kill() error {
	return os.WriteFile(filepath.Join(g.dir, "cgroup.kill"), []byte("1"), 0)
}

// Remove deletes the group. It fails while there are processes in it; those that were
// killed just now may take a moment, for which it waits.
func (g *Group) Remove() error {
	err := os.Remove(g.dir)
	for try := 0; errors.Is(err, syscall.EBUSY) && try < 50; try++ {
		time.Sleep(10 * time.Millisecond)
		err = os.Remove(g.dir)
	}
	return errors.Join(g.f.Close(), err)
}
