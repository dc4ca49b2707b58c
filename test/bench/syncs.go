package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"syscall"
)

func fdatasync(f *os.File) error { return syscall.Fdatasync(int(f.Fd())) }

// syncTable counts the syncs of whole runs with strace: how many a message costs, which on flash is the wear and the time.
func syncTable(ctx context.Context, s settings) (*table, error) {
	t := &table{Name: "syncs", Columns: []string{"syncs/msg", "syncs"},
		Title: "Syncs (fsync, fdatasync and their kind) by which 2000 messages were put, delivered and acknowledged"}
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Title += " (not counted: no strace on this machine)"
		return t, nil
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	const messages = 2000
	var cases []testCase
	for _, p := range []int{1, 64, 256} {
		for _, e := range []string{"edged", "js-always"} {
			cases = append(cases, testCase{fmt.Sprintf("%s, %d", e, p), func(ctx context.Context) (sample, error) {
				n, err := countSyncs(ctx, strace, self, s.dir, fmt.Sprintf("%s:%d:%d", e, p, messages))
				return sample{"syncs": n, "syncs/msg": n / messages}, err
			}})
		}
	}
	return t, t.interleave(ctx, min(s.rounds, 3), cases)
}

// straceTotal is a line of strace -c: % time, seconds, usecs/call, calls, then errors or not, and the name.
var straceTotal = regexp.MustCompile(`(?m)^\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s.*\btotal$`)

func countSyncs(ctx context.Context, strace, self, dir, once string) (float64, error) {
	out := filepath.Join(dir, "strace")
	cmd := exec.CommandContext(ctx, strace, "-f", "-c", "-o", out,
		"-e", "trace=fsync,fdatasync,msync,sync,syncfs,sync_file_range", self, "-dir", dir, "-once", once)
	if b, err := cmd.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("%s: %w: %s", once, err, b)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		return 0, err
	}
	m := straceTotal.FindSubmatch(b)
	if m == nil {
		return 0, fmt.Errorf("%s: strace printed no total: %s", once, b)
	}
	return strconv.ParseFloat(string(m[1]), 64)
}
