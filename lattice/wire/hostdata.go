package wire

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
)

// MaxHostData is how long the line of a HostData may be, in bytes.
const MaxHostData = 16 << 20

// HostData is what a provider is told when it starts: one line on its stdin, base64 of
// JSON. It holds secrets, and prints none of them.
type HostData struct {
	Host       string            `json:"host_id"` // N key
	Lattice    string            `json:"lattice_rpc_prefix"`
	LinkName   string            `json:"link_name"`
	UserJWT    string            `json:"lattice_rpc_user_jwt"`
	UserSeed   string            `json:"lattice_rpc_user_seed"`
	URL        string            `json:"lattice_rpc_url"` // of the NATS server; may hold a login
	TLS        int               `json:"lattice_rpc_tls"`
	Provider   string            `json:"provider_key"`
	Seed       string            `json:"invocation_seed"` // signs the provider's own invocations
	Env        map[string]string `json:"env_values"`
	Instance   string            `json:"instance_id"`
	Links      []Link            `json:"link_definitions"` // of this provider and link name
	Issuers    []string          `json:"cluster_issuers"`  // whose invocations it should believe
	Config     string            `json:"config_json"`
	TimeoutMS  int64             `json:"default_rpc_timeout_ms"`
	Structured bool              `json:"structured_logging"`
	JSDomain   *string           `json:"js_domain"` // nil for the account's own
	OTel       OTel              `json:"otel_config"`
	LogLevel   string            `json:"log_level,omitempty"` // "error" to "trace"; old kits misread a null
	Edged      *Edged            `json:"edged,omitempty"`     // nil from other hosts
}

// Edged is what a box of edged says to kits that know of it.
type Edged struct {
	// Inbox is what the inboxes of the provider should begin with: nobody else can read
	// what comes to those.
	Inbox string `json:"inbox_prefix"`
	// Objects says whether the login may use the object store.
	Objects bool `json:"object_store"`
}

// OTel is where a provider sends its traces, nil for nowhere.
type OTel struct {
	Exporter *string `json:"traces_exporter"`
	Endpoint *string `json:"exporter_otlp_endpoint"`
}

// Line returns the line that goes to the stdin of a provider, with its end.
func (h HostData) Line() ([]byte, error) {
	// Readers of several kits take no null for these.
	if h.Env == nil {
		h.Env = map[string]string{}
	}
	if h.Issuers == nil {
		h.Issuers = []string{}
	}
	links := make([]Link, len(h.Links))
	for i, l := range h.Links {
		if l.Values == nil {
			l.Values = map[string]string{}
		}
		links[i] = l
	}
	h.Links = links
	text, err := json.Marshal(h)
	if err != nil {
		return nil, fmt.Errorf("host data: %w", err)
	}
	line := make([]byte, base64.StdEncoding.EncodedLen(len(text)), base64.StdEncoding.EncodedLen(len(text))+1)
	base64.StdEncoding.Encode(line, text)
	line = append(line, '\n')
	if len(line) > MaxHostData {
		return nil, fmt.Errorf("host data of %d bytes, at most %d: give the links fewer values", len(line), MaxHostData)
	}
	return line, nil
}

// ParseHostData reads a line, with or without its end. Errors wrap ErrMalformed.
func ParseHostData(line []byte) (HostData, error) {
	var h HostData
	if len(line) > MaxHostData {
		return h, malformed("host data of %d bytes, at most %d", len(line), MaxHostData)
	}
	text, err := base64.StdEncoding.AppendDecode(nil, bytes.TrimSpace(line))
	if err != nil {
		return h, malformed("host data: %v", err)
	}
	d := struct {
		*HostData
		TLS any `json:"lattice_rpc_tls"` // hosts send a number or a truth value
	}{HostData: &h}
	if err := json.Unmarshal(text, &d); err != nil {
		return HostData{}, malformed("host data: %v", err)
	}
	if on, ok := d.TLS.(bool); ok && on {
		h.TLS = 1
	} else if n, ok := d.TLS.(float64); ok && n != 0 {
		h.TLS = 1
	}
	for what, name := range map[string]string{"host_id": h.Host, "provider_key": h.Provider, "lattice_rpc_prefix": h.Lattice, "link_name": h.LinkName} {
		if name == "" {
			return HostData{}, malformed("host data has no %s", what)
		}
	}
	return h, nil
}

// String keeps the secrets out of texts.
func (h HostData) String() string { return "[host data of provider " + h.Provider + "]" }

// GoString keeps the secrets out of %#v.
func (h HostData) GoString() string { return h.String() }

// LogValue keeps the secrets out of logs.
func (h HostData) LogValue() slog.Value { return slog.StringValue(h.String()) }
