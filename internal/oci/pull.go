package oci

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/errcode"

	"github.com/edged-io/edged/internal/claims"
)

// Media types of wasmCloud's artifacts.
const (
	ActorLayer    = "application/vnd.module.wasm.content.layer.v1+wasm"
	ProviderLayer = "application/vnd.wasmcloud.provider.archive.layer.v1+par"
	WasmLayer     = "application/wasm"                       // of its version 1
	tarLayer      = "application/vnd.oci.image.layer.v1.tar" // some tools say this of both

	ActorConfig    = "application/vnd.wasmcloud.actor.archive.config"
	ProviderConfig = "application/vnd.wasmcloud.provider.archive.config"

	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerIndex    = "application/vnd.docker.distribution.manifest.list.v2+json"
)

const (
	maxManifest = 1 << 20 // bytes
	maxLayers   = 16
)

var (
	layerTypes    = []string{ActorLayer, ProviderLayer, WasmLayer, tarLayer}
	manifestTypes = []string{ocispec.MediaTypeImageManifest, dockerManifest, ocispec.MediaTypeImageIndex, dockerIndex}
)

// newClient returns the client for all registries. It gives up on a server that does not answer, and on nothing else.
func newClient(ca []byte) (*http.Client, error) {
	t := &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
		TLSHandshakeTimeout:    10 * time.Second,
		ResponseHeaderTimeout:  askTimeout,
		IdleConnTimeout:        30 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
		DisableCompression:     true, // digests are of the bytes as they are sent
		ForceAttemptHTTP2:      true,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
	}
	if ca != nil {
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		if !pool.AppendCertsFromPEM(ca) {
			return nil, errors.New("no certificate of an authority in PEM")
		}
		t.TLSClientConfig.RootCAs = pool
	}
	return &http.Client{Transport: t}, nil
}

// pull brings what a reference to a registry names, and returns the digest of its content.
func (f *Fetcher) pull(ctx context.Context, r reference) (string, error) {
	if e, ok := f.cache.held(r.String()); ok && r.pinned() {
		return e.Digest, nil
	}
	repo := f.repository(r)
	m, err := ask(ctx, repo, r.oci.Reference)
	if err != nil {
		return "", explain(ctx, r, err)
	}
	leave, err := f.enter(ctx, m.digest) // another reference may name the same
	if err != nil {
		return "", err
	}
	defer leave()
	if digest, ok := f.cache.byManifest(m.digest); ok {
		return digest, f.cache.remember(entry{Ref: r.String(), Manifest: m.digest, Digest: digest, Size: m.size})
	}
	if m.size > f.opts.MaxBytes {
		return "", tooLarge(m.size, f.opts.MaxBytes)
	}
	select {
	case f.slots <- struct{}{}:
		defer func() { <-f.slots }()
	case <-ctx.Done():
		return "", ctx.Err()
	}
	start := time.Now()
	d := download{fetcher: f, repo: repo, ref: r, manifest: m}
	d.tell()
	digest, err := d.run(ctx)
	if err != nil {
		return "", err
	}
	f.log.Info("fetched", "ref", r.String(), "digest", digest, "bytes", m.size, "took", time.Since(start))
	return digest, f.cache.remember(entry{Ref: r.String(), Manifest: m.digest, Digest: digest, Size: m.size})
}

func (f *Fetcher) repository(r reference) *remote.Repository {
	client := &auth.Client{
		Client: f.client, Cache: auth.NewCache(), ClientID: "edged", Header: http.Header{"User-Agent": {"edged"}},
		Credential: func(_ context.Context, host string) (auth.Credential, error) {
			l := f.login(r.oci.Registry)
			switch {
			case host != r.oci.Host(): // another server, to which the registry has sent us
				return auth.EmptyCredential, nil
			case l.User == "":
				return auth.Credential{AccessToken: l.Token}, nil
			}
			return auth.Credential{Username: l.User, Password: l.Password}, nil
		},
	}
	return &remote.Repository{
		Reference: r.oci, Client: client, PlainHTTP: f.plain(r.oci.Registry), ManifestMediaTypes: manifestTypes, MaxMetadataBytes: maxManifest,
	}
}

// manifest is what matters of one.
type manifest struct {
	digest string
	layers []ocispec.Descriptor
	size   int64 // of all layers
}

