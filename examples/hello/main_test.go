package main

import (
	"testing"

	"github.com/edged-io/edged/sdk/go/actor"
)

func TestHello(t *testing.T) {
	for path, want := range map[string]string{"/": "Hello, !\n", "/world": "Hello, world!\n"} {
		r, err := actor.Serve(actor.Request{Method: "GET", Path: path})
		if err != nil || r.Status != 200 || string(r.Body) != want {
			t.Errorf("%s: %d %q, %v; want %q", path, r.Status, r.Body, err, want)
		}
	}
}

// Health is answered without a line of the actor.
func TestHello_health(t *testing.T) {
	if answer, err := actor.Invoke("Actor.HealthRequest", []byte{0x80}); err != nil || string(answer) != "\x81\xa7healthy\xc3" {
		t.Errorf("%q, %v", answer, err)
	}
}
