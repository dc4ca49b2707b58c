package main

import (
	"testing"
	"time"
)

func TestClock(t *testing.T) {
	now, err := clock("1970-01-01T00:00:00Z")
	if err != nil {
		t.Fatal(err)
	}
	a := now()
	if a.Year() != 1970 {
		t.Errorf("it is %v", a)
	}
	if b := now(); b.Before(a) {
		t.Errorf("%v after %v", b, a)
	}
	if _, err := clock("yesterday"); codeOf(err) != exitUsage {
		t.Errorf("got %v, want a usage error", err)
	}
	if now, err := clock(""); err != nil || time.Since(now()) > time.Hour {
		t.Errorf("without a start it is %v, %v", now(), err)
	}
}
