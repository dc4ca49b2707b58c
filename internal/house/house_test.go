package house_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/edged-io/edged/internal/house"
)

// TestCheck_ThisTree is the rule itself: this repository has no faults.
func TestCheck_ThisTree(t *testing.T) {
	faults, err := house.Check("../..", house.Edged())
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range faults {
		t.Error(f)
	}
}

// TestCheck_Trees holds the checker to its word: each archive in testdata is a tree, and its comment lists the faults in it.
func TestCheck_Trees(t *testing.T) {
	archives, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(archives) == 0 {
		t.Fatalf("archives: %v, %v", archives, err)
	}
	for _, name := range archives {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) {
			a, err := txtar.ParseFile(name)
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			if err := txtar.Write(a, dir); err != nil {
				t.Fatal(err)
			}
			rules := house.Edged()
			rules.MaxLines, rules.Allow = 12, nil
			faults, err := house.Check(dir, rules)
			if err != nil {
				t.Fatal(err)
			}
			var got strings.Builder
			for _, f := range faults {
				got.WriteString(f.String() + "\n")
			}
			if want := string(a.Comment); got.String() != want {
				t.Errorf("got\n%swant\n%s", got.String(), want)
			}
		})
	}
}

func TestCheck_AllowanceMustBeUsed(t *testing.T) {
	rules := house.Edged()
	rules.Allow = []house.Allow{{Rule: house.RuleLength, Path: "store/store.go", Why: "for this test"}}
	faults, err := house.Check(t.TempDir(), rules)
	if err != nil {
		t.Fatal(err)
	}
	if len(faults) != 1 || faults[0].Rule != house.RuleAllow {
		t.Errorf("got %v, want one fault of the allowance", faults)
	}
}

func TestCheck_AllowanceTakesOut(t *testing.T) {
	dir := t.TempDir()
	a := txtar.Parse([]byte("-- store/store.go --\npackage store\n"))
	if err := txtar.Write(a, dir); err != nil {
		t.Fatal(err)
	}
	rules := house.Edged()
	rules.Allow = []house.Allow{{Rule: house.RuleComment, Path: "store/store.go", Why: "for this test"}}
	faults, err := house.Check(dir, rules)
	if err != nil || len(faults) != 0 {
		t.Errorf("got %v, %v, want none", faults, err)
	}
}
