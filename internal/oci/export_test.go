package oci

import (
	"context"
	"time"
)

// Hurry makes a Fetcher try again at once.
func (f *Fetcher) Hurry() { f.pause = func(ctx context.Context, _ int) error { return ctx.Err() } }

// Impatient makes a Fetcher wait less for a byte.
func (f *Fetcher) Impatient(stall time.Duration) { f.stall = stall }

// ParseManifest reads a manifest as one that a registry sent.
func ParseManifest(mediaType string, data []byte) (size int64, err error) {
	m, err := parseManifest(mediaType, data)
	return m.size, err
}
