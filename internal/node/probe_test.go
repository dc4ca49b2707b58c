package node

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/edged-io/edged/broker"
	"github.com/edged-io/edged/sdk/go/msgpack"
	"github.com/edged-io/edged/store"
)

// probes is an app with actors of the module probe, each with state of its own,
// and more.
func probes(name, version, more string, actors ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "specversion = \"0.2\"\nname = %q\nversion = %q\n", name, version)
	for _, a := range actors {
		fmt.Fprintf(&b, "[[actor]]\nname = %[1]q\nmodule = \"probe.wasm\"\nlimits = { memory = \"64MiB\", time = \"30s\" }\n"+
			"[[capability]]\nname = \"keyvalue\"\nactor = %[1]q\n[[capability.config]]\nbucket = %[2]q\n", a, name+"-"+a)
	}
	return b.String() + more
}

// probe writes an app of probes into the apps folder.
func (r *rig) probe(name, version, more string, actors ...string) {
	r.t.Helper()
	r.write("apps/"+name+"/app.toml", probes(name, version, more, actors...))
	path := r.path("apps", name, "probe.wasm")
	_ = os.Remove(path)
	if err := os.Link(probe, path); err != nil {
		r.t.Fatal(err)
	}
}

// seen returns what a probe noted, a line each.
func (r *rig) seen(app, actor string) (lines []string) {
	err := r.db.List("kv/"+app+"-"+actor, "seen", func(_ string, value []byte) error {
		d := msgpack.NewDecoder(value)
		_, _, _, _, _ = d.Array(), d.Int(), d.Int(), d.Int(), d.Array() // as keyvalue keeps it
		lines = strings.Split(strings.TrimSuffix(d.Str(), "\n"), "\n")
		return d.Done()
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return lines
}

// sees waits until a probe has noted these lines, and nothing else.
func (r *rig) sees(app, actor string, want ...string) {
	r.t.Helper()
	var got []string
	r.eventually(fmt.Sprintf("%s/%s sees %q", app, actor, want), func() bool {
		got = r.seen(app, actor)
		return len(got) >= len(want)
	})
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		r.t.Errorf("%s/%s has seen\n%q, want\n%q", app, actor, got, want)
	}
}

// tell stores a message and returns its sequence, 0 if no stream keeps it.
func (r *rig) tell(subject, text string) uint64 {
	r.t.Helper()
	type answer struct {
		ack broker.Ack
		err error
	}
	done := make(chan answer, 1)
	r.broker.Publish(store.Message{Subject: subject, Data: []byte(text)}, func(a broker.Ack, err error) { done <- answer{a, err} })
	a := <-done
	if a.err != nil {
		r.t.Fatalf("publish %s: %v", subject, a.err)
	}
	return a.ack.Seq
}

// turn begins one.
func (r *rig) turn() (context.Context, *store.Turn) {
	t := r.db.Begin()
	return store.WithTurn(r.t.Context(), t), t
}
