package e2e

import (
	"fmt"
	"strings"
	"testing"
)

// sameLane compares what the hub holds of the readings with what was sent: each
// once, in order per sensor, byte for byte, with rising sequences of one epoch.
func sameLane(t *testing.T, lane []laneMessage, sent []reading) {
	t.Helper()
	want := make(map[string][]reading) // by subject
	for _, m := range sent {
		subject := strings.ReplaceAll(m.topic, "/", ".")
		want[subject] = append(want[subject], m)
	}
	seen := make(map[string]int) // body → how often
	next := make(map[string]int) // subject → the next that is due
	var faults []string
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	for i, m := range lane {
		if i > 0 && m.seq <= lane[i-1].seq {
			fault("seq %d comes after %d", m.seq, lane[i-1].seq)
		}
		if m.epoch == "" || m.epoch != lane[0].epoch {
			fault("seq %d: epoch %q, began with %q", m.seq, m.epoch, lane[0].epoch)
		}
		seen[m.body]++
		k := next[m.subject]
		if k < len(want[m.subject]) && want[m.subject][k].body == m.body {
			next[m.subject]++
			continue
		}
		due := "nothing"
		if k < len(want[m.subject]) {
			due = want[m.subject][k].id
		}
		fault("seq %d on %s: want %s, got %.100s", m.seq, m.subject, due, m.body)
		for j, w := range want[m.subject] { // go on from there
			if w.body == m.body {
				next[m.subject] = j + 1
			}
		}
	}
	for _, m := range sent {
		if n := seen[m.body]; n != 1 {
			fault("%s is %d times on the hub", m.id, n)
		}
	}
	tell(t, fmt.Sprintf("the hub holds %d readings, %d were sent", len(lane), len(sent)), faults)
}

// tell reports faults, not all of many.
func tell(t *testing.T, what string, faults []string) {
	t.Helper()
	if len(faults) > 0 {
		t.Errorf("%s; %d faults:\n%s", what, len(faults), strings.Join(faults[:min(len(faults), 30)], "\n"))
	}
}

// sameCounts compares the state of the actor, and the alarms that it raised, with
// the readings that were sent.
func sameCounts(t *testing.T, b *box, alarms []laneMessage, sent []reading) {
	t.Helper()
	count := make(map[string]int)
	want := make(map[string]bool) // alarms
	for _, m := range sent {
		count[m.sensor]++
		if n := count[m.sensor]; n%10 == 0 {
			want[fmt.Sprintf("%s/%d/%d", m.sensor, n, n)] = true
		}
	}
	var keys []string
	for s := range count {
		keys = append(keys, "sensor:"+s)
	}
	var faults []string
	got := b.report(keys...)
	for s, n := range count {
		if state := fmt.Sprintf("%d %d", n, n); got["sensor:"+s] != state {
			faults = append(faults, fmt.Sprintf("sensor %s: state %q, want %q", s, got["sensor:"+s], state))
		}
	}
	seen := make(map[string]int)
	last := make(map[string]int)
	for _, m := range alarms {
		seen[m.body]++
		var n, c int
		sensor, rest, _ := strings.Cut(m.body, "/")
		if _, err := fmt.Sscanf(rest, "%d/%d", &n, &c); err != nil || n <= last[sensor] || !want[m.body] || m.subject != "alarms."+sensor {
			faults = append(faults, fmt.Sprintf("alarm %s on %s comes after that of reading %d", m.body, m.subject, last[sensor]))
		}
		last[sensor] = n
	}
	for id := range want {
		if seen[id] != 1 {
			faults = append(faults, fmt.Sprintf("alarm %s is %d times on the hub", id, seen[id]))
		}
	}
	tell(t, fmt.Sprintf("actor: %v", got), faults)
}
