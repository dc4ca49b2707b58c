package powercut

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
)

// states is how many are checked in a test.
const states = 12_000

const workloadEnv = "EDGED_TEST_WORKLOAD"

func TestMain(m *testing.M) {
	var err error
	if spec := os.Getenv(workloadEnv); spec != "" {
		err = Workload(spec)
	} else if spec := os.Getenv(callsEnv); spec != "" {
		i := strings.LastIndexByte(spec, ' ')
		err = makeCalls(spec[:i], spec[i+1:])
	} else {
		os.Exit(m.Run())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// thisBinary starts this test binary as the workload.
func thisBinary(spec string) (path string, args, env []string) {
	path, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return path, []string{path}, append(os.Environ(), workloadEnv+"="+spec)
}

func TestRun(t *testing.T) {
	res, err := Run(t.Context(), Options{Dir: t.TempDir(), States: states, Command: thisBinary})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", res)
	if f := res.Finding; f != nil {
		t.Errorf("%s\n%v\n%v\nkept in %s", f.Problem, f.There, f.Around, f.Dir)
	}
}

// A disk that does not do what a sync says can take anything. The store opens all
// the same, with what can be read.
func TestRun_aDiskThatLies(t *testing.T) {
	for _, plant := range []string{plantNoData, plantSwap} {
		t.Run(plant, func(t *testing.T) {
			res, err := Run(t.Context(), Options{Dir: t.TempDir(), States: states / 4, Command: thisBinary, plant: plant, onlyOpen: true})
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%+v", res)
			if f := res.Finding; f != nil {
				t.Errorf("%s\n%v\n%v\nkept in %s", f.Problem, f.There, f.Around, f.Dir)
			}
		})
	}
}

// Faults put in on purpose are found: the test of the test.
func TestRun_findsPlants(t *testing.T) {
	const (
		lost   = "it was told to be done, and|for sure|published again"
		damage = "damage"
		split  = "it is there in part"
		mixed  = "." // where old pages take the place of new ones, it depends on which
	)
	for _, c := range []struct {
		plant string
		as    string // the first finding has to do with it
	}{
		{plantEarly, lost},
		{plantSplit, split},
		{plantNoData, mixed},
		{plantOneData, mixed},
		{plantNoRoot, damage + "|" + lost},
		{plantOneRoot, damage + "|" + lost},
		{plantSwap, mixed},
		{plantOneSwap, mixed},
		{plantNoDir, lost},
	} {
		t.Run(c.plant, func(t *testing.T) {
			res, err := Run(t.Context(), Options{Dir: t.TempDir(), States: states, Command: thisBinary, plant: c.plant})
			if err != nil {
				t.Fatal(err)
			}
			f := res.Finding
			if f == nil {
				t.Fatalf("not found in %d states", res.States)
			}
			t.Logf("found after %d states: %s", res.States, f.Problem)
			if !regexp.MustCompile(c.as).MatchString(f.Problem) {
				t.Errorf("found as %q, want %q", f.Problem, c.as)
			}
			if _, again, err := Replay(f.Dir); err != nil || again == "" {
				t.Errorf("the finding that was kept: got %q, %v", again, err)
			}
		})
	}
}
