package httpsettings

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/edged-io/edged/internal/strictjson"
)

// MaxDocument is how long a settings document may be, in bytes.
const MaxDocument = 64 << 10

// document is the settings document of classic wasmCloud, with the keys of the
// manifest beside its own.
type document struct {
	Address      string       `json:"address,omitempty"`
	TLS          *documentTLS `json:"tls,omitempty"`
	CORS         *corsTable   `json:"cors,omitempty"`
	Log          any          `json:"log,omitempty"`
	TimeoutMS    *int64       `json:"timeout_ms,omitempty"`
	ReadOnly     *bool        `json:"readonly_mode,omitempty"`
	CacheControl string       `json:"cache_control,omitempty"`

	Hosts          []string       `json:"hosts,omitempty"`
	Routes         []string       `json:"routes,omitempty"`
	MaxBody        *int64         `json:"max_body,omitempty"`
	MaxConnections *int           `json:"max_connections,omitempty"`
	MaxRequests    *int           `json:"max_requests,omitempty"`
	Timeout        *timeoutsTable `json:"timeout,omitempty"`
}

type documentTLS struct {
	Cert string `json:"cert_file"`
	Key  string `json:"priv_key_file"`
}

type corsTable struct {
	Origins []string `json:"allowed_origins,omitempty"`
	Headers []string `json:"allowed_headers,omitempty"`
	Methods []string `json:"allowed_methods,omitempty"`
	Exposed []string `json:"exposed_headers,omitempty"`
	MaxAge  int64    `json:"max_age_secs,omitempty"`
}

type timeoutsTable struct {
	Header  string `json:"header,omitempty"`
	Read    string `json:"read,omitempty"`
	Handler string `json:"handler,omitempty"`
	Write   string `json:"write,omitempty"`
}

// Document overlays s with a settings document: JSON, strict about its keys.
func (s *Settings) Document(data []byte) error {
	if len(data) > MaxDocument {
		return fmt.Errorf("%d bytes, at most %d", len(data), MaxDocument)
	}
	var c document
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	var bad *json.UnmarshalTypeError
	if err := d.Decode(&c); errors.As(err, &bad) {
		return fmt.Errorf("%s is %s, which it can not be", cmp.Or(bad.Field, "the document"), bad.Value)
	} else if err != nil {
		return fmt.Errorf("%s", clip(strings.TrimPrefix(err.Error(), "json: ")))
	}
	if _, err := d.Token(); err != io.EOF {
		return fmt.Errorf("there is more behind the document")
	}
	if err := strictjson.CheckKeys(data, &c); err != nil {
		return err
	}
	if c.Log != nil {
		return fmt.Errorf("log is not enforced by this version: edged run --log-level is")
	}
	if err := c.Timeout.overlay(s); err != nil {
		return err
	}
	if ms := c.TimeoutMS; ms != nil {
		if *ms < 1 || *ms > MaxTimeout.Milliseconds() {
			return fmt.Errorf("timeout_ms: want 1 to %d", MaxTimeout.Milliseconds())
		}
		s.HandlerTimeout = time.Duration(*ms) * time.Millisecond
	}
	set(&s.ReadOnly, c.ReadOnly)
	set(&s.MaxBody, c.MaxBody)
	set(&s.MaxConnections, c.MaxConnections)
	set(&s.MaxRequests, c.MaxRequests)
	if c.Address != "" {
		s.Listen = c.Address
	}
	if c.TLS != nil {
		s.TLS = TLS{c.TLS.Cert, c.TLS.Key}
	}
	if c.CORS != nil {
		if c.CORS.MaxAge < 0 || c.CORS.MaxAge > 86400 {
			return fmt.Errorf("cors.max_age_secs: want 0 to 86400")
		}
		s.CORS = &CORS{c.CORS.Origins, c.CORS.Headers, c.CORS.Methods, c.CORS.Exposed, time.Duration(c.CORS.MaxAge) * time.Second}
	}
	if c.CacheControl != "" {
		s.CacheControl = c.CacheControl
	}
	if c.Hosts != nil {
		s.Hosts = c.Hosts
	}
	if c.Routes != nil {
		s.Routes = c.Routes
	}
	return nil
}

