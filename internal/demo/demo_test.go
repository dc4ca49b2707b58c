package demo

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/edged-io/edged/internal/config"
)

// built is the program and the app, built once for all tests.
var built struct {
	once    sync.Once
	dir     string
	failure string
}

func TestMain(m *testing.M) {
	code := m.Run()
	if built.dir != "" {
		if err := os.RemoveAll(built.dir); err != nil {
			panic(err)
		}
	}
	os.Exit(code)
}

func build(t *testing.T) (program, app string) {
	t.Helper()
	built.once.Do(func() {
		dir, err := os.MkdirTemp("", "edged-demo-test-")
		if err != nil {
			built.failure = err.Error()
			return
		}
		built.dir = dir
		run := func(env []string, args ...string) {
			cmd := exec.Command("go", append([]string{"build"}, args...)...)
			cmd.Dir, cmd.Env = "../..", append(os.Environ(), env...)
			if out, err := cmd.CombinedOutput(); err != nil && built.failure == "" {
				built.failure = err.Error() + "\n" + string(out)
			}
		}
		run([]string{"CGO_ENABLED=0"}, "-o", filepath.Join(dir, "edged"), "./cmd/edged")
		run([]string{"GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0"}, "-buildmode=c-shared",
			"-o", filepath.Join(dir, "thermostat.wasm"), "./examples/thermostat")
		manifest, err := os.ReadFile("../../examples/thermostat/app.toml")
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, "app.toml"), manifest, 0o600)
		}
		if err != nil {
			built.failure = err.Error()
		}
	})
	if built.failure != "" {
		t.Fatal(built.failure)
	}
	app = t.TempDir()
	for _, name := range []string{"app.toml", "thermostat.wasm"} {
		if err := os.Link(filepath.Join(built.dir, name), filepath.Join(app, name)); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(built.dir, "edged"), app
}

func options(t *testing.T) Options {
	program, app := build(t)
	t.Setenv("TMPDIR", t.TempDir())
	return Options{
		Box: func(file string) *exec.Cmd { return exec.Command(program, "run", "--config", file) },
		App: app, Duration: 4 * time.Second, Rate: 60,
	}
}

// left returns what lies in the folder for temporary files.
func left(t *testing.T) []string {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(os.TempDir(), "*"))
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// recorder is a screen that remembers what it was told.
type recorder struct {
	quiet
	told []string
	at   func(text string)
}

func (r *recorder) Tell(_ time.Duration, text string) {
	r.told = append(r.told, text)
	if r.at != nil {
		r.at(text)
	}
}

func TestRun(t *testing.T) {
	o := options(t)
	screen := &recorder{}
	o.Screen = screen
	r, err := Run(t.Context(), o)
	if err != nil {
		t.Fatalf("%v; told %q", err, screen.told)
	}
	if !r.Same || r.Rounds != 1 || r.Kills != 2 || r.Cuts != 1 || !r.Relay || r.Dir != "" {
		t.Errorf("got %+v", r)
	}
	var readings, alarms Comparison
	for i := range r.Readings {
		readings.add(r.Readings[i])
		alarms.add(r.Alarms[i])
	}
	if len(r.Readings) != len(sensorNames) || readings.Due < 100 || readings.Held < readings.Due || alarms.Due == 0 || alarms.Held != alarms.Due || r.Peak == 0 {
		t.Errorf("readings %+v, alarms %+v, at most %d waited", readings, alarms, r.Peak)
	}
	if files := left(t); len(files) != 0 {
		t.Errorf("it left %q", files)
	}
}

// What is missing at the hub must be found, or the demo proves nothing.
func TestRun_findsWhatIsMissing(t *testing.T) {
	o := options(t)
	o.Duration = MinDuration
	o.tamper = func(ctx context.Context, h *hub) error {
		m, err := h.stream.GetLastMsgForSubject(ctx, laneOf+streamReadings+".greenhouse.door.temperature")
		if err != nil {
			return err
		}
		return h.stream.DeleteMsg(ctx, m.Sequence)
	}
	r, err := Run(t.Context(), o)
	if !errors.Is(err, ErrDifferent) || r.Same || r.Dir == "" {
		t.Fatalf("got %v, %+v", err, r)
	}
	for _, c := range r.Readings {
		if want := c.Sensor == "door"; (c.Missing == 1) != want || c.Same() == want {
			t.Errorf("got %+v", c)
		}
	}
	if _, err := os.Stat(filepath.Join(r.Dir, "box.log")); err != nil {
		t.Errorf("the log is not kept: %v", err)
	}
}

func TestRun_foreverUntilFinish(t *testing.T) {
	o := options(t)
	finish := make(chan struct{})
	kills := 0
	o.Duration, o.Forever, o.Finish = MinDuration, true, finish
	o.Screen = &recorder{at: func(text string) {
		if strings.Contains(text, "is killed") {
			if kills++; kills == 3 { // in the second round, the box down and the link cut
				close(finish)
			}
		}
	}}
	r, err := Run(t.Context(), o)
	if err != nil || !r.Same || r.Rounds != 2 || r.Kills != 3 || r.Cuts != 2 {
		t.Errorf("got %v, %+v", err, r)
	}
}

func TestRun_cancelled(t *testing.T) {
	o := options(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	o.Screen = &recorder{at: func(text string) {
		if strings.Contains(text, "link to the hub is cut") {
			cancel(enough)
		}
	}}
	r, err := Run(ctx, o)
	if !errors.Is(err, enough) || r.Same || r.Rounds != 0 {
		t.Errorf("got %v, %+v", err, r)
	}
	if files := left(t); len(files) != 0 {
		t.Errorf("it left %q", files)
	}
}

func TestRun_boxDoesNotStart(t *testing.T) {
	o := options(t)
	o.Box = func(file string) *exec.Cmd { return exec.Command("sh", "-c", "echo no luck today >&2; exit 3") }
	r, err := Run(t.Context(), o)
	if err == nil || !strings.Contains(err.Error(), "exit status 3") || !strings.Contains(err.Error(), "no luck today") || r.Dir == "" {
		t.Errorf("got %v, %+v", err, r)
	}
	o.Box = func(file string) *exec.Cmd { return exec.Command(filepath.Join(t.TempDir(), "none")) }
	if _, err := Run(t.Context(), o); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestOptions_Check(t *testing.T) {
	for _, o := range []Options{{Duration: time.Second, Rate: 1}, {Duration: MaxDuration + 1, Rate: 1}, {Duration: time.Minute}, {Duration: time.Minute, Rate: MaxRate + 1}} {
		if o.Check() == nil {
			t.Errorf("%+v passes", o)
		}
	}
	if err := (Options{Duration: time.Minute, Rate: MaxRate}).Check(); err != nil {
		t.Error(err)
	}
}

func TestCheckApp(t *testing.T) {
	dir := t.TempDir()
	if err := CheckApp(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of an empty folder: %v", err)
	}
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, config.ManifestName), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("name = 3")
	var faults config.Faults
	if err := CheckApp(dir); !errors.As(err, &faults) {
		t.Errorf("of a bad manifest: %v", err)
	}
	const other = "specversion = \"0.2\"\nname = \"other\"\nversion = \"1\"\n[[stream]]\nname = \"telemetry\"\nsubjects = [\"a.>\"]\n"
	write(other)
	if err := CheckApp(dir); err == nil || !strings.Contains(err.Error(), "telemetry") {
		t.Errorf("of another app: %v", err)
	}
}
