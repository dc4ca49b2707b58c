package providers_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// operationName is what an operation is called on the wire: the interface, and what it does.
var operationName = regexp.MustCompile(`^[A-Z][A-Za-z]+\.[A-Z][A-Za-z0-9]+$`)

// served returns the operations that the code of a provider names, and its contract id: literals that look like an operation, and the keys of the
// table called operations, which are names within an interface.
func served(t *testing.T, dir, within string) (operations []string, contract string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	literal := func(n ast.Expr) string {
		l, ok := n.(*ast.BasicLit)
		if !ok || l.Kind != token.STRING {
			return ""
		}
		s, _ := strconv.Unquote(l.Value) // it was parsed
		return s
	}
	found := make(map[string]bool)
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.BasicLit:
				s := literal(n)
				if operationName.MatchString(s) {
					found[s] = true
				}
				if strings.HasPrefix(s, "wasmcloud:") || strings.HasPrefix(s, "edged:") {
					contract = s
				}
			case *ast.ValueSpec:
				if table, ok := n.Names[0].Name, len(n.Values) == 1; !ok || table != "operations" {
					return true
				}
				if values, ok := n.Values[0].(*ast.CompositeLit); ok {
					for _, e := range values.Elts {
						found[within+"."+literal(e.(*ast.KeyValueExpr).Key)] = true
					}
				}
			}
			return true
		})
	}
	return slices.Sorted(maps.Keys(found)), contract
}

// told returns the operations that a page has a row for, and what it says of when each takes effect.
func told(page string) map[string]string {
	rows := make(map[string]string)
	for line := range strings.Lines(page) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), " | ")
		if len(cells) < 4 {
			continue
		}
		within := ""
		for _, name := range regexp.MustCompile("`([A-Za-z0-9.]+)`").FindAllStringSubmatch(cells[0], -1) {
			op := name[1]
			if i := strings.IndexByte(op, '.'); i >= 0 {
				within = op[:i]
			} else {
				op = within + "." + op
			}
			if operationName.MatchString(op) {
				rows[op] = cells[len(cells)-1]
			}
		}
	}
	return rows
}

// takesEffect is what a row may say: in the turn, at once, or as another row that says it.
var takesEffect = regexp.MustCompile("staged|reads|at once|in a turn of its own|acknowledged by the turn|as `PubSub.Receive`")

// Each capability that is built in has a page with each of its operations, and what a page tells is there.
func TestDocs_capabilities(t *testing.T) {
	pages := map[string]string{"mqtt.md": "pubsub", "nats.md": "pubsub"} // ways in and out of Pub/Sub
	for kind, within := range map[string]string{
		"blobstore": "Blobstore", "gpio": "", "httpclient": "", "httpserver": "", "keyvalue": "KeyValue", "logging": "", "messaging": "", "numbergen": "", "pubsub": "",
	} {
		pages[kind+".md"] = kind
		data, err := os.ReadFile("../docs/capabilities/" + kind + ".md")
		if err != nil {
			t.Error(err)
			continue
		}
		operations, contract := served(t, kind, within)
		if contract == "" || !strings.Contains(string(data), "`"+contract+"`") {
			t.Errorf("%s.md does not tell the contract %q", kind, contract)
		}
		if kind == "pubsub" { // its name is up to the manifest
			operations = slices.Sorted(slices.Values(append(operations, "PubSub.OnMessage")))
		}
		rows := told(string(data))
		if got := slices.Sorted(maps.Keys(rows)); !slices.Equal(got, operations) {
			t.Errorf("%s.md tells %q,\nthe provider has %q", kind, got, operations)
		}
		for op, when := range rows {
			if !takesEffect.MatchString(when) {
				t.Errorf("%s.md: %s does not say whether it is staged or at once: %q", kind, op, when)
			}
		}
		if !strings.Contains(string(data), "| staged or at once |") {
			t.Errorf("%s.md has no column of that name", kind)
		}
	}
	files, err := os.ReadDir("../docs/capabilities")
	if err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if _, ok := pages[f.Name()]; !ok {
			t.Errorf("%s is of no provider that is built in", f.Name())
		}
		if !strings.Contains(string(readme), "docs/capabilities/"+f.Name()) {
			t.Errorf("the readme does not lead to %s", f.Name())
		}
	}
	// Each folder with a contract is one of those above.
	dirs, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range dirs {
		if !d.IsDir() || d.Name() == "providertest" { // which calls what others serve
			continue
		}
		if _, contract := served(t, d.Name(), ""); contract != "" && pages[d.Name()+".md"] == "" {
			t.Errorf("providers/%s has contract %s and no page", d.Name(), contract)
		}
	}
}
