package policy

import (
	"fmt"
	"slices"
	"strings"
)

// Rules decide by a list: the first that fits does.
type Rules struct {
	Permit bool // where none fits
	List   []Rule
}

// Rule fits if everything fits that it names; what is empty fits all. A text fits itself and, with a final "*", all that begin with what is before it.
type Rule struct {
	Actions      []Action
	Source       string // key of who calls
	SourceIssuer string
	Target       string // key of who starts or is called
	TargetIssuer string
	Contract     string // of a provider: the target, or for PerformInvocation the source
	Permit       bool
	Message      string // reason that is told
}

func (r *Rules) decide(action Action, s Source, t Target) error {
	permit, message := r.Permit, "no rule fits"
	i := slices.IndexFunc(r.List, func(rule Rule) bool { return rule.fits(action, s, t) })
	if i >= 0 {
		permit, message = r.List[i].Permit, r.List[i].Message
	}
	switch {
	case permit:
		return nil
	case message == "":
		return fmt.Errorf("%w: rule %d", ErrDenied, i+1)
	}
	return fmt.Errorf("%w: %s", ErrDenied, message)
}

func (r Rule) fits(action Action, s Source, t Target) bool {
	contract := t.Contract
	if action == PerformInvocation {
		contract = s.Contract
	}
	return (len(r.Actions) == 0 || slices.Contains(r.Actions, action)) && fits(r.Source, s.Key) && fits(r.SourceIssuer, s.Issuer) &&
		fits(r.Target, t.Key) && fits(r.TargetIssuer, t.Issuer) && fits(r.Contract, contract)
}

func fits(pattern, text string) bool {
	if start, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(text, start)
	}
	return pattern == "" || pattern == text
}
