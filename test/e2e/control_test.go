package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/edged-io/edged/internal/claims"
)

// What follows is a control client made by hand from the specification of the protocol, sections 5 to 7: JSON as it is written there, and no code of the box.
// Its keys are those of section 2.1.
const (
	someActor    = "MCATS5YOVB6ROX2WUNKGNQ2MP3GMXDMKSG2O4N5CLX3A6W4PZGZZJPUL"
	someProvider = "VDWUSKGGFDI4FRXK5EBTRECZSVQSSWJHHJOGH6JWG3AUMFFMQ435CDVS"
	someHost     = "NBXHUHG5FGYLPD6RHL2MKWMP572O6KUXCZXDZJXS4T57ZTMAKBN7C574"
	someAccount  = "ACFIRY65OQE7DFP5KLNS2PF2LVZMUZYJX4OZIEQ36N2IQANUB5XVYYOU"
	accountSeed  = "SAAACAIBAEAQCAIBAEAQCAIBAEAQCAIBAEAQCAIBAEAQCAIBAEAQCAKM5I"
)

// quietActor is a module that answers each call with nothing.
var quietActor = slices.Concat(
	[]byte("\x00asm\x01\x00\x00\x00\x01\x07\x01\x60\x02\x7f\x7f\x01\x7f\x03\x02\x01\x00\x05\x03\x01\x00\x01"),
	[]byte("\x07\x19\x02\x0c__guest_call\x00\x00\x06memory\x02\x00\x0a\x06\x01\x04\x00\x41\x01\x0b"),
)

// A stranger is a control client that knows the specification alone.
type stranger struct {
	t        *testing.T
	nc       *nats.Conn
	events   *nats.Subscription // on the subject of old hosts
	typed    *nats.Subscription // on those of newer ones
	host     string
	one, two string // references to an actor, in revisions 1 and 2
	actor    string // its key
}

