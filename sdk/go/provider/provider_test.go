package provider

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
)

// Keys whose seeds are 32 equal bytes, as the description of the protocol has them.
const (
	actorKey    = "MCATS5YOVB6ROX2WUNKGNQ2MP3GMXDMKSG2O4N5CLX3A6W4PZGZZJPUL"
	providerKey = "VDWUSKGGFDI4FRXK5EBTRECZSVQSSWJHHJOGH6JWG3AUMFFMQ435CDVS"
	clusterSeed = "SCAAIBAEAQCAIBAEAQCAIBAEAQCAIBAEAQCAIBAEAQCAIBAEAQCAIBANEQ"
	hostKey     = "NBXHUHG5FGYLPD6RHL2MKWMP572O6KUXCZXDZJXS4T57ZTMAKBN7C574"
)

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
