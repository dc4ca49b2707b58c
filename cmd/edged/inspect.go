package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/edged-io/edged/internal/claims"
	"github.com/edged-io/edged/internal/config"
	"github.com/edged-io/edged/internal/wasm"
)

func newInspect() *cobra.Command {
	var asJSON bool
	var registry registryFlags
	cmd := &cobra.Command{
		Use: "inspect FILE|DIR|REFERENCE|TOKEN", Short: "Show what a module, a provider, an app or a token says of itself", Args: usage(cobra.ExactArgs(1)),
		Long: `Show what a WebAssembly module is and what its claims say: who it is, who signed
it, what it may use, whether signature and hash hold, what it asks of its host.
Unsigned and damaged modules are shown as far as they make sense.

Of a provider archive its claims are shown and the machines it is for; of an
app's folder the signature, and which files it does not fit; of a token, such as
app.sig, what is in it. "-" reads standard input. A reference such as
ghcr.io/NAME:TAG is fetched from its registry, and not kept.

Whether a box would let it in is for edged check. The exit code is 4 if a signature
or a hash does not hold.`,
		Example: "  edged inspect thermostat.wasm\n  edged inspect ./greenhouse --json\n  edged inspect ghcr.io/acme/thermostat:1.4.0",
		RunE: func(cmd *cobra.Command, args []string) error {
			now, err := clock(os.Getenv("EDGED_CLOCK"))
			if err != nil {
				return err
			}
			var r inspected
			if _, gone := os.Stat(args[0]); gone != nil && isReference(args[0]) {
				err = temporary(func(dir string) error {
					path, err := registry.fetch(cmd.Context(), args[0], dir, cmd.ErrOrStderr())
					if err == nil {
						r, err = inspectFile(cmd.Context(), args[0], path)
					}
					return err
				})
			} else {
				r, err = inspect(cmd, args[0])
			}
			if err != nil {
				return err
			}
			if asJSON {
				err = printJSON(cmd.OutOrStdout(), r)
			} else {
				err = shown(cmd.OutOrStdout(), func(w io.Writer) { r.show(w, now()) })
			}
			return errors.Join(err, r.fault())
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON document")
	registry.add(cmd)
	return cmd
}

// inspected is what was found.
type inspected interface {
	show(w io.Writer, now time.Time)
	fault() error
}

// inspect finds out what arg is.
func inspect(cmd *cobra.Command, arg string) (inspected, error) {
	info, err := os.Stat(arg)
	switch {
	case arg == "-":
		data, err := readLimited(cmd.InOrStdin())
		if err != nil {
			return nil, err
		}
		return inspectData(cmd.Context(), arg, data)
	case err != nil && strings.Count(arg, ".") == 2 && strings.HasPrefix(arg, "eyJ"): // {" in base64
		return inspectData(cmd.Context(), "token", []byte(arg))
	case err != nil:
		return nil, err
	case info.IsDir():
		return inspectApp(cmd.Context(), arg)
	}
	return inspectFile(cmd.Context(), arg, arg)
}

// inspectFile finds out what is in a file, which is shown under a name.
func inspectFile(ctx context.Context, name, path string) (inspected, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() // only read from
	start := make([]byte, 512)
	n, err := io.ReadFull(f, start)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return nil, err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	if isArchive(start[:n]) {
		return inspectArchive(name, f)
	}
	data, err := readLimited(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return inspectData(ctx, name, data)
}

func readLimited(r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, claims.MaxModule+1))
	if err == nil && len(data) > claims.MaxModule {
		err = fmt.Errorf("more than %d bytes", claims.MaxModule)
	}
	return data, err
}

// inspectData finds out what data is.
func inspectData(ctx context.Context, arg string, data []byte) (inspected, error) {
	if text := strings.TrimSpace(string(data[:min(len(data), claims.MaxToken+16)])); strings.HasPrefix(text, "eyJ") {
		return inspectToken(arg, text)
	}
	if seed, err := claims.ParseSeed(strings.TrimSpace(string(data[:min(len(data), 256)]))); err == nil {
		return nil, hinted{fmt.Errorf("%s holds the seed of %s", arg, seed.Key()), "see edged keys show " + arg}
	}
	return inspectModule(ctx, arg, data), nil
}

// moduleInfo is what a module says.
type moduleInfo struct {
	File   string      `json:"file"`
	Digest string      `json:"digest"`
	Claims *claimsInfo `json:"claims"` // null for none
	Module wasm.File   `json:"module"`
	// Actor says whether it can be an actor, and else why not.
	Actor  bool   `json:"actor"`
	Reason string `json:"reason,omitempty"`
}

// claimsInfo is what a token says, and whether it holds.
type claimsInfo struct {
	Identity  string          `json:"identity"`
	Issuer    string          `json:"issuer"`
	Issued    *time.Time      `json:"issued,omitempty"`
	NotBefore *time.Time      `json:"not_before,omitempty"`
	Expires   *time.Time      `json:"expires,omitempty"`
	ID        string          `json:"id"`
	Section   string          `json:"section,omitempty"`
	Tool      int             `json:"wascap_revision,omitempty"`
	Says      json.RawMessage `json:"wascap"` // as it stands in the token

	Module *claims.ModuleClaims `json:"-"`

	Signature string `json:"signature"`      // "ok", or why it does not hold
	Hash      string `json:"hash,omitempty"` // the same, of a module or app
	err       error
}

func newClaimsInfo[W any](c claims.Claims[W]) *claimsInfo {
	i := &claimsInfo{Identity: c.Subject, Issuer: c.Issuer, ID: c.ID, Tool: c.Revision, Signature: "ok"}
	at := func(seconds int64) *time.Time { t := time.Unix(seconds, 0).UTC(); return &t }
	if c.IssuedAt != 0 {
		i.Issued = at(c.IssuedAt)
	}
	if c.NotBefore != nil {
		i.NotBefore = at(*c.NotBefore)
	}
	if c.Expires != nil {
		i.Expires = at(*c.Expires)
	}
	i.Says, _ = json.Marshal(c.Wascap) // it was JSON before
	return i
}

// because notes why something does not hold.
func (i *claimsInfo) because(err error) string {
	if err == nil {
		return "ok"
	}
	i.err = errors.Join(i.err, err)
	return err.Error()
}

func inspectModule(ctx context.Context, name string, bin []byte) *moduleInfo {
	m := &moduleInfo{File: name, Digest: claims.Digest(sha256.Sum256(bin)), Module: wasm.Describe(bin)}
	m.Reason = whyNoActor(ctx, bin, m.Module, mostMemory)
	m.Actor = m.Reason == ""
	if m.Module.Kind != wasm.Module && m.Module.Kind != wasm.Component {
		return m
	}
	r, err := claims.InspectModule(bin)
	if err != nil { // which Describe has told
		m.Actor = false
		return m
	}
	if errors.Is(r.Form, claims.ErrUnsigned) {
		return m
	}
	m.Claims = newClaimsInfo(r.Claims)
	m.Claims.Section = r.Section
	if raw, err := claims.Inspect[json.RawMessage](r.Token); err == nil {
		m.Claims.Says = raw.Wascap
	}
	m.Claims.Module = &r.Claims.Wascap
	if r.Form != nil {
		m.Claims.Signature = m.Claims.because(r.Form)
		return m
	}
	m.Claims.Signature, m.Claims.Hash = m.Claims.because(r.Signature), m.Claims.because(r.HashFault)
	if r.Literal {
		m.Claims.Hash = "ok, for the literal bytes: by an older tool"
	}
	return m
}

func (m *moduleInfo) fault() error {
	if m.Claims != nil && m.Claims.err != nil {
		return refusal{fmt.Errorf("%s: %w", m.File, m.Claims.err)}
	}
	if m.Module.Kind == wasm.Unknown || m.Module.Fault != "" {
		return fmt.Errorf("%s: %s", m.File, m.Module.Fault)
	}
	return nil
}

// refusal is a signature that does not hold.
type refusal struct{ error }

func (r refusal) Unwrap() []error { return []error{r.error, errRefused} }

// tokenInfo is what a token says that is by itself.
type tokenInfo struct {
	File   string      `json:"file"`
	Kind   string      `json:"kind"` // "module", "app", "provider", "invocation" or "token"
	Claims *claimsInfo `json:"claims"`
}

func inspectToken(name, text string) (*tokenInfo, error) {
	c, err := claims.Inspect[json.RawMessage](text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	t := &tokenInfo{File: name, Kind: "token", Claims: newClaimsInfo(c)}
	var says map[string]json.RawMessage
	_ = json.Unmarshal(c.Wascap, &says) // what is no object is of no kind
	for _, k := range []struct{ kind, key string }{{"provider", "target_hashes"}, {"invocation", "target_url"}, {"app", "files"}, {"module", "caps"}} {
		if _, ok := says[k.key]; ok {
			t.Kind = k.kind
		}
	}
	_, err = claims.Verify[json.RawMessage](text)
	t.Claims.Signature = t.Claims.because(err)
	return t, nil
}

func (t *tokenInfo) fault() error {
	if t.Claims.err != nil {
		return refusal{fmt.Errorf("%s: %w", t.File, t.Claims.err)}
	}
	return nil
}

// appInfo is what an app says.
type appInfo struct {
	Dir     string            `json:"dir"`
	Name    string            `json:"name"`
	Version string            `json:"version"`
	Claims  *claimsInfo       `json:"claims"` // null for none
	Files   map[string]string `json:"files"`  // digests
	Modules []*moduleInfo     `json:"modules"`
	// References are those of modules that are no files of the app.
	References []string `json:"references,omitempty"`
}

func inspectApp(ctx context.Context, dir string) (*appInfo, error) {
	app, err := config.LoadApp(dir)
	if err != nil {
		return nil, err
	}
	r, err := claims.InspectApp(dir)
	if err != nil {
		return nil, err
	}
	a := &appInfo{Dir: dir, Name: app.Name, Version: app.Version, Files: r.Files, Modules: []*moduleInfo{}}
	if !errors.Is(r.Form, claims.ErrUnsigned) {
		a.Claims = newClaimsInfo(r.Claims)
		a.Claims.Signature = a.Claims.because(errors.Join(r.Form, r.Signature))
		if r.Form == nil {
			a.Claims.Hash = a.Claims.because(r.FilesFault)
		}
		if r.Form == nil && r.Claims.Wascap.Name != app.Name {
			a.Claims.Hash = a.Claims.because(fmt.Errorf("signed as %q, and the manifest says %q: %w", r.Claims.Wascap.Name, app.Name, claims.ErrSignature))
		}
	}
	for _, actor := range app.Actors {
		if actor.Ref != "" {
			a.References = append(a.References, actor.Ref)
			continue
		}
		bin, err := readModule(filepath.Join(dir, filepath.FromSlash(actor.Module)))
		if err != nil {
			return nil, err
		}
		a.Modules = append(a.Modules, inspectModule(ctx, actor.Module, bin))
	}
	return a, nil
}

func (a *appInfo) fault() error {
	var errs []error
	if a.Claims != nil && a.Claims.err != nil {
		errs = append(errs, refusal{fmt.Errorf("%s: %w", a.Dir, a.Claims.err)})
	}
	for _, m := range a.Modules {
		errs = append(errs, m.fault())
	}
	return errors.Join(errs...)
}

// indented is JSON for people.
func indented(raw json.RawMessage) string {
	var b bytes.Buffer
	if json.Indent(&b, raw, "", "  ") != nil {
		return string(raw)
	}
	return b.String()
}
