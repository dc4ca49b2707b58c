// Package cgroup says how much memory the kernel lets this process have.
package cgroup

import (
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
)

// MemoryLimit returns the bytes that this process and those beside it in its
// cgroup may have, by the tightest limit on the way up, of either version of
// cgroups; 0 if there is none, or none that can be seen.
func MemoryLimit() int64 { return memoryLimit("/") }

// memoryLimit looks into the file system below root.
func memoryLimit(root string) int64 {
	groups, err := os.ReadFile(filepath.Join(root, "proc/self/cgroup"))
	if err != nil {
		return 0
	}
	mounts, err := os.ReadFile(filepath.Join(root, "proc/self/mountinfo"))
	if err != nil {
		return 0
	}
	least := int64(0)
	for line := range strings.Lines(string(groups)) {
		// Its number, its controllers, its path; none and 0 in version 2.
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) != 3 {
			continue
		}
		var names []string
		var kind, option string
		switch {
		case fields[1] == "":
			kind, names = "cgroup2", []string{"memory.max", "memory.high"}
		case hasWord(fields[1], "memory"):
			kind, option, names = "cgroup", "memory", []string{"memory.limit_in_bytes"}
		default:
			continue
		}
		point, top := mountOf(string(mounts), kind, option)
		if point == "" {
			continue
		}
		// In a container the mount shows a part of the tree, from top on; what is
		// above it, or beside it, can not be seen.
		below, ok := strings.CutPrefix(fields[2], strings.TrimSuffix(top, "/"))
		if !ok {
			below = "/"
		}
		for dir := path.Join("/", below); ; dir = path.Dir(dir) {
			for _, name := range names {
				if n := readLimit(filepath.Join(root, point, dir, name)); n > 0 && (least == 0 || n < least) {
					least = n
				}
			}
			if dir == "/" {
				break
			}
		}
	}
	return least
}

func hasWord(list, word string) bool {
	for w := range strings.SplitSeq(list, ",") {
		if w == word {
			return true
		}
	}
	return false
}

// mountOf finds where a cgroup file system is mounted, and which of its folders
// is there.
func mountOf(mountinfo, kind, option string) (point, top string) {
	for line := range strings.Lines(mountinfo) {
		// 36 35 98:0 /top /point options… - type source options
		before, after, ok := strings.Cut(line, " - ")
		fields, rest := strings.Fields(before), strings.Fields(after)
		if !ok || len(fields) < 5 || len(rest) < 3 || rest[0] != kind || option != "" && !hasWord(rest[2], option) {
			continue
		}
		return fields[4], fields[3]
	}
	return "", ""
}

// noLimit: version 1 says something near the largest number where there is none.
const noLimit = 1 << 60

func readLimit(file string) int64 {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64) // "max" is no number
	if err != nil || n >= noLimit {
		return 0
	}
	return n
}