// ask gets the manifest that a tag or digest stands for now.
func ask(ctx context.Context, repo *remote.Repository, tag string) (manifest, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	desc, body, err := repo.Manifests().FetchReference(ctx, tag)
	if err != nil {
		return manifest{}, err
	}
	data, err := io.ReadAll(io.LimitReader(body, maxManifest+1))
	if err := errors.Join(err, body.Close()); err != nil {
		return manifest{}, err
	}
	if len(data) > maxManifest {
		return manifest{}, fmt.Errorf("manifest: %w", tooLarge(int64(len(data)), maxManifest))
	}
	// The registry said which digest it sends; of what was asked for by digest that is this one.
	digest := claims.Digest(sha256.Sum256(data))
	if want := desc.Digest.String(); digest != want {
		return manifest{}, fmt.Errorf("manifest %s is %s: %w", clip(want, 100), digest, ErrContent)
	}
	return parseManifest(desc.MediaType, data)
}

// parseManifest reads the manifest of an artifact that is made of layers of code.
func parseManifest(mediaType string, data []byte) (manifest, error) {
	m := manifest{digest: claims.Digest(sha256.Sum256(data))}
	var doc struct {
		Layers    []ocispec.Descriptor `json:"layers"`
		Manifests []json.RawMessage    `json:"manifests"`
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		return m, fmt.Errorf("manifest: %w: %w", ErrContent, err)
	}
	if mediaType == ocispec.MediaTypeImageIndex || mediaType == dockerIndex || len(doc.Manifests) > 0 {
		return m, fmt.Errorf("it names %d artifacts, and not one: name the one that is wanted by its digest: %w", len(doc.Manifests), ErrContent)
	}
	if n := len(doc.Layers); n == 0 || n > maxLayers {
		return m, fmt.Errorf("manifest has %d layers, want 1 to %d: %w", n, maxLayers, ErrContent)
	}
	for _, l := range doc.Layers {
		if !slices.Contains(layerTypes, l.MediaType) {
			return m, fmt.Errorf("layer of type %q is no actor and no provider archive: %w", clip(l.MediaType, 100), ErrContent)
		}
		if _, err := claims.ParseDigest(l.Digest.String()); err != nil {
			return m, fmt.Errorf("layer: %w: %w", ErrContent, err)
		}
		const most = 1 << 40
		if l.Size <= 0 || l.Size > most {
			return m, fmt.Errorf("layer of %d bytes: %w", l.Size, ErrContent)
		}
		m.size += l.Size
	}
	m.layers = doc.Layers
	return m, nil
}

// explain makes of an error one of this package, for whoever has to do something about it.
func explain(ctx context.Context, r reference, err error) error {
	var answer *errcode.ErrorResponse
	var asked *url.Error
	var network net.Error
	var disk *fs.PathError
	host := r.oci.Registry
	text := func(kind error, format string, args ...any) error {
		return fmt.Errorf(format+": %w: %s", append(args, kind, clip(err.Error(), 500))...)
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, ErrContent), errors.As(err, &disk):
		return err
	case errors.Is(err, errdef.ErrNotFound):
		return fmt.Errorf("%s has no such artifact: %w", host, ErrNotFound)
	case errors.Is(err, auth.ErrBasicCredentialNotFound):
		return fmt.Errorf("%w: add  [[registry.login]] host = %q  to the device file", ErrLogin, host)
	case errors.As(err, &answer):
		switch code := answer.StatusCode; {
		case code == http.StatusNotFound:
			return fmt.Errorf("%s has no such artifact: %w", host, ErrNotFound)
		case code == http.StatusUnauthorized || code == http.StatusForbidden:
			return text(ErrLogin, "[[registry.login]] of %s in the device file", host)
		case code == http.StatusTooManyRequests || code == http.StatusRequestTimeout || code >= 500:
			return text(ErrUnreachable, "%s", host)
		}
	case errors.Is(err, http.ErrSchemeMismatch):
		return fmt.Errorf("%w: %s speaks no TLS; if that is wanted, add it to  insecure  in [registry] of the device file", ErrUnreachable, host)
	case errors.As(err, &asked), errors.As(err, &network), errors.Is(err, context.DeadlineExceeded), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, errStalled):
		return text(ErrUnreachable, "%s", host)
	}
	return text(ErrContent, "answer of %s", host)
}

// clip makes one short line of what a registry says.
func clip(s string, most int) string {
	s = strings.Join(strings.FieldsFunc(s, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }), " ")
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}
