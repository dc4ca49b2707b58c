package ota_test

import (
	"crypto/sha256"
	"encoding/json"
	"os"
	"testing"

	"github.com/edged-io/edged/internal/claims"
	"github.com/edged-io/edged/internal/ota"
)

func readJSON(t *testing.T, path string, v any) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, v); err != nil {
		t.Fatal(err)
	}
}

// putDesired writes a desired state by hand, without its files.
func putDesired(t *testing.T, h *testHub, v any) {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	if err := ota.EnsureHub(t.Context(), h.conn, "", 1); err != nil {
		t.Fatal(err)
	}
	kv, err := h.js.KeyValue(t.Context(), ota.DesiredBucket)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kv.Put(t.Context(), device, b); err != nil {
		t.Fatal(err)
	}
}

func digestOf(content string) string { return claims.Digest(sha256.Sum256([]byte(content))) }
