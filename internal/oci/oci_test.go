package oci_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/edged-io/edged/internal/logbuffer"
	"github.com/edged-io/edged/internal/oci"
	"github.com/edged-io/edged/internal/oci/ocitest"
)

var logger = slog.New(slog.NewTextHandler(io.Discard, nil))

func fetcher(t *testing.T, opts oci.Options) *oci.Fetcher {
	t.Helper()
	if opts.Dir == "" {
		opts.Dir = t.TempDir()
	}
	if opts.Logger == nil {
		opts.Logger = logger
	}
	f, err := oci.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	f.Hurry()
	return f
}

func insecure(r *ocitest.Registry) oci.Options { return oci.Options{Insecure: []string{r.Host}} }

// want checks that a reference brings these bytes.
func want(t *testing.T, f *oci.Fetcher, ref string, data []byte) (path string) {
	t.Helper()
	path, digest, err := f.Fetch(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(got, data) {
		t.Fatalf("got %d bytes, %v, want %d", len(got), err, len(data))
	}
	if want := digestOf(data); digest != want {
		t.Fatalf("got %s, want %s", digest, want)
	}
	return path
}

func wantError(t *testing.T, f *oci.Fetcher, ref string, want error, texts ...string) {
	t.Helper()
	path, _, err := f.Fetch(t.Context(), ref)
	if !errors.Is(err, want) {
		t.Fatalf("%s: got %q, %v, want %v", ref, path, err, want)
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("%q is not in %q", text, err)
		}
	}
}

func digestOf(data []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(data)) }

func noise(n int) []byte {
	data := make([]byte, n)
	r := rand.New(rand.NewPCG(1, uint64(n)))
	for i := range data {
		data[i] = byte(r.Uint32())
	}
	return data
}

func actor(data []byte) ocitest.Layer { return ocitest.Layer{Type: oci.ActorLayer, Data: data} }

