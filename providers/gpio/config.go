package gpio

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/edged-io/edged/internal/topic"
)

// MaxDebounce is the longest debounce time a line may ask for.
const MaxDebounce = 10 * time.Second

// Directions of a line.
const (
	in  = "in"
	out = "out"
)

// maxChipName is the longest name the kernel gives a chip, in bytes.
const maxChipName = 31

// address is where a line is.
type address struct {
	chip string
	line int
}

// String is "chip/line", which is also the key of the line in the store.
func (a address) String() string { return a.chip + "/" + strconv.Itoa(a.line) }

// config is what the values of a link say about its line.
type config struct {
	address
	direction string

	// Inputs.
	edge     edge
	debounce time.Duration
	topic    string // as it was written
	subject  string // where edges go; empty for none
	pull     pull

	// Outputs.
	initial bool // level while nobody has set one
	safe    bool // level on stop
}

// parseValues reads the values of a link. The error names every fault.
func parseValues(values map[string]string) (config, error) {
	p := valueParser{values: values}
	c := config{
		address:   address{chip: p.chip(), line: p.line()},
		direction: p.word("direction", "", in, out),
	}
	known := []string{"chip", "line", "direction"}
	switch c.direction {
	case in:
		known = append(known, "edge", "debounce", "topic", "pull")
		p.input(&c)
	case out:
		known = append(known, "safe", "initial")
		c.safe = p.word("safe", "low", "low", "high") == "high"
		c.initial = p.word("initial", word(c.safe), "low", "high") == "high"
	default: // what belongs to which direction cannot be told
		return config{}, errors.Join(p.faults...)
	}
	for _, key := range slices.Sorted(maps.Keys(values)) {
		if !slices.Contains(known, key) {
			p.fault(key, fmt.Sprintf("not a key of a line with direction %q", c.direction))
		}
	}
	if len(p.faults) > 0 {
		return config{}, errors.Join(p.faults...)
	}
	return c, nil
}

// valueParser collects the faults of values.
type valueParser struct {
	values map[string]string
	faults []error
}

func (p *valueParser) fault(key, reason string) {
	p.faults = append(p.faults, fmt.Errorf("%.40s: %s", key, reason))
}

// word is the value of key, or absent if there is none; it must be one of
// allowed.
func (p *valueParser) word(key, absent string, allowed ...string) string {
	v, ok := p.values[key]
	if !ok && absent != "" {
		return absent
	}
	if !slices.Contains(allowed, v) {
		p.fault(key, fmt.Sprintf("%.40q is not one of %s", v, strings.Join(allowed, ", ")))
		return ""
	}
	return v
}

func (p *valueParser) chip() string {
	name := p.values["chip"]
	switch {
	case name == "":
		p.fault("chip", "missing")
	case len(name) > maxChipName || strings.ContainsFunc(name, notInName):
		p.fault("chip", fmt.Sprintf("%.40q is not the name of a chip, such as gpiochip0 or sim0", name))
	}
	return name
}

// notInName says that r is not part of the names of chips.
func notInName(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '_' && r != '-'
}

func (p *valueParser) line() int {
	v := p.values["line"]
	if v == "" {
		p.fault("line", "missing")
		return 0
	}
	n, err := strconv.ParseUint(v, 10, 16)
	if err != nil {
		p.fault("line", fmt.Sprintf("%.40q is not the number of a line", v))
	}
	return int(n)
}

// input reads what only inputs have.
func (p *valueParser) input(c *config) {
	c.topic = p.values["topic"]
	if c.topic != "" {
		subject, err := topic.Resolve(c.topic)
		if err != nil {
			p.fault("topic", err.Error())
		}
		c.subject = subject
	}
	c.edge = edge(p.word("edge", string(p.defaultEdge()), "rising", "falling", "both", "none"))
	switch {
	case c.topic == "" && c.edge != edgeNone:
		p.fault("topic", "missing: edges need a topic to be sent to")
	case c.topic != "" && c.edge == edgeNone:
		p.fault("edge", "none: nothing would ever be sent to the topic")
	}
	if v, ok := p.values["debounce"]; ok {
		d, err := time.ParseDuration(v)
		switch {
		case err != nil:
			p.fault("debounce", fmt.Sprintf(`%.40q is not a duration, such as "20ms"`, v))
		case d < 0 || d > MaxDebounce:
			p.fault("debounce", fmt.Sprintf("%s is not between 0 and %s", d, MaxDebounce))
		case c.edge == edgeNone:
			p.fault("debounce", "of a line without edges")
		}
		c.debounce = d
	}
	switch v := p.word("pull", "none", "up", "down", "none"); v {
	case "up", "down":
		c.pull = pull(v)
	}
}

// defaultEdge is both for a line with a topic, and none without.
func (p *valueParser) defaultEdge() edge {
	if p.values["topic"] == "" {
		return edgeNone
	}
	return edgeBoth
}

// request is how the chip is asked for the line. A debounced line needs both
// edges, whichever of them are sent on.
func (c config) request(level bool) request {
	r := request{output: c.direction == out, level: level, edge: c.edge, pull: c.pull}
	if c.debounce > 0 {
		r.edge = edgeBoth
	}
	return r
}
