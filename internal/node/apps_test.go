package node

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/edged-io/edged/internal/claims"
)

func TestNode_Reload_keepsAllOnFault(t *testing.T) {
	cases := []struct {
		name  string
		files map[string]string // in the folder of app b
		want  []string
	}{
		{"no TOML", map[string]string{"app.toml": "this is no toml\n"}, []string{"b/app.toml:1:"}},
		{"unknown key", map[string]string{"app.toml": greenhouse("b", "1", "b", "[surprise]\n"), "thermostat.wasm": "x"}, []string{"surprise", "unknown key"}},
		{"no wasm", map[string]string{"app.toml": greenhouse("b", "1", "b", ""), "thermostat.wasm": "#!/bin/sh"}, []string{"app b", "not a wasm module"}},
		{"no module", map[string]string{"app.toml": greenhouse("b", "1", "b", "")}, []string{"thermostat.wasm"}},
		{"subjects overlap", map[string]string{"app.toml": greenhouse("b", "1", "a.x", ""), "thermostat.wasm": "x"}, []string{`"a.x.>"`, `"a.>"`, "apps/a"}},
		{"inboxes overlap", map[string]string{
			"app.toml":        greenhouse("b", "1", "b", receives("left.x.*")),
			"thermostat.wasm": "real",
		}, []string{"left.x.*", "declare a stream that covers all of it"}},
		{"line is taken", map[string]string{"app.toml": greenhouse("b", "1", "b", drives(4)), "thermostat.wasm": "x"}, []string{"sim0/4", "apps/a"}},
		{"no such chip", map[string]string{
			"app.toml":        greenhouse("b", "1", "b", strings.Replace(drives(4), "sim0", "gpiochip99", 1)),
			"thermostat.wasm": "real",
		}, []string{"app b", "gpiochip99"}},
	}
	r := newRig(t, unsigned)
	r.app("a", "1", "a", drives(4)+receives("left.*.y"))
	r.start()
	r.publish("a.s.temperature", 1)
	r.handled("a", 1)
	streams := len(r.Status().Streams)
	before := r.apps["a"]
	for i, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			for name, text := range c.files {
				r.write("apps/b/"+name, text)
				if text == "real" {
					r.module("b")
				}
			}
			err := r.Reload(t.Context())
			if err == nil {
				t.Fatal("accepted")
			}
			contains(t, err.Error(), c.want...)
			contains(t, r.Status().Reload.Error, c.want...)
			if got := r.running(); got != "a 1" || r.apps["a"] != before {
				t.Errorf("runs %s, or was started again", got)
			}
			if got := len(r.Status().Streams); got != streams {
				t.Errorf("%d streams, %d before", got, streams)
			}
			r.publish("a.s.temperature", 1)
			r.handled("a", uint64(i)+2)
			if err := os.RemoveAll(r.path("apps", "b")); err != nil {
				t.Fatal(err)
			}
		})
	}
	r.reload()
	if s := r.Status(); s.Reload.Error != "" || s.Reload.Count != uint64(len(cases))+1 || len(s.Problems) != 0 {
		t.Errorf("status after a good reload: %+v, %v", s.Reload, s.Problems)
	}
}

// receives is a capability that gets what no stream keeps.
func receives(subject string) string {
	return "[[capability]]\nname = \"pubsub.local\"\n[[capability.config]]\ntopic = \"" + subject + "\"\n"
}

// drives is a capability to set a line of the simulated chip.
func drives(n int) string {
	return "[[capability]]\nname = \"gpio\"\n[[capability.config]]\nchip = \"sim0\"\nline = " + string(rune('0'+n)) + "\ndirection = \"out\"\n"
}

func TestNode_Reload_sameAppIsNotStartedAgain(t *testing.T) {
	r := newRig(t, unsigned)
	r.app("a", "1", "a", "")
	r.app("b", "1", "b", "")
	r.start()
	a, b := r.apps["a"], r.apps["b"]
	r.app("b", "2", "b", "")
	r.reload()
	if r.apps["a"] != a {
		t.Error("an app that did not change was started again")
	}
	if r.apps["b"] == b || r.running() != "a 1, b 2" {
		t.Errorf("an app that changed goes on as it was: %s", r.running())
	}
}

