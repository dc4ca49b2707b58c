package main

import (
	"strings"
	"testing"

	"github.com/edged-io/edged/internal/node"
)

func TestLimitsMet(t *testing.T) {
	got := strings.Join(limitsMet([]node.LimitStatus{{Name: "time", Met: 2}, {Name: "calls"}, {Name: "log_rate", Met: 311}}), ", ")
	if got != "time 2, log_rate 311" {
		t.Errorf("got %q", got)
	}
}

func TestBecame(t *testing.T) {
	for want, f := range map[string]node.FailureStatus{
		"told to who called":    {Outcome: "told to who called"},
		"orders/0: tried again": {Message: "orders/0", Outcome: "tried again"},
	} {
		if got := became(&f); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