func TestFetcher_Fetch(t *testing.T) {
	r := ocitest.New(t)
	code, archive := []byte("code"), noise(300_000)
	actorRef, manifest := r.Push("wasmcloud/echo:0.3.8", actor(code))
	archiveRef, _ := r.Push("provider:1", ocitest.Layer{Type: oci.ProviderLayer, Data: archive})
	component, _ := r.Push("component:1", ocitest.Layer{Type: oci.WasmLayer, Data: code[:2]})
	parts, _ := r.Push("parts:1", actor([]byte("ab")), ocitest.Layer{Type: "application/vnd.oci.image.layer.v1.tar", Data: []byte("cd")}, actor([]byte("ab")))
	f := fetcher(t, insecure(r))

	path := want(t, f, actorRef, code)
	want(t, f, archiveRef, archive)
	want(t, f, component, code[:2])
	want(t, f, parts, []byte("abcdab"))
	r.Requests()

	want(t, f, actorRef, code)
	if asked := r.Requests(); len(asked) != 1 || !strings.Contains(asked[0], "/manifests/") {
		t.Errorf("held content was asked for: %q", asked)
	}
	want(t, f, strings.Replace(actorRef, "wasmcloud/echo", "WasmCloud/Echo", 1), code) // as classic hosts take it
	pinned := r.Host + "/wasmcloud/echo@" + manifest
	want(t, f, pinned, code)
	want(t, f, r.Host+"/wasmcloud/echo:any@"+manifest, code)
	want(t, f, digestOf(code), code)
	r.Requests()
	if again := want(t, f, pinned, code); again != path || len(r.Requests()) != 0 {
		t.Errorf("got %s after %s, or the registry was asked what a digest means", again, path)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o444 {
		t.Errorf("got %v, %v, want a file that nobody writes to", info, err)
	}
	wantError(t, f, r.Host+"/wasmcloud/echo:0.3.9", oci.ErrNotFound, r.Host)
	wantError(t, f, r.Host+"/other@"+manifest, oci.ErrNotFound)
	wantError(t, f, digestOf([]byte("unknown")), oci.ErrNotFound)
}

// A tag means what the registry says it does, and without the registry what it meant last.
func TestFetcher_Fetch_offline(t *testing.T) {
	var log logbuffer.Buffer
	r := ocitest.New(t)
	opts := insecure(r)
	opts.Dir, opts.Logger = t.TempDir(), slog.New(slog.NewTextHandler(&log, nil))
	ref, _ := r.Push("a:1", actor([]byte("old")))
	want(t, fetcher(t, opts), ref, []byte("old"))
	r.Push("a:1", actor([]byte("new")))
	want(t, fetcher(t, opts), ref, []byte("new"))

	for _, status := range []int{http.StatusServiceUnavailable, http.StatusTooManyRequests, http.StatusBadGateway} {
		log.Take()
		r.Set(func(r *ocitest.Registry) { r.Status = status })
		want(t, fetcher(t, opts), ref, []byte("new"))
		if !strings.Contains(log.String(), "what it named last is used") {
			t.Errorf("%d: the log does not tell: %s", status, log.String())
		}
	}
	// An answer is an answer.
	r.Set(func(r *ocitest.Registry) { r.Status = http.StatusForbidden })
	wantError(t, fetcher(t, opts), ref, oci.ErrLogin)
	r.Set(func(r *ocitest.Registry) { r.Status = http.StatusNotFound })
	wantError(t, fetcher(t, opts), ref, oci.ErrNotFound)

	r.Close()
	f := fetcher(t, opts)
	want(t, f, ref, []byte("new"))
	want(t, f, digestOf([]byte("old")), []byte("old"))
	wantError(t, f, r.Host+"/a:2", oci.ErrUnreachable, r.Host)
	if _, digest, ok := f.Held(ref); !ok || digest != digestOf([]byte("new")) {
		t.Errorf("got %s, %v", digest, ok)
	}
	if _, _, ok := f.Held(r.Host + "/a:2"); ok {
		t.Error("holds what it never fetched")
	}
}

func TestFetcher_Fetch_logins(t *testing.T) {
	secret := ocitest.Layer{Type: oci.ActorLayer, Data: []byte("secret")}
	for name, setup := range map[string]func(*ocitest.Registry) oci.Login{
		"basic": func(r *ocitest.Registry) oci.Login {
			r.User, r.Password = "me", "open sesame"
			return oci.Login{User: "me", Password: "open sesame"}
		},
		"bearer": func(r *ocitest.Registry) oci.Login {
			r.User, r.Password, r.Bearer = "me", "open sesame", true
			return oci.Login{User: "me", Password: "open sesame"}
		},
		"token": func(r *ocitest.Registry) oci.Login {
			r.Token = "t0ken"
			return oci.Login{Token: "t0ken"}
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := ocitest.NewTLS(t)
			login := setup(r)
			ref, _ := r.Push("secret:1", secret)
			f := fetcher(t, oci.Options{CA: r.CA, Logins: map[string]oci.Login{"other.example:5000": login}})
			wantError(t, f, ref, oci.ErrLogin, r.Host)
			f.SetLogins(map[string]oci.Login{r.Host: {User: "me", Password: "wrong", Token: "wrong"}})
			wantError(t, f, ref, oci.ErrLogin)
			f.SetLogins(map[string]oci.Login{strings.ToUpper(r.Host): login})
			want(t, f, ref, secret.Data)
			f.SetLogins(map[string]oci.Login{r.Host: {}})
			wantError(t, f, ref, oci.ErrLogin)
			if text := fmt.Sprintf("%v %+v %#v", login, login, login); strings.Contains(text, "sesame") || strings.Contains(text, "t0ken") {
				t.Errorf("a login shows itself: %s", text)
			}
		})
	}
}

