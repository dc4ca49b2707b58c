package wire_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/edged-io/edged/lattice/wire"
)

func hostData() wire.HostData {
	return wire.HostData{
		Host: "NHOST", Lattice: "default", LinkName: "default", URL: "nats://u:secret@127.0.0.1:4222", Provider: "VPROVIDER",
		Seed: "SCSECRET", Instance: "7c0e", TimeoutMS: 2000, Issuers: []string{"CCLUSTER"},
		Links: []wire.Link{{Actor: "MACTOR", Provider: "VPROVIDER", Name: "default", Contract: "wasmcloud:keyvalue", Values: map[string]string{"URL": "redis://127.0.0.1:6379"}}},
	}
}

// PROTOCOL 4.2 and trap 30: each row is there, also where it is empty, and of the kind that readers insist on.
func TestHostData_Line(t *testing.T) {
	line, err := wire.HostData{Links: []wire.Link{{Actor: "M"}}}.Line()
	if err != nil || !bytes.HasSuffix(line, []byte("\n")) || bytes.Count(line, []byte("\n")) != 1 {
		t.Fatalf("line %q, %v", line, err)
	}
	text, err := base64.StdEncoding.DecodeString(string(line[:len(line)-1]))
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"host_id": "", "lattice_rpc_prefix": "", "link_name": "", "lattice_rpc_user_jwt": "", "lattice_rpc_user_seed": "", "lattice_rpc_url": "",
		"lattice_rpc_tls": 0.0, "provider_key": "", "invocation_seed": "", "env_values": map[string]any{}, "instance_id": "",
		"link_definitions": []any{map[string]any{"actor_id": "M", "provider_id": "", "link_name": "", "contract_id": "", "values": map[string]any{}}},
		"cluster_issuers":  []any{}, "config_json": "", "default_rpc_timeout_ms": 0.0, "structured_logging": false, "js_domain": nil,
		"otel_config": map[string]any{"traces_exporter": nil, "exporter_otlp_endpoint": nil},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%v\nwant\n%v", got, want)
	}
	if line, err = (wire.HostData{}).Line(); err != nil || !strings.Contains(decoded(t, line), `"link_definitions":[]`) {
		t.Errorf("no links: %v, %s", err, decoded(t, line))
	}
	if _, err := (wire.HostData{Config: strings.Repeat("x", wire.MaxHostData)}).Line(); err == nil {
		t.Error("a line of any length")
	}
}

func decoded(t *testing.T, line []byte) string {
	t.Helper()
	text, err := base64.StdEncoding.DecodeString(string(line))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestParseHostData(t *testing.T) {
	line, err := hostData().Line()
	if err != nil {
		t.Fatal(err)
	}
	for _, end := range []string{"", "\n", "\r\n"} { // trap 28
		h, err := wire.ParseHostData(append(bytes.TrimSpace(line), end...))
		if err != nil || h.Provider != "VPROVIDER" || len(h.Links) != 1 || h.Links[0].Values["URL"] != "redis://127.0.0.1:6379" || h.Seed != "SCSECRET" {
			t.Errorf("end %q: got %+v, %v", end, h, err)
		}
	}
	text := decoded(t, line)
	for what, change := range map[string]string{
		`"lattice_rpc_tls":0`: `"lattice_rpc_tls":true,"unknown":[1]`, `"log_level"`: `"log_level"`, `"js_domain":null`: `"js_domain":"hub"`,
	} {
		other := base64.StdEncoding.EncodeToString([]byte(strings.Replace(text, what, change, 1)))
		if _, err := wire.ParseHostData([]byte(other)); err != nil {
			t.Errorf("%s: %v", change, err)
		}
	}
	for _, bad := range []string{"", "not base64!", base64.StdEncoding.EncodeToString([]byte("{}")), base64.StdEncoding.EncodeToString([]byte(`{"host_id":1}`)),
		base64.StdEncoding.EncodeToString([]byte(text + "x"))} {
		if _, err := wire.ParseHostData([]byte(bad)); !errors.Is(err, wire.ErrMalformed) {
			t.Errorf("%.40q: %v", bad, err)
		}
	}
}

func TestHostData_printsNoSecret(t *testing.T) {
	h := hostData()
	for _, text := range []string{fmt.Sprint(h), fmt.Sprintf("%+v", h), fmt.Sprintf("%#v", h), fmt.Sprint(&h), h.LogValue().String()} {
		if strings.Contains(strings.ToLower(text), "secret") {
			t.Errorf("printed %q", text)
		}
	}
}

func FuzzHostData(f *testing.F) {
	line, err := hostData().Line()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(line)
	f.Add([]byte("e30=\r\n"))
	f.Fuzz(func(t *testing.T, line []byte) {
		h, err := wire.ParseHostData(line)
		if err != nil {
			return
		}
		again, err := h.Line()
		if err != nil {
			t.Fatal(err)
		}
		if back, err := wire.ParseHostData(again); err != nil || back.Provider != h.Provider || len(back.Links) != len(h.Links) {
			t.Errorf("got %+v, %v", back, err)
		}
	})
}
