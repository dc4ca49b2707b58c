package main

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/edged-io/edged/store"
)

// What strangers wrote into a message, or an actor into its error, does not move
// the cursor, and a cell of a table stays one.
func TestShowDeadLetter_strangers(t *testing.T) {
	d := store.DeadLetter{
		ID: 1, Subject: "jobs.\x1b[2Jx", Error: "no\x1b]0;owned\x07\nat line\t2", Reason: "rejected",
		Header: []byte("NATS/1.0\r\nA: \x1b[31mred\r\n\r\n"), Data: []byte("body\x1b[0m"),
	}
	var one, all bytes.Buffer
	showDeadLetter(&one, d)
	showDeadLetters(&all, []store.DeadLetter{d})
	if strings.ContainsAny(one.String()+all.String(), "\x1b\x07\r") {
		t.Errorf("control characters in %q and %q", one.String(), all.String())
	}
	if !strings.Contains(one.String(), "\nNATS/1.0\nA: ") || !strings.Contains(one.String(), "\nat line\t2\n") {
		t.Errorf("lines are lost: %q", one.String())
	}
	if n := strings.Count(all.String(), "\n"); n != 2 {
		t.Errorf("the list has %d lines: %q", n, all.String())
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errFullDisk }

var errFullDisk = errors.New("no space left on device")

func TestShown_failedWrite(t *testing.T) {
	err := shown(full{}, func(w io.Writer) { table(w, func(row func(...any)) { row("STREAM") }) })
	if !errors.Is(err, errFullDisk) {
		t.Errorf("got %v, want the error of the writer", err)
	}
}