// A login is for its registry, wherever that sends the box.
func TestFetcher_Fetch_redirect(t *testing.T) {
	other := ocitest.New(t)
	r := ocitest.New(t)
	r.User, r.Password, r.Elsewhere = "me", "open sesame", "http://"+other.Host
	ref, _ := r.Push("a:1", actor([]byte("code")))
	other.Blob([]byte("code"))
	f := fetcher(t, oci.Options{Insecure: []string{r.Host}, Logins: map[string]oci.Login{r.Host: {User: "me", Password: "open sesame"}}})
	want(t, f, ref, []byte("code"))

	other.Set(func(o *ocitest.Registry) { o.User, o.Password = "me", "open sesame" })
	ref, _ = r.Push("a:2", actor([]byte("more")))
	other.Blob([]byte("more"))
	wantError(t, f, ref, oci.ErrLogin)
}

func TestFetcher_Fetch_tls(t *testing.T) {
	r := ocitest.NewTLS(t)
	ref, _ := r.Push("a:1", actor([]byte("code")))
	want(t, fetcher(t, oci.Options{CA: r.CA}), ref, []byte("code"))
	wantError(t, fetcher(t, oci.Options{}), ref, oci.ErrUnreachable, "certificate")
	if _, err := oci.New(oci.Options{Dir: t.TempDir(), Logger: logger, CA: []byte("none")}); err == nil {
		t.Error("a CA that is none is taken")
	}
	plain := ocitest.New(t)
	ref, _ = plain.Push("a:1", actor([]byte("code")))
	wantError(t, fetcher(t, oci.Options{}), ref, oci.ErrUnreachable, "insecure")
}

