// Package ocitest is an OCI registry in this process, for tests: it serves what a test puts into it, asks for a login if told to, and can be
// made to fail as registries and links do.
package ocitest

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Layer is one layer of an artifact.
type Layer struct {
	Type string // media type
	Data []byte
}

// A Registry serves artifacts over HTTP or HTTPS on loopback. Its fields are set before it is used, or under Set.
type Registry struct {
	Host string // HOST:PORT
	CA   []byte // certificate in PEM of one with TLS

	// User and Password are asked for, if there is a user. With Bearer they are asked for by a server of tokens, else as they are.
	User, Password string
	Bearer         bool
	Token          string // a bearer token that is good without a server of tokens

	NoRanges  bool            // blobs come from the start only
	CutAfter  int64           // bytes of a blob after which its connection breaks; 0 for none
	Cuts      int             // how many more times it does
	Hang      bool            // the connection does not break then, but falls silent
	Status    int             // what everything is answered with, if not 0
	Silent    <-chan struct{} // if not nil, everything is answered when it is closed
	Elsewhere string          // URL of another server to which requests for blobs are sent

	mu        sync.Mutex // guards what follows, and the fields above
	manifests map[string]stored
	blobs     map[string][]byte
	requests  []string
	server    *httptest.Server
}

type stored struct {
	mediaType string
	data      []byte
}

// New starts a registry without TLS. It ends with the test.
func New(t testing.TB) *Registry {
	r := newRegistry()
	r.server = httptest.NewServer(r)
	r.Host = strings.TrimPrefix(r.server.URL, "http://")
	t.Cleanup(r.Close)
	return r
}

// NewTLS starts a registry with TLS. It ends with the test.
func NewTLS(t testing.TB) *Registry {
	r := newRegistry()
	r.server = httptest.NewTLSServer(r)
	r.Host = strings.TrimPrefix(r.server.URL, "https://")
	r.CA = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: r.server.Certificate().Raw})
	t.Cleanup(r.Close)
	return r
}

func newRegistry() *Registry {
	return &Registry{manifests: make(map[string]stored), blobs: make(map[string][]byte)}
}

// Close ends the registry: from then on nobody answers at its address.
func (r *Registry) Close() {
	r.server.CloseClientConnections()
	r.server.Close()
}

// Set changes fields of a registry that is in use.
func (r *Registry) Set(change func(*Registry)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(r)
}

// Requests returns what was asked for since the last call, as "GET /v2/…".
func (r *Registry) Requests() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	asked := r.requests
	r.requests = nil
	return asked
}

// Push puts an artifact under NAME:TAG and returns its reference and the digest of its manifest.
func (r *Registry) Push(name string, layers ...Layer) (ref, digest string) {
	type descriptor struct {
		MediaType string `json:"mediaType"`
		Digest    string `json:"digest"`
		Size      int    `json:"size"`
	}
	doc := struct {
		SchemaVersion int          `json:"schemaVersion"`
		MediaType     string       `json:"mediaType"`
		Config        descriptor   `json:"config"`
		Layers        []descriptor `json:"layers"`
	}{SchemaVersion: 2, MediaType: "application/vnd.oci.image.manifest.v1+json"}
	doc.Config = descriptor{"application/vnd.wasmcloud.actor.archive.config", r.Blob([]byte("{}")), 2}
	for _, l := range layers {
		doc.Layers = append(doc.Layers, descriptor{l.Type, r.Blob(l.Data), len(l.Data)})
	}
	data, err := json.Marshal(doc)
	if err != nil {
		panic(err) // of plain strings and numbers
	}
	return r.Host + "/" + name, r.Manifest(name, doc.MediaType, data)
}

// Blob puts a blob and returns its digest.
func (r *Registry) Blob(data []byte) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	digest := digestOf(data)
	r.blobs[digest] = data
	return digest
}

// Replace makes other data answer for a blob.
func (r *Registry) Replace(digest string, data []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.blobs[digest] = data
}

// Manifest puts a manifest under NAME:TAG, whatever it is, and returns its digest.
func (r *Registry) Manifest(name, mediaType string, data []byte) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	repo, tag, _ := strings.Cut(name, ":")
	digest := digestOf(data)
	r.manifests[repo+"/"+tag] = stored{mediaType, data}
	r.manifests[repo+"/"+digest] = stored{mediaType, data}
	return digest
}

func digestOf(data []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(data)) }

