package cgroup

import (
	"os"
	"path/filepath"
	"testing"
)

func TestMemoryLimit(t *testing.T) {
	const (
		v1 = "36 24 0:30 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
		v2 = "30 24 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
	)
	for name, c := range map[string]struct {
		files map[string]string
		want  int64
	}{
		"nothing": {nil, 0},
		"2": {map[string]string{
			"proc/self/cgroup": "0::/system.slice/edged.service\n", "proc/self/mountinfo": v2,
			"sys/fs/cgroup/system.slice/edged.service/memory.max":  "67108864\n",
			"sys/fs/cgroup/system.slice/edged.service/memory.high": "max\n",
		}, 64 << 20},
		"2, high is lower": {map[string]string{
			"proc/self/cgroup": "0::/a\n", "proc/self/mountinfo": v2,
			"sys/fs/cgroup/a/memory.max": "67108864\n", "sys/fs/cgroup/a/memory.high": "50331648\n",
		}, 48 << 20},
		"2, above it": {map[string]string{
			"proc/self/cgroup": "0::/a/b\n", "proc/self/mountinfo": v2,
			"sys/fs/cgroup/a/memory.max": "33554432\n", "sys/fs/cgroup/a/b/memory.max": "67108864\n",
		}, 32 << 20},
		"2, none": {map[string]string{
			"proc/self/cgroup": "0::/a\n", "proc/self/mountinfo": v2, "sys/fs/cgroup/a/memory.max": "max\n",
		}, 0},
		"1": {map[string]string{
			"proc/self/cgroup": "9:name=systemd:/\n4:memory:/edged\n3:cpuset:/\n0::/\n", "proc/self/mountinfo": v1,
			"sys/fs/cgroup/memory/memory.limit_in_bytes":       "9223372036854771712\n",
			"sys/fs/cgroup/memory/edged/memory.limit_in_bytes": "67108864\n",
		}, 64 << 20},
		"1, in a container": {map[string]string{
			"proc/self/cgroup":                           "4:cpu,memory:/docker/abc\n",
			"proc/self/mountinfo":                        "36 24 0:30 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,cpu,memory\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "67108864\n",
		}, 64 << 20},
		"in a namespace of its own": {map[string]string{
			"proc/self/cgroup": "0::/../other\n", "proc/self/mountinfo": v2, "sys/fs/cgroup/memory.max": "67108864\n",
		}, 64 << 20},
		"nonsense": {map[string]string{
			"proc/self/cgroup": "x\n:\n0::\n0::/a\n", "proc/self/mountinfo": "y\n - cgroup2\n" + v2, "sys/fs/cgroup/a/memory.max": "lots\n",
		}, 0},
	} {
		root := t.TempDir()
		for file, text := range c.files {
			file = filepath.Join(root, file)
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if got := memoryLimit(root); got != c.want {
			t.Errorf("%s: got %d, want %d", name, got, c.want)
		}
	}
}