func TestFetcher_Fetch_switches(t *testing.T) {
	r := ocitest.New(t)
	ref, _ := r.Push("a:latest", actor([]byte("code")))
	f := fetcher(t, insecure(r))
	wantError(t, f, ref, oci.ErrRefused, "allow_latest = true")
	wantError(t, f, r.Host+"/a", oci.ErrReference, "tag")
	opts := insecure(r)
	opts.Latest = true
	f = fetcher(t, opts)
	want(t, f, ref, []byte("code"))
	want(t, f, r.Host+"/a", []byte("code"))

	file := filepath.Join(t.TempDir(), "a b.wasm")
	if err := os.WriteFile(file, []byte("in a file"), 0o600); err != nil {
		t.Fatal(err)
	}
	wantError(t, f, file, oci.ErrRefused, "allow_files = true")
	opts = oci.Options{Files: true, Dir: t.TempDir()}
	f = fetcher(t, opts)
	want(t, f, "file://"+file, []byte("in a file"))
	want(t, f, "file://"+strings.ReplaceAll(file, " ", "%20"), []byte("in a file"))
	path := want(t, f, file, []byte("in a file"))
	// What was handed out stays as it is.
	if err := os.WriteFile(file, []byte("changed"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != "in a file" {
		t.Errorf("got %q, %v", got, err)
	}
	want(t, f, file, []byte("changed"))
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	wantError(t, f, file, oci.ErrNotFound, file)
	if _, digest, ok := fetcher(t, opts).Held(file); !ok || digest != digestOf([]byte("changed")) {
		t.Errorf("got %s, %v, want what was there last", digest, ok)
	}
	wantError(t, f, filepath.Dir(file), oci.ErrContent)
}

func TestFetcher_Fetch_hub(t *testing.T) {
	code := []byte("of the hub")
	asked := 0
	f := fetcher(t, oci.Options{CacheBytes: 1000, Hub: func(_ context.Context, digest, path string) error {
		asked++
		switch digest {
		case digestOf([]byte("none")):
			return oci.ErrNotFound
		case digestOf(noise(2000)):
			return os.WriteFile(path, noise(2000), 0o444)
		}
		return os.WriteFile(path, code, 0o444)
	}})
	want(t, f, digestOf(code), code)
	want(t, f, digestOf(code), code)
	if asked != 1 {
		t.Errorf("asked %d times", asked)
	}
	wantError(t, f, digestOf([]byte("none")), oci.ErrNotFound)
	wantError(t, f, digestOf([]byte("other")), oci.ErrContent)
	if _, _, err := f.Fetch(t.Context(), digestOf(noise(2000))); err == nil || !strings.Contains(err.Error(), "do not fit") {
		t.Errorf("got %v", err)
	}
	if _, _, ok := f.Held(digestOf(code)); !ok {
		t.Error("not held")
	}
}

// A connection that breaks costs what it had not sent yet.
func TestFetcher_Fetch_resume(t *testing.T) {
	for _, noRanges := range []bool{false, true} {
		t.Run(fmt.Sprint("noRanges=", noRanges), func(t *testing.T) {
			r := ocitest.New(t)
			r.NoRanges, r.CutAfter, r.Cuts = noRanges, 200_000, 3
			a, b := noise(500_000), noise(100_001)
			ref, _ := r.Push("big:1", actor(a), actor(b))
			var got []int64
			opts := insecure(r)
			opts.Progress = func(of string, done, total int64) {
				if of != ref || total != int64(len(a)+len(b)) {
					t.Errorf("progress of %s: %d of %d", of, done, total)
				}
				got = append(got, done)
			}
			want(t, fetcher(t, opts), ref, append(bytes.Clone(a), b...))
			if noRanges {
				return
			}
			for i := range got[1:] {
				if got[i+1] <= got[i] {
					t.Fatalf("progress goes back: %d after %d", got[i+1], got[i])
				}
			}
		})
	}
}

// What one process has received, the next goes on with; what a power cut has spoiled is received again.
func TestFetcher_Fetch_resumeAfterRestart(t *testing.T) {
	r := ocitest.New(t)
	a, b := noise(400_000), noise(200_000)
	ref, manifest := r.Push("big:1", actor(a), actor(b))
	opts := insecure(r)
	opts.Dir = t.TempDir()
	part := filepath.Join(opts.Dir, strings.Replace(manifest, ":", "-", 1)+".part")
	whole := append(bytes.Clone(a), b...)

	r.Set(func(r *ocitest.Registry) { r.CutAfter, r.Cuts = 100_000, 1 })
	ctx, cancel := context.WithCancel(t.Context())
	once := opts
	once.Progress = func(_ string, done, _ int64) {
		if done == 100_000 {
			cancel()
		}
	}
	if _, _, err := fetcher(t, once).Fetch(ctx, ref); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v, want the cause", err)
	}
	if got, err := os.ReadFile(part); err != nil || !bytes.HasPrefix(whole, got) || len(got) < 100_000 {
		t.Fatalf("the part has %d bytes, %v", len(got), err)
	}
	for name, spoil := range map[string]func([]byte) []byte{
		"as it is":  func(p []byte) []byte { return p },
		"zeros":     func(p []byte) []byte { return append(p[:1000], make([]byte, 5000)...) },
		"in second": func([]byte) []byte { return append(bytes.Clone(whole[:450_000]), 1, 2, 3) },
		"too long":  func([]byte) []byte { return append(bytes.Clone(whole), 0) },
		"whole":     func([]byte) []byte { return whole },
		"empty":     func([]byte) []byte { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			o := opts
			o.Dir = t.TempDir()
			if err := os.WriteFile(filepath.Join(o.Dir, filepath.Base(part)), spoil(bytes.Clone(whole[:100_000])), 0o600); err != nil {
				t.Fatal(err)
			}
			want(t, fetcher(t, o), ref, whole)
			if left, err := filepath.Glob(filepath.Join(o.Dir, "*.part")); err != nil || len(left) > 0 {
				t.Errorf("%v, %v is left", left, err)
			}
		})
	}
}

// A connection that falls silent is given up, and the download goes on with another.
func TestFetcher_Fetch_stalls(t *testing.T) {
	r := ocitest.New(t)
	r.CutAfter, r.Cuts, r.Hang = 1000, 1, true
	ref, _ := r.Push("a:1", actor(noise(2000)))
	f := fetcher(t, insecure(r))
	f.Impatient(200 * time.Millisecond)
	want(t, f, ref, noise(2000))
}

