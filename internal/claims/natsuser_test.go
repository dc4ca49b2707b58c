package claims_test

import (
	"strings"
	"testing"

	"github.com/nats-io/nkeys"

	"github.com/edged-io/edged/internal/claims"
)

func TestNATSUser(t *testing.T) {
	token, seed := claims.NATSUser("provider-1", "a password")
	again, _ := claims.NATSUser("provider-1", "a password")
	other, otherSeed := claims.NATSUser("provider-1", "another password")
	if token != again || token == other || seed.Key() == otherSeed.Key() {
		t.Error("the token is not that of the password")
	}
	pair, err := nkeys.FromSeed([]byte(seed.Reveal()))
	if err != nil {
		t.Fatal(err)
	}
	if key, err := pair.PublicKey(); err != nil || key != seed.Key().String() || !nkeys.IsValidPublicUserKey(key) {
		t.Errorf("the key is %s, %v", key, err)
	}
	if strings.Count(token, ".") != 2 || strings.Contains(token, seed.Reveal()) {
		t.Errorf("the token is %s", token)
	}
}
