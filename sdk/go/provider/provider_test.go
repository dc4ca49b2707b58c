package provider

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
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
func example(t testing.TB) (envelope, []byte) {
	payload := unhex(t, "82a36b6579a161a576616c756501")
	return envelope{
		Origin: entity{Key: actorKey}, Target: entity{providerKey, "default", "wasmcloud:keyvalue"}, Operation: "KeyValue.Increment",
		Payload: payload, ID: "11111111-2222-4333-8444-555555555555", Host: hostKey, Length: uint64(len(payload)),
	}, payload
}

func TestClaims_describe(t *testing.T) {
	e, payload := example(t)
	var c claims
	c.describe(&e, payload)
	want := []string{
		"wasmbus://" + actorKey,
		"wasmbus://wasmcloud/keyvalue/default/" + providerKey + "/KeyValue.Increment",
		"8EFA1420941C8A0899FC44E5274CE693D673E5E1E984314581120F25AE726396",
	}
	if got := []string{c.Wascap.OriginURL, c.Wascap.TargetURL, c.Wascap.Hash}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %q, want %q", got, want)
	}
	odd := entity{Key: "Vx", Link: "My Link", Contract: "Acme:Some Thing"}
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
	c, err := verify(token, []string{clusterKey}, time.Now().Unix())
	if err == nil {
		err = c.matches(&e, payload)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := c.matches(&e, payload[1:]); err == nil {
		t.Error("another payload fits")
	}
	if _, err := verify(token, []string{hostKey}, 0); err == nil {
		t.Error("an issuer that is not trusted counts")
	}
	if _, err := verify(strings.Replace(token, ".Dy", ".Dz", 1), []string{clusterKey}, 0); err == nil {
		t.Error("another signature fits")
	}
}

func TestSign_verifies(t *testing.T) {
	e, payload := example(t)
	if err := sign(&e, payload, clusterSeed); err != nil {
		t.Fatal(err)
	}
	c, err := verify(e.Token, []string{clusterKey}, time.Now().Unix())
	if err == nil {
		err = c.matches(&e, payload)
	}
	if err != nil {
		t.Error(err)
	}
	if err := sign(&e, payload, "no seed"); err == nil || strings.Contains(err.Error(), "no seed") {
		t.Errorf("got %v", err)
	}
}

func line(t testing.TB, change func(map[string]any)) string {
	t.Helper()
	m := map[string]any{
		"host_id": hostKey, "lattice_rpc_prefix": "default", "link_name": "default", "provider_key": providerKey,
		"link_definitions": []any{map[string]any{"actor_id": actorKey, "values": map[string]string{"a": "b"}}}, "log_level": nil, "js_domain": nil,
		"otel_config": map[string]any{"traces_exporter": nil}, "lattice_rpc_tls": true, "invocation_seed": clusterSeed,
	}
	if change != nil {
		change(m)
	}
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(b)
}

func TestReadHostData(t *testing.T) {
	for _, end := range []string{"", "\n", "\r\n", "\nmore\n"} {
		d, err := ReadHostData(strings.NewReader(line(t, nil) + end))
		if err != nil || d.Key != providerKey || d.Links[0].Values["a"] != "b" {
			t.Errorf("end %q: got %v, %v", end, d, err)
		}
		if s := fmt.Sprintf("%v %+v %#v", d, d, d); strings.Contains(s, clusterSeed) {
			t.Errorf("the seed is in %s", s)
		}
	}
	for name, text := range map[string]string{
		"empty": "", "no base64": "{}", "no JSON": base64.StdEncoding.EncodeToString([]byte("host")),
		"no key":        line(t, func(m map[string]any) { delete(m, "provider_key") }),
		"subject":       line(t, func(m map[string]any) { m["link_name"] = ">" }),
		"another shape": line(t, func(m map[string]any) { m["link_definitions"] = "none" }),
	} {
		if _, err := ReadHostData(strings.NewReader(text)); err == nil {
			t.Errorf("%s: was read", name)
		}
	}
}

// Without a NATS server a provider waits, and can be stopped.
func TestRun_noServer(t *testing.T) {
	d, err := ParseHostData(line(t, func(m map[string]any) { m["lattice_rpc_url"] = "127.0.0.1:1" }))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	p := &counter{linked: cancel}
	if err := Run(ctx, d, func(*Host) (Provider, error) { return p, nil }); err != nil {
		t.Error(err)
	}
	if !p.closed {
		t.Error("the provider was not closed")
	}
	wrong := errors.New("no sensor")
	err = Run(t.Context(), d, func(*Host) (Provider, error) { return nil, wrong })
	if !errors.Is(err, wrong) {
		t.Errorf("got %v", err)
	}
}

type counter struct {
	linked func()
	closed bool
}

func (c *counter) PutLink(context.Context, Link) error              { c.linked(); return nil }
func (c *counter) DeleteLink(context.Context, Link) error           { return nil }
func (c *counter) Call(context.Context, Invocation) ([]byte, error) { return nil, ErrUnknown }
func (c *counter) Close() error                                     { c.closed = true; return nil }

func FuzzHostData(f *testing.F) {
	f.Add(line(f, nil))
	f.Add("")
	f.Add("e30=")
	f.Fuzz(func(t *testing.T, s string) {
		d, err := ReadHostData(strings.NewReader(s))
		if err == nil && strings.ContainsAny(d.Lattice+d.LinkName+d.Key, ".*> ") {
			t.Errorf("%q can not be in a subject", d.Lattice+" "+d.LinkName+" "+d.Key)
		}
	})
}

func FuzzInvocation(f *testing.F) {
	e, payload := example(f)
	if err := sign(&e, payload, clusterSeed); err != nil {
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
		e, err := readEnvelope(b)
		if len(e.ID) > 64 {
			t.Errorf("id of %d bytes", len(e.ID))
		}
		c, _ := verify(e.Token, []string{clusterKey}, 0)
		if err == nil && c.matches(&e, e.Payload) == nil && e.Operation != "KeyValue.Increment" {
			t.Errorf("a token of %q was made up", e.Operation)
		}
	})
}

func FuzzAnswer(f *testing.F) {
	b, _ := msgpack.Marshal(answer{Payload: []byte{1}, ID: "a", Length: 1})
	f.Add(b)
	f.Add(unhex(f, "84a36d7367a161ad696e766f636174696f6e5f6964a161a56572726f72c0ae636f6e74656e745f6c656e67746801"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var a answer
		var l Link
		if msgpack.Unmarshal(b, &a) == nil && len(a.Payload) > len(b) {
			t.Errorf("%d bytes from %d", len(a.Payload), len(b))
		}
		_ = msgpack.Unmarshal(b, &l)
	})
}
