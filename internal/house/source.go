package house

import (
	"go/ast"
	"regexp"
	"strconv"
	"strings"
)

// packageComments holds that each package introduces itself, in one of its files that are not tests.
func (c *checker) packageComments() {
	first := map[string]*file{}
	has := map[string]bool{}
	var dirs []string
	for _, f := range c.files {
		if f.test {
			continue
		}
		if first[f.dir] == nil {
			first[f.dir] = f
			dirs = append(dirs, f.dir)
		}
		want := "Package " + f.ast.Name.Name + " "
		if f.ast.Name.Name == "main" {
			want = "" // "Command edged …", "Thermostat keeps …"
		}
		if doc := f.ast.Doc.Text(); doc != "" && strings.HasPrefix(doc, want) {
			has[f.dir] = true
		}
	}
	for _, dir := range dirs {
		if !has[dir] {
			c.fault(first[dir].path, 0, RuleComment, "package %s has no package comment", first[dir].ast.Name.Name)
		}
	}
}

// source holds what a single file is held to.
func (c *checker) source(f *file) {
	if !f.test && !ast.IsGenerated(f.ast) && f.n > c.rules.MaxLines {
		c.fault(f.path, 0, RuleLength, "%d lines, of at most %d: look for the second noun", f.n, c.rules.MaxLines)
	}
	for _, group := range f.ast.Comments {
		for _, line := range group.List {
			c.todo(line)
		}
	}
	if f.test {
		c.test(f)
	} else {
		c.exit(f)
	}
}

var (
	mark   = regexp.MustCompile(`(?m)^\W*(TODO|FIXME|XXX|HACK)\b`)
	reason = regexp.MustCompile(`TODO: \S+( \S+){3,}`)
)

// todo holds that a mark says what would make it necessary.
func (c *checker) todo(comment *ast.Comment) {
	if m := mark.FindStringSubmatch(comment.Text); m != nil && !reason.MatchString(comment.Text) {
		c.faultAt(comment.Pos(), RuleComment, "%s without what would make it necessary", m[1])
	}
}

// test holds that a test neither sleeps, outside a synctest bubble, nor skips, outside the hardware tag.
func (c *checker) test(f *file) {
	clock, bubble := importName(f.ast, "time"), importName(f.ast, "testing/synctest")
	ast.Inspect(f.ast, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		x, name := selector(call)
		switch {
		case bubble != "" && x == bubble && name == "Test":
			return false // the bubble's own clock
		case clock != "" && x == clock && name == "Sleep":
			c.faultAt(call.Pos(), RuleWait, "time.Sleep in a test: wait for a condition")
		case (name == "Skip" || name == "Skipf" || name == "SkipNow") && strings.Contains(" t b f tb ", " "+x+" ") && f.tags != "hardware":
			c.faultAt(call.Pos(), RuleSkip, "a test that does not run proves nothing")
		}
		return true
	})
}

// exit holds that only commands and actors end the process or work in init.
func (c *checker) exit(f *file) {
	for _, free := range []string{"cmd", "examples", "sdk", "test"} {
		if _, ok := below(f.dir, free); ok {
			return
		}
	}
	osName, logName := importName(f.ast, "os"), importName(f.ast, "log")
	ast.Inspect(f.ast, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			if n.Recv == nil && n.Name.Name == "init" {
				c.faultAt(n.Pos(), RuleExit, "init: let a constructor do it")
			}
		case *ast.CallExpr:
			x, name := selector(n)
			if osName != "" && x == osName && name == "Exit" || logName != "" && x == logName && strings.HasPrefix(name, "Fatal") {
				c.faultAt(n.Pos(), RuleExit, "%s.%s skips every deferred clean-up: return an error", x, name)
			}
		}
		return true
	})
}

// selector returns x and name of a call x.name(…).
func selector(call *ast.CallExpr) (x, name string) {
	sel, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return "", ""
	}
	if id, ok := sel.X.(*ast.Ident); ok {
		return id.Name, sel.Sel.Name
	}
	return "", sel.Sel.Name
}

// importName returns under what name the file knows a package of the standard library, "" if it does not.
func importName(f *ast.File, path string) string {
	for _, spec := range f.Imports {
		if p, err := strconv.Unquote(spec.Path.Value); err != nil || p != path {
			continue
		}
		if spec.Name != nil {
			return spec.Name.Name
		}
		return path[strings.LastIndexByte(path, '/')+1:]
	}
	return ""
}
