package wire

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/edged-io/edged/sdk/go/msgpack"
)

// Keys whose seeds are 32 equal bytes, as the description of the protocol has them.
const (
	actorKey    = "MCATS5YOVB6ROX2WUNKGNQ2MP3GMXDMKSG2O4N5CLX3A6W4PZGZZJPUL"
	providerKey = "VDWUSKGGFDI4FRXK5EBTRECZSVQSSWJHHJOGH6JWG3AUMFFMQ435CDVS"
	clusterKey  = "CDFJHLAXAUMHA4OWPOB4P7YO72AQR2HMIUYFOXLXE2DZGM633K7HYHVW"
	clusterSeed = "SCAAIBAEAQCAIBAEAQCAIBAEAQCAIBAEAQCAIBAEAQCAIBAEAQCAIBANEQ"
	hostKey     = "NBXHUHG5FGYLPD6RHL2MKWMP572O6KUXCZXDZJXS4T57ZTMAKBN7C574"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The call that the description of the protocol spells out.
func example(t testing.TB) (Call, []byte) {
	payload := unhex(t, "82a36b6579a161a576616c756501")
	return Call{
		Origin: Entity{Key: actorKey}, Target: Entity{providerKey, "default", "wasmcloud:keyvalue"}, Operation: "KeyValue.Increment",
		Payload: payload, ID: "11111111-2222-4333-8444-555555555555", Host: hostKey, Length: uint64(len(payload)),
	}, payload
}

func TestClaims_describe(t *testing.T) {
	e, payload := example(t)
	var c Claims
	c.describe(&e, payload)
	want := []string{
		"wasmbus://" + actorKey,
		"wasmbus://wasmcloud/keyvalue/default/" + providerKey + "/KeyValue.Increment",
		"8EFA1420941C8A0899FC44E5274CE693D673E5E1E984314581120F25AE726396",
	}
	if got := []string{c.Wascap.OriginURL, c.Wascap.TargetURL, c.Wascap.Hash}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %q, want %q", got, want)
	}
	odd := Entity{Key: "Vx", Link: "My Link", Contract: "Acme:Some Thing"}
	if got := odd.url(); got != "wasmbus://acme/some_thing/my_link/Vx" {
		t.Errorf("got %q", got)
	}
}

// The token of the same call, byte for byte.
func TestVerify_known(t *testing.T) {
	body := `{"jti":"BBBBBBBBBBBBBBBBBBBBBB","iat":1700000000,"iss":"` + clusterKey + `","sub":"11111111-2222-4333-8444-555555555555","wascap":{"target_url":"wasmbus://wasmcloud/keyvalue/default/` + providerKey +
		`/KeyValue.Increment","origin_url":"wasmbus://` + actorKey + `","hash":"8EFA1420941C8A0899FC44E5274CE693D673E5E1E984314581120F25AE726396"},"wascap_revision":3}`
	token := segment.EncodeToString([]byte(`{"typ":"jwt","alg":"Ed25519"}`)) + "." + segment.EncodeToString([]byte(body)) +
		".Dy0zigUhQPD3TPn3mGx9jR68_SJb4Xe1hfBN5cDWzT7kSO9_U1j5xcqzIDuVwibWCmx1DtXaYOlKf66GqiGMBg"
	e, payload := example(t)
	c, err := Verify(token, []string{clusterKey}, time.Now().Unix())
	if err == nil {
		err = c.Matches(&e, payload)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Matches(&e, payload[1:]); err == nil {
		t.Error("another payload fits")
	}
	if _, err := Verify(token, []string{hostKey}, 0); err == nil {
		t.Error("an issuer that is not trusted counts")
	}
	if _, err := Verify(strings.Replace(token, ".Dy", ".Dz", 1), []string{clusterKey}, 0); err == nil {
		t.Error("another signature fits")
	}
}

func TestSign_verifies(t *testing.T) {
	e, payload := example(t)
	if err := Sign(&e, payload, clusterSeed); err != nil {
		t.Fatal(err)
	}
	c, err := Verify(e.Token, []string{clusterKey}, time.Now().Unix())
	if err == nil {
		err = c.Matches(&e, payload)
	}
	if err != nil {
		t.Error(err)
	}
	if err := Sign(&e, payload, "no seed"); err == nil || strings.Contains(err.Error(), "no seed") {
		t.Errorf("got %v", err)
	}
}

func FuzzInvocation(f *testing.F) {
	e, payload := example(f)
	if err := Sign(&e, payload, clusterSeed); err != nil {
		f.Fatal(err)
	}
	b, err := msgpack.Marshal(e)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(bytes.Replace(b, []byte("payload"), []byte("paylod"), 1))
	f.Add([]byte{0x91, 0x83})
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := ReadCall(b)
		if len(e.ID) > 64 {
			t.Errorf("id of %d bytes", len(e.ID))
		}
		c, _ := Verify(e.Token, []string{clusterKey}, 0)
		if err == nil && c.Matches(&e, e.Payload) == nil && e.Operation != "KeyValue.Increment" {
			t.Errorf("a token of %q was made up", e.Operation)
		}
	})
}

func FuzzAnswer(f *testing.F) {
	b, _ := msgpack.Marshal(Answer{Payload: []byte{1}, ID: "a", Length: 1})
	f.Add(b)
	f.Add(unhex(f, "84a36d7367a161ad696e766f636174696f6e5f6964a161a56572726f72c0ae636f6e74656e745f6c656e67746801"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var a Answer
		if msgpack.Unmarshal(b, &a) == nil && len(a.Payload) > len(b) {
			t.Errorf("%d bytes from %d", len(a.Payload), len(b))
		}
	})
}
