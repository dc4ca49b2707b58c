package main

import (
	"fmt"
	"time"
)

// clock is the wall clock of the box. Tests let it begin at the time in
// EDGED_CLOCK, since a box without a battery wakes up in 1970, and one that was
// long in a drawer after everything it knows has expired.
func clock(start string) (func() time.Time, error) {
	if start == "" {
		return time.Now, nil
	}
	t, err := time.Parse(time.RFC3339, start)
	if err != nil {
		return nil, usageError{fmt.Errorf("EDGED_CLOCK: %w", err)}
	}
	began := time.Now()
	return func() time.Time { return t.Add(time.Since(began)) }, nil
}
