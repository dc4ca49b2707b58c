package runtime

import "testing"

// What the rewriter drops does not make another module, and nothing else may be
// taken for the same.
func TestDigestOf(t *testing.T) {
	const header, code = "\x00asm\x01\x00\x00\x00", "\x0a\x04\x01\x02\x00\x0b"
	custom := func(name string) string {
		body := string(rune(len(name))) + name + "claims"
		return "\x00" + string(rune(len(body))) + body
	}
	plain := digestOf([]byte(header + code))
	for _, same := range []string{header + code + custom("jwt"), header + custom("wasmcloud_jwt") + code + custom("jwt"), header + custom("") + code} {
		if digestOf([]byte(same)) != plain {
			t.Errorf("%q has a digest of its own", same)
		}
	}
	seen := map[string]string{plain: "the module"}
	for _, other := range []string{
		"", "\x00asm", header, header + code[:4], header + code + code, header + code + "\x00", header + code + custom("name"), header + code + custom("jwt")[:9],
		header + code + "\x00\x00", header + code + "\x00\x01\x05", header + code + "\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
	} {
		d := digestOf([]byte(other))
		if as, ok := seen[d]; ok {
			t.Errorf("%q has the digest of %q", other, as)
		}
		seen[d] = other
	}
}
