package store

import (
	"errors"
	"testing"
)

// TestTurn_Follow_rolledBack: what is behind a turn that found no room loses,
// whether it was begun before or after that.
func TestTurn_Follow_rolledBack(t *testing.T) {
	db, err := Open(Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	first, second := db.Begin(), db.Begin()
	first.done = func(error) {}
	db.mu.Lock()
	if wait, err := db.tryEnqueue(first); wait || err != nil {
		t.Errorf("got %v, %v", wait, err)
	}
	db.queue.turns = nil // into a group, which the writer would have now
	db.mu.Unlock()
	if err := second.Follow(first); err != nil {
		t.Error(err)
	}
	db.mu.Lock()
	db.rollback([]*Turn{first}, ErrFull)
	db.mu.Unlock()
	if err := second.Commit(); !errors.Is(err, ErrConflict) {
		t.Errorf("begun before: got %v, want %v", err, ErrConflict)
	}
	if err := db.Begin().Follow(first); !errors.Is(err, ErrBehind) {
		t.Errorf("begun after: got %v, want %v", err, ErrBehind)
	}
}
