package actors

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/edged-io/edged/internal/claims"
	"github.com/edged-io/edged/internal/config"
	"github.com/edged-io/edged/internal/logbuffer"
	"github.com/edged-io/edged/internal/logtext"
	"github.com/edged-io/edged/internal/node"
)

// issuer signs everything here.
var issuer = sync.OnceValue(func() claims.Seed {
	s, err := claims.Generate(claims.Account)
	if err != nil {
		panic(err)
	}
	return s
})

// wat assembles a guest of the folder wat.
func wat(t *testing.T, name string) []byte {
	t.Helper()
	out := filepath.Join(t.TempDir(), name+".wasm")
	if text, err := exec.Command("wat2wasm", "--debug-names", "-o", out, filepath.Join("wat", name+".wat")).CombinedOutput(); err != nil {
		t.Fatalf("wat2wasm (apt-get install wabt): %v\n%s", err, text)
	}
	return read(t, out)
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// actor is one of an app: a signed module, and the capabilities that its manifest gives it.
type actor struct {
	name         string
	wasm         []byte
	key          string
	capabilities []string // of the manifest
	time         string   // limit; "" for 30s
}

// mandate is what the claims of an actor say.
type mandate struct {
	alias string
	caps  []string
}

var all = []string{"wasmcloud:httpserver", "wasmcloud:keyvalue", "wasmcloud:builtin:logging", "wasmcloud:builtin:numbergen"}

// sign is how modules are signed today: section wasmcloud_jwt, revision 3.
func sign(t *testing.T, wasm []byte, name string, m mandate) (signed []byte, key string) {
	t.Helper()
	module, err := claims.Generate(claims.Module)
	if err != nil {
		t.Fatal(err)
	}
	key = module.Key().String()
	signed, err = claims.SignModule(wasm, claims.Claims[claims.ModuleClaims]{
		Subject: key, Wascap: claims.ModuleClaims{Name: name, Caps: m.caps, CallAlias: m.alias, Rev: 1, Ver: "0.1.0"},
	}, issuer())
	if err != nil {
		t.Fatal(err)
	}
	return signed, key
}

// sign2021 is how they were signed in 2021: sections whose lengths are padded to five bytes, a hash over just these
// bytes, section jwt, no revision of the signing tool, the header's keys the other way round, an empty capability.
func sign2021(t *testing.T, wasm []byte, name string, m mandate) (signed []byte, key string) {
	t.Helper()
	module, err := claims.Generate(claims.Module)
	if err != nil {
		t.Fatal(err)
	}
	key = module.Key().String()
	out := bytes.Clone(wasm[:8])
	for rest := wasm[8:]; len(rest) > 0; {
		n, width := binary.Uvarint(rest[1:])
		out = append(append(out, rest[0]), byte(n)|0x80, byte(n>>7)|0x80, byte(n>>14)|0x80, byte(n>>21)|0x80, byte(n>>28))
		out = append(out, rest[1+width:1+width+int(n)]...)
		rest = rest[1+width+int(n):]
	}
	body, err := json.Marshal(map[string]any{
		"jti": "AAAAAAAAAAAAAAAAAAAAAA", "iat": 1620000000, "iss": issuer().Key().String(), "sub": key,
		"wascap": map[string]any{
			"name": name, "hash": fmt.Sprintf("%X", sha256.Sum256(out)), "tags": nil, "caps": append([]string{""}, m.caps...),
			"rev": 0, "ver": "0.0.1", "call_alias": m.alias, "prov": false,
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	text := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"Ed25519","typ":"jwt"}`)) + "." + base64.RawURLEncoding.EncodeToString(body)
	signature, err := issuer().Sign([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	section := "\x03jwt" + text + "." + base64.RawURLEncoding.EncodeToString(signature)
	out = binary.AppendUvarint(append(out, 0), uint64(len(section)))
	return append(out, section...), key
}

type signer func(t *testing.T, wasm []byte, name string, m mandate) ([]byte, string)

// newActor signs a module for an actor that is given all that its mandate allows.
func newActor(t *testing.T, s signer, wasm []byte, name string, m mandate) actor {
	t.Helper()
	a := actor{name: name}
	a.wasm, a.key = s(t, wasm, name, m)
	for _, c := range m.caps {
		switch c {
		case "wasmcloud:httpserver":
			a.capabilities = append(a.capabilities, "httpserver")
		case "wasmcloud:keyvalue":
			a.capabilities = append(a.capabilities, "keyvalue")
		case "wasmcloud:builtin:logging":
			a.capabilities = append(a.capabilities, "logging")
		case "wasmcloud:builtin:numbergen":
			a.capabilities = append(a.capabilities, "numbergen")
		}
	}
	return a
}

// box is a box with one signed app.
type box struct {
	*node.Node
	t      *testing.T
	log    logbuffer.Buffer
	addr   node.Addresses
	cancel context.CancelFunc
	ended  chan struct{}
}

// codeDir keeps what compiling a guest left for all tests.
var codeDir string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "edged-actors-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	codeDir = filepath.Join(dir, "cache")
	code := 1
	if err := prepare(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
	} else {
		code = m.Run()
	}
	os.RemoveAll(dir)
	os.Exit(code)
}

// manifest is the app.toml of an app with these actors.
func manifest(actors []actor) string {
	text := "specversion = \"0.2\"\nname = \"zoo\"\nversion = \"1.0.0\"\n"
	for _, a := range actors {
		text += fmt.Sprintf("[[actor]]\nname = %q\nmodule = \"%s.wasm\"\nlimits = { time = %q }\n", a.name, a.name, cmp.Or(a.time, "30s"))
	}
	for _, a := range actors {
		for _, c := range a.capabilities {
			text += fmt.Sprintf("[[capability]]\nname = %q\nactor = %q\n", c, a.name)
			if c == "httpserver" {
				text += "[[capability.config]]\nlisten = \"127.0.0.1:0\"\n"
			}
		}
	}
	return text
}

// install writes a box into dir: its device file, and an app with these actors, all signed.
func install(t *testing.T, dir string, actors []actor, more string) (device *config.Device) {
	t.Helper()
	app := filepath.Join(dir, "apps", "zoo")
	for _, d := range []string{app, filepath.Join(dir, "state"), codeDir} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(codeDir, filepath.Join(dir, "state", "cache")); err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{
		filepath.Join(dir, "edged.toml"): fmt.Appendf(nil,
			"[device]\nid = \"press-7\"\n[lattice]\nname = \"plant\"\n[nats]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"\"\n[trust]\nissuers = [%q]\n", issuer().Key()),
		filepath.Join(app, "app.toml"): []byte(manifest(actors) + more),
	}
	for _, a := range actors {
		files[filepath.Join(app, a.name+".wasm")] = a.wasm
	}
	for path, b := range files {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := claims.SignApp(app, "zoo", "1.0.0", issuer()); err != nil {
		t.Fatal(err)
	}
	device, err := config.LoadDevice(filepath.Join(dir, "edged.toml"))
	if err != nil {
		t.Fatal(err)
	}
	return device
}

// start runs a box with these actors until the test ends.
func start(t *testing.T, actors ...actor) *box {
	t.Helper()
	return startWith(t, "", actors...)
}

// startWith is start with more in the manifest.
func startWith(t *testing.T, more string, actors ...actor) *box {
	t.Helper()
	b := run(t, more, actors...)
	if apps := b.Status().Apps; len(apps) != 1 {
		t.Fatalf("the app does not run:\n%s", b.log.String())
	}
	return b
}

// run runs a box that may refuse the app.
func run(t *testing.T, more string, actors ...actor) *box {
	t.Helper()
	b := &box{t: t, ended: make(chan struct{})}
	device := install(t, t.TempDir(), actors, more)
	var err error
	b.Node, err = node.New(node.Options{
		Device: device, Version: "test", Logger: slog.New(logtext.NewHandler(&b.log, nil)),
		MachineID: func() (string, error) { return "machine", nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	b.cancel = cancel
	ready := make(chan node.Addresses, 1)
	go func() { // the cleanup waits
		defer close(b.ended)
		if err := b.Run(ctx, func(a node.Addresses) { ready <- a }); err != nil {
			t.Errorf("the box ended with %v", err)
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-b.ended
		if t.Failed() {
			t.Logf("the log of the box:\n%s", b.log.String())
		}
	})
	select {
	case b.addr = <-ready:
	case <-time.After(2 * time.Minute):
		t.Fatal("the box is not ready")
	}
	return b
}

// eventually waits until ok.
func (b *box) eventually(what string, ok func() bool) {
	b.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	end := time.After(2 * time.Minute)
	for !ok() {
		select {
		case <-tick.C:
		case <-end:
			b.t.Fatalf("in vain: %s", what)
		}
	}
}

// call has an actor do something and returns its reply as it is, or "error: " and the text.
func (b *box) call(actor, operation, payload string) string {
	b.t.Helper()
	reply, err := b.Call(b.t.Context(), actor, operation, []byte(payload))
	if err != nil {
		return "error: " + err.Error()
	}
	return string(reply)
}

// get asks the box's first HTTP listener, and shows the answer as "200 body".
func (b *box) get(path, body string) string {
	b.t.Helper()
	request, err := http.NewRequestWithContext(b.t.Context(), http.MethodGet, "http://"+b.addr.HTTP["zoo-httpserver-1"]+path, strings.NewReader(body))
	if err != nil {
		b.t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		b.t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return fmt.Sprint(answer.StatusCode, " ", string(text))
}

// same compares bytes that are text for the most part.
func same(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s:\n got %q,\nwant %q", what, got, want)
	}
}

func has(t *testing.T, what, got string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(got, p) {
			t.Errorf("%s: %q is missing in %q", what, p, got)
		}
	}
}
