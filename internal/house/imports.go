package house

import (
	"go/ast"
	"path"
	"slices"
	"strconv"
	"strings"
)

// imports holds the arrows and the doors.
func (c *checker) imports() {
	for _, f := range c.files {
		from, ok := c.room(f.dir)
		if !ok {
			c.fault(f.path, 0, RuleArrow, "package %s is in no room of the table", f.dir)
			continue
		}
		for _, spec := range f.ast.Imports {
			p, err := strconv.Unquote(spec.Path.Value)
			if err != nil { // the parser has checked it
				continue
			}
			if to, ok := below(p, c.rules.Module); ok {
				c.arrow(f, spec, from, to)
			} else if first, _, _ := strings.Cut(p, "/"); strings.Contains(first, ".") {
				c.door(f, spec, from, p)
			}
		}
	}
}

// room finds the room of a package's directory.
func (c *checker) room(dir string) (Room, bool) {
	var best Room
	found := false
	for _, r := range c.rules.Rooms {
		name := r.Path
		if parent, ok := strings.CutSuffix(name, "/*"); ok {
			rest, ok := below(dir, parent)
			if !ok || rest == "." {
				continue
			}
			first, _, _ := strings.Cut(rest, "/")
			name = path.Join(parent, first)
		} else if _, ok := below(dir, name); !ok {
			continue
		}
		// A name without a pattern wins over one that came from a pattern.
		if !found || len(name) > len(best.Path) || name == best.Path && name == r.Path {
			best, found = Room{name, r.Level}, true
		}
	}
	return best, found
}

func (c *checker) arrow(f *file, spec *ast.ImportSpec, from Room, to string) {
	target, ok := c.room(to)
	switch {
	case !ok: // reported at the package itself
	case target.Path == from.Path, target.Level < from.Level:
	default:
		c.faultAt(spec.Pos(), RuleArrow, "%s (level %d) imports %s (level %d)", from.Path, from.Level, to, target.Level)
	}
}

func (c *checker) door(f *file, spec *ast.ImportSpec, from Room, p string) {
	for _, d := range c.rules.Doors {
		if _, ok := below(p, d.Import); !ok {
			continue
		}
		switch {
		case f.test, slices.Contains(d.Rooms, from.Path), slices.Contains(d.Rooms, "*"):
		case d.Rooms == nil:
			c.faultAt(spec.Pos(), RuleDoor, "%s is for tests only", d.Import)
		default:
			c.faultAt(spec.Pos(), RuleDoor, "%s imports %s, whose door is in %s", from.Path, p, strings.Join(d.Rooms, ", "))
		}
		return
	}
	c.faultAt(spec.Pos(), RuleDoor, "%s is a dependency without a door", p)
}

// below returns where p is under base ("." for base itself).
func below(p, base string) (string, bool) {
	if p == base {
		return ".", true
	}
	return strings.CutPrefix(p, base+"/")
}