// newStranger starts a box that trusts an account, and meets it.
func newStranger(t *testing.T) (*box, *stranger) {
	t.Helper()
	b := newBox(t, "press-7", "")
	text, err := os.ReadFile(b.config())
	if err != nil {
		t.Fatal(err)
	}
	trusting := strings.Replace(string(text), "allow_unsigned = true", "issuers = [\""+someAccount+"\"]", 1)
	trusting = strings.Replace(trusting, "[nats]", "labels = { hall = \"3\" }\n[registry]\nallow_files = true\n[nats]", 1)
	s := &stranger{t: t, one: filepath.Join(b.dir, "one.wasm"), two: filepath.Join(b.dir, "two.wasm")}
	seed := filepath.Join(b.dir, "account.seed")
	for path, data := range map[string]string{b.config(): trusting, s.one: string(quietActor), s.two: string(quietActor), seed: accountSeed} {
		if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for revision, path := range []string{s.one, s.two} {
		out, code := edged(t, "sign", path, "--seed", seed, "--name", "Thermostat", "--cap", "wasmcloud:keyvalue", "--tag", "lab",
			"--ver", fmt.Sprintf("0.%d", revision+1), "--rev", fmt.Sprint(revision+1))
		if code != 0 {
			t.Fatal(out)
		}
		s.actor = regexp.MustCompile(`M[A-Z2-7]{55}`).FindString(out)
	}
	b.up()
	s.connect(b)
	return b, s
}

// connect logs in as lattice.json says.
func (s *stranger) connect(b *box) {
	s.t.Helper()
	text, err := os.ReadFile(filepath.Join(b.dir, "state", "lattice.json"))
	if err != nil {
		s.t.Fatal(err)
	}
	var login struct{ URL, User, Password string }
	if err := json.Unmarshal(text, &login); err != nil {
		s.t.Fatal(err)
	}
	if s.nc, err = nats.Connect(login.URL, nats.UserInfo(login.User, login.Password), nats.Timeout(time.Minute)); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(s.nc.Close)
	if s.events, err = s.nc.SubscribeSync("wasmbus.evt.default"); err != nil {
		s.t.Fatal(err)
	}
	if s.typed, err = s.nc.SubscribeSync("wasmbus.evt.default.>"); err != nil {
		s.t.Fatal(err)
	}
	var h struct{ ID string }
	s.into(s.ask("wasmbus.ctl.default.ping.hosts", ""), &h)
	if s.host = h.ID; len(s.host) != 56 || s.host[0] != 'N' {
		s.t.Fatalf("the host says that it is %q", s.host)
	}
}

func (s *stranger) into(text string, v any) {
	s.t.Helper()
	if err := json.Unmarshal([]byte(text), v); err != nil {
		s.t.Fatalf("%v: %s", err, text)
	}
}

// ask is the answer to a request on a subject.
func (s *stranger) ask(subject, body string) string {
	s.t.Helper()
	m, err := s.nc.Request(subject, []byte(body), patience)
	if err != nil {
		s.t.Fatalf("%s %s: %v", subject, body, err)
	}
	return string(m.Data)
}

// fill puts what the box is called into a text: HOST, ACTOR, and the references ONE and TWO.
func (s *stranger) fill(text string) string {
	return strings.NewReplacer("HOST", s.host, "ACTOR", s.actor, "ONE", s.one, "TWO", s.two).Replace(text)
}

// v0 and v1 ask in a version, by what follows the lattice.
func (s *stranger) v0(subject, body string) string {
	s.t.Helper()
	return s.ask(s.fill("wasmbus.ctl.default."+subject), s.fill(body))
}

func (s *stranger) v1(subject, body string) string {
	s.t.Helper()
	return s.ask(s.fill("wasmbus.ctl.v1.default."+subject), s.fill(body))
}

// accepts fails the test unless version 0 accepts, in exactly these words.
func (s *stranger) accepts(subject, body string) {
	s.t.Helper()
	if got := s.v0(subject, body); got != `{"accepted":true,"error":""}` {
		s.t.Errorf("%s %s: got %s", subject, body, got)
	}
}

// refuses fails the test unless version 0 refuses, with a reason.
func (s *stranger) refuses(subject, body string) {
	s.t.Helper()
	s.refusal(subject, body, s.v0(subject, body), "accepted", "error")
}

// fails fails the test unless version 1 refuses, with a reason and nothing else.
func (s *stranger) fails(subject, body string) {
	s.t.Helper()
	s.refusal(subject, body, s.v1(subject, body), "success", "message")
}

func (s *stranger) refusal(subject, body, got, flag, why string) {
	s.t.Helper()
	var fields map[string]any
	if json.Unmarshal([]byte(got), &fields) != nil || fields[flag] != false || len(fmt.Sprint(fields[why])) < 3 || len(fields) != 2 {
		s.t.Errorf("%s %.200s: got %.300s, want it refused", subject, body, got)
	}
}

// succeeds is the response of version 1, null for none.
func (s *stranger) succeeds(subject, body string) (response, message string) {
	s.t.Helper()
	var reply struct {
		Success  *bool
		Message  *string
		Response json.RawMessage
	}
	got := s.v1(subject, body)
	s.into(got, &reply)
	if reply.Success == nil || !*reply.Success || reply.Message == nil {
		s.t.Errorf("%s %s: got %s", subject, body, got)
		return "null", ""
	}
	if reply.Response == nil {
		return "null", *reply.Message
	}
	return string(reply.Response), *reply.Message
}

// has fails the test unless got has all that want has: members of objects (none for one that is empty), all elements of lists in order. A text "*" in want is any text that is not empty, a
// number -1 any number; names that begin with - in want must not be there.
func (s *stranger) has(what, got, want string) {
	s.t.Helper()
	var g, w any
	s.into(got, &g)
	s.into(s.fill(want), &w)
	if where := lacks(g, w, ""); where != "" {
		s.t.Errorf("%s: %s differs:\n got %s\nwant %s", what, where, got, s.fill(want))
	}
}

// lacks says where got is not as want is; "" for nowhere.
func lacks(got, want any, at string) string {
	here := at
	if here == "" {
		here = "all of it"
	}
	switch w := want.(type) {
	case map[string]any:
		g, ok := got.(map[string]any)
		if !ok || len(w) == 0 && len(g) > 0 {
			return here
		}
		for k, v := range w {
			if name, not := strings.CutPrefix(k, "-"); not {
				if _, there := g[name]; there {
					return at + "." + name
				}
				continue
			}
			if x, there := g[k]; !there {
				return at + "." + k
			} else if where := lacks(x, v, at+"."+k); where != "" {
				return where
			}
		}
		return ""
	case []any:
		g, ok := got.([]any)
		if !ok || len(g) != len(w) {
			return here
		}
		for i := range w {
			if where := lacks(g[i], w[i], fmt.Sprintf("%s[%d]", at, i)); where != "" {
				return where
			}
		}
		return ""
	case string:
		if text, ok := got.(string); w == "*" && ok && text != "" {
			return ""
		}
	case float64:
		if _, ok := got.(float64); w == -1 && ok {
			return ""
		}
	}
	if !reflect.DeepEqual(got, want) {
		return here
	}
	return ""
}

// hears waits for an event with this data, on both subjects.
func (s *stranger) hears(name, want string) {
	s.t.Helper()
	var ids []string
	for _, sub := range []*nats.Subscription{s.events, s.typed} {
		for {
			m, err := sub.NextMsg(patience)
			if err != nil {
				s.t.Fatalf("event %s: %v", name, err)
			}
			var e struct {
				Spec   string `json:"specversion"`
				ID     string
				Source string
				Type   string
				Time   time.Time
				Kind   string `json:"datacontenttype"`
				Data   json.RawMessage
			}
			s.into(string(m.Data), &e)
			if e.Type != "com.wasmcloud.lattice."+name {
				continue
			}
			if e.Spec != "1.0" || e.ID == "" || e.Source != s.host || e.Time.IsZero() || e.Kind != "application/json" {
				s.t.Errorf("event %s: got %s", name, m.Data)
			}
			if sub == s.typed && m.Subject != "wasmbus.evt.default."+name {
				s.t.Errorf("event %s is on %s", name, m.Subject)
			}
			s.has("event "+name, string(e.Data), want)
			ids = append(ids, e.ID)
			break
		}
	}
	if ids[0] != ids[1] {
		s.t.Errorf("event %s is another one on each subject", name)
	}
}

// silence fails the test if a request is answered within a time in which others are. Another one that is answered comes after it on the same connection.
func (s *stranger) silence(subject, body string) {
	s.t.Helper()
	inbox, err := s.nc.SubscribeSync(s.nc.NewInbox())
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = inbox.Unsubscribe() }()
	for _, ask := range []struct{ subject, body string }{{subject, body}, {"ping.hosts", ""}} {
		if err := s.nc.PublishRequest(s.fill("wasmbus.ctl.default."+ask.subject), inbox.Subject, []byte(s.fill(ask.body))); err != nil {
			s.t.Fatal(err)
		}
	}
	m, err := inbox.NextMsg(patience)
	if err != nil {
		s.t.Fatal(err)
	}
	s.has(subject+": the first answer after silence", string(m.Data), `{"id":"HOST","lattice_prefix":"default"}`)
}

