package config

import (
	"errors"
	"fmt"
	"sort"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

const (
	maxKeys      = 20000 // of a file, inner ones and elements of arrays included
	maxPathBytes = 1024  // of the path of a key, and so of how deep it is
)

// document is a parsed file: its values, and the line of each key. Faults found in it are collected here.
type document struct {
	file   string
	values map[string]any
	lines  map[string]int // by path, as pathKey and index build it
	faults Faults
	faulty map[string]bool // paths that have a fault
}

// parse reads TOML. Faults of the syntax end in a document without values.
func parse(file string, data []byte) *document {
	d := &document{file: file, lines: make(map[string]int), faulty: make(map[string]bool)}
	// The lines come first: they bound depth and number of keys, which go-toml does not.
	if err := d.index(data); err != nil {
		return d
	}
	if err := toml.Unmarshal(data, &d.values); err != nil {
		d.values = nil
		line := 1
		var at *toml.DecodeError
		if errors.As(err, &at) {
			line, _ = at.Position()
		}
		d.faults = append(d.faults, Fault{File: file, Line: line, Reason: "not TOML: " + strings.TrimPrefix(err.Error(), "toml: ")})
	}
	return d
}

// fault notes what is wrong with the key at path, or with the table it is missing from. What follows from the first fault of a key is left out.
func (d *document) fault(path, format string, args ...any) {
	if d.faulty[path] {
		return
	}
	d.faulty[path] = true
	d.faults = append(d.faults, Fault{File: d.file, Line: d.line(path), Key: path, Reason: fmt.Sprintf(format, args...)})
}

// line returns the line of a path or of the closest thing around it that is in the file.
func (d *document) line(path string) int {
	for path != "" {
		if n, ok := d.lines[path]; ok {
			return n
		}
		path = path[:max(0, strings.LastIndexAny(path, ".["))]
	}
	return 1
}

// child returns the path of a key in a table.
func child(path, key string) string {
	bare := key != ""
	for i := 0; i < len(key) && bare; i++ {
		c := key[i]
		bare = c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-'
	}
	if !bare {
		key = strconv.Quote(key)
	}
	if path == "" {
		return key
	}
	return path + "." + key
}

// item returns the path of an element of an array.
func item(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }

// indexer finds the line of each key.
type indexer struct {
	d      *document
	starts []int          // offset of each line
	arrays map[string]int // arrays of tables by path: index of the last element
	err    error
}

// index fills d.lines. It notes a fault and returns an error when the text cannot be indexed.
func (d *document) index(data []byte) error {
	x := &indexer{d: d, starts: []int{0}, arrays: make(map[string]int)}
	for i, c := range data {
		if c == '\n' {
			x.starts = append(x.starts, i+1)
		}
	}
	var p unstable.Parser
	p.Reset(data)
	table, line := "", 1
	for x.err == nil && p.NextExpression() {
		switch e := p.Expression(); e.Kind {
		case unstable.Table, unstable.ArrayTable:
			table, line = x.key("", e, 1)
		case unstable.KeyValue:
			x.keyValue(table, e, line)
		}
	}
	err := x.err
	if err == nil {
		if err = p.Error(); err == nil {
			return nil
		}
		line = 1
		var at *unstable.ParserError
		if errors.As(err, &at) {
			line = x.line(p.Range(at.Highlight).Offset)
		}
		err = fmt.Errorf("not TOML: %w", err)
	}
	d.faults = append(d.faults, Fault{File: d.file, Line: line, Reason: err.Error()})
	return err
}

func (x *indexer) line(offset uint32) int {
	return sort.Search(len(x.starts), func(i int) bool { return x.starts[i] > int(offset) })
}

// note remembers the line where a path is seen first.
func (x *indexer) note(path string, line int) {
	if _, ok := x.d.lines[path]; !ok {
		x.d.lines[path] = line
	}
	switch {
	case x.err != nil:
	case len(x.d.lines) > maxKeys:
		x.err = fmt.Errorf("more than %d keys", maxKeys)
	case len(path) > maxPathBytes:
		x.err = fmt.Errorf("a key is longer or nested deeper than %d bytes", maxPathBytes)
	}
}

// key returns the path that the key of an expression names below a table, and its line.
func (x *indexer) key(path string, e *unstable.Node, line int) (string, int) {
	for it := e.Key(); x.err == nil && it.Next(); {
		n := it.Node()
		line = x.line(n.Raw.Offset)
		path = child(path, string(n.Data))
		last, isArray := x.arrays[path]
		if e.Kind == unstable.ArrayTable && it.IsLast() {
			if isArray {
				last++
			}
			x.arrays[path], isArray = last, true
		}
		x.note(path, line)
		if isArray {
			path = item(path, last)
			x.note(path, line)
		}
	}
	return path, line
}

func (x *indexer) keyValue(table string, e *unstable.Node, line int) {
	path, line := x.key(table, e, line)
	x.value(path, e.Value(), line)
}

func (x *indexer) value(path string, v *unstable.Node, line int) {
	if x.err != nil {
		return
	}
	switch v.Kind {
	case unstable.InlineTable:
		for it := v.Children(); x.err == nil && it.Next(); {
			x.keyValue(path, it.Node(), line)
		}
	case unstable.Array:
		i := 0
		for it := v.Children(); x.err == nil && it.Next(); i++ {
			n := it.Node()
			at := line
			if n.Raw.Length > 0 {
				at = x.line(n.Raw.Offset)
			}
			x.note(item(path, i), at)
			x.value(item(path, i), n, at)
		}
	}
}
