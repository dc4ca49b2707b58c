package child_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/edged-io/edged/internal/cgroup"
	"github.com/edged-io/edged/internal/claims"
	"github.com/edged-io/edged/lattice"
	"github.com/edged-io/edged/lattice/wire"
	"github.com/edged-io/edged/providers/child"
)

// A provider is told who it is, serves an actor, calls it back, and ends when it is
// asked to.
func TestManager_provider(t *testing.T) {
	t.Setenv("EDGED_SECRET", "of the box")
	b := startBox(t, nil)
	key := b.start("good", func(s *child.Spec) {
		s.Config, s.App, s.Env = `{"a":1}`, "greenhouse", map[string]string{"MODE": "fast"}
	})
	l := b.link(key, map[string]string{"n": "1"})
	if got := b.ask(l, "Test.Echo", "hi"); got != "Test.Echo hi" {
		t.Errorf("got %q", got)
	}
	var h wire.HostData
	if err := json.Unmarshal([]byte(b.ask(l, "Test.Where", "")), &h); err != nil {
		t.Fatal(err)
	}
	if h.Provider != key || h.LinkName != "default" || h.Lattice != "home" || h.Config != `{"a":1}` || h.Instance != b.status().Instance {
		t.Errorf("host data of another: %+v", h.Provider)
	}
	if s, err := claims.ParseSeed(h.Seed); err != nil || s.Kind() != claims.Cluster || s.Key() == b.cluster.Key() {
		t.Errorf("the provider signs by %v, %v: want a key of its own", s, err)
	}
	env := b.ask(l, "Test.Env", "")
	if strings.Contains(env, "EDGED_SECRET") || !strings.Contains(env, "MODE=fast") || !strings.Contains(env, "HOME="+b.dir) {
		t.Errorf("environment %s", env)
	}
	b.linked(l)
	if got := b.ask(l, "Test.CallActor", key); got != "actor got hello" {
		t.Errorf("got %q", got)
	}
	b.until("healthy", func() bool { return b.status().Health == child.Healthy })
	s := b.status()
	if s.State != child.Running || s.PID == 0 || s.App != "greenhouse" || s.Contract != "acme:test" || s.Restarts != 0 || s.Remote {
		t.Errorf("status %+v", s)
	}
	if err := b.Stop(t.Context(), key, ""); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(b.log.String(), "cleaning up") || strings.Contains(b.log.String(), "killed") {
		t.Errorf("it was not asked to end:\n%s", b.log)
	}
	if all, names := b.Running(), b.users.names(); len(all)+len(names) != 0 {
		t.Errorf("left: %+v, users %v", all, names)
	}
	if got := b.states(); got != "idle running stopped" {
		t.Errorf("states %s", got)
	}
	if _, err := b.call(l, "Test.Echo", ""); !errors.Is(err, lattice.ErrNoEntity) {
		t.Errorf("after it stopped: %v", err)
	}
	if err := b.Stop(t.Context(), key, ""); !errors.Is(err, child.ErrUnknown) {
		t.Errorf("stopped twice: %v", err)
	}
	for _, secret := range []string{h.Seed, h.URL} {
		if strings.Contains(b.log.String(), secret) {
			t.Error("the log has a secret")
		}
	}
}

