package providers_test

import (
	"testing"

	"github.com/edged-io/edged/providers"
)

func TestStruct(t *testing.T) {
	for name, test := range map[string]struct {
		payload string
		a, b    int64
		fails   bool
	}{
		"map":               {"\x82\xa1b\x02\xa1a\x01", 1, 2, false},
		"map with a prefix": {"\xc1\x82\xa1b\x02\xa1a\x01", 1, 2, false},
		"unknown members":   {"\x82\xa1x\x91\x07\xa1a\x01", 1, 0, false},
		"array":             {"\x92\x01\x02", 1, 2, false},
		"longer array":      {"\x93\x01\x02\x90", 1, 2, false},
		"shorter array":     {"\x91\x01", 1, 0, false},
		"empty map":         {"\x80", 0, 0, false},
		"empty array":       {"\x90", 0, 0, false},
		"nil":               {"\xc0", 0, 0, false},
		"prefix alone":      {"\xc1", 0, 0, true},
		"number":            {"\x05", 0, 0, true},
		"no bytes":          {"", 0, 0, true},
	} {
		var a, b int64
		d := providers.Decoder([]byte(test.payload))
		providers.Struct(d, []string{"a", "b"}, func(name string) {
			switch name {
			case "a":
				a = d.Int()
			case "b":
				b = d.Int()
			default:
				d.Skip()
			}
		})
		if err := d.Done(); a != test.a || b != test.b || (err != nil) != test.fails {
			t.Errorf("%s: got %d, %d, %v", name, a, b, err)
		}
	}
}
