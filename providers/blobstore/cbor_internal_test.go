package blobstore

import (
	"fmt"
	"strings"
	"testing"

	"github.com/edged-io/edged/sdk/go/msgpack"
)

func TestFromCBOR(t *testing.T) {
	for in, want := range map[string]string{
		"\x00": "00", "\x17": "17", "\x18\x18": "18", "\x1b\x00\x00\x00\x01\x00\x00\x00\x00": "cf0000000100000000", // RFC 8949, appendix A
		"\x20": "ff", "\x38\x63": "d09c",
		"\xf4": "c2", "\xf5": "c3", "\xf6": "c0", "\xf7": "c0",
		"\x43abc": "c403616263", "\x63abc": "a3616263", "\x5f\x41a\x42bc\xff": "c403616263", "\x7f\x61a\xff": "a161",
		"\x83\x01\x02\x03": "93010203", "\x9f\x01\xff": "9101", "\xa1\x61a\x01": "81a16101", "\xbf\x61a\x01\xff": "81a16101",
		"\xc1\x01": "01", "\xfa\x47\xc3\x50\x00": "cb40f86a0000000000",
		"": "ends", "\x18": "ends", "\x42a": "ends", "\x83\x01": "ends", "\x9b\xff\xff\xff\xff\xff\xff\xff\xff": "ends", "\x9f\x01": "ends", "\x5f\x41a": "ends",
		"\x01\x02": "bytes after", "\x1c": "not a value", "\xf8\x20": "not a value", "\x5f\x61a\xff": "not a value", "\x3b\xff\xff\xff\xff\xff\xff\xff\xff": "not a value",
		strings.Repeat("\x81", 20) + "\x01": "nested", strings.Repeat("\xc1", 20) + "\x01": "nested",
	} {
		out, err := fromCBOR([]byte(in))
		got := fmt.Sprintf("%x", out)
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, want) {
			t.Errorf("%x: %s, want %s", in, got, want)
		}
	}
}

// FuzzFromCBOR holds that what comes out is one value of MessagePack, and not much
// larger than what came in.
func FuzzFromCBOR(f *testing.F) {
	for _, s := range []string{"\x85\x61o\x61c\x43abc\x00\xf5", "\xa2\x68streamId\xf6\x61x\x9f\x01\xff", "\x9f\x9f\xff\xff", "\xfb\x00\x00\x00\x00\x00\x00\x00\x00"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		out, err := fromCBOR(in)
		if err != nil {
			return
		}
		d := msgpack.NewDecoder(out)
		d.Skip()
		if err := d.Done(); err != nil || len(out) > 9*len(in) {
			t.Errorf("%x became %x: %v", in, out, err)
		}
	})
}
