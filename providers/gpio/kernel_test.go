package gpio

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

func TestKernelChips_names(t *testing.T) {
	k := kernelChips{dev: t.TempDir()}
	for _, name := range []string{"gpiochip0", "gpiochip12", "gpiomem", "null"} {
		if err := os.WriteFile(filepath.Join(k.dev, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := k.names(), []string{"gpiochip0", "gpiochip12"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for _, name := range []string{"gpiochip1", "null", "gpiomem"} {
		if _, err := k.find(name); !errors.Is(err, ErrNoChip) {
			t.Errorf("%s: got %v, want ErrNoChip", name, err)
		}
	}
	if _, err := k.find("gpiochip12"); err == nil || errors.Is(err, ErrNoChip) {
		t.Errorf("a file that is no device: got %v", err)
	}
}

func TestPermissionHint(t *testing.T) {
	for errno, want := range map[syscall.Errno]string{
		syscall.EACCES: "udev rule",
		syscall.EPERM:  "DeviceAllow=char-gpiochip rw",
		syscall.EIO:    "",
	} {
		err := fmt.Errorf("chip: %w", &fs.PathError{Op: "open", Path: "/dev/gpiochip0", Err: errno})
		got := permissionHint("/dev/gpiochip0", err)
		if !strings.Contains(got, want) || (got == "") != (want == "") {
			t.Errorf("%v: got %q, want %q in it", errno, got, want)
		}
	}
}

func TestFillStdin(t *testing.T) {
	saved, err := syscall.Dup(0)
	if err != nil {
		t.Fatalf("the test needs a descriptor 0: %v", err)
	}
	defer func() {
		if err := errors.Join(syscall.Dup3(saved, 0, 0), syscall.Close(saved)); err != nil {
			t.Error(err)
		}
	}()
	if err := syscall.Close(0); err != nil {
		t.Fatal(err)
	}
	fillStdin()
	var st syscall.Stat_t
	if err := syscall.Fstat(0, &st); err != nil {
		t.Errorf("descriptor 0: %v", err)
	}
}