// A box comes up with what works, and names what does not.
func TestNode_Run_leavesOut(t *testing.T) {
	r := newRig(t, unsigned)
	r.app("a", "1", "a", drives(4)+receives("left.*.y"))
	r.write("apps/b/app.toml", "this is no toml\n")
	r.write("apps/c/app.toml", greenhouse("c", "1", "c", ""))
	r.write("apps/c/thermostat.wasm", "no wasm")
	r.app("d", "1", "a.x", "")
	r.app("e", "1", "e", drives(4))
	r.app("f", "1", "f", receives("left.x.*"))
	r.app("g", "1", "g", "")
	r.start()
	if got := r.running(); got != "a 1, g 1" {
		t.Errorf("runs %s, want a and g\n%s", got, r.log.String())
	}
	problems := strings.Join(r.Status().Problems, "\n")
	contains(t, problems, "apps: ", "b/app.toml:1", "app c: ", "not a wasm module", "app d: ", `"a.x.>"`, "app e: ", "sim0/4", "app f: ", "left.x.*")
	for _, app := range []string{"a", "g"} {
		r.publish(app+".s.temperature", 1)
		r.handled(app, 1)
	}
	for _, app := range []string{"b", "c", "d", "e", "f"} {
		if err := os.RemoveAll(r.path("apps", app)); err != nil {
			t.Fatal(err)
		}
	}
	r.reload()
	if got := r.Status().Problems; len(got) != 0 {
		t.Errorf("mended, and still: %v", got)
	}
}

// An app that is only missing at a start keeps its place in the stream.
func TestNode_Run_missingAppKeepsItsPosition(t *testing.T) {
	r := newRig(t, unsigned)
	r.app("a", "1", "a", "")
	r.start()
	r.publish("a.s.temperature", 1)
	r.handled("a", 1)
	r.stop()
	r.write("apps/a/app.toml", "broken\n")
	r.start()
	if got := r.running(); got != "" {
		t.Fatalf("runs %s", got)
	}
	contains(t, r.log.String(), "no app reads a subscription")
	r.stop()
	r.app("a", "2", "a", "")
	r.start()
	if got := r.publish("a.s.temperature", 1); got != 2 {
		t.Errorf("the next message is %d, want 2", got)
	}
	r.handled("a", 1) // of the second message alone
}

func TestNode_sameKeyTwice(t *testing.T) {
	account, module := seed(t, claims.Account), seed(t, claims.Module)
	wasm, err := claims.SignModule(quiet, claims.Claims[claims.ModuleClaims]{
		Subject: module.Key().String(), Wascap: claims.ModuleClaims{Caps: []string{"edged:pubsub"}},
	}, account)
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, unsigned)
	for _, app := range []string{"a", "b"} {
		r.write("apps/"+app+"/app.toml", greenhouse(app, "1", app, ""))
		r.write("apps/"+app+"/thermostat.wasm", string(wasm))
	}
	r.start()
	if got := r.running(); got != "a 1" {
		t.Errorf("runs %s, want a alone", got)
	}
	contains(t, strings.Join(r.Status().Problems, "\n"), "app b: ", module.Key().String(), "actor thermostat of app a", "a module key of its own")
}

func seed(t *testing.T, kind claims.Kind) claims.Seed {
	t.Helper()
	s, err := claims.Generate(kind)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// quiet is the smallest actor: it answers every call, with nothing.
var quiet = slices.Concat(
	[]byte("\x00asm\x01\x00\x00\x00"),
	[]byte("\x01\x07\x01\x60\x02\x7f\x7f\x01\x7f"), // one type: (i32, i32) → (i32)
	[]byte("\x03\x02\x01\x00"),                     // one function of it
	[]byte("\x05\x03\x01\x00\x01"),                 // one page of memory
	[]byte("\x07\x19\x02\x0c__guest_call\x00\x00\x06memory\x02\x00"),
	[]byte("\x0a\x06\x01\x04\x00\x41\x01\x0b"), // which returns 1
)
