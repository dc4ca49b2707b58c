package node

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"github.com/edged-io/edged/internal/claims"
)

// A module whose claims are not in order is left out, though an account that is
// trusted signed its app; what is in order runs.
func TestNode_badTokens(t *testing.T) {
	ours, cluster := seed(t, claims.Account), seed(t, claims.Cluster)
	module, provider := seed(t, claims.Module).Key().String(), seed(t, claims.Service).Key().String()
	hash, err := claims.Hash(quiet)
	if err != nil {
		t.Fatal(err)
	}
	const header = `{"typ":"jwt","alg":"Ed25519"}`
	body := func(issuer claims.Seed, sub, hash, more string) string {
		return fmt.Sprintf(`{%s"jti":"x","iat":1700000000,"iss":%q,"sub":%q,"wascap":{"hash":%q,"caps":[]},"wascap_revision":3}`, more, issuer.Key(), sub, hash)
	}
	token := func(by claims.Seed, header, body string) string {
		text := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + base64.RawURLEncoding.EncodeToString([]byte(body))
		sig, err := by.Sign([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return text + "." + base64.RawURLEncoding.EncodeToString(sig)
	}
	section := func(name, data string) string {
		b := append(binary.AppendUvarint(nil, uint64(len(name))), name+data...)
		return "\x00" + string(binary.AppendUvarint(nil, uint64(len(b)))) + string(b)
	}
	good := token(ours, header, body(ours, module, hash, ""))
	other, err := claims.SignModule([]byte("\x00asm\x01\x00\x00\x00"), claims.Claims[claims.ModuleClaims]{Subject: module}, ours)
	if err != nil {
		t.Fatal(err)
	}
	swapped, err := claims.Extract(other)
	if err != nil {
		t.Fatal(err)
	}
	text, _, _ := strings.Cut(good, ".")
	r := newRig(t, trusting(ours))
	problems := map[string]string{
		"none":      "header has typ",
		"hs256":     "header has typ",
		"nkey":      "header has typ",
		"header":    "header has typ",
		"segments":  "4 segments, want 3",
		"padding":   "segment 1",
		"two":       "two tokens in one module",
		"twice":     "two tokens in one module",
		"swapped":   claims.ErrHash.Error(),
		"tampered":  claims.ErrHash.Error(),
		"forged":    claims.ErrSignature.Error(),
		"huge":      "limit 65536",
		"deep":      "nested deeper than",
		"keys":      `the key "iss" is there twice`,
		"utf8":      "not UTF-8",
		"issuer":    "is not an account key",
		"subject":   "is not a module key",
		"date":      "not a date in seconds",
		"inside":    "component", // the token of a module in it is not its own
		"stranger2": claims.ErrUnknownIssuer.Error(),
	}
	stranger := seed(t, claims.Account)
	nested := `"x":` + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) + `,`
	bins := map[string]string{
		"good":      string(quiet) + section("jwt", good),
		"none":      string(quiet) + section("jwt", token(ours, `{"typ":"jwt","alg":"none"}`, body(ours, module, hash, ""))),
		"hs256":     string(quiet) + section("jwt", token(ours, `{"typ":"jwt","alg":"HS256"}`, body(ours, module, hash, ""))),
		"nkey":      string(quiet) + section("jwt", token(ours, `{"typ":"jwt","alg":"ed25519-nkey"}`, body(ours, module, hash, ""))),
		"header":    string(quiet) + section("jwt", token(ours, `{"typ":"JWT","alg":"Ed25519"}`, body(ours, module, hash, ""))),
		"segments":  string(quiet) + section("jwt", good+".x"),
		"padding":   string(quiet) + section("jwt", text+"="+good[len(text):]),
		"two":       string(quiet) + section("jwt", good) + section("wasmcloud_jwt", good),
		"twice":     string(quiet) + section("jwt", good) + section("jwt", good),
		"swapped":   string(quiet) + section("wasmcloud_jwt", swapped),
		"tampered":  strings.Replace(string(quiet), "\x41\x01\x0b", "\x41\x00\x0b", 1) + section("jwt", good),
		"forged":    string(quiet) + section("jwt", token(stranger, header, body(ours, module, hash, ""))),
		"huge":      string(quiet) + section("jwt", good+strings.Repeat("A", claims.MaxToken)),
		"deep":      string(quiet) + section("jwt", token(ours, header, body(ours, module, hash, nested))),
		"keys":      string(quiet) + section("jwt", token(ours, header, body(ours, module, hash, `"iss":"x",`))),
		"utf8":      string(quiet) + section("jwt", token(ours, header, body(ours, module, hash, "\"x\":\"\xff\","))),
		"issuer":    string(quiet) + section("jwt", token(cluster, header, body(cluster, module, hash, ""))),
		"subject":   string(quiet) + section("jwt", token(ours, header, body(ours, provider, hash, ""))),
		"date":      string(quiet) + section("jwt", token(ours, header, body(ours, module, hash, `"exp":9000000000000000000,`))),
		"inside":    "\x00asm\x0d\x00\x01\x00" + "\x01" + string(binary.AppendUvarint(nil, uint64(len(quiet)+len(section("jwt", good))))) + string(quiet) + section("jwt", good),
		"stranger2": string(quiet) + section("jwt", token(stranger, header, body(stranger, module, hash, ""))),
	}
	for name, bin := range bins {
		r.write("apps/"+name+"/app.toml", "specversion = \"0.2\"\nname = \""+name+"\"\nversion = \"1\"\n[[actor]]\nname = \"x\"\nmodule = \"x.wasm\"\n")
		r.write("apps/"+name+"/x.wasm", bin)
		if _, err := claims.SignApp(r.path("apps", name), name, "1", ours); err != nil {
			t.Fatal(err)
		}
	}
	r.start()
	if got := r.running(); got != "good 1" {
		t.Errorf("runs %s, want good alone", got)
	}
	told := map[string]string{}
	for _, p := range r.Status().Problems {
		name, why, _ := strings.Cut(strings.TrimPrefix(p, "app "), ": ")
		told[name] = why
	}
	for name, why := range problems {
		if !strings.Contains(told[name], why) {
			t.Errorf("%s: the box says %q, want %q", name, told[name], why)
		}
		if !strings.Contains(told[name], "actor x of app "+name) && name != "inside" {
			t.Errorf("%s: %q does not name the actor", name, told[name])
		}
	}
}
