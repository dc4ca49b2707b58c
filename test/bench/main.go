// Command bench sets edged beside what it would replace: embedded JetStream that syncs every message, nats-server and Mosquitto;
// and as a host of actors wapc-go and Extism.
//
// All cases of a table run in turn, for several rounds, each round starting at another case, so that a slow moment of the disk
// falls on all of them alike; what is printed is the median of the rounds. Disks and machines differ, so the figures to look at
// are the ratios, which stand beside their goals at the end.
//
// It is a module of its own: what edged is compared with stays out of edged's go.mod.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// settings are what the flags say.
type settings struct {
	edged  string        // the program under test
	dir    string        // work files, on the disk under test
	rounds int           // of each table
	dur    time.Duration // of one case in one round
	size   int           // bytes of a message
}

// report is what -json writes.
type report struct {
	Time   time.Time `json:"time"`
	Go     string    `json:"go"`
	CPUs   int       `json:"cpus"`
	Kernel string    `json:"kernel"`
	Rounds int       `json:"rounds"`
	Tables []*table  `json:"tables"`
	Goals  []goal    `json:"goals"`
}

func main() {
	if url := os.Getenv(providerProcess); url != "" {
		beProvider(url)
		return
	}
	var s settings
	var asJSON, only, once string
	flag.StringVar(&s.edged, "edged", "../../dist/edged", "the edged `program`")
	flag.StringVar(&s.dir, "dir", "", "`folder` for work files, on the disk under test (default: the system's temporary folder)")
	flag.IntVar(&s.rounds, "rounds", 5, "rounds of each table")
	flag.DurationVar(&s.dur, "dur", 500*time.Millisecond, "how long one case runs in one round")
	flag.IntVar(&s.size, "size", 128, "bytes of a message")
	flag.StringVar(&asJSON, "json", "", "write the report as JSON to `file` (- for stdout, instead of the tables)")
	flag.StringVar(&only, "only", "store,wire,syncs,idle,actors,modules,push,lattice", "the tables to make")
	flag.StringVar(&once, "once", "", "run one `engine:publishers:messages` of the table store and end, for strace and pprof")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, s, asJSON, only, once); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, s settings, asJSON, only, once string) error {
	dir, err := os.MkdirTemp(s.dir, "edged-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	s.dir = dir
	if s.edged, err = filepath.Abs(s.edged); err != nil {
		return err
	}
	if once != "" {
		return runOnce(ctx, s, once)
	}
	r := report{Time: time.Now().UTC(), Go: runtime.Version(), CPUs: runtime.NumCPU(), Kernel: kernel(), Rounds: s.rounds}
	text := asJSON != "-"
	if text {
		fmt.Printf("%s, %s, %d CPUs, Linux %s; medians of %d rounds (least – most)\n",
			r.Time.Format("2006-01-02 15:04"), r.Go, r.CPUs, r.Kernel, r.Rounds)
	}
	for _, part := range []struct {
		name string
		run  func(context.Context, settings) (*table, error)
	}{{"store", storeTable}, {"wire", wireTable}, {"syncs", syncTable}, {"idle", idleTable}, {"actors", actorTable}, {"modules", moduleTable}, {"push", pushTable}, {"lattice", latticeTable}} {
		if !strings.Contains(","+only+",", ","+part.name+",") {
			continue
		}
		t, err := part.run(ctx, s)
		if err != nil {
			return fmt.Errorf("table %s: %w", part.name, err)
		}
		r.Tables = append(r.Tables, t)
		if text {
			t.print(os.Stdout)
		}
	}
	r.Goals = goals(r.Tables)
	if text {
		printGoals(os.Stdout, r.Goals)
	}
	return writeJSON(asJSON, r)
}

func writeJSON(name string, r report) error {
	if name == "" {
		return nil
	}
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	b = append(b, '\n')
	if name == "-" {
		_, err = os.Stdout.Write(b)
		return err
	}
	return os.WriteFile(name, b, 0o644)
}

func kernel() string {
	b, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(b))
}