// archive is a provider archive with a program that reads its line and then does nothing.
func (s *stranger) archive() string {
	s.t.Helper()
	program := filepath.Join(filepath.Dir(s.one), "pump.sh")
	if err := os.WriteFile(program, []byte("#!/bin/sh\nread -r line\nexec tail -f /dev/null\n"), 0o700); err != nil {
		s.t.Fatal(err)
	}
	account, err := claims.ParseSeed(accountSeed)
	if err != nil {
		s.t.Fatal(err)
	}
	var b bytes.Buffer
	c := claims.Claims[claims.ProviderClaims]{
		Subject: someProvider, IssuedAt: 1700000000, Wascap: claims.ProviderClaims{Name: "Pump", Contract: "acme:pump", Vendor: "Acme", Rev: 3, Ver: "1.2"},
	}
	if err := claims.WriteArchive(&b, c, map[string]string{claims.Targets(runtime.GOOS, runtime.GOARCH)[0]: program}, account); err != nil {
		s.t.Fatal(err)
	}
	path := filepath.Join(filepath.Dir(s.one), "pump.par")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return path
}

// theProvider is what an inventory has of the provider named Pump.
func (s *stranger) theProvider(inventory string) string {
	s.t.Helper()
	var inv struct{ Providers []map[string]any }
	s.into(inventory, &inv)
	for _, p := range inv.Providers {
		if p["name"] == "Pump" {
			b, err := json.Marshal(p)
			if err != nil {
				s.t.Fatal(err)
			}
			return string(b)
		}
	}
	s.t.Errorf("no such provider: %s", inventory)
	return "{}"
}
