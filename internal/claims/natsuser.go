package claims

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
)

// NATSUser makes the key and the token by which a NATS client can say what it otherwise
// says with a password: some take no password where they are given one, in a URL. The
// same password always gives the same. The token is in the form of a NATS user's, and is
// signed by the key itself: nobody but a server that knows the password knows it.
func NATSUser(name, password string) (token string, seed Seed) {
	seed = Seed{kind: User, raw: sha256.Sum256([]byte("edged nats user 1\n" + password))}
	key := seed.Key().String()
	segment := base64.RawURLEncoding.EncodeToString
	body, _ := json.Marshal(struct { // texts always have a form
		Issuer  string `json:"iss"`
		Name    string `json:"name"`
		Subject string `json:"sub"`
		NATS    struct {
			Type    string `json:"type"`
			Version int    `json:"version"`
		} `json:"nats"`
	}{Issuer: key, Name: name, Subject: key, NATS: struct {
		Type    string `json:"type"`
		Version int    `json:"version"`
	}{"user", 2}})
	text := segment([]byte(`{"typ":"JWT","alg":"ed25519-nkey"}`)) + "." + segment(body)
	sig, err := seed.Sign([]byte(text))
	if err != nil {
		panic("claims: a user's seed signs: " + err.Error())
	}
	return text + "." + segment(sig), seed
}
