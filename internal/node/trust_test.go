package node

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/edged-io/edged/internal/claims"
)

func trusting(keys ...claims.Seed) string {
	var all []string
	for _, k := range keys {
		all = append(all, fmt.Sprintf("%q", k.Key()))
	}
	return "[trust]\nissuers = [" + strings.Join(all, ", ") + "]\n"
}

// sign writes an app.sig with those dates; zero is none.
func (r *rig) sign(app string, seed claims.Seed, notBefore, expires time.Time) {
	r.t.Helper()
	files, err := claims.DigestApp(r.path("apps", app))
	if err != nil {
		r.t.Fatal(err)
	}
	c := claims.Claims[claims.AppClaims]{Subject: app, Wascap: claims.AppClaims{Name: app, Version: "1", Files: files}}
	if !expires.IsZero() {
		at := expires.Unix()
		c.Expires = &at
	}
	if !notBefore.IsZero() {
		at := notBefore.Unix()
		c.NotBefore = &at
	}
	token, err := claims.Sign(c, seed)
	if err != nil {
		r.t.Fatal(err)
	}
	r.write("apps/"+app+"/app.sig", token)
}

func TestNode_trust(t *testing.T) {
	ours, theirs := seed(t, claims.Account), seed(t, claims.Account)
	r := newRig(t, trusting(ours))
	for _, app := range []string{"good", "plain", "foreign", "changed", "expired", "early"} {
		r.app(app, "1", app, "")
	}
	now := time.Now()
	r.sign("good", ours, time.Time{}, now.Add(time.Hour))
	r.sign("foreign", theirs, time.Time{}, time.Time{})
	r.sign("expired", ours, time.Time{}, now.Add(-time.Hour))
	r.sign("early", ours, now.Add(time.Hour), time.Time{})
	r.sign("changed", ours, time.Time{}, time.Time{})
	r.write("apps/changed/app.toml", greenhouse("changed", "1", "changed", "# one more line\n"))
	r.start()
	if got := r.running(); got != "good 1" {
		t.Errorf("runs %s, want good alone", got)
	}
	problems := strings.Join(r.Status().Problems, "\n")
	for app, why := range map[string]error{
		"plain": claims.ErrUnsigned, "foreign": claims.ErrUnknownIssuer, "changed": claims.ErrHash,
		"expired": claims.ErrExpired, "early": claims.ErrNotYetValid,
	} {
		contains(t, problems, "app "+app+": ", why.Error())
	}
	contains(t, problems, "edged sign", theirs.Key().String())
	if err := r.Reload(t.Context()); !claims.Refused(err) {
		t.Errorf("reload: %v, want a refusal", err)
	}
}

// What was let in once runs on whatever the clock says; another signature is
// looked at anew.
func TestNode_trust_clock(t *testing.T) {
	ours := seed(t, claims.Account)
	at := time.Date(2030, 6, 1, 0, 0, 0, 0, time.UTC)
	r := newRig(t, trusting(ours))
	r.now = func() time.Time { return at }
	r.app("a", "1", "a", "")
	r.sign("a", ours, at.Add(-time.Hour), at.Add(time.Hour))
	r.start()
	r.stop()
	for _, year := range []int{1970, 2099} {
		at = time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC)
		r.start()
		if got := r.running(); got != "a 1" {
			t.Errorf("in %d runs %q: %v", year, got, r.Status().Problems)
		}
		r.publish("a.s.temperature", 1)
		r.handled("a", 1)
		r.stop()
	}
	r.sign("a", ours, time.Time{}, time.Date(2050, 1, 1, 0, 0, 0, 0, time.UTC))
	r.start()
	if got := r.running(); got != "" {
		t.Error("a signature that had expired when it was first seen was let in")
	}
}
