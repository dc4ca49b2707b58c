package e2e

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// built is what TestMain made.
var built struct {
	edged                      string // for the verbs
	box                        string // for boxes, watched by the race detector where the tests are
	cache                      string // of compiled modules, for boxes whose first start is not at stake
	counter1, counter2, broken string
	member                     string
}

func TestMain(m *testing.M) {
	code, err := buildAndRun(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func buildAndRun(m *testing.M) (code int, err error) {
	dir, err := os.MkdirTemp("", "e2e-edged-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	built.edged, built.box, built.cache = filepath.Join(dir, "edged"), filepath.Join(dir, "edged"), filepath.Join(dir, "cache")
	if err := errors.Join(os.Mkdir(built.cache, 0o700), goTool(nil, "build", "-o", built.edged, "../../cmd/edged")); err != nil {
		return 0, err
	}
	if raced {
		built.box += "-raced"
		if err := goTool(nil, "build", "-race", "-o", built.box, "../../cmd/edged"); err != nil {
			return 0, err
		}
	}
	for _, a := range []struct {
		module               *string
		name, source, linker string
	}{
		{&built.counter1, "counter1.wasm", "./testdata/counter", "-s -w -X main.version=1"},
		{&built.counter2, "counter2.wasm", "./testdata/counter", "-s -w -X main.version=2"},
		{&built.broken, "broken.wasm", "./testdata/broken", "-s -w"},
		{&built.member, "member.wasm", "./testdata/member", "-s -w"},
	} {
		*a.module = filepath.Join(dir, a.name)
		env := []string{"GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0"}
		if err := goTool(env, "build", "-buildmode=c-shared", "-ldflags", a.linker, "-o", *a.module, a.source); err != nil {
			return 0, err
		}
	}
	return m.Run(), nil
}

func goTool(env []string, args ...string) error {
	cmd := exec.Command("go", args...)
	cmd.Env = append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go %v: %w\n%s", args, err, out)
	}
	return nil
}

// program returns the path of a program that the tests start.
func program(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if path, err = exec.LookPath("/usr/sbin/" + name); err != nil {
			t.Fatalf("%s is missing: apt-get install %s", name, name)
		}
	}
	return path
}

// seeded returns the source of all that a test does at random.
func seeded(t *testing.T) *rand.Rand {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("EDGED_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatalf("EDGED_SEED %q: %v", s, err)
		}
	}
	t.Logf("EDGED_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// patience is how long a test waits for what must happen. Beside other work a module takes a minute to compile.
const patience = 3 * time.Minute

// eventually polls until ok says true; state tells what it saw last.
func eventually(t *testing.T, what string, ok func() (done bool, state string)) {
	t.Helper()
	if came, state := comes(ok); !came {
		t.Fatalf("not in time: %s; last: %s", what, state)
	}
}

// comes is eventually for tests that go on, to show what is missing.
func comes(ok func() (done bool, state string)) (came bool, state string) {
	tick := time.NewTicker(25 * time.Millisecond)
	defer tick.Stop()
	end := time.After(patience)
	for {
		if came, state = ok(); came {
			return came, state
		}
		select {
		case <-tick.C:
		case <-end:
			return false, state
		}
	}
}

// within returns after a random time below most, or when gone is closed.
func within(r *rand.Rand, most time.Duration, gone <-chan struct{}) {
	select {
	case <-time.After(time.Duration(r.Int64N(int64(most)))):
	case <-gone:
	}
}