// ServeHTTP is the registry.
func (r *Registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	r.requests = append(r.requests, req.Method+" "+req.URL.Path)
	status, silent := r.Status, r.Silent
	r.mu.Unlock()
	if silent != nil {
		<-silent
		return
	}
	if status != 0 {
		http.Error(w, `{"errors":[{"code":"UNAVAILABLE","message":"as the test wants it"}]}`, status)
		return
	}
	if req.URL.Path == "/token" {
		r.token(w, req)
		return
	}
	if !r.admitted(w, req) {
		return
	}
	path := strings.TrimPrefix(req.URL.Path, "/v2/")
	if repo, tag, ok := strings.Cut(path, "/manifests/"); ok {
		r.manifest(w, req, repo+"/"+tag)
	} else if _, digest, ok := strings.Cut(path, "/blobs/"); ok {
		r.blob(w, req, digest)
	} else if path != "" {
		http.NotFound(w, req)
	}
}

// token hands out the one bearer token to who has the login.
func (r *Registry) token(w http.ResponseWriter, req *http.Request) {
	user, password, _ := req.BasicAuth()
	if user != r.User || password != r.Password || !strings.HasPrefix(req.FormValue("scope"), "repository:") {
		http.Error(w, `{"errors":[{"code":"UNAUTHORIZED"}]}`, http.StatusUnauthorized)
		return
	}
	fmt.Fprintf(w, `{"token":%q}`, r.issued())
}

func (r *Registry) issued() string { return digestOf([]byte(r.User + r.Password)) }

func (r *Registry) admitted(w http.ResponseWriter, req *http.Request) bool {
	user, password, basic := req.BasicAuth()
	bearer := strings.TrimPrefix(req.Header.Get("Authorization"), "Bearer ")
	switch {
	case r.User == "" && r.Token == "",
		r.Token != "" && bearer == r.Token,
		r.Bearer && bearer == r.issued(),
		!r.Bearer && basic && user == r.User && password == r.Password:
		return true
	case r.Bearer:
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="test"`, r.server.URL))
	case r.Token != "":
		w.Header().Set("WWW-Authenticate", `Bearer realm="`+r.server.URL+`/none",service="test"`)
	default:
		w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
	}
	http.Error(w, `{"errors":[{"code":"UNAUTHORIZED","message":"who are you"}]}`, http.StatusUnauthorized)
	return false
}

func (r *Registry) manifest(w http.ResponseWriter, req *http.Request, key string) {
	r.mu.Lock()
	m, ok := r.manifests[key]
	r.mu.Unlock()
	if !ok {
		http.Error(w, `{"errors":[{"code":"MANIFEST_UNKNOWN"}]}`, http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", m.mediaType)
	w.Header().Set("Docker-Content-Digest", digestOf(m.data))
	w.Header().Set("Content-Length", strconv.Itoa(len(m.data)))
	if req.Method == http.MethodGet {
		_, _ = w.Write(m.data) // a reader that left is one of the tests
	}
}

func (r *Registry) blob(w http.ResponseWriter, req *http.Request, digest string) {
	r.mu.Lock()
	data, ok := r.blobs[digest]
	cut := int64(0)
	if r.Cuts > 0 && r.CutAfter > 0 {
		r.Cuts--
		cut = r.CutAfter
	}
	ranges, elsewhere, hang := !r.NoRanges, r.Elsewhere, r.Hang
	r.mu.Unlock()
	switch {
	case !ok:
		http.Error(w, `{"errors":[{"code":"BLOB_UNKNOWN"}]}`, http.StatusNotFound)
		return
	case elsewhere != "":
		http.Redirect(w, req, elsewhere+req.URL.Path, http.StatusTemporaryRedirect)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	if cut > 0 {
		w = &breaking{ResponseWriter: w, left: cut, hang: hang, ctx: req.Context()}
	}
	if ranges {
		http.ServeContent(w, req, "", time.Time{}, strings.NewReader(string(data)))
		return
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(data)))
	_, _ = w.Write(data) // a reader that left is one of the tests
}

// breaking breaks the connection after so many bytes.
type breaking struct {
	http.ResponseWriter
	left int64
	hang bool
	ctx  context.Context // of the request
}

func (b *breaking) Write(p []byte) (int, error) {
	n := min(int64(len(p)), b.left)
	b.left -= n
	if _, err := b.ResponseWriter.Write(p[:n]); err != nil {
		return 0, err
	}
	if b.left == 0 {
		if f, ok := b.ResponseWriter.(http.Flusher); ok {
			f.Flush()
		}
		if b.hang {
			<-b.ctx.Done()
		}
		panic(http.ErrAbortHandler)
	}
	return int(n), nil
}
