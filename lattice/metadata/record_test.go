package metadata

import (
	"errors"
	"maps"
	"reflect"
	"strings"
	"testing"

	"github.com/edged-io/edged/lattice"
)

// The check value of PROTOCOL 7.1.
func TestLinkKey(t *testing.T) {
	if got, want := LinkKey(link("default", "x")), "LINKDEF_2A00B4ABDFDE5BDE08B98825693D194EF466A85D21998AD256883DBBCD689098"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestRecord_encode(t *testing.T) {
	l := link("default", provider)
	c := Claims{Subject: actor, Issuer: account, Name: "echo", Version: "0.1", Revision: 4, Tags: []string{"a", "b"}, Caps: []string{"wasmcloud:httpserver"}, CallAlias: "echo"}
	for _, test := range []struct {
		r    record
		want string
	}{
		{newLink(l), `{"actor_id":"` + actor + `","provider_id":"` + provider + `","link_name":"default","contract_id":"wasmcloud:keyvalue","values":{}}`},
		{newClaims(c), `{"call_alias":"echo","iss":"` + account + `","name":"echo","caps":"wasmcloud:httpserver","rev":"4","tags":"a,b","version":"0.1","sub":"` + actor + `","contract_id":""}`},
	} {
		if got := string(test.r.value); got != test.want {
			t.Errorf("got  %s\nwant %s", got, test.want)
		}
	}
}

func TestDecode_shapes(t *testing.T) {
	of := func(key, members string) record {
		t.Helper()
		r, err := decode(key, []byte(members))
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	want := Claims{Subject: actor, Issuer: account, Name: "echo", Version: "0.1", Revision: 4, Tags: []string{"a", "b"}, Caps: []string{"x:y", "z:w"}, CallAlias: "e"}
	for name, members := range map[string]string{
		"all text": `{"call_alias":"e","iss":"` + account + `","name":"echo","caps":"x:y,z:w","rev":"4","tags":"a,b","version":"0.1","sub":"` + actor + `","contract_id":""}`,
		"lists":    `{"call_alias":"e","issuer":"` + account + `","name":"echo","capabilities":["x:y","z:w"],"revision":"4","tags":["a","b"],"version":"0.1","subject":"` + actor + `"}`,
		"both":     `{"call_alias":"e","iss":"` + account + `","issuer":"` + account + `","name":"echo","caps":["x:y","z:w"],"rev":4,"revision":4,"tags":["a","","b"],"version":"0.1","sub":"` + actor + `","config_schema":null}`,
	} {
		if got := of(claimsPrefix+actor, members).claims; !reflect.DeepEqual(*got, want) {
			t.Errorf("%s: got %+v, want %+v", name, *got, want)
		}
	}
	want = Claims{Subject: provider, Issuer: account, Name: "kv", Version: "0.2", Contract: "wasmcloud:keyvalue", ConfigSchema: `{"a":1}`}
	for name, members := range map[string]string{
		"text":   `{"call_alias":"","iss":"` + account + `","name":"kv","caps":"","rev":"","tags":"","version":"0.2","sub":"` + provider + `","contract_id":"wasmcloud:keyvalue","config_schema":"{\"a\":1}"}`,
		"object": `{"contract_id":"wasmcloud:keyvalue","issuer":"` + account + `","name":"kv","revision":"0","subject":"` + provider + `","version":"0.2","config_schema":{"a":1}}`,
	} {
		if got := of(claimsPrefix+provider, members).claims; !reflect.DeepEqual(*got, want) {
			t.Errorf("%s: got %+v, want %+v", name, *got, want)
		}
	}
	l := link("default", provider)
	at := LinkKey(l)
	head := `{"actor_id":"` + actor + `","provider_id":"` + provider + `","link_name":"default","contract_id":"wasmcloud:keyvalue"`
	for members, values := range map[string]map[string]string{
		head + `}`:                               nil,
		head + `,"values":null}`:                 nil,
		head + `,"values":{},"id":"` + at + `"}`: nil,
		head + `,"values":{"URL":"x"},"z":[1]}`:  {"URL": "x"},
	} {
		got := of(at, members).link
		if !maps.Equal(got.Values, values) || got.Provider != provider || got.Actor != actor {
			t.Errorf("%s: got %+v", members, *got)
		}
	}
}

func TestDecode_refuses(t *testing.T) {
	head := `{"actor_id":"` + actor + `","provider_id":"` + provider + `","link_name":"default","contract_id":"wasmcloud:keyvalue"`
	at := LinkKey(link("default", ""))
	for _, test := range []struct{ name, key, value string }{
		{"empty", at, ""},
		{"null", at, "null"},
		{"a list", at, "[]"},
		{"cut off", at, head},
		{"not UTF-8", at, head + ",\"values\":{\"a\":\"\xff\"}}"},
		{"two", at, head + "}" + head + "}"},
		{"hash of another link", LinkKey(link("other", "")), head + "}"},
		{"small letters", linkPrefix + strings.ToLower(at[len(linkPrefix):]), head + "}"},
		{"values of numbers", at, head + `,"values":{"a":1}}`},
		{"values in a list", at, head + `,"values":["a"]}`},
		{"no provider", at, strings.Replace(head, provider, "", 1) + "}"},
		{"names are as they are", at, strings.Replace(head, "provider_id", "Provider_ID", 1) + "}"},
		{"a space in a provider", at, strings.Replace(head, provider, "a b", 1) + "}"},
		{"too large", at, head + `,"values":{"a":"` + strings.Repeat("x", MaxRecordBytes) + `"}}`},
		{"claims of nobody", claimsPrefix, `{"sub":""}`},
		{"claims of a host", claimsPrefix + "N", `{"sub":"NBXHUHG5FGYLPD6RHL2MKWMP572O6KUXCZXDZJXS4T57ZTMAKBN7C574"}`},
		{"claims of another", claimsPrefix + provider, `{"sub":"` + actor + `"}`},
		{"names that disagree", claimsPrefix + actor, `{"sub":"` + actor + `","subject":"` + provider + `"}`},
		{"a revision in words", claimsPrefix + actor, `{"sub":"` + actor + `","rev":"four"}`},
		{"a broken revision", claimsPrefix + actor, `{"sub":"` + actor + `","rev":1.5}`},
		{"another key", "REFMAP_x", `{}`},
	} {
		if r, err := decode(test.key, []byte(test.value)); !errors.Is(err, ErrRecord) {
			t.Errorf("%s: got %+v, %v", test.name, r, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	l := lattice.Link{Actor: actor, Contract: "wasmcloud:keyvalue", Name: "default", Provider: provider, Values: map[string]string{"a": "b"}}
	c := Claims{Subject: actor, Issuer: account, Revision: 4, Tags: []string{"a"}, Caps: []string{"b"}}
	f.Add(LinkKey(l), newLink(l).value)
	f.Add(claimsPrefix+actor, newClaims(c).value)
	f.Add(claimsPrefix+actor, []byte(`{"subject":"`+actor+`","capabilities":["a,b"],"revision":-1,"tags":[null],"config_schema":[1 ,2]}`))
	f.Add("REFMAP_x", []byte(`{"oci_url":"x","public_key":"y"}`))
	f.Fuzz(func(t *testing.T, key string, value []byte) {
		r, err := decode(key, value)
		if err != nil {
			return
		}
		b := r.value
		if len(b) > MaxRecordBytes {
			t.Fatalf("%d bytes of %d became %d", len(value), MaxRecordBytes, len(b))
		}
		again, err := decode(key, b)
		if err != nil {
			t.Fatalf("%s became %s: %v", value, b, err)
		}
		if !again.equal(r) {
			t.Fatalf("%s became %s", b, again.value)
		}
		e := entry{now: r, pending: true, over: []record{{}, r}}
		back, err := decodeEntry(key, e.encode(), decode)
		if err != nil || !back.same(e) {
			t.Fatalf("entry %s: %v", e.encode(), err)
		}
	})
}
