package event_test

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/edged-io/edged/internal/event"
)

func block(lines ...string) event.Header {
	return event.Header("NATS/1.0\r\n" + strings.Join(lines, "\r\n") + "\r\n\r\n")
}

func TestParse_binary(t *testing.T) {
	h := block("CE-SpecVersion: 1.0", "ce-id:  a%20b ", "Ce-Source: /s/50%", "ce-type: t", "ce-time: 2024-01-01T00:00:00Z", "ce-shard: 7", "Content-Type: text/plain", "ce-bad_name: x")
	e, ok := event.Parse(h, "greenhouse.1", []byte("hello"))
	want := event.Event{ID: "a b", Source: "/s/50%", Type: "t", Time: "2024-01-01T00:00:00Z", Data: []byte("hello"), Subject: "greenhouse.1", DataContentType: "text/plain", Extensions: map[string]string{"shard": "7"}}
	if !ok || !reflect.DeepEqual(e, want) {
		t.Errorf("got %+v, %v, want %+v", e, ok, want)
	}
}

func TestParse_headerValues(t *testing.T) {
	for raw, want := range map[string]string{
		"plain": "plain", "a%20b%E2%82%AC%22": `a b€"`, "%e2%82%ac": "€", "50%": "50%", "%zz": "%zz", "%4": "%4", "é": "é",
		`"a b"`: "a b", `"a\"b\\c"`: `a"b\c`, `"a%20b"`: "a b", `""`: "", `"`: `"`, `"a"b"`: `"a"b"`, `"a\"`: `"a\"`, `a"b"`: `a"b"`,
	} {
		e, ok := event.Parse(block("ce-specversion: 1.0", "ce-id: 1", "ce-source: s", "ce-x: "+raw), "", nil)
		if !ok || e.Extensions["x"] != want {
			t.Errorf("%s: got %q, %v, want %q", raw, e.Extensions["x"], ok, want)
		}
	}
}

// What a NATS client of CloudEvents writes: the type of the data has a header like any attribute, and Content-Type is there for structured mode.
func TestParse_modes(t *testing.T) {
	binary := block("ce-specversion: 1.0", "ce-id: 1", "ce-source: s", "ce-type: t", "ce-datacontenttype: text/xml", "Content-Type: application/json")
	if e, ok := event.Parse(binary, "", []byte("<x/>")); !ok || e.DataContentType != "text/xml" || string(e.Data) != "<x/>" {
		t.Errorf("binary: got %+v, %v", e, ok)
	}
	e, ok := event.Parse(block("Content-Type: application/cloudevents"), "", []byte(`{"specversion":"1.0","id":"1","source":"s","type":"t","datacontenttype":"text/xml","data":"<x/>"}`))
	if !ok || e.DataContentType != "text/xml" || string(e.Data) != "<x/>" {
		t.Errorf("structured: got %+v, %v", e, ok)
	}
	batch := []byte(`[{"specversion":"1.0","id":"1","source":"s","type":"t"}]`)
	if e, ok := event.Parse(block("Content-Type: application/cloudevents-batch+json"), "", batch); ok || string(e.Data) != string(batch) {
		t.Errorf("a batch is not one event: got %+v, %v", e, ok)
	}
}

func TestParse_structured(t *testing.T) {
	for _, c := range []struct {
		name, body string
		want       event.Event
	}{
		{"json data", ` {"specversion":"1.0","id":"1","source":"s","type":"t","data": {"a": [1, "}"]} }`, event.Event{Data: []byte(`{"a": [1, "}"]}`)}},
		{"string data of json", `{"specversion":"1.0","id":"1","source":"s","type":"t","data":"x"}`, event.Event{Data: []byte(`"x"`)}},
		{"text", `{"specversion":"1.0","id":"1","source":"s","type":"t","datacontenttype":"text/plain","data":"a\"\u00e4"}`, event.Event{Data: []byte(`a"ä`), DataContentType: "text/plain"}},
		{"json under text type", `{"specversion":"1.0","id":"1","source":"s","type":"t","datacontenttype":"text/plain","data":[1]}`, event.Event{Data: []byte(`[1]`), DataContentType: "text/plain"}},
		{"base64", `{"specversion":"1.0","id":"1","source":"s","type":"t","data_base64":"AP8="}`, event.Event{Data: []byte{0, 255}}},
		{"null data", `{"specversion":"1.0","id":"1","source":"s","type":"t","data":null,"data_base64":null}`, event.Event{}},
		{"escaped name, last wins", `{"specversion":"1.0","id":"0","\u0069d":"1","source":"s","type":"t"}`, event.Event{}},
		{"extensions", `{"specversion":"1.0","id":"1","source":"s","type":"t","n":1.50,"b":true,"o":{},"Bad":"x","z":null}`, event.Event{Extensions: map[string]string{"n": "1.50", "b": "true"}}},
	} {
		e, ok := event.Parse(nil, "", []byte(c.body))
		c.want.ID, c.want.Source, c.want.Type = "1", "s", "t"
		if !ok || !reflect.DeepEqual(e, c.want) {
			t.Errorf("%s: got %+v, %v, want %+v", c.name, e, ok, c.want)
		}
	}
}

