package ota_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"strings"
	"testing"

	"github.com/edged-io/edged/internal/ota"
)

func digest(c string) string { return "sha256:" + strings.Repeat(c, 64) }

func desiredJSON(t testing.TB, change func(m map[string]any)) []byte {
	t.Helper()
	m := map[string]any{
		"app": "greenhouse", "version": "1.4.0", "manifest": digest("a"),
		"files": map[string]string{"x.wasm": digest("b"), "data/y": digest("c")}, "sig": "",
	}
	change(m)
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestParseDesired_accepts(t *testing.T) {
	for name, change := range map[string]func(m map[string]any){
		"plain":              func(map[string]any) {},
		"unknown field":      func(m map[string]any) { m["later"] = true },
		"no files":           func(m map[string]any) { delete(m, "files") },
		"no sig, no version": func(m map[string]any) { delete(m, "sig"); delete(m, "version") },
		"manifest as file":   func(m map[string]any) { m["files"].(map[string]string)["app.toml"] = digest("a") },
	} {
		d, err := ota.ParseDesired(desiredJSON(t, change))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if d.App != "greenhouse" || d.Files["app.toml"] != "" {
			t.Errorf("%s: got %+v", name, d)
		}
	}
}

func TestParseDesired_refuses(t *testing.T) {
	file := func(name, dg string) func(m map[string]any) {
		return func(m map[string]any) { m["files"].(map[string]string)[name] = dg }
	}
	many := map[string]string{}
	for i := range 129 {
		many[fmt.Sprint(i)] = digest("d")
	}
	for name, change := range map[string]func(m map[string]any){
		"no app":              func(m map[string]any) { delete(m, "app") },
		"app with dots":       func(m map[string]any) { m["app"] = "../x" },
		"app too long":        func(m map[string]any) { m["app"] = strings.Repeat("x", 65) },
		"version too long":    func(m map[string]any) { m["version"] = strings.Repeat("x", 129) },
		"version a number":    func(m map[string]any) { m["version"] = 1 },
		"no manifest":         func(m map[string]any) { delete(m, "manifest") },
		"manifest upper case": func(m map[string]any) { m["manifest"] = "sha256:" + strings.Repeat("A", 64) },
		"sig too long":        func(m map[string]any) { m["sig"] = strings.Repeat("x", 65<<10) },
		"too large":           func(m map[string]any) { m["later"] = strings.Repeat("x", 256<<10) },
		"too many files":      func(m map[string]any) { m["files"] = many },
		"other manifest":      file("app.toml", digest("b")),
		"signature":           file("app.sig", digest("b")),
		"out of the folder":   file("../x", digest("b")),
		"absolute":            file("/x", digest("b")),
		"empty name":          file("", digest("b")),
		"file and folder":     file("x.wasm/y", digest("b")),
		"below the manifest":  file("app.toml/y", digest("b")),
		"below the signature": file("app.sig/y", digest("b")),
		"no digest":           file("z", ""),
		"other digest":        file("z", "md5:00"),
	} {
		if _, err := ota.ParseDesired(desiredJSON(t, change)); !errors.Is(err, ota.ErrDesired) {
			t.Errorf("%s: got %v, want ErrDesired", name, err)
		}
	}
	for _, text := range []string{"", "{", "[]", "null", `"x"`} {
		if _, err := ota.ParseDesired([]byte(text)); !errors.Is(err, ota.ErrDesired) {
			t.Errorf("%q: got %v, want ErrDesired", text, err)
		}
	}
}

func TestDesired_Release(t *testing.T) {
	base, err := ota.ParseDesired(desiredJSON(t, func(map[string]any) {}))
	if err != nil {
		t.Fatal(err)
	}
	same := base
	same.Version, same.Sig = "2", "x"
	if same.Release() != base.Release() {
		t.Error("version and signature make another release")
	}
	other := base
	other.Files = maps.Clone(base.Files)
	other.Files["x.wasm"] = digest("e") // under the same manifest
	if other.Release() == base.Release() {
		t.Error("another module is the same release")
	}
	other = base
	other.App = "other"
	if other.Release() == base.Release() {
		t.Error("another app is the same release")
	}
}

func FuzzParseDesired(f *testing.F) {
	f.Add(desiredJSON(f, func(map[string]any) {}))
	f.Add([]byte(`{"app":"a","manifest":"` + digest("a") + `","files":{"../x":"` + digest("a") + `"}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := ota.ParseDesired(b)
		if err != nil {
			if !errors.Is(err, ota.ErrDesired) {
				t.Errorf("got %v, want ErrDesired", err)
			}
			return
		}
		if !filepath.IsLocal(d.App) || strings.ContainsAny(d.App, "/.") {
			t.Errorf("app %q", d.App)
		}
		for name := range d.Files {
			if !filepath.IsLocal(name) {
				t.Errorf("file %q", name)
			}
		}
		out, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := ota.ParseDesired(out); err != nil || again.Release() != d.Release() {
			t.Errorf("does not come back: %v", err)
		}
	})
}
