package providers_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/edged-io/edged/providers"
)

// wit is what a file of docs/wit says: the members of records and variants, and
// the parameters of functions by operation, names as they are on the wire.
type wit struct{ records, functions map[string][]string }

var (
	witBlock  = regexp.MustCompile(`(?s)(record|variant|interface) ([a-z-]+) \{(.*?)\n(?:    )?\}`)
	witFunc   = regexp.MustCompile(`%?([a-z-]+): func\(([^)]*)\)`)
	witMember = regexp.MustCompile(`(?m)^\s*%?([a-z-]+)[:(]`)
	witParam  = regexp.MustCompile(`([a-z-]+): `)
)

// readWIT reads as much of WIT as our files have. Functions are in blocks of an
// interface, which hold no other blocks.
func readWIT(t *testing.T, name string) wit {
	t.Helper()
	data, err := os.ReadFile("../docs/wit/" + name)
	if err != nil {
		t.Fatal(err)
	}
	w := wit{make(map[string][]string), make(map[string][]string)}
	text := regexp.MustCompile(`(?m)^\s*///.*$`).ReplaceAllString(string(data), "")
	text = regexp.MustCompile(`(?m)^interface types \{$`).ReplaceAllString(text, "")
	for _, block := range witBlock.FindAllStringSubmatch(text, -1) {
		kind, name, body := block[1], block[2], block[3]
		if kind != "interface" {
			for _, m := range witMember.FindAllStringSubmatch(body, -1) {
				w.records[name] = append(w.records[name], lower(m[1]))
			}
			slices.Sort(w.records[name])
			continue
		}
		for _, f := range witFunc.FindAllStringSubmatch(body, -1) {
			operation, params := upper(name)+"."+upper(f[1]), []string{}
			for _, p := range witParam.FindAllStringSubmatch(f[2], -1) {
				params = append(params, lower(p[1]))
			}
			slices.Sort(params)
			w.functions[operation] = params
		}
	}
	return w
}

// lower and upper make camel case of kebab case.
func lower(s string) string {
	first, rest, more := strings.Cut(s, "-")
	if !more {
		return s
	}
	return first + upper(rest)
}

func upper(s string) string {
	var b strings.Builder
	for word := range strings.SplitSeq(s, "-") {
		b.WriteString(strings.ToUpper(word[:1]) + word[1:])
	}
	return b.String()
}

// cases returns the strings that a function of a file switches by.
func cases(t *testing.T, file, function string) (all []string) {
	t.Helper()
	tree, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range tree.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok || f.Name.Name != function {
			continue
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if c, ok := n.(*ast.CaseClause); ok {
				for _, e := range c.List {
					if lit, ok := e.(*ast.BasicLit); ok && lit.Kind == token.STRING {
						s, err := strconv.Unquote(lit.Value)
						if err != nil {
							t.Fatal(err)
						}
						all = append(all, s)
					}
				}
			}
			return true
		})
	}
	if all == nil {
		t.Fatalf("%s has no %s with cases", file, function)
	}
	slices.Sort(all)
	return all
}

func same(t *testing.T, what string, documented, served []string) {
	t.Helper()
	if !slices.Equal(documented, served) {
		t.Errorf("%s: the WIT has %q, the code %q", what, documented, served)
	}
}

// operations returns the documented ones whose names begin so.
func (w wit) operations(service string) (all []string) {
	for name := range w.functions {
		if strings.HasPrefix(name, service+".") {
			all = append(all, name)
		}
	}
	slices.Sort(all)
	return all
}

// fields are all parameters of some operations.
func (w wit) fields(operations ...string) (all []string) {
	for _, o := range operations {
		all = append(all, w.functions[o]...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func (w wit) checkErrors(t *testing.T) {
	t.Helper()
	var kinds []string
	for _, kind := range []error{providers.ErrTooLarge, providers.ErrNoTopic, providers.ErrNotPermitted, providers.ErrUnavailable, providers.ErrTimedOut, providers.ErrFormat} {
		kinds = append(kinds, lower(strings.ReplaceAll(kind.Error(), " ", "-")))
	}
	slices.Sort(kinds)
	same(t, "kinds of errors", w.records["error"], kinds)
}

func TestWIT_pubsub(t *testing.T) {
	w := readWIT(t, "pubsub.wit")
	same(t, "operations", w.operations("PubSub"), cases(t, "pubsub/pubsub.go", "Call"))
	same(t, "event", w.records["event"], cases(t, "pubsub/wire.go", "decodeEvent"))
	same(t, "PubSub.Publish", w.fields("PubSub.Publish"), cases(t, "pubsub/wire.go", "decodePublish"))
	same(t, "requests", w.fields("PubSub.Receive", "PubSub.Stream", "PubSub.Next", "PubSub.Close"), cases(t, "pubsub/wire.go", "decodeRequest"))
	verdict := slices.DeleteFunc(cases(t, "pubsub/wire.go", "DecodeVerdict"), func(s string) bool {
		return s == "" || s == "ack" || s == "retry" || s == "reject" // values, and not fields
	})
	same(t, "verdict", w.records["verdict"], verdict)
	same(t, "event in the SDK", w.records["event"], cases(t, "../sdk/go/actor/event.go", "readEvent"))
	if _, ok := w.functions["Subscriber.OnMessage"]; !ok {
		t.Error("PubSub.OnMessage is missing")
	}
	w.checkErrors(t)
}

func TestWIT_messaging(t *testing.T) {
	w := readWIT(t, "messaging.wit")
	same(t, "operations", w.operations("Messaging"), cases(t, "messaging/messaging.go", "Call"))
	same(t, "requests", w.fields("Messaging.Publish", "Messaging.Request"), cases(t, "messaging/wire.go", "decodeMessage"))
	if _, ok := w.functions["MessageSubscriber.HandleMessage"]; !ok {
		t.Error("HandleMessage is missing")
	}
	w.checkErrors(t)
}

func TestWIT_gpio(t *testing.T) {
	w := readWIT(t, "gpio.wit")
	same(t, "fields", w.fields("Gpio.Set", "Gpio.Get", "Gpio.Pulse"), cases(t, "gpio/call.go", "parseArguments"))
	if got := w.operations("Gpio"); len(got) != 3 {
		t.Errorf("operations %q", got)
	}
}
