// Package providertest is the conformance suite of capability providers: whether a
// program, in whatever language, does on the wire what hosts and actors of a classic
// wasmCloud lattice rely on.
//
// [Run] is the host: it starts the program as hosts do, or waits for one that somebody
// else starts, links actors, calls it as they would, and as nobody should, and stops it.
// What it looks at is NATS and the process, nothing else. Each check ends as PASS, WARN (it
// works, but not with every host, or not well) or FAIL. The protocol is that of wasmCloud
// 0.50 to 0.82; for the contract wasmcloud:keyvalue the operations are checked as well.
package providertest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/edged-io/edged/lattice/wire"
)

// Status is how a check ended.
type Status string

// The ends of a check.
const (
	Pass Status = "PASS"
	Warn Status = "WARN" // works, but not with every host, or not well
	Fail Status = "FAIL"
)

// Result is one line of the report.
type Result struct {
	Check  string        // a short name that stays the same
	Status Status        //
	Detail string        // what was found; may be empty on PASS
	Took   time.Duration // how long it took
}

// Call is an operation with its payload, as MessagePack.
type Call struct {
	Operation string
	Payload   []byte
	Want      []byte // what it has to answer with; nil for whatever it likes
}

// Options say what is tested. URL and either Command or Ready must be there.
type Options struct {
	URL     string   // of a NATS server with JetStream
	Lattice string   // its name; "" for a new one
	Command []string // program and arguments; none for a provider that somebody else starts
	// Ready is told the host data line that a provider started by somebody else needs.
	Ready    func(line string)
	Contract string            // capability contract id; "" for "edged:test"
	LinkName string            // "" for "default"
	Values   map[string]string // of the links
	Config   string            // what a start command would bring, as config_json
	// Calls must succeed for an actor that is linked. The first is made a hundred times:
	// it should only read. Without any, an operation that nobody has stands in.
	Calls   []Call
	Timeout time.Duration // of an answer; 0 for 2 s, as hosts wait
	Start   time.Duration // until the provider answers for the first time; 0 for 15 s
	Output  io.Writer     // what the program prints; nil for nowhere
	Report  func(Result)  // told each result when it is there; may be nil
}

// ErrOptions is for options that make no sense.
var ErrOptions = errors.New("provider test")

func (o *Options) check() error {
	if o.Contract == "" {
		o.Contract = "edged:test"
	}
	if o.LinkName == "" {
		o.LinkName = "default"
	}
	if o.Timeout <= 0 {
		o.Timeout = 2 * time.Second
	}
	if o.Start <= 0 {
		o.Start = 15 * time.Second
	}
	if o.Output == nil {
		o.Output = io.Discard
	}
	if o.Report == nil {
		o.Report = func(Result) {}
	}
	if o.Lattice == "" {
		o.Lattice = "test-" + newID()[:8]
	}
	switch {
	case o.URL == "":
		return fmt.Errorf("%w: no URL of a NATS server", ErrOptions)
	case len(o.Command) == 0 && o.Ready == nil:
		return fmt.Errorf("%w: neither a program, nor somebody who starts one", ErrOptions)
	case !wire.IsToken(o.LinkName):
		return fmt.Errorf("%w: link name %q: letters, digits, _ and - only", ErrOptions, o.LinkName)
	case !wire.IsToken(o.Lattice):
		return fmt.Errorf("%w: lattice %q: letters, digits, _ and - only", ErrOptions, o.Lattice)
	}
	return nil
}

// Run runs the suite and returns all results. An error is of the test itself: no NATS, a
// program that is not there, or ctx has ended; what was found until then is returned too.
func Run(ctx context.Context, o Options) ([]Result, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	s, err := newSession(ctx, o)
	if err != nil {
		return nil, err
	}
	defer s.close()
	err = s.all()
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return s.results, err
}

// Passed says whether nothing failed and, if strict, nothing was warned of.
func Passed(results []Result, strict bool) bool {
	for _, r := range results {
		if r.Status == Fail || strict && r.Status == Warn {
			return false
		}
	}
	return true
}

// warning is what a check returns for WARN.
type warning struct{ error }

func warn(format string, args ...any) error { return warning{fmt.Errorf(format, args...)} }

// do runs one check, and says whether the provider did not fail it.
func (s *session) do(name string, check func() error) bool {
	if s.ctx.Err() != nil {
		return false
	}
	begin := time.Now()
	err := check()
	if s.ctx.Err() != nil { // what a check found then means nothing
		return false
	}
	r := Result{Check: name, Status: Pass, Took: time.Since(begin)}
	if err != nil {
		r.Status, r.Detail = Fail, err.Error()
		if errors.As(err, new(warning)) {
			r.Status = Warn
		}
		if died := s.died(); died != "" {
			r.Status, r.Detail = Fail, r.Detail+"; "+died
		}
	}
	s.results = append(s.results, r)
	s.o.Report(r)
	return r.Status != Fail
}

// all runs the checks in the order in which a provider meets them.
func (s *session) all() error {
	if err := s.launch(openLine, nil); err != nil {
		return err
	}
	if !s.do("start", s.waitHealthy) || !s.do("health", s.health) {
		return s.stop()
	}
	s.foreignShutdown()
	unlinked := s.unlinked()
	if !s.do("link-put", func() error { return s.linkFirst(unlinked) }) {
		return s.stop()
	}
	s.calls()
	s.forgeries()
	s.links()
	s.large()
	if contract := contracts[s.o.Contract]; contract != nil {
		contract(s)
	}
	s.do("garbage", s.garbage)
	s.actorCalls()
	s.do("shutdown-other-host", s.foreignIgnored)
	s.do("shutdown", s.shutdown)
	if len(s.o.Command) == 0 {
		return nil
	}
	if err := s.stop(); err != nil {
		return err
	}
	if err := s.launch(closedLine, []wire.Link{s.link(s.actor)}); err != nil {
		return err
	}
	if s.do("start-again", s.waitHealthy) {
		s.do("link-at-start", s.waitAccepted)
		s.do("shutdown-again", s.shutdown)
	}
	return s.stop()
}

// contracts have checks of their own.
var contracts = map[string]func(*session){"wasmcloud:keyvalue": keyvalue}