// What a provider may not do with its login and its key (docs/security.md).
func TestManager_confined(t *testing.T) {
	b := startBox(t, nil)
	key := b.start("good", nil)
	l := b.link(key, map[string]string{"n": "1"})
	b.linked(l)
	other := b.start("good", nil)
	for _, try := range []string{
		"pwasmbus.ctl.home.linkdefs.put", "pwasmbus.rpc.home." + other + ".default", "pwasmbus.rpc.home." + key + ".default.linkdefs.put",
		"pwasmbus.evt.home", "swasmbus.rpc.home." + other + ".default", "swasmbus.rpc.home.>", "s>", "swasmbus.rpc.home." + l.Actor,
		"sedge.rpc.home.>", "sedge.rpc.home.box.*.*", "p$JS.API.INFO", "p$JS.API.STREAM.CREATE.OBJ_home", "p$JS.API.STREAM.INFO.OBJ_home",
		"p$JS.API.CONSUMER.CREATE.OBJ_home.x.$O.home.C.x", "p$O.home.C.x",
	} {
		if _, err := b.call(l, "Test.Try", try); err == nil || !strings.Contains(err.Error(), "ermissions") {
			t.Errorf("%s: %v", try, err)
		}
	}
	// In the name of another provider, and to an actor that it has no link with.
	if _, err := b.call(l, "Test.CallActor", other); err == nil || !strings.Contains(err.Error(), "trusted as provider "+key) {
		t.Errorf("as another provider: %v", err)
	}
	b.bus.DeleteLink(l)
	b.bus.PutLink(lattice.Link{Actor: l.Actor, Contract: l.Contract, Name: "other", Provider: key})
	direct := func() (string, error) {
		reply, err := b.bus.Call(t.Context(), lattice.Invocation{
			Origin: lattice.Entity{Key: l.Actor}, Target: lattice.Entity{Key: key, Link: "default"}, Contract: l.Contract,
			Operation: "Test.CallActor", Payload: []byte(key),
		})
		return string(reply), err
	}
	if _, err := direct(); err == nil || !strings.Contains(err.Error(), "no link") {
		t.Errorf("without a link: %v", err)
	}
}

// With the object store a provider reads and writes payloads, and has no other way to have
// something sent than that.
func TestManager_confined_objects(t *testing.T) {
	b := startBox(t, func(o *child.Options) { o.Objects, o.JetStreamDomain = true, "hub" })
	key := b.start("good", nil)
	l := b.link(key, map[string]string{"n": "1"})
	b.linked(l)
	for _, api := range []string{"$JS.API.", "$JS.hub.API."} {
		for _, try := range []string{
			"STREAM.CREATE.OBJ_home", "STREAM.UPDATE.OBJ_home", "STREAM.DELETE.OBJ_home", "STREAM.PURGE.EDGE_UP", "STREAM.NAMES",
			"CONSUMER.CREATE.OBJ_home.x", "CONSUMER.CREATE.OBJ_home.x.$O.home.>", "CONSUMER.DURABLE.CREATE.OBJ_home.x", "CONSUMER.CREATE.KV_LATTICEDATA_home.x.$KV.>",
		} {
			if _, err := b.call(l, "Test.Try", "p"+api+try); err == nil || !strings.Contains(err.Error(), "ermissions") {
				t.Errorf("%s: %v", try, err)
			}
		}
		for _, try := range []string{"STREAM.INFO.OBJ_home", "DIRECT.GET.OBJ_home.$O.home.M.eA==", "CONSUMER.CREATE.OBJ_home.x.$O.home.C.x", "CONSUMER.CREATE.OBJ_home", "STREAM.PURGE.OBJ_home"} {
			if _, err := b.call(l, "Test.Try", "p"+api+try); err != nil {
				t.Errorf("%s: %v", try, err)
			}
		}
	}
	b.ask(l, "Test.Echo", strings.Repeat("x", 950<<10))
}

// Where there is no JetStream, kits that would make the object store learn it at once.
func TestManager_confined_hubless(t *testing.T) {
	b := startBox(t, func(o *child.Options) { o.Objects, o.Hubless = true, true })
	l := b.link(b.start("good", nil), nil)
	b.linked(l)
	if _, err := b.call(l, "Test.Try", "p$JS.API.STREAM.CREATE.OBJ_home"); err != nil {
		t.Error(err)
	}
}

