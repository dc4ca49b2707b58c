package wire_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/edged-io/edged/internal/claims"
	"github.com/edged-io/edged/lattice/wire"
)

const (
	module   = "MCATS5YOVB6ROX2WUNKGNQ2MP3GMXDMKSG2O4N5CLX3A6W4PZGZZJPUL"
	provider = "VDWUSKGGFDI4FRXK5EBTRECZSVQSSWJHHJOGH6JWG3AUMFFMQ435CDVS"
	host     = "NBXHUHG5FGYLPD6RHL2MKWMP572O6KUXCZXDZJXS4T57ZTMAKBN7C574"
	cluster  = "SCAAIBAEAQCAIBAEAQCAIBAEAQCAIBAEAQCAIBAEAQCAIBAEAQCAIBANEQ"
)

// increment is the invocation of the check value in section 3.4 of the protocol,
// but for the token.
func increment(t testing.TB) wire.Invocation {
	t.Helper()
	payload, err := hex.DecodeString("82a36b6579a161a576616c756501")
	if err != nil {
		t.Fatal(err)
	}
	return wire.Invocation{
		Origin:    wire.Entity{Key: module},
		Target:    wire.Entity{Key: provider, Link: "default", Contract: "wasmcloud:keyvalue"},
		Operation: "KeyValue.Increment", Payload: payload, ID: "11111111-2222-4333-8444-555555555555", Host: host, Length: 14,
	}
}

func TestInvocation_checkValue(t *testing.T) {
	i := increment(t)
	i.Token = checkToken(t, i)
	if !strings.HasSuffix(i.Token, ".Dy0zigUhQPD3TPn3mGx9jR68_SJb4Xe1hfBN5cDWzT7kSO9_U1j5xcqzIDuVwibWCmx1DtXaYOlKf66GqiGMBg") {
		t.Errorf("signature of the token differs: %s", i.Token)
	}
	b := i.Append(nil)
	start, _ := hex.DecodeString("89a66f726967696e83aa7075626c69635f6b6579d938")
	end, _ := hex.DecodeString("ae636f6e74656e745f6c656e6774680eac7472616365436f6e7465787480")
	if !bytes.HasPrefix(b, append(start, "MCATS"...)) || !bytes.HasSuffix(b, end) {
		t.Errorf("envelope is %q", b)
	}
	if sum := fmt.Sprintf("%x", sha256.Sum256(b)); len(b) != 1191 || sum != "6d853b060fb9fe26be38e9156a10c58aeb71d42a6ec3b4b31156377360efd3f8" {
		t.Errorf("envelope has %d bytes, SHA-256 %s", len(b), sum)
	}
	got, err := wire.DecodeInvocation(b)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Append(nil), b) {
		t.Error("decoding and encoding again gives other bytes")
	}
	issuer, err := wire.Check(&got, got.Payload, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if issuer.String() != "CDFJHLAXAUMHA4OWPOB4P7YO72AQR2HMIUYFOXLXE2DZGM633K7HYHVW" {
		t.Errorf("issuer is %s", issuer)
	}
}

// checkToken signs with the time and id of the check value.
func checkToken(t testing.TB, i wire.Invocation) string {
	t.Helper()
	seed, err := claims.ParseSeed(cluster)
	if err != nil {
		t.Fatal(err)
	}
	type body struct {
		TargetURL string `json:"target_url"`
		OriginURL string `json:"origin_url"`
		Hash      string `json:"hash"`
	}
	text, err := claims.Sign(claims.Claims[body]{
		ID: "BBBBBBBBBBBBBBBBBBBBBB", IssuedAt: 1700000000, Subject: i.ID, Revision: 3,
		Wascap: body{
			"wasmbus://wasmcloud/keyvalue/default/" + provider + "/KeyValue.Increment", "wasmbus://" + module,
			"8EFA1420941C8A0899FC44E5274CE693D673E5E1E984314581120F25AE726396",
		},
	}, seed)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestCheck_forged(t *testing.T) {
	seed, err := claims.ParseSeed(cluster)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*wire.Invocation){
		"origin":    func(i *wire.Invocation) { i.Origin.Key = "MAAA" },
		"target":    func(i *wire.Invocation) { i.Target.Link = "other" },
		"operation": func(i *wire.Invocation) { i.Operation = "KeyValue.Del" },
		"payload":   func(i *wire.Invocation) { i.Payload = []byte{0xc0} },
		"id":        func(i *wire.Invocation) { i.ID = "x" },
		"contract":  func(i *wire.Invocation) { i.Target.Contract = "edged:gpio" },
		"host":      func(i *wire.Invocation) { i.Host = "" },
		"token":     func(i *wire.Invocation) { i.Token = i.Token[:len(i.Token)-4] + "AAAA" },
		"no token":  func(i *wire.Invocation) { i.Token = "" },
	} {
		t.Run(name, func(t *testing.T) {
			i := increment(t)
			if err := wire.Sign(&i, i.Payload, seed); err != nil {
				t.Fatal(err)
			}
			if _, err := wire.Check(&i, i.Payload, time.Now()); err != nil {
				t.Fatal(err)
			}
			change(&i)
			if _, err := wire.Check(&i, i.Payload, time.Now()); !errors.Is(err, wire.ErrForged) {
				t.Errorf("got %v, want ErrForged", err)
			}
		})
	}
}