func TestParse_notAnEvent(t *testing.T) {
	many := `{"specversion":"1.0","id":"1","source":"s"`
	for i := range event.MaxExtensions + 1 {
		many += fmt.Sprintf(`,"x%d":"1"`, i)
	}
	for _, body := range []string{
		"", "{", "23.5", `{"temperature":1}`, `["specversion"]`, `{"specversion":"1.0","id":"1"}`, `{"specversion":"1.0","id":"1","source":""}`,
		`{"specversion":"2.0","id":"1","source":"s"}`, `{"specversion":"1.0","ID":"1","source":"s"}`, `{"specversion":"1.0","id":"1","source":"s"} x`,
		`{"specversion":"1.0","id":"1","source":"s","data":1,"data_base64":"AP8="}`,
		`{"specversion":"1.0","id":"1","source":"s","data_base64":"!"}`, `{"specversion":"1.0","id":"1","source":"s","data_base64":1}`,
		`{"x":{"specversion":"1.0","id":"1","source":"s"}}`, many + "}",
		`{"specversion":"1.0","id":"1","source":"s","data":"` + strings.Repeat("x", event.MaxStructuredBytes) + `"}`,
	} {
		e, ok := event.Parse(block("Nats-Msg-Id: m", "Content-Type: x/y"), "a.b", []byte(body))
		if ok || e.ID != "m" || e.Subject != "a.b" || e.DataContentType != "x/y" || string(e.Data) != body {
			t.Errorf("Parse(%.60q): got %.200v, %v", body, e, ok)
		}
	}
	if _, ok := event.Parse(block("ce-id: 1", "ce-source: s"), "", nil); ok {
		t.Error("binary event without specversion was taken")
	}
}

func TestParse_structuredTypeWins(t *testing.T) {
	h := block("Content-Type: application/CloudEvents+json; charset=utf-8", "ce-specversion: 1.0", "ce-id: copy", "ce-source: copy")
	body := []byte(`{"specversion":"1.0","id":"1","source":"s","type":"t"}`)
	if e, ok := event.Parse(h, "", body); !ok || e.ID != "1" {
		t.Errorf("got %+v, %v", e, ok)
	}
	if got := event.Identity(h, body); got != "c:1:s1" {
		t.Errorf("identity %q", got)
	}
}

