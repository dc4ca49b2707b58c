package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// dropStartPages lets go of the pages of the program itself, its code and its
// constants, half of which only the start needed. They are in the file: the
// kernel maps those that are used again, some hundred, at a microsecond each, and
// may forget the others first when memory is short.
func dropStartPages() (err error) {
	program, err := os.Stat("/proc/self/exe")
	if err != nil {
		return err
	}
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, maps.Close()) }()
	lines := bufio.NewScanner(maps)
	for lines.Scan() {
		var from, to uintptr
		var rights, offset, device, inode, file string
		if n, _ := fmt.Sscanf(lines.Text(), "%x-%x %s %s %s %s %s", &from, &to, &rights, &offset, &device, &inode, &file); n < 7 {
			continue // no file
		}
		if len(rights) < 2 || rights[1] == 'w' { // what was written is not in the file
			continue
		}
		if info, err := os.Stat(file); err != nil || !os.SameFile(info, program) {
			continue
		}
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, from, to-from, unix.MADV_DONTNEED); errno != 0 {
			return fmt.Errorf("madvise: %w", errno)
		}
	}
	return lines.Err()
}
