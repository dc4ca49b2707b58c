package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/edged-io/edged/internal/claims"
	"github.com/edged-io/edged/internal/wasm"
)

func (m *moduleInfo) show(w io.Writer, now time.Time) {
	fmt.Fprintf(w, "%s: %s, %d bytes, %s\n", oneLine(m.File), kindOfFile(m.Module), m.Module.Bytes, m.Digest)
	if m.Claims == nil {
		fmt.Fprintln(w, "claims: none; it runs in an app that is signed, or where allow_unsigned is set, and may use what the manifest links")
	} else {
		fmt.Fprintln(w, "claims:")
		m.Claims.show(w, now)
	}
	if m.Reason == "" {
		fmt.Fprintln(w, "actor: yes")
	} else {
		fmt.Fprintf(w, "actor: no, %s\n", printable([]byte(m.Reason)))
	}
	showFile(w, m.Module)
}

func kindOfFile(f wasm.File) string {
	switch f.Kind {
	case wasm.Module:
		return "a WebAssembly module"
	case wasm.Component:
		return "a WebAssembly component"
	case wasm.Text:
		return "WebAssembly as text"
	}
	return "not WebAssembly"
}

// show writes the claims, a line each.
func (i *claimsInfo) show(w io.Writer, now time.Time) {
	table(w, func(row func(...any)) {
		line := func(what, text string) {
			if text != "" {
				row("  "+what, text)
			}
		}
		line("identity", i.Identity)
		line("issuer", i.Issuer)
		line("issued", dateOf(i.Issued))
		line("not before", dateOf(i.NotBefore)+i.early(now))
		line("expires", cmp.Or(dateOf(i.Expires), "never")+i.late(now))
		if m := i.Module; m != nil {
			line("name", m.Name)
			line("version", m.Ver)
			if m.Rev > 0 {
				line("revision", fmt.Sprint(m.Rev))
			} else {
				line("revision", "none, so the time of signing counts")
			}
			line("call alias", m.CallAlias)
			line("may use", cmp.Or(strings.Join(slices.DeleteFunc(slices.Clone(m.Caps), func(s string) bool { return s == "" }), ", "), "nothing"))
			line("tags", strings.Join(m.Tags, ", "))
		}
		line("section", i.Section)
		line("signature", holds(i.Signature))
		line("hash", holds(i.Hash))
	})
}

// holds leaves why something does not hold to the error at the end.
func holds(verdict string) string {
	if verdict == "" || strings.HasPrefix(verdict, "ok") {
		return verdict
	}
	return "does not hold"
}

func (i *claimsInfo) early(now time.Time) string {
	if i.NotBefore != nil && now.Before(*i.NotBefore) {
		return ", which is still to come: a box admits it then"
	}
	return ""
}

func (i *claimsInfo) late(now time.Time) string {
	if i.Expires != nil && !now.Before(*i.Expires) {
		return ", which is past: a box that has not admitted it before refuses it"
	}
	return ""
}

func dateOf(t *time.Time) string {
	if t == nil {
		return ""
	}
	return t.Format(time.RFC3339)
}

// showFile writes what a module asks for and offers.
func showFile(w io.Writer, f wasm.File) {
	if f.Kind != wasm.Module && f.Kind != wasm.Component {
		return
	}
	if f.Memory != nil {
		most := "no limit of its own"
		if f.Memory.MaxBytes != nil {
			most = fmt.Sprintf("at most %d bytes", *f.Memory.MaxBytes)
		}
		fmt.Fprintf(w, "memory: %d bytes to begin with, %s\n", f.Memory.MinBytes, most)
	}
	if f.Kind == wasm.Module {
		fmt.Fprintf(w, "functions: %d\n", f.Functions)
	}
	if f.Start {
		fmt.Fprintln(w, "start: a function runs when it is loaded")
	}
	for _, field := range slices.Sorted(maps.Keys(f.Producers)) {
		fmt.Fprintf(w, "%s: %s\n", oneLine(field), oneLine(strings.Join(f.Producers[field], ", ")))
	}
	if len(f.Contracts) > 0 {
		fmt.Fprintf(w, "names in it: %s\n", strings.Join(f.Contracts, ", "))
	}
	parts := func(title string, n int, rows func(row func(...any))) {
		if n > 0 {
			fmt.Fprintln(w, title)
			table(w, rows)
		}
	}
	parts("imports:", len(f.Imports), func(row func(...any)) {
		for _, i := range f.Imports {
			row("  "+i.Module+"."+i.Name, cmp.Or(i.Type, i.Kind), cmp.Or(i.Means(), "no host of actors has it"))
		}
	})
	parts("exports:", len(f.Exports), func(row func(...any)) {
		for _, e := range f.Exports {
			row("  "+e.Name, cmp.Or(e.Type, e.Kind))
		}
	})
	parts("sections:", len(f.Sections), func(row func(...any)) {
		for _, s := range f.Sections {
			row("  "+s.Name, fmt.Sprintf("%d bytes", s.Bytes))
		}
	})
	if f.More > 0 {
		fmt.Fprintf(w, "and %d more\n", f.More)
	}
}

func (t *tokenInfo) show(w io.Writer, now time.Time) {
	what := map[string]string{"module": "claims of a module", "app": "signature of an app", "provider": "claims of a provider", "invocation": "claims of an invocation"}
	fmt.Fprintf(w, "%s: %s\n", oneLine(t.File), cmp.Or(what[t.Kind], "a token"))
	t.Claims.show(w, now)
	fmt.Fprintf(w, "wascap: %s\n", printable([]byte(indented(t.Claims.Says))))
}

func (a *appInfo) show(w io.Writer, now time.Time) {
	fmt.Fprintf(w, "%s: app %s %s\n", oneLine(a.Dir), a.Name, oneLine(a.Version))
	if a.Claims == nil {
		fmt.Fprintf(w, "%s: none; it runs where allow_unsigned is set\n", claims.SignatureFile)
	} else {
		fmt.Fprintf(w, "%s:\n", claims.SignatureFile)
		a.Claims.show(w, now)
	}
	var says claims.AppClaims
	if a.Claims != nil {
		_ = json.Unmarshal(a.Claims.Says, &says) // it was one
	}
	fmt.Fprintln(w, "files:")
	table(w, func(row func(...any)) {
		all := maps.Clone(a.Files)
		maps.Copy(all, says.Files)
		for _, name := range slices.Sorted(maps.Keys(all)) {
			have, want := a.Files[name], says.Files[name]
			state := "differs from what was signed"
			switch {
			case have == want:
				state = "signed"
			case want == "":
				state = "not signed"
			case have == "":
				state = "signed, and missing"
			}
			row("  "+name, have, state)
		}
	})
	fmt.Fprintln(w, "modules:")
	table(w, func(row func(...any)) {
		for _, m := range a.Modules {
			state := "no claims"
			if m.Claims != nil {
				state = m.Claims.Identity + " by " + m.Claims.Issuer
			}
			if m.Claims != nil && m.Claims.err != nil {
				state = "claims that do not hold"
			}
			row("  "+m.File, state, m.Reason)
		}
		for _, ref := range a.References {
			row("  "+oneLine(ref), "fetched by the box")
		}
	})
}