// What a provider is answered can not be read by another, whose kit knows only of the
// inboxes that all have.
func TestManager_inboxes(t *testing.T) {
	b := startBox(t, nil)
	hostile := b.start("classic", nil)
	spy := b.link(hostile, nil)
	b.ask(spy, "Test.Spy", "_INBOX.>")
	key := b.start("good", func(s *child.Spec) { s.OwnInbox = true })
	l := b.link(key, map[string]string{"n": "1"})
	b.linked(l)
	if got := b.ask(l, "Test.CallActor", key); got != "actor got hello" {
		t.Errorf("got %q", got)
	}
	if got := b.ask(spy, "Test.Spied", ""); got != "Test.Spied " {
		t.Errorf("it has read %q", got)
	}
	// One that is kept to its own has not even those.
	if _, err := b.call(l, "Test.Try", "s_INBOX.>"); err == nil || !strings.Contains(err.Error(), "ermissions") {
		t.Errorf("own inbox: %v", err)
	}
	if _, err := b.call(l, "Test.Echo", strings.Repeat("x", 950<<10)); err == nil || !strings.Contains(err.Error(), "provider_objects") {
		t.Errorf("a large payload, without the object store: %v", err)
	}
	// One with a classic kit calls actors, too.
	b.bus.PutLink(spy)
	if got := b.ask(spy, "Test.CallActor", hostile); got != "actor got hello" {
		t.Errorf("a classic kit: got %q", got)
	}
}