func TestIdentity(t *testing.T) {
	binary := func(source, id string) event.Header {
		return block("ce-specversion: 1.0", "ce-source: "+source, "ce-id: "+id)
	}
	structured := []byte(`{"id":"bc","source":"a","specversion":"1.0","type":"t","data":{"id":"no"}}`)
	for _, c := range []struct {
		name   string
		header event.Header
		body   string
		want   string
	}{
		{"none", nil, "", ""},
		{"msg id", block("nats-msg-id: x"), string(structured), "n:x"},
		{"empty msg id", block("Nats-Msg-Id:"), "", ""},
		{"binary", binary("a", "bc"), "", "c:1:abc"},
		{"other split", binary("ab", "c"), "", "c:2:abc"},
		{"structured", nil, string(structured), "c:1:abc"},
		{"not quite", nil, `{"specversion":"1.0","id":"1"}`, ""},
		{"like an event id", block("Nats-Msg-Id: c:1:abc"), "", "n:c:1:abc"},
	} {
		if got := event.Identity(c.header, []byte(c.body)); got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
	long := strings.Repeat("x", 200)
	a, b := event.Identity(block("Nats-Msg-Id: "+long), nil), event.Identity(binary(long, "1"), nil)
	if len(a) > event.MaxIdentityBytes || len(b) > event.MaxIdentityBytes || a[:2] != "n#" || b[:2] != "c#" || a == event.Identity(block("Nats-Msg-Id: "+long+"y"), nil) {
		t.Errorf("long ones: %q, %q", a, b)
	}
}

func TestIdentity_cheap(t *testing.T) {
	body := []byte(`{"temperature": 21.5, "sensor": "a"}`)
	h := block("X-Other: 1")
	if n := testing.AllocsPerRun(100, func() { event.Identity(h, body); event.Identity(nil, body) }); n > 0 {
		t.Errorf("got %v allocations for a message that is no event", n)
	}
}

func TestEvent_roundTrip(t *testing.T) {
	base := event.Event{ID: "ä 1%", Source: "/s", Type: "t", Subject: "x", Time: "2024-01-01T00:00:00Z", DataSchema: "urn:x", Extensions: map[string]string{"a": "1\n", "b2": `"`}}
	for _, c := range []struct{ data, contentType string }{
		{"", ""}, {`{"a": 1 }`, "application/json"}, {" {} ", "application/vnd.x+json; charset=utf-8"}, {"null", ""}, {"plain", "text/plain"}, {"\xff\x00", "text/plain"}, {"not json", ""}, {"<&>\u2028", "text/html"},
	} {
		e := base
		e.Data, e.DataContentType = []byte(c.data), c.contentType
		text, err := e.JSON()
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := event.Parse(nil, "other", text); !ok || !reflect.DeepEqual(got, e) {
			t.Errorf("%q: structured %s: got %+v, want %+v", c.data, text, got, e)
		}
		h, body, err := e.Binary()
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := event.Parse(h, "other", body); !ok || !reflect.DeepEqual(got, e) {
			t.Errorf("%q: binary %q: got %+v, want %+v", c.data, h, got, e)
		}
		if a, b := event.Identity(h, body), event.Identity(nil, text); a == "" || a != b {
			t.Errorf("%q: identities %q and %q", c.data, a, b)
		}
	}
}

func TestEvent_refused(t *testing.T) {
	for _, e := range []event.Event{
		{}, {ID: "1", Source: "s"}, {ID: "1", Type: "t"},
		{ID: "1", Source: "s", Type: "t", Extensions: map[string]string{"Upper": "x"}},
		{ID: "1", Source: "s", Type: "t", Extensions: map[string]string{"data": "x"}},
	} {
		if _, err := e.JSON(); !errors.Is(err, event.ErrEvent) {
			t.Errorf("JSON of %+v: got %v", e, err)
		}
		if _, _, err := e.Binary(); !errors.Is(err, event.ErrEvent) {
			t.Errorf("Binary of %+v: got %v", e, err)
		}
	}
	if _, err := (event.Event{ID: "\xff", Source: "s", Type: "t"}).JSON(); !errors.Is(err, event.ErrEvent) {
		t.Errorf("JSON of an id that is not UTF-8: got %v", err)
	}
	if _, _, err := (event.Event{ID: strings.Repeat("x", event.MaxHeaderBytes), Source: "s", Type: "t"}).Binary(); !errors.Is(err, event.ErrHeader) {
		t.Errorf("Binary of a long id: got %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("NATS/1.0\r\nce-id: 1\r\nce-source: s\r\nce-specversion: 1.0\r\n\r\n"), []byte("x"))
	f.Add([]byte("NATS/1.0 503\r\n\r\n"), []byte(`{"specversion":"1.0","id":"1","source":"s","type":"t","data":[1,{"a":"}"}],"e":1}`))
	f.Add([]byte(nil), []byte(`{"specversion":"1.0","id":"1","source":"s","type":"t","datacontenttype":"a/b","data":"\u00e4"}`))
	f.Add([]byte("NATS/1.0\r\nContent-Type: application/cloudevents+json"), []byte(`{"specversion":"1.0","data_base64":"AA==","id":"\ud800","source":"s"}`))
	f.Fuzz(func(t *testing.T, header, body []byte) {
		e, ok := event.Parse(header, "a.b", body)
		id := event.Identity(header, body)
		if len(id) > event.MaxIdentityBytes {
			t.Fatalf("identity of %d bytes", len(id))
		}
		if !ok {
			return
		}
		if id == "" {
			t.Fatalf("%+v has no identity", e)
		}
		if e.Type == "" {
			e.Type = "t"
		}
		if text, err := e.JSON(); err == nil && len(text) <= event.MaxStructuredBytes {
			if back, ok := event.Parse(nil, "", text); !ok || !reflect.DeepEqual(back, e) {
				t.Fatalf("structured %s: got %+v, want %+v", text, back, e)
			}
		}
		if h, data, err := e.Binary(); err == nil {
			if back, ok := event.Parse(h, "", data); !ok || !reflect.DeepEqual(back, e) {
				t.Fatalf("binary %q: got %+v, want %+v", h, back, e)
			}
		}
	})
}

func BenchmarkIdentity(b *testing.B) {
	for name, body := range map[string]string{
		"reading": `{"temperature": 21.5, "sensor": "a", "pad": "` + strings.Repeat("x", 200) + `"}`,
		"event":   `{"specversion":"1.0","id":"123","source":"sensors/a","type":"reading","data":{"temperature": 21.5, "pad": "` + strings.Repeat("x", 200) + `"}}`,
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				event.Identity(nil, []byte(body))
			}
		})
	}
}
