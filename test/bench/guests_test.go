package main

import (
	"bytes"
	"testing"
)

func TestActorModule_Size(t *testing.T) {
	m := actorModule()
	if !bytes.HasPrefix(m, []byte("\x00asm\x01\x00\x00\x00")) || len(m) < 95e3 || len(m) > 110e3 {
		t.Errorf("got %d bytes that begin with %q, want a module of about 100 KB", len(m), m[:8])
	}
}
