package config

import (
	"os"
	"slices"

	"github.com/edged-io/edged/internal/policy"
	"github.com/edged-io/edged/internal/topic"
)

// Policy is who is asked before something starts or is called from elsewhere. Without a topic and rules nobody is.
type Policy struct {
	Topic        string   `toml:"topic" default:""`
	ChangesTopic string   `toml:"changes_topic" default:""`
	Timeout      Duration `toml:"timeout" default:"1s" min:"10ms" max:"30s"`
	Rules        string   `toml:"rules" default:""`
}

// On says whether anybody is asked.
func (p Policy) On() bool { return p.Topic != "" || p.Rules != "" }

// policyFile is a file of rules as it is written.
type policyFile struct {
	Default string      `toml:"default" required:"true" oneof:"permit|deny"`
	Rules   []ruleTable `toml:"rule" items:"256"`
}

type ruleTable struct {
	Permit       bool     `toml:"permit" required:"true"`
	Actions      []string `toml:"actions" items:"3" oneof:"start_actor|start_provider|perform_invocation"`
	Source       string   `toml:"source" default:""`
	SourceIssuer string   `toml:"source_issuer" default:""`
	Target       string   `toml:"target" default:""`
	TargetIssuer string   `toml:"target_issuer" default:""`
	Contract     string   `toml:"contract" default:""`
	Message      string   `toml:"message" default:""`
}

// LoadRules reads a file of rules. The error is a Faults.
func LoadRules(path string) (*policy.Rules, error) {
	data, err := readFile(path, os.OpenFile)
	if err != nil {
		return nil, Faults{{File: path, Line: 1, Reason: "cannot be read: " + err.Error()}}
	}
	rules, faults := decodeRules(path, data)
	if err := faults.err(); err != nil {
		return nil, err
	}
	return rules, nil
}

func decodeRules(path string, data []byte) (*policy.Rules, Faults) {
	doc := parse(path, data)
	if doc.faults != nil {
		return nil, doc.faults
	}
	var f policyFile
	doc.decode(table{values: doc.values}, &f)
	rules := &policy.Rules{Permit: f.Default == "permit"}
	for i, r := range f.Rules {
		rule := policy.Rule{
			Source: r.Source, SourceIssuer: r.SourceIssuer, Target: r.Target, TargetIssuer: r.TargetIssuer, Contract: r.Contract, Permit: r.Permit, Message: r.Message,
		}
		for _, a := range r.Actions {
			rule.Actions = append(rule.Actions, policy.Action(a))
		}
		starts := len(r.Actions) > 0 && !slices.Contains(r.Actions, string(policy.PerformInvocation))
		if starts && r.Source+r.SourceIssuer != "" {
			doc.fault(child(item("rule", i), "actions"), "a start has no source: it is for perform_invocation")
		}
		rules.List = append(rules.List, rule)
	}
	return rules, doc.faults
}

// checkPolicy makes the path relative to base, too.
func (d *document) checkPolicy(p *Policy, base string) {
	for key, subject := range map[string]string{"topic": p.Topic, "changes_topic": p.ChangesTopic} {
		if subject != "" && (!topic.ValidSubject(subject) || topic.Reserved(subject)) {
			d.fault("policy."+key, "not a subject for a policy service: %q", clip(subject))
		}
	}
	if p.ChangesTopic != "" && p.Topic == "" {
		d.fault("policy.changes_topic", "there is no topic")
	}
	if p.Rules = resolve(base, p.Rules); p.Rules == "" {
		return
	}
	if _, err := LoadRules(p.Rules); err != nil {
		d.fault("policy.rules", "%v", err)
	}
}
