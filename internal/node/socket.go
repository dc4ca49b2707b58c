package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/edged-io/edged/internal/claims"
	"github.com/edged-io/edged/internal/config"
	"github.com/edged-io/edged/lattice"
	"github.com/edged-io/edged/providers/blobstore"
	"github.com/edged-io/edged/providers/child"
	"github.com/edged-io/edged/store"
)

// SocketPath is where a box with that state directory serves local verbs.
func SocketPath(stateDir string) string { return filepath.Join(stateDir, "edged.sock") }

// maxSocketPath is what the kernel allows (sun_path).
const maxSocketPath = 107

// listenSocket binds the socket. The store is locked by then, so a socket that
// is there was left by a process that is gone.
func listenSocket(path string) (net.Listener, error) {
	path = shorter(path)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("socket %s: %w: %w", path, store.ErrUnusable, err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("socket %s: %w", path, err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// serveHTTP serves until ctx ends.
func serveHTTP(ctx context.Context, l net.Listener, h http.Handler) error {
	s := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, MaxHeaderBytes: 16 << 10}
	failed := make(chan error, 1)
	go func() { failed <- s.Serve(l) }() // ends with s.Close or Shutdown below
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if err := s.Shutdown(end); err != nil {
		_ = s.Close()
	}
	<-failed
	return nil
}

// serveSocket serves the local verbs: HTTP with JSON, for the owner of the
// state directory.
func (n *Node) serveSocket(ctx context.Context) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", answer(func(*http.Request) (any, error) { return n.Status(), nil }))
	mux.HandleFunc("GET /streams", answer(func(*http.Request) (any, error) { return items(n.Status().Streams), nil }))
	mux.HandleFunc("GET /actors", answer(func(*http.Request) (any, error) { return items(n.actors()), nil }))
	mux.HandleFunc("GET /providers", answer(func(*http.Request) (any, error) { return items(n.providerStatus()), nil }))
	mux.HandleFunc("POST /providers", answer(n.attachProvider))
	mux.HandleFunc("DELETE /providers/{key}/{link}", answer(n.detachProvider))
	mux.HandleFunc("GET /gpio", answer(func(*http.Request) (any, error) { return items(n.gpio.Lines()), nil }))
	mux.HandleFunc("POST /gpio/{chip}/{line}/{level}", answer(n.setLine))
	mux.HandleFunc("DELETE /streams/{name}", answer(n.removeStream))
	mux.HandleFunc("GET /state", answer(func(*http.Request) (any, error) { return items(n.buckets()), nil }))
	mux.HandleFunc("DELETE /state/{bucket}", answer(n.removeBucket))
	mux.HandleFunc("GET /blobs", answer(func(*http.Request) (any, error) { return items(n.blobBuckets()), nil }))
	mux.HandleFunc("GET /blobs/{bucket}", answer(n.listObjects))
	mux.HandleFunc("GET /blobs/{bucket}/object", answer(n.readObject))
	mux.HandleFunc("DELETE /blobs/{bucket}", answer(n.removeBlobs))
	mux.HandleFunc("GET /subscriptions", answer(func(*http.Request) (any, error) { return items(n.subscriptions()), nil }))
	mux.HandleFunc("GET /dlq", answer(n.listDeadLetters))
	mux.HandleFunc("GET /dlq/{id}", answer(n.showDeadLetter))
	mux.HandleFunc("POST /dlq/replay", n.changeDeadLetters(n.replayDeadLetters))
	mux.HandleFunc("POST /dlq/drop", n.changeDeadLetters(n.dropDeadLetters))
	mux.HandleFunc("POST /call", answer(n.callActor))
	mux.HandleFunc("GET /digest", answer(func(r *http.Request) (any, error) { return n.broker.Digest(r.URL.Query().Get("stream")) }))
	mux.HandleFunc("GET /store/check", answer(func(r *http.Request) (any, error) { return n.db.Check(r.Context()) }))
	mux.HandleFunc("POST /store/compact", answer(func(r *http.Request) (any, error) { return n.db.Compact(r.Context()) }))
	mux.HandleFunc("POST /reload", answer(func(r *http.Request) (any, error) { return struct{}{}, n.Reload(r.Context()) }))
	return serveHTTP(ctx, n.socket, mux)
}

// list is how every listing looks in JSON.
type list[T any] struct {
	Items []T `json:"items"`
}

func items[T any](all []T) list[T] {
	if all == nil {
		all = []T{}
	}
	return list[T]{all}
}

// Problem is an error as the socket tells it. The status of the answer says of
// which kind it is: 400 and 404 for a request that makes no sense, 409 for what can
// not be done as things are, 403 for a refused signature, 422 for a fault in a manifest.
type Problem struct {
	Error string `json:"error"`
}

func answer(fn func(*http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v, err := fn(r)
		w.Header().Set("Content-Type", "application/json")
		if err != nil {
			w.WriteHeader(statusOf(err))
			v = Problem{err.Error()}
		}
		_ = json.NewEncoder(w).Encode(v) // the peer is gone if it fails
	}
}

// errRequest is a request that makes no sense.
var errRequest = errors.New("bad request")

func statusOf(err error) int {
	var faults config.Faults
	switch {
	case errors.Is(err, errNoActor), errors.Is(err, store.ErrNoDeadLetter), errors.Is(err, store.ErrNoStream), errors.Is(err, store.ErrNoSubscription), errors.Is(err, errNoBucket), errors.Is(err, blobstore.ErrNoObject), errors.Is(err, child.ErrUnknown):
		return http.StatusNotFound
	case errors.Is(err, errInUse), errors.Is(err, child.ErrRunning):
		return http.StatusConflict
	case errors.Is(err, errRequest):
		return http.StatusBadRequest
	case claims.Refused(err), errors.Is(err, lattice.ErrNotGranted):
		return http.StatusForbidden
	case errors.As(err, &faults):
		return http.StatusUnprocessableEntity
	}
	return http.StatusInternalServerError
}

func (n *Node) setLine(r *http.Request) (any, error) {
	line, err := strconv.Atoi(r.PathValue("line"))
	if err != nil {
		return nil, fmt.Errorf("line %q is no number: %w", r.PathValue("line"), errRequest)
	}
	level := r.PathValue("level")
	if level != "0" && level != "1" {
		return nil, fmt.Errorf("level %q is neither 0 nor 1: %w", level, errRequest)
	}
	if err := n.gpio.SetSim(r.PathValue("chip"), line, level == "1"); err != nil {
		return nil, fmt.Errorf("%w: %w", errRequest, err)
	}
	return struct{}{}, nil
}

// DialSocket connects to the socket of a box, whose path may be longer than the
// kernel takes.
func DialSocket(ctx context.Context, path string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "unix", shorter(path))
}

// shorter returns the path relative to the working directory, if only that fits.
func shorter(path string) string {
	if len(path) <= maxSocketPath {
		return path
	}
	wd, err := os.Getwd()
	if err != nil {
		return path
	}
	if rel, err := filepath.Rel(wd, path); err == nil && len(rel) < len(path) {
		return rel
	}
	return path
}
