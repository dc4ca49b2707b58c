package box

import (
	"log/slog"
	"os"
	"strings"
	"testing"

	"github.com/edged-io/edged/broker"
	"github.com/edged-io/edged/internal/claims"
	"github.com/edged-io/edged/internal/ota"
)

// key makes an account key and returns the file of its seed.
func (b *box) key(name string) (file string, public string) {
	b.t.Helper()
	seed, err := claims.Generate(claims.Account)
	b.must(err)
	b.write(name+".seed", seed.Reveal())
	return name + ".seed", seed.Key().String()
}

func (b *box) sign(dir, seed string) {
	b.t.Helper()
	if code, _, errOut := b.edged("sign", "--seed", seed, dir); code != 0 {
		b.t.Fatalf("sign: %s", errOut)
	}
}

// An app that is not signed as it has to be does not get onto the box, whichever
// way it comes, and what runs goes on.
func TestBox_badSignature(t *testing.T) {
	hub := broker.NewHubServer(t.TempDir(), slog.New(slog.DiscardHandler))
	if err := hub.Start(); err != nil {
		t.Fatal(err)
	}
	defer hub.Stop()
	b := newBox(t, "")
	ours, public := b.key("ours")
	theirs, stranger := b.key("theirs")
	device, err := os.ReadFile(b.path("edged.toml"))
	b.must(err)
	b.write("edged.toml", string(device)+"[hub]\nurl = \"nats-leaf://"+hub.LeafAddr()+"\"\n[trust]\nissuers = [\""+public+"\"]\n")
	if code, _, errOut := b.edged("hub", "init", "--server", hub.ClientURL()); code != 0 {
		t.Fatalf("hub init: %s", errOut)
	}
	b.app("apps/good", "1")
	b.sign("apps/good", ours)
	b.start()
	b.store(1, 5)
	push := func(dir string) (code int, text string) {
		code, out, errOut := b.edged("push", "--server", hub.ClientURL(), "--device", "press-7", dir)
		return code, out + errOut
	}

	b.app("unsigned", "2")
	b.app("foreign", "3")
	b.sign("foreign", theirs)
	b.app("changed", "4")
	b.sign("changed", ours)
	for dir, want := range map[string]string{"unsigned": claims.ErrUnsigned.Error(), "foreign": stranger} {
		code, text := push(dir)
		if code != 4 {
			t.Errorf("push %s: exit code %d, want 4", dir, code)
		}
		contains(t, text, want)
		reported := b.status().Reported
		if reported == nil || reported.State != ota.RolledBack || !strings.Contains(reported.Error, want) {
			t.Errorf("reported %+v", reported)
		}
	}
	b.write("changed/thermostat.wasm", "another module")
	code, text := push("changed")
	if code != 4 {
		t.Errorf("push changed: exit code %d, want 4", code)
	}
	contains(t, text, claims.ErrHash.Error())

	// The same through the folder.
	b.must(os.RemoveAll(b.path("apps", "good")))
	for dir, want := range map[string]string{"unsigned": claims.ErrUnsigned.Error(), "foreign": stranger, "changed": claims.ErrHash.Error()} {
		b.must(os.Rename(b.path(dir), b.path("apps", "good")))
		code, _, errOut := b.edged("reload", "--config", "edged.toml")
		if code != 4 {
			t.Errorf("reload with %s: exit code %d, want 4", dir, code)
		}
		contains(t, errOut, want)
		b.must(os.Rename(b.path("apps", "good"), b.path(dir)))
	}
	b.publish(b.nats(), "greenhouse.s.temperature", []byte(`{"value":1}`))
	b.handled(1)
	if got := b.stream("kept"); got.Last != 5 || b.status().Apps[0].Version != "1" {
		t.Errorf("what was there before: %+v, %+v", got, b.status().Apps)
	}
	b.term()
}
