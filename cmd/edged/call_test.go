package main

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"strings"
	"testing"

	"github.com/edged-io/edged/sdk/go/msgpack"
)

func TestCall_JSON(t *testing.T) {
	for text, want := range map[string]string{
		`{}`: "80", `null`: "c0", `true`: "c3", `-1`: "ff", `200`: "ccc8", `1.5`: "cb3ff8000000000000", `"x"`: "a178", `[1,"a"]`: "9201a161",
		`{"b":{"base64":"AP8="},"a":[]}`: "82a16190a162c40200ff",
		`9007199254740993`:               "cf0020000000000001",
	} {
		payload, err := callPayload(newCall(), []string{"a", "Op", text}, false)
		if got := hex.EncodeToString(payload); err != nil || got != want {
			t.Errorf("%s: got %s, %v, want %s", text, got, err, want)
		}
	}
	for _, text := range []string{`{`, `1 2`, `{"base64":"?"}`, ``, `1e999`} {
		if _, err := callPayload(newCall(), []string{"a", "Op", text}, false); err == nil {
			t.Errorf("%s: no error", text)
		}
	}
	if payload, err := callPayload(newCall(), []string{"a", "Op"}, false); err != nil || len(payload) != 0 {
		t.Errorf("nothing: got %x, %v", payload, err)
	}
}

func TestCall_showReply(t *testing.T) {
	for reply, want := range map[string]string{
		"":                                       "",
		"\x2a":                                   "42\n",
		"\x82\xa7healthy\xc3\xa7message\xa0":     "{\n  \"healthy\": true,\n  \"message\": \"\"\n}\n",
		"\xcf\xff\xff\xff\xff\xff\xff\xff\xff":   "18446744073709551615\n",
		"\x92\xc4\x02hi\xc4\x01\xff":             "[\n  \"hi\",\n  {\n    \"base64\": \"/w==\"\n  }\n]\n",
		"\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00":   "\"NaN\"\n",
		"\x81\x07\xc0":                           "{\n  \"7\": null\n}\n",
		"\xd4\x01\x02":                           "null\n", // an extension, of which nothing is known
		"not MessagePack":                        "\"not MessagePack\"\n",
		"\xc1":                                   "\"\\xc1\"\n",
		strings.Repeat("\x91", 100) + "\xc0\xc0": "\"" + strings.Repeat(`\x91`, 100) + `\xc0\xc0` + "\"\n",
	} {
		var out bytes.Buffer
		if err := showReply(&out, []byte(reply)); err != nil || out.String() != want {
			t.Errorf("%q: got %q, %v, want %q", reply, out.String(), err, want)
		}
	}
}

// A reply is from an actor, and may be anything.
func FuzzCall_showReply(f *testing.F) {
	f.Add([]byte("\x82\xa7healthy\xc3\xa7message\xa0"))
	f.Add([]byte(strings.Repeat("\x91", 100)))
	f.Add([]byte("\xdf\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, reply []byte) {
		var out bytes.Buffer
		if err := showReply(&out, reply); err != nil {
			t.Fatal(err)
		}
		d := msgpack.NewDecoder(reply)
		d.Skip()
		if d.Done() == nil && !json.Valid(out.Bytes()) {
			t.Errorf("%x is shown as %q", reply, out.String())
		}
	})
}
