// Package house holds the rules of this repository that a compiler does not: which room may import which, that every
// package introduces itself, that tests wait for conditions and not for time, that files stay readable, and that links in the
// documents lead somewhere.
//
// Check reads a source tree and returns its faults. The rules are data (Edged is ours), so that an exception is a line with a
// reason beside the rule it bends. A reason nobody needs any more is a fault too.
package house

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// A Fault is one place that breaks one rule.
type Fault struct {
	Path string // slash-separated, from the root of the tree
	Line int    // 0 where the fault is of a whole file or package
	Rule string // a name of the closed list in the Rule constants
	What string // a sentence for the person who must act
}

func (f Fault) String() string {
	return fmt.Sprintf("%s:%d: %s: %s", f.Path, f.Line, f.Rule, f.What)
}

// Names of the rules.
const (
	RuleArrow   = "arrow"   // imports go one way
	RuleDoor    = "door"    // a big dependency has one door
	RuleComment = "comment" // a package introduces itself; a TODO says what would make it necessary
	RuleWait    = "wait"    // tests wait for conditions
	RuleSkip    = "skip"    // tests run everywhere
	RuleExit    = "exit"    // only a command ends the process; nothing works in init
	RuleLength  = "length"  // a file is one noun
	RuleLink    = "link"    // links in documents resolve
	RuleAllow   = "allow"   // an allowance is in use
)

// file is one Go file of the tree.
type file struct {
	path string // from the root, slash-separated
	dir  string
	test bool
	ast  *ast.File
	tags string // its //go:build line, "" for none
	n    int    // lines
}

// checker collects the faults of one tree.
type checker struct {
	rules  Rules
	root   string
	fset   *token.FileSet
	files  []*file
	docs   []string // Markdown files
	faults []Fault
}

// Check reads the tree under root and returns its faults, ordered by place. The error is of reading or parsing.
// Nested modules, testdata, dist, node_modules and hidden directories are not part of the tree.
func Check(root string, rules Rules) ([]Fault, error) {
	c := &checker{rules: rules, root: root, fset: token.NewFileSet()}
	if err := c.load(); err != nil {
		return nil, fmt.Errorf("read the tree %s: %w", root, err)
	}
	c.imports()
	c.packageComments()
	for _, f := range c.files {
		c.source(f)
	}
	if err := c.links(); err != nil {
		return nil, err
	}
	c.allowances()
	slices.SortStableFunc(c.faults, func(a, b Fault) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Line, b.Line))
	})
	return c.faults, nil
}

// load parses what the rules look at.
func (c *checker) load() error {
	return filepath.WalkDir(c.root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(c.root, name)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		switch {
		case d.IsDir():
			if rel != "." && skipDir(name, d.Name()) {
				return filepath.SkipDir
			}
		case strings.HasSuffix(rel, ".md"):
			c.docs = append(c.docs, rel)
		case strings.HasSuffix(rel, ".go"):
			return c.parse(name, rel)
		}
		return nil
	})
}

func skipDir(name, base string) bool {
	if base == "testdata" || base == "dist" || base == "node_modules" || strings.HasPrefix(base, ".") {
		return true
	}
	_, err := os.Stat(filepath.Join(name, "go.mod"))
	return err == nil
}

func (c *checker) parse(name, rel string) error {
	src, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	tree, err := parser.ParseFile(c.fset, rel, src, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	f := &file{path: rel, dir: path.Dir(rel), test: strings.HasSuffix(rel, "_test.go"), ast: tree, n: strings.Count(string(src), "\n")}
	for _, group := range tree.Comments {
		for _, line := range group.List {
			if line.Pos() < tree.Package && strings.HasPrefix(line.Text, "//go:build ") {
				f.tags = strings.TrimPrefix(line.Text, "//go:build ")
			}
		}
	}
	c.files = append(c.files, f)
	return nil
}

func (c *checker) fault(path string, line int, rule, format string, args ...any) {
	c.faults = append(c.faults, Fault{path, line, rule, fmt.Sprintf(format, args...)})
}

func (c *checker) faultAt(pos token.Pos, rule, format string, args ...any) {
	p := c.fset.Position(pos)
	c.fault(p.Filename, p.Line, rule, format, args...)
}

// allowances takes out what is allowed and reports allowances that allow nothing.
func (c *checker) allowances() {
	for _, a := range c.rules.Allow {
		before := len(c.faults)
		c.faults = slices.DeleteFunc(c.faults, func(f Fault) bool { return f.Rule == a.Rule && f.Path == a.Path })
		if len(c.faults) == before {
			c.fault(a.Path, 0, RuleAllow, "nothing needs the allowance for %q any more", a.Rule)
		}
	}
}
