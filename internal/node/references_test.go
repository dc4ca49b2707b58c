package node

import (
	"errors"
	"os"
	"testing"

	"github.com/edged-io/edged/internal/oci"
	"github.com/edged-io/edged/internal/oci/ocitest"
)

// What a box fetched once it has after a restart, with nobody to ask.
func TestNode_references(t *testing.T) {
	reg := ocitest.New(t)
	reg.User, reg.Password = "box", "open sesame"
	ref, _ := reg.Push("acme/thermostat:1", ocitest.Layer{Type: oci.ActorLayer, Data: []byte("code")})
	r := newRig(t, "[registry]\ninsecure = [\""+reg.Host+"\"]\n[[registry.login]]\nhost = \""+reg.Host+"\"\nuser = \"box\"\npassword_file = \"secret\"\n")
	r.write("secret", "open sesame\n")
	r.start()
	path, digest, err := r.references.Fetch(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != "code" {
		t.Errorf("got %q, %v", got, err)
	}
	if _, _, err := r.references.Fetch(t.Context(), sha256Digest([]byte("none"))); !errors.Is(err, oci.ErrNotFound) {
		t.Errorf("got %v", err)
	}
	r.stop()
	reg.Close()
	r.start()
	if _, _, err := r.references.Fetch(t.Context(), ref); err != nil {
		t.Error(err)
	}
	if got, _, ok := r.references.Held(digest); !ok || got != path {
		t.Errorf("got %s, %v", got, ok)
	}
}
