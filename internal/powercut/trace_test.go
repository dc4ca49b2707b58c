package powercut

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

const callsEnv = "EDGED_TEST_CALLS"

// makeCalls is the process that TestRecord_followsCalls traces.
func makeCalls(what, dir string) error {
	if strings.HasPrefix(what, "filtered ") {
		if err := stopOnlyAt(calls); err != nil {
			return err
		}
		what = strings.TrimPrefix(what, "filtered ")
	}
	switch what {
	case "all":
		var wg sync.WaitGroup
		errs := make([]error, 4)
		for i := range errs {
			sub := filepath.Join(dir, fmt.Sprint("hand", i))
			wg.Go(func() {
				errs[i] = errors.Join(os.MkdirAll(filepath.Join(sub, "deep"), 0o700), manyCalls(sub, uint64(i)))
			})
		}
		wg.Wait()
		return errors.Join(errs...)
	case "copy":
		return copyFile(dir)
	case "map":
		f, err := os.Create(filepath.Join(dir, "f"))
		if err != nil {
			return err
		}
		defer f.Close()
		_ = f.Truncate(4096)
		_, err = unix.Mmap(int(f.Fd()), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		return err
	case "fork":
		_, err := os.StartProcess("/proc/self/exe", []string{"x"}, &os.ProcAttr{})
		return err
	}
	return fmt.Errorf("no such calls: %s", what)
}

func copyFile(dir string) error {
	if err := os.WriteFile(filepath.Join(dir, "a"), make([]byte, 8192), 0o600); err != nil {
		return err
	}
	a, err := os.Open(filepath.Join(dir, "a"))
	if err != nil {
		return err
	}
	defer a.Close()
	b, err := os.Create(filepath.Join(dir, "b"))
	if err != nil {
		return err
	}
	_, err = io.Copy(b, a)
	return errors.Join(err, b.Close())
}

// manyCalls makes one of each call, in any order.
func manyCalls(dir string, seed uint64) error {
	r := rand.New(rand.NewPCG(seed, 3))
	bytes := func() []byte { return slices.Repeat([]byte{byte(r.IntN(256))}, 1+r.IntN(9000)) }
	for range 60 {
		path := filepath.Join(dir, fmt.Sprint("f", r.IntN(4)))
		other := filepath.Join(dir, "deep", fmt.Sprint("f", r.IntN(4)))
		flags := []int{os.O_CREATE, os.O_CREATE | os.O_TRUNC, os.O_CREATE | os.O_APPEND, os.O_CREATE | os.O_EXCL}
		f, err := os.OpenFile(path, os.O_RDWR|flags[r.IntN(len(flags))], 0o600)
		if errors.Is(err, os.ErrExist) {
			continue
		}
		if err != nil {
			return err
		}
		_, _ = f.Write(bytes())
		_, _ = f.Seek(r.Int64N(20_000), io.SeekStart)
		_, _ = f.Write(bytes())
		_, _ = f.WriteAt(bytes(), r.Int64N(20_000)) // not with O_APPEND
		_, _ = unix.Pwritev(int(f.Fd()), [][]byte{bytes(), bytes()}, r.Int64N(20_000))
		_, _ = unix.Writev(int(f.Fd()), [][]byte{bytes(), bytes()})
		_ = f.Truncate(r.Int64N(40_000))
		_ = unix.Fallocate(int(f.Fd()), 0, r.Int64N(20_000), 1+r.Int64N(30_000))
		if d, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0); err == nil {
			_, _ = unix.Pwrite(d, bytes(), r.Int64N(20_000))
			_ = unix.Fsync(d)
			_ = unix.Close(d)
		}
		_ = os.Truncate(path, r.Int64N(50_000))
		_ = f.Sync()
		switch r.IntN(4) {
		case 0:
			_ = os.Rename(path, other)
		case 1:
			_ = os.Link(path, other) // fails where there is one
		case 2:
			_ = os.Remove(other)
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	return nil
}

func traced(t *testing.T, what string) (*Record, string, error) {
	t.Helper()
	dir := t.TempDir()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	rec, err := record(t.Context(), dir, path, []string{path}, append(os.Environ(), callsEnv+"="+what+" "+dir))
	return rec, dir, err
}

// What the tracer writes down leads to the folder as it is, with and without
// the kernel's help.
func TestRecord_followsCalls(t *testing.T) {
	for _, what := range []string{"all", "filtered all"} {
		t.Run(what, func(t *testing.T) {
			rec, dir, err := traced(t, what)
			if err == nil {
				err = rec.compare(dir)
			}
			if err != nil {
				t.Fatal(err)
			}
			seen := make(map[Kind]int)
			for _, o := range rec.Ops {
				seen[o.Kind]++
			}
			for k := Write; k <= Sync; k++ {
				if seen[k] == 0 {
					t.Errorf("got no %s", k)
				}
			}
		})
	}
}

func TestRecord_refusesWhatItCanNotFollow(t *testing.T) {
	for what, want := range map[string]string{"copy": "copy_file_range", "map": "memory map", "fork": "process", "nonsense": "no such calls"} {
		if _, _, err := traced(t, what); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want one with %q", what, err, want)
		}
	}
}
