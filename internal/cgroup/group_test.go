package cgroup

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// tree lays out what OpenTree looks at, with those controllers, and returns its root
// and the folder of the process's own cgroup.
func tree(t *testing.T, controllers string) (root, own string) {
	t.Helper()
	root = t.TempDir()
	own = filepath.Join(root, "sys/fs/cgroup/edged.service")
	for _, dir := range []string{own, filepath.Join(root, "proc/self")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{
		"proc/self/cgroup":                                   "0::/edged.service\n",
		"proc/self/mountinfo":                                "30 25 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
		"sys/fs/cgroup/edged.service/cgroup.controllers":     controllers,
		"sys/fs/cgroup/edged.service/cgroup.subtree_control": "",
	} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root, own
}

func TestTree_New(t *testing.T) {
	root, own := tree(t, "cpuset cpu io memory pids\n")
	tr, err := openTree(root)
	if err != nil {
		t.Fatal(err)
	}
	g, limited, err := tr.New("p", Limits{Memory: 64 << 20, Tasks: 9, Percent: 150})
	if err != nil || limited != nil {
		t.Fatal(limited, err)
	}
	if g.FD() <= 0 {
		t.Error("it has no file")
	}
	for file, want := range map[string]string{"memory.max": "67108864", "memory.oom.group": "1", "pids.max": "9", "cpu.max": "150000 100000"} {
		if got, err := os.ReadFile(filepath.Join(g.dir, file)); err != nil || string(got) != want {
			t.Errorf("%s: got %q, %v, want %q", file, got, err, want)
		}
	}
	if got, err := os.ReadFile(filepath.Join(own, "cgroup.subtree_control")); err != nil || string(got) != "+memory +pids +cpu" {
		t.Errorf("controllers: %q, %v", got, err)
	}
	if err := g.Kill(); err != nil {
		t.Error(err)
	}
	// What was left is ended when the next one is made; another prefix is another's.
	other, _, err := tr.New("q", Limits{})
	if err != nil {
		t.Fatal(err)
	}
	next, _, err := tr.New("p", Limits{})
	if err != nil || next.dir == g.dir {
		t.Fatal(next, err)
	}
	if _, err := os.Stat(filepath.Join(other.dir, "cgroup.kill")); err == nil {
		t.Error("the group of another was killed")
	}
	if err := next.Remove(); err != nil {
		t.Error(err)
	}
}

func TestTree_New_noLimits(t *testing.T) {
	root, own := tree(t, "cpu io\n")
	tr, err := openTree(root)
	if err != nil {
		t.Fatal(err)
	}
	g, limited, err := tr.New("p", Limits{Tasks: 1})
	if err != nil || g == nil || limited == nil || !strings.Contains(limited.Error(), "memory is not there") {
		t.Errorf("got %v, %v, %v", g, limited, err)
	}
	if err := os.RemoveAll(own); err != nil {
		t.Fatal(err)
	}
	if _, err := openTree(root); err == nil {
		t.Error("a tree that is not there")
	}
	if err := os.WriteFile(filepath.Join(root, "proc/self/mountinfo"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := openTree(root); err == nil || !strings.Contains(err.Error(), "none of version 2") {
		t.Errorf("got %v", err)
	}
}
