package node

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/edged-io/edged/internal/ota"
)

// streamsOnly is an app without actors, so that a box starts at once.
func streamsOnly(name, version string) string {
	return fmt.Sprintf("specversion = \"0.2\"\nname = %q\nversion = %q\n[[stream]]\nname = %q\nsubjects = [\"%s.>\"]\n", name, version, name, name)
}

// install puts a release of an app where updates have put it.
func (r *rig) install(which, name, version string) (folder string) {
	r.t.Helper()
	manifest := []byte(streamsOnly(name, version))
	sum := sha256.Sum256(manifest)
	digest := hex.EncodeToString(sum[:])
	d := ota.Desired{App: name, Version: version, Manifest: "sha256:" + digest}
	folder = "state/apps/" + name + "/" + strings.TrimPrefix(d.Release(), "sha256:")
	r.write(folder+"/app.toml", string(manifest))
	r.write("state/artifacts/"+digest, string(manifest))
	text, err := json.Marshal(map[string]any{"format": 1, "desired": d})
	if err != nil {
		r.t.Fatal(err)
	}
	r.write("state/apps/"+name+"/"+which, string(text))
	return folder
}

// damages is what can happen to a file.
var damages = []struct {
	name string
	do   func(path string, b []byte) error
}{
	{"empty", func(p string, b []byte) error { return os.WriteFile(p, nil, 0o600) }},
	{"one byte", func(p string, b []byte) error { return os.WriteFile(p, b[:min(1, len(b))], 0o600) }},
	{"half", func(p string, b []byte) error { return os.WriteFile(p, b[:len(b)/2], 0o600) }},
	{"all but the end", func(p string, b []byte) error { return os.WriteFile(p, b[:max(0, len(b)-2)], 0o600) }},
	{"a bit at the start", func(p string, b []byte) error { return flip(p, b, 0) }},
	{"a bit in the middle", func(p string, b []byte) error { return flip(p, b, len(b)/2) }},
	{"a bit near the end", func(p string, b []byte) error { return flip(p, b, len(b)*9/10) }},
	{"zeros", func(p string, b []byte) error { return os.WriteFile(p, make([]byte, len(b)), 0o600) }},
	{"ones", func(p string, b []byte) error { return os.WriteFile(p, bytes.Repeat([]byte{0xff}, len(b)), 0o600) }},
	{"zeros from the middle on", func(p string, b []byte) error { clear(b[len(b)/2:]); return os.WriteFile(p, b, 0o600) }},
	{"twice", func(p string, b []byte) error { return os.WriteFile(p, append(b, b...), 0o600) }},
	{"large", func(p string, b []byte) error { return os.WriteFile(p, bytes.Repeat([]byte("{["), 1<<20), 0o600) }},
	{"gone", func(p string, b []byte) error { return os.Remove(p) }},
	{"a folder", func(p string, b []byte) error { return os.Mkdir(p, 0o700) }},
	{"a link to nowhere", func(p string, b []byte) error { return os.Symlink("/nonexistent/file", p) }},
}

func flip(path string, b []byte, at int) error {
	if len(b) == 0 {
		return os.WriteFile(path, []byte{1}, 0o600)
	}
	b[at] ^= 0x10
	return os.WriteFile(path, b, 0o600)
}

// Whatever happens to a file in the state directory, the box starts and takes
// messages; where something was lost with it, its health says so.
func TestNode_damagedFiles(t *testing.T) {
	r := newRig(t, "[hub]\nurl = \"nats-leaf://127.0.0.1:1\"\n"+unsigned)
	r.write("apps/plain/app.toml", streamsOnly("plain", "1"))
	old, current := r.install("rollback", "pushed", "1"), r.install("current", "pushed", "2")
	r.start()
	for n := range 50 {
		r.publish("plain.a", n)
	}
	r.stop()
	good := r.path("good")
	if err := os.CopyFS(good, os.DirFS(r.path("state"))); err != nil {
		t.Fatal(err)
	}
	// What is named in the health of the box, "" for nothing: it can be made again.
	files := map[string]string{
		"store.db":             "a damaged file was set aside",
		"store.ballast":        "",
		"addresses.json":       "",
		"lattice.json":         "",
		"edged.sock":           "",
		"apps/state.json":      "",
		"apps/pushed/current":  "pushed",
		"apps/pushed/rollback": "",
		strings.TrimPrefix(current, "state/") + "/app.toml": "pushed",
		strings.TrimPrefix(old, "state/") + "/app.toml":     "",
	}
	cases := 0
	for name, named := range files {
		for _, d := range damages {
			if name == "store.db" && (d.name == "a folder" || d.name == "a link to nowhere") {
				continue // no damage of a disk, and a reason not to start
			}
			cases++
			t.Run(strings.ReplaceAll(name, "/", "_")+" "+d.name, func(t *testing.T) {
				r.t = t
				r.restore(good)
				path := r.path("state", filepath.FromSlash(name))
				b, err := os.ReadFile(path)
				if err != nil && !os.IsNotExist(err) {
					t.Fatal(err)
				}
				if d.name == "a folder" || d.name == "a link to nowhere" {
					if err := os.RemoveAll(path); err != nil {
						t.Fatal(err)
					}
				}
				if err := d.do(path, b); err != nil && !os.IsNotExist(err) {
					t.Fatal(err)
				}
				r.log.Take()
				r.start()
				defer r.stop()
				before := r.stream("plain").Last
				if seq := r.publish("plain.a", 1); seq != before+1 {
					t.Errorf("published as %d behind %d", seq, before)
				}
				problems := strings.Join(r.Status().Problems, "\n")
				t.Logf("%s; %s", r.running(), problems)
				if !strings.Contains(problems, named) && r.running() != "plain 1, pushed 2" {
					t.Errorf("%q is not in the problems of the box: %s\n%s", named, problems, r.log.String())
				}
			})
		}
	}
	r.t = t
	if cases < 100 {
		t.Errorf("only %d cases", cases)
	}
}

// restore makes the state directory what it was when good was copied.
func (r *rig) restore(good string) {
	r.t.Helper()
	if err := os.RemoveAll(r.path("state")); err != nil {
		r.t.Fatal(err)
	}
	if err := os.CopyFS(r.path("state"), os.DirFS(good)); err != nil {
		r.t.Fatal(err)
	}
}