func TestFetcher_Fetch_givesUp(t *testing.T) {
	r := ocitest.New(t)
	r.CutAfter, r.Cuts = 1, 1_000_000
	r.NoRanges = true
	ref, _ := r.Push("big:1", actor(noise(1000)))
	wantError(t, fetcher(t, insecure(r)), ref, oci.ErrUnreachable, "1000 bytes")
	if n := len(r.Requests()); n > 8 {
		t.Errorf("%d requests", n)
	}
}

// Whatever a registry sends, it is what was promised or it is refused.
func TestFetcher_Fetch_badAnswers(t *testing.T) {
	r := ocitest.New(t)
	opts := insecure(r)
	opts.MaxBytes = 1000
	f := fetcher(t, opts)
	const image = "application/vnd.oci.image.manifest.v1+json"
	layer := func(size int) string {
		return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d}`, oci.ActorLayer, digestOf([]byte("x")), size)
	}
	for name, m := range map[string]struct{ mediaType, text, says string }{
		"json":   {image, "{", "manifest"},
		"empty":  {image, `{"layers":[]}`, "0 layers"},
		"many":   {image, `{"layers":[` + strings.Repeat(layer(1)+",", 16) + layer(1) + `]}`, "17 layers"},
		"type":   {image, `{"layers":[{"mediaType":"application/vnd.wasm.content.layer.v1+wasm","digest":"sha256:` + strings.Repeat("0", 64) + `","size":1}]}`, "no actor"},
		"digest": {image, `{"layers":[{"mediaType":"` + oci.ActorLayer + `","digest":"sha256:../../x","size":1}]}`, "digest"},
		"size":   {image, `{"layers":[` + layer(-1) + `]}`, "-1 bytes"},
		"sum":    {image, `{"layers":[` + layer(600) + "," + layer(401) + `]}`, "limit of 1000"},
		"index":  {"application/vnd.oci.image.index.v1+json", `{"manifests":[{},{}]}`, "2 artifacts"},
		"length": {image, `{"layers":[` + layer(1) + `],"x":"` + strings.Repeat("x", 1<<20) + `"}`, ""},
	} {
		r.Manifest(name+":1", m.mediaType, []byte(m.text))
		wantError(t, f, r.Host+"/"+name+":1", oci.ErrContent, m.says)
	}
	ref, _ := r.Push("other:1", actor([]byte("code")))
	r.Replace(digestOf([]byte("code")), []byte("evil"))
	wantError(t, f, ref, oci.ErrContent, "layer")
	r.Replace(digestOf([]byte("code")), []byte("c"))
	wantError(t, f, ref, oci.ErrUnreachable)
	r.Replace(digestOf([]byte("code")), []byte("code and more"))
	want(t, f, ref, []byte("code")) // what is behind it is not read
	if left, err := filepath.Glob(filepath.Join(opts.Dir, "sha256-*")); err != nil || len(left) > 1 {
		t.Errorf("kept %v, %v", left, err)
	}
}

func TestFetcher_Fetch_together(t *testing.T) {
	r := ocitest.New(t)
	code := noise(100_000)
	one, _ := r.Push("one:1", actor(code))
	two, _ := r.Push("two:1", actor(code))
	f := fetcher(t, insecure(r))
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			path, digest, err := f.Fetch(t.Context(), []string{one, two}[i%2])
			if err != nil || digest != digestOf(code) {
				t.Errorf("got %s, %s, %v", path, digest, err)
			}
		})
	}
	wg.Wait()
	blobs := 0
	for _, asked := range r.Requests() {
		if strings.Contains(asked, "/blobs/") {
			blobs++
		}
	}
	if blobs != 1 {
		t.Errorf("asked %d times for one blob", blobs)
	}
}

func TestFetcher_Fetch_ended(t *testing.T) {
	r := ocitest.New(t)
	never := make(chan struct{})
	r.Silent = never
	defer close(never)
	ctx, cancel := context.WithCancel(t.Context())
	f := fetcher(t, insecure(r))
	done := make(chan error)
	go func() {
		_, _, err := f.Fetch(ctx, r.Host+"/a:1")
		done <- err
	}()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
