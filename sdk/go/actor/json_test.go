package actor_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/edged-io/edged/sdk/go/actor"
)

func TestEvent_Number(t *testing.T) {
	for in, want := range map[string]float64{
		"21.5": 21.5, " -0.5e+2\n": -50, "0": 0, `{"value":1}`: 1,
		`{ "unit" : "\u00b0C \"", "at":[1,{"value":9},[]], "value" : 21.5 , "ok":true,"x":null,"y":{} }`: 21.5,
		`{"\u0076alue":3}`: 3, `{"value":1,"value":2}`: 2,
	} {
		if got, err := (actor.Event{Data: []byte(in)}).Number("value"); err != nil || got != want {
			t.Errorf("%s: got %v, %v, want %v", in, got, err, want)
		}
	}
	for _, in := range []string{"", "x", "NaN", "01", "1.", ".5", "+1", "1 2", `"1"`, "{}", `{"value":"1"}`, `{"value":null}`, `{"other":1}`,
		`{"value":1`, `{"value":1,}`, `{"value":1}x`, `[1]`, `{"a":"` + "\n" + `","value":1}`, `{"a":"\x","value":1}`, `{"value":1e999}`, "0x10", "1_0", "Infinity",
		`{"a":` + strings.Repeat("[", 1000) + strings.Repeat("]", 1000) + `,"value":1}`} {
		if got, err := (actor.Event{Data: []byte(in)}).Number("value"); err == nil {
			t.Errorf("%s: got %v, want an error", in, got)
		}
	}
}

// FuzzEvent_Number: what this reader takes, encoding/json takes for the same
// number.
func FuzzEvent_Number(f *testing.F) {
	for _, s := range []string{"21.5", `{"value":1}`, `{"a":[{"b":"\u00e9"}],"value":-1e3}`, `{"value":1,"value":2}`, `[`, `{"\u0076alue":3}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		got, err := (actor.Event{Data: in}).Number("value")
		if err != nil {
			return
		}
		var want float64
		if bytes.HasPrefix(bytes.TrimLeft(in, " \t\r\n"), []byte("{")) {
			var m map[string]json.RawMessage
			if err := json.Unmarshal(in, &m); err != nil {
				t.Fatalf("%q: got %v, encoding/json says %v", in, got, err)
			}
			err = json.Unmarshal(m["value"], &want)
		} else {
			err = json.Unmarshal(in, &want)
		}
		if err != nil || got != want {
			t.Fatalf("%q: got %v, encoding/json %v, %v", in, got, want, err)
		}
	})
}

// FuzzOnMessage: an event of any bytes is handled or refused.
func FuzzOnMessage(f *testing.F) {
	f.Add([]byte("\x81\xa2id\xa11"))
	f.Add([]byte("\x81\xaaextensions\x81\xa1a\xc3"))
	f.Fuzz(func(_ *testing.T, in []byte) {
		actor.OnMessageAs("Fuzz.OnMessage", func(e actor.Event) error {
			_, _ = e.Levels(), e.Topic()
			return nil
		})
		_, _ = actor.Invoke("Fuzz.OnMessage", in)
	})
}