func set[T any](to, from *T) {
	if from != nil {
		*to = *from
	}
}

func (t *timeoutsTable) overlay(s *Settings) error {
	if t == nil {
		return nil
	}
	for _, one := range []struct {
		name, text string
		to         *time.Duration
	}{
		{"header", t.Header, &s.HeaderTimeout}, {"read", t.Read, &s.ReadTimeout},
		{"handler", t.Handler, &s.HandlerTimeout}, {"write", t.Write, &s.WriteTimeout},
	} {
		if one.text == "" {
			continue
		}
		d, err := time.ParseDuration(one.text)
		if err != nil {
			return fmt.Errorf("timeout.%s: want a duration like \"500ms\", got %q", one.name, clip(one.text))
		}
		*one.to = d
	}
	return nil
}

// JSON returns s as a settings document.
func (s *Settings) JSON() string {
	c := document{
		Address: s.Listen, CacheControl: s.CacheControl, ReadOnly: &s.ReadOnly, Hosts: s.Hosts, Routes: s.Routes,
		MaxBody: &s.MaxBody, MaxConnections: &s.MaxConnections, MaxRequests: &s.MaxRequests,
		Timeout: &timeoutsTable{s.HeaderTimeout.String(), s.ReadTimeout.String(), s.HandlerTimeout.String(), s.WriteTimeout.String()},
	}
	if s.TLS != (TLS{}) {
		c.TLS = &documentTLS{s.TLS.Cert, s.TLS.Key}
	}
	if s.CORS != nil {
		c.CORS = &corsTable{s.CORS.Origins, s.CORS.Headers, s.CORS.Methods, s.CORS.Exposed, int64(s.CORS.MaxAge / time.Second)}
	}
	b, err := json.Marshal(c)
	if err != nil {
		panic("httpsettings: " + err.Error()) // strings and numbers can be JSON
	}
	return string(b)
}

// Base64 overlays s with a settings document in base64.
func (s *Settings) Base64(text string) error {
	data, err := base64.StdEncoding.DecodeString(strings.TrimSpace(text))
	if err != nil {
		return fmt.Errorf("not base64: %w", err)
	}
	return s.Document(data)
}

// Port overlays s with the classic value "port": loopback alone.
func (s *Settings) Port(n int) { s.Listen = "127.0.0.1:" + strconv.Itoa(n) }

// FromValues reads the values of a link, as classic wasmCloud has them. The
// settings document comes first; what is beside it wins.
func FromValues(values map[string]string) (Settings, error) {
	s := Default()
	for key, overlay := range map[string]func(string) error{"config_json": func(v string) error { return s.Document([]byte(v)) }, "config_b64": s.Base64} {
		if v := values[key]; v != "" {
			if err := overlay(v); err != nil {
				return s, fmt.Errorf("%s: %w", key, err)
			}
		}
	}
	if values["config_json"] != "" && values["config_b64"] != "" {
		return s, fmt.Errorf("config_json and config_b64 are two ways to give one document: take one")
	}
	for key, v := range values {
		switch key {
		case "config_json", "config_b64":
		case "port":
			n, err := strconv.ParseUint(v, 10, 16)
			if err != nil {
				return s, fmt.Errorf("port: want 0 to 65535, got %q", clip(v))
			}
			if _, both := values["address"]; !both {
				s.Port(int(n))
			}
		case "address":
			s.Listen = v
		case "cache_control":
			s.CacheControl = v
		case "readonly_mode":
			on, err := strconv.ParseBool(v)
			if err != nil {
				return s, fmt.Errorf("readonly_mode: want true or false, got %q", clip(v))
			}
			s.ReadOnly = on
		default:
			return s, fmt.Errorf("%s: unknown value", clip(key))
		}
	}
	return s, s.Check().Err()
}
