package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/edged-io/edged/internal/claims"
	"github.com/edged-io/edged/internal/config"
	"github.com/edged-io/edged/internal/oci"
)

// registryFlags say how a registry is asked.
type registryFlags struct {
	device   string // device file, for its [registry]
	insecure bool
}

func (f *registryFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.device, "config", "", "device file whose [registry] has logins and certificates")
	_ = cmd.MarkFlagFilename("config", "toml")
	cmd.Flags().BoolVar(&f.insecure, "insecure", false, "speak to the registry without TLS")
}

// isReference says whether an argument that is no file names code in a registry.
func isReference(arg string) bool {
	return strings.Contains(arg, "/") && !strings.HasPrefix(arg, "/") && oci.CheckReference(arg) == nil
}

// fetch brings what a reference names into a folder of its own. The box's cache is the box's.
func (f *registryFlags) fetch(ctx context.Context, ref, dir string, progress io.Writer) (path string, err error) {
	var o oci.Options
	if f.device != "" {
		d, err := config.LoadDevice(f.device)
		if err != nil {
			return "", err
		}
		if o, err = d.Registry.Options(); err != nil {
			return "", err
		}
	}
	host, _, _ := strings.Cut(ref, "/")
	if f.insecure {
		o.Insecure = append(o.Insecure, host)
	}
	o.Dir, o.Latest, o.Logger, o.Progress = dir, true, slog.New(slog.DiscardHandler), arrival(progress)
	fetcher, err := oci.New(o)
	if err != nil {
		return "", err
	}
	path, _, err = fetcher.Fetch(ctx, ref)
	switch {
	case errors.Is(err, oci.ErrLogin):
		err = hinted{err, "logins are those of --config FILE"}
	case errors.Is(err, oci.ErrUnreachable):
		err = unreachable{hinted{err, "--insecure is for a registry without TLS"}}
	}
	return path, err
}

// arrival tells now and then how much of something has come.
func arrival(w io.Writer) func(ref string, done, total int64) {
	last := time.Now()
	return func(ref string, done, total int64) {
		if now := time.Now(); now.Sub(last) >= progressEvery {
			last = now
			fmt.Fprintf(w, "%s: %d of %d bytes\n", ref, done, total)
		}
	}
}

// archiveInfo is what a provider archive says. Its signature and hashes hold.
type archiveInfo struct {
	File     string   `json:"file"`
	Identity string   `json:"identity"`
	Issuer   string   `json:"issuer"`
	Name     string   `json:"name"`
	Contract string   `json:"contract"`
	Vendor   string   `json:"vendor"`
	Version  string   `json:"version"`
	Revision int64    `json:"revision"`
	Targets  []string `json:"targets"` // such as x86_64-linux

	Expires *time.Time `json:"expires,omitempty"`
}

// isArchive tells a provider archive, a tar or one in gzip, by its first bytes.
func isArchive(start []byte) bool {
	return bytes.HasPrefix(start, []byte{0x1f, 0x8b}) || len(start) > 262 && string(start[257:262]) == "ustar"
}

func inspectArchive(name string, r io.ReadSeeker) (*archiveInfo, error) {
	s, err := claims.VerifyArchive(r, claims.Policy{AnyIssuer: true})
	if err != nil {
		err = fmt.Errorf("%s: %w", name, err)
		if claims.Refused(err) {
			err = refusal{err}
		}
		return nil, err
	}
	a := &archiveInfo{
		File: name, Identity: s.Key.String(), Issuer: s.Issuer.String(), Name: s.Name, Contract: s.Contract, Vendor: s.Vendor,
		Version: s.Ver, Revision: s.EffectiveRev(), Targets: slices.Sorted(maps.Keys(s.TargetHashes)),
	}
	if !s.Expires.IsZero() {
		at := s.Expires.UTC()
		a.Expires = &at
	}
	return a, nil
}

func (a *archiveInfo) show(w io.Writer, now time.Time) {
	fmt.Fprintf(w, "%s: a provider archive, signature and hashes hold\n", oneLine(a.File))
	table(w, func(row func(...any)) {
		for _, line := range [][2]string{
			{"identity", a.Identity}, {"issuer", a.Issuer}, {"name", a.Name}, {"contract", a.Contract}, {"vendor", a.Vendor}, {"version", a.Version},
			{"revision", fmt.Sprint(a.Revision)}, {"programs for", strings.Join(a.Targets, ", ")},
		} {
			row("  "+line[0], oneLine(line[1]))
		}
		if a.Expires != nil {
			late := ""
			if now.After(*a.Expires) {
				late = ", which is past: a box that has not admitted it before refuses it"
			}
			row("  expires", dateOf(a.Expires)+late)
		}
	})
}

func (a *archiveInfo) fault() error { return nil }

// temporary makes a folder for fn, and removes it.
func temporary(fn func(dir string) error) (err error) {
	dir, err := os.MkdirTemp("", "edged-inspect-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	return fn(dir)
}