// What is private stays so, also for a process of the same user.
func TestManager_private(t *testing.T) {
	state := t.TempDir()
	secret, open := filepath.Join(state, "cluster.seed"), filepath.Join(t.TempDir(), "open")
	for _, name := range []string{secret, open} {
		if err := os.WriteFile(name, []byte("SC"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	creds := filepath.Join(filepath.Dir(open), "creds") // a file among others that are not private
	if err := os.WriteFile(creds, []byte("SU"), 0o600); err != nil {
		t.Fatal(err)
	}
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	nearby, err := filepath.Rel(here, creds) // as a device file that is named without its folder has them
	if err != nil {
		t.Fatal(err)
	}
	b := startBox(t, func(o *child.Options) {
		o.Dir, o.Private = filepath.Join(state, "providers"), []string{state, nearby, filepath.Join(state, "none")}
	})
	key := b.start("good", func(s *child.Spec) { s.Copy = true }) // into the private folder
	l := b.link(key, nil)
	if got := b.ask(l, "Test.Read", open); got != "SC" {
		t.Errorf("got %q", got)
	}
	b.ask(l, "Test.Write", "database") // in its own folder
	if child.Landlock() == 0 {
		if !strings.Contains(b.log.String(), "provider can read the files of the box") {
			t.Error("that it can is not told")
		}
		return
	}
	for _, try := range []string{secret, creds, "/proc/self/root" + secret, filepath.Join(state, "providers", "attached")} {
		if got, err := b.call(l, "Test.Read", try); err == nil || !strings.Contains(err.Error(), "denied") {
			t.Errorf("%s: %q, %v", try, got, err)
		}
	}
	if _, err := b.call(l, "Test.Write", filepath.Join(state, "x")); err == nil {
		t.Error("it writes among the files of the box")
	}
	if _, err := b.call(l, "Test.Signal", ""); child.Landlock() >= 6 && err == nil {
		t.Error("it can send signals to the box")
	}
	if b, err := os.ReadFile(secret); err != nil || string(b) != "SC" {
		t.Errorf("the box itself is confined: %v", err)
	}
}

// A link that is there at the start is in the host data; one that comes is put; one
// that changes is deleted and put; one that goes is deleted.
func TestManager_links(t *testing.T) {
	b := startBox(t, nil)
	key := newKey(t, claims.Service)
	first := b.link(key, map[string]string{"n": "1"})
	gone := b.link(key, map[string]string{"n": "9"})
	if err := b.DeleteLink(gone); err != nil {
		t.Fatal(err)
	}
	b.start("good", func(s *child.Spec) { s.Key = key })
	if got := b.values(first); len(got) != 1 || got[first.Actor] != "1" {
		t.Errorf("links at the start: %v", got)
	}
	if got := b.ask(first, "Test.Heard", ""); got != "null" {
		t.Errorf("what it knows was put again: %s", got)
	}
	second := b.link(key, map[string]string{"n": "2"})
	b.until("linked", func() bool { return b.values(first)[second.Actor] == "2" })
	second.Values = map[string]string{"n": "3"}
	b.put(second)
	b.until("changed", func() bool { return b.values(first)[second.Actor] == "3" })
	if got := b.ask(first, "Test.Heard", ""); !strings.HasPrefix(got, `["put 2\u003cnil\u003e","del 2\u003cnil\u003e","put 3\u003cnil\u003e"`) {
		t.Errorf("heard %s", got)
	}
	if err := b.DeleteLink(second); err != nil {
		t.Fatal(err)
	}
	b.until("unlinked", func() bool { return len(b.values(first)) == 1 })
	if err := b.PutLink(lattice.Link{Actor: "M", Provider: "V.>", Name: "x"}); err == nil {
		t.Error("a link to a wildcard")
	}
	if err := b.PutLink(lattice.Link{Actor: "M", Provider: key, Values: map[string]string{"n": strings.Repeat("x", 2<<20)}}); err == nil {
		t.Error("a link that no message can hold")
	}
}

// A process that dies is started again, and serves again with the links of then.
func TestManager_restarts(t *testing.T) {
	b := startBox(t, nil)
	key := b.start("good", nil)
	l := b.link(key, map[string]string{"n": "1"})
	b.ask(l, "Test.Echo", "")
	was := b.status()
	if err := syscall.Kill(was.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	b.until("restarted", func() bool { s := b.status(); return s.State == child.Running && s.PID != was.PID })
	if got := b.values(l); got[l.Actor] != "1" {
		t.Errorf("links after the restart: %v", got)
	}
	if s := b.status(); s.Restarts != 1 || s.Instance == was.Instance || s.Err != "" {
		t.Errorf("status %+v", s)
	}
	if got := b.states(); !strings.Contains(got, "running waiting running") || !strings.Contains(b.log.String(), "signal: killed") {
		t.Errorf("states %s\n%s", got, b.log)
	}
}

// One that always fails is given up, which can be seen; a link that changes has it
// tried again, and so has another Start.
func TestManager_givesUp(t *testing.T) {
	b := startBox(t, nil)
	key := b.start("crash", nil)
	failed := func() bool { return b.status().State == child.Failed }
	b.until("given up", failed)
	want := `given up after 4 starts: exit status 3: "cannot open /dev/ttyUSB7"`
	if s := b.status(); s.Err != want || s.PID != 0 || s.Restarts != 3 {
		t.Errorf("status %+v", s)
	}
	l := b.link(key, nil)
	b.until("tried again", func() bool { return b.status().Restarts > 3 })
	b.until("given up again", failed)
	if _, err := b.call(l, "Test.Echo", ""); !errors.Is(err, lattice.ErrNoEntity) || !strings.Contains(err.Error(), "given up") {
		t.Errorf("a call: %v", err)
	}
	b.start("good", func(s *child.Spec) { s.Key = key })
	b.ask(l, "Test.Echo", "")
	if n := strings.Count(b.log.String(), "is given up"); n != 2 {
		t.Errorf("given up %d times in the log", n)
	}
}

func TestManager_Start_refuses(t *testing.T) {
	b := startBox(t, nil)
	key := b.start("good", nil)
	dir := t.TempDir()
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	foreign := filepath.Join(dir, "foreign")
	if err := os.WriteFile(foreign, []byte("\x7fELF for another machine"), 0o755); err != nil {
		t.Fatal(err)
	}
	fresh := newKey(t, claims.Service)
	tests := []struct {
		name string
		spec child.Spec
		want error
	}{
		{"running", child.Spec{Key: key, Contract: "c:d", Program: program(t, "good")}, child.ErrRunning},
		{"key of an actor", child.Spec{Key: newKey(t, claims.Module), Contract: "c:d", Program: program(t, "good")}, claims.ErrKey},
		{"no contract", child.Spec{Key: fresh, Program: program(t, "good")}, nil},
		{"link name", child.Spec{Key: fresh, Contract: "c:d", LinkName: "a.>", Program: program(t, "good")}, nil},
		{"relative", child.Spec{Key: fresh, Contract: "c:d", Program: "sleep"}, child.ErrProgram},
		{"no file", child.Spec{Key: fresh, Contract: "c:d", Program: filepath.Join(dir, "none")}, os.ErrNotExist},
		{"folder", child.Spec{Key: fresh, Contract: "c:d", Program: dir}, child.ErrProgram},
		{"not executable", child.Spec{Key: fresh, Contract: "c:d", Program: plain}, child.ErrProgram},
		{"another architecture", child.Spec{Key: fresh, Contract: "c:d", Program: foreign}, child.ErrProgram},
		{"no interpreter", child.Spec{Key: fresh, Contract: "c:d", Program: script(t, "#!/no/such/shell\n")}, child.ErrProgram},
		{"user", child.Spec{Key: fresh, Contract: "c:d", Program: program(t, "good"), Limits: child.Limits{User: "no such user"}}, nil},
	}
	for _, tt := range tests {
		err := b.Start(t.Context(), tt.spec)
		if err == nil || tt.want != nil && !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
	}
	if all := b.Running(); len(all) != 1 || len(b.users.names()) != 1 {
		t.Errorf("left: %+v, users %v", all, b.users.names())
	}
}

// What a provider started ends with it, and one that does not end is killed.
func TestManager_killsTheGroup(t *testing.T) {
	b := startBox(t, nil)
	b.HastenEnd()
	forks := b.start("forks", nil)
	b.until("forked", func() bool { return strings.Contains(b.log.String(), "forked ") })
	_, rest, _ := strings.Cut(b.log.String(), `text="forked `)
	text, _, _ := strings.Cut(rest, `"`)
	pid, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	stubborn, deaf := b.start("stubborn", nil), b.start("deaf", nil)
	b.until("here", func() bool { return strings.Contains(b.log.String(), "deaf is here") })
	b.link(deaf, map[string]string{"n": strings.Repeat("x", 100<<10)}) // more than a pipe holds, in the line of the next one
	for _, key := range []string{forks, stubborn, deaf} {
		if err := b.Stop(t.Context(), key, ""); err != nil {
			t.Error(err)
		}
	}
	b.until("gone", func() bool { return syscall.Kill(pid, 0) != nil || zombie(pid) })
	if !strings.Contains(b.log.String(), "does not end when it is asked to, it is killed") {
		t.Error(b.log)
	}
}

// Where there are cgroups, what has left the group ends, too.
func TestManager_killsWhatLeft(t *testing.T) {
	b := startBox(t, nil)
	b.HastenEnd()
	key := b.start("", func(s *child.Spec) {
		s.Name, s.Program = "leaves", script(t, "#!/bin/sh\nsetsid sh -c 'echo left $$; exec sleep 1000' &\nexec sleep 1000\n")
	})
	b.until("left", func() bool { return strings.Contains(b.log.String(), `text="left `) })
	_, rest, _ := strings.Cut(b.log.String(), `text="left `)
	text, _, _ := strings.Cut(rest, `"`)
	pid, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Stop(t.Context(), key, ""); err != nil {
		t.Fatal(err)
	}
	tree, err := cgroup.OpenTree()
	if err == nil {
		var g *cgroup.Group
		if g, _, err = tree.New("edged-test", cgroup.Limits{}); err == nil {
			err = errors.Join(g.Kill(), g.Remove())
		}
	}
	if err != nil { // no cgroups, or none that can be killed
		_ = syscall.Kill(pid, syscall.SIGKILL)
		return
	}
	b.until("gone", func() bool { return syscall.Kill(pid, 0) != nil || zombie(pid) })
}

// zombie says whether a process has ended and waits for whoever inherited it.
func zombie(pid int) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err != nil || bytes.Contains(b, []byte(") Z "))
}

// All end with the box, at once, and with a process that takes no stdin.
func TestManager_Run_ends(t *testing.T) {
	b := newBox(t, nil)
	b.HastenEnd()
	key := newKey(t, claims.Service)
	b.link(key, map[string]string{"n": strings.Repeat("x", 100<<10)})
	b.start("deaf", func(s *child.Spec) { s.Key = key })
	b.start("stubborn", nil)
	b.start("good", nil)
	for _, s := range b.Running() {
		if s.State != child.Idle || s.PID != 0 {
			t.Errorf("it runs before the box does: %+v", s)
		}
	}
	b.stop = run(t, b.Manager.Run)
	b.until("running", func() bool {
		for _, s := range b.Running() {
			if s.State != child.Running {
				return false
			}
		}
		return strings.Contains(b.log.String(), "deaf is here")
	})
	all := b.Running()
	b.stop()
	for _, s := range all {
		if syscall.Kill(s.PID, 0) == nil && !zombie(s.PID) {
			t.Errorf("%s still runs", s.Name)
		}
	}
}

func TestManager_health(t *testing.T) {
	b := startBox(t, nil)
	b.start("sick", nil)
	b.until("unwell", func() bool {
		s := b.status()
		return s.Health == child.Unhealthy && s.HealthText == "the sensor is gone"
	})
	if s := b.status(); s.State != child.Running {
		t.Errorf("one that is unwell is left alone: %+v", s)
	}
	quiet := startBox(t, nil)
	quiet.HastenEnd()
	quiet.SetPatience(0)
	key := quiet.start("deaf", nil)
	quiet.until("silent", func() bool {
		s := quiet.status()
		return s.Health == child.Unhealthy && s.HealthText == "it does not listen"
	})
	if _, err := quiet.call(quiet.link(key, nil), "Test.Echo", ""); !errors.Is(err, lattice.ErrNoEntity) {
		t.Errorf("a call: %v", err)
	}
}

// What a provider writes is bounded, in lines and in how long they are.
func TestManager_output(t *testing.T) {
	b := startBox(t, nil)
	b.HastenEnd()
	key := b.start("flood", nil)
	b.until("dropped", func() bool { return strings.Contains(b.log.String(), "lines are dropped") })
	if err := b.Stop(t.Context(), key, ""); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(b.log.String()) {
		if len(line) > 3<<10 {
			t.Fatalf("a line of %d bytes", len(line))
		}
	}
	if !strings.Contains(b.log.String(), "provider output was dropped") {
		t.Error("how much was dropped is not told")
	}
}

// archive makes a provider archive for this machine.
func (b *box) archive(key claims.Seed, text string, by claims.Seed) string {
	b.t.Helper()
	dir := b.t.TempDir()
	program := filepath.Join(dir, "program")
	if err := os.WriteFile(program, []byte(text), 0o644); err != nil {
		b.t.Fatal(err)
	}
	path := filepath.Join(dir, "test.par")
	f, err := os.Create(path)
	if err != nil {
		b.t.Fatal(err)
	}
	defer f.Close()
	err = claims.WriteArchive(f, claims.Claims[claims.ProviderClaims]{
		Subject: key.Key().String(),
		Wascap:  claims.ProviderClaims{Name: "Test", Contract: "acme:test", Vendor: "Acme", Rev: 3, Ver: "0.3.0"},
	}, map[string]string{claims.Targets(goruntime.GOOS, goruntime.GOARCH)[0]: program}, by)
	if err != nil {
		b.t.Fatal(err)
	}
	return path
}

func TestManager_archive(t *testing.T) {
	b := startBox(t, nil)
	good, err := os.ReadFile(program(t, "good"))
	if err != nil {
		t.Fatal(err)
	}
	key := seed(t, claims.Service)
	path := b.archive(key, string(good), b.account)
	if err := b.Start(t.Context(), child.Spec{Archive: path, Ref: "file:" + path}); err != nil {
		t.Fatal(err)
	}
	l := b.link(key.Key().String(), nil)
	b.ask(l, "Test.Echo", "")
	if s := b.status(); s.Key != key.Key().String() || s.Contract != "acme:test" || s.Name != "Test" || s.Version != "0.3.0" || s.Revision != 3 {
		t.Errorf("status %+v", s)
	}
	unpacked := func() []string {
		names, err := filepath.Glob(filepath.Join(b.dir, "programs", "*"))
		if err != nil {
			t.Fatal(err)
		}
		return names
	}
	// The same key and revision with other bytes is another program.
	was := unpacked()
	other := b.archive(key, string(good)+"# changed\n", b.account)
	if err := b.Start(t.Context(), child.Spec{Archive: other}); !errors.Is(err, child.ErrRunning) {
		t.Errorf("two of one key: %v", err)
	}
	if err := b.Stop(t.Context(), l.Provider, ""); err != nil {
		t.Fatal(err)
	}
	if err := b.Start(t.Context(), child.Spec{Archive: other}); err != nil {
		t.Fatal(err)
	}
	b.ask(l, "Test.Echo", "")
	if now := unpacked(); len(was) != 1 || len(now) != 1 || was[0] == now[0] {
		t.Errorf("unpacked %v, then %v", was, now)
	}
	// A program that was changed on the disk is unpacked again.
	if err := b.Stop(t.Context(), l.Provider, ""); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(unpacked()[0], []byte("#!/bin/sh\nexit 9\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := b.Start(t.Context(), child.Spec{Archive: other}); err != nil {
		t.Fatal(err)
	}
	b.ask(l, "Test.Echo", "")
	if err := b.Stop(t.Context(), l.Provider, ""); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		spec child.Spec
		want error
	}{
		"stranger":         {child.Spec{Archive: b.archive(key, "x", seed(t, claims.Account))}, claims.ErrUnknownIssuer},
		"another key":      {child.Spec{Archive: path, Key: newKey(t, claims.Service)}, claims.ErrHash},
		"another contract": {child.Spec{Archive: path, Contract: "acme:other"}, claims.ErrHash},
		"no archive":       {child.Spec{Archive: program(t, "good")}, claims.ErrMalformed},
	} {
		if err := b.Start(context.Background(), tt.spec); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", name, err, tt.want)
		}
	}
	if now := unpacked(); len(now) != 1 {
		t.Errorf("left %v", now)
	}
}

// Somebody else has the last word on what starts, and is told who signed it.
func TestManager_permit(t *testing.T) {
	refused := errors.New("not in this plant")
	var asked []string
	b := startBox(t, func(o *child.Options) {
		o.Permit = func(_ context.Context, s child.Spec, issuer string) error {
			asked = append(asked, s.Key+" "+s.Contract+" "+s.LinkName+" "+issuer)
			if s.Contract == "acme:test" {
				return refused
			}
			return nil
		}
	})
	good, err := os.ReadFile(program(t, "good"))
	if err != nil {
		t.Fatal(err)
	}
	key := seed(t, claims.Service)
	if err := b.Start(t.Context(), child.Spec{Archive: b.archive(key, string(good), b.account)}); !errors.Is(err, refused) {
		t.Errorf("got %v", err)
	}
	if want := key.Key().String() + " acme:test default " + b.account.Key().String(); len(asked) != 1 || asked[0] != want {
		t.Errorf("asked %q, want %q", asked, want)
	}
	if all := b.Running(); len(all) != 0 {
		t.Errorf("got %+v", all)
	}
}
