package mqtt_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/edged-io/edged/internal/logbuffer"
	"github.com/edged-io/edged/providers/mqtt"
	"github.com/edged-io/edged/store"
)

// authority signs certificates for a test.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, dir, name string) *authority {
	t.Helper()
	a := &authority{t: t, dir: dir}
	a.cert, a.key = a.issue(name, nil)
	return a
}

func (a *authority) path(name string) string { return filepath.Join(a.dir, name) }

// issue writes NAME.crt and NAME.key. Without a signer the certificate is that of an authority.
func (a *authority) issue(name string, signer *authority) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: signer == nil,
	}
	parent, with := template, key
	if signer != nil {
		parent, with = signer.cert, signer.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, with)
	if err != nil {
		a.t.Fatal(err)
	}
	secret, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	a.write(name+".crt", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	a.write(name+".key", pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: secret}))
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert, key
}

func (a *authority) write(name string, data []byte) string {
	a.t.Helper()
	if err := os.WriteFile(a.path(name), data, 0o600); err != nil {
		a.t.Fatal(err)
	}
	return a.path(name)
}

// told keeps what a client says of its health.
type told struct {
	mu  sync.Mutex // guards all
	all []string
}

func (h *told) health(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all = append(h.all, fmt.Sprint(err))
}

func (h *told) last() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.all) == 0 {
		return ""
	}
	return h.all[len(h.all)-1]
}

func (h *told) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.all)
}

// A broker that asks for a certificate of the client, a user and a password; and all that can be wrong with them.
func TestClient_Login(t *testing.T) {
	ca := newAuthority(t, t.TempDir(), "ca")
	newAuthority(t, ca.dir, "other")
	ca.issue("server", ca)
	ca.issue("box", ca)
	password := ca.write("password", []byte("se cret\n"))
	wrong := ca.write("wrong", []byte("wrong"))
	empty := ca.write("empty", []byte("\n"))
	m := newMosquitto(t)
	users := filepath.Join(m.dir, "users")
	if out, err := exec.Command(find(t, "mosquitto_passwd"), "-b", "-c", users, "press", "se cret").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := os.Chmod(users, 0o600); err != nil {
		t.Fatal(err)
	}
	m.configure("cafile "+ca.path("ca.crt"), "certfile "+ca.path("server.crt"), "keyfile "+ca.path("server.key"), "require_certificate true",
		"allow_anonymous false", "password_file "+users)
	m.start()
	url := "mqtts://" + m.addr
	good := mqtt.Login{User: "press", PasswordFile: password, CA: ca.path("ca.crt"), Cert: ca.path("box.crt"), Key: ca.path("box.key")}
	for name, c := range map[string]struct {
		spoil func(*mqtt.Login)
		want  string
	}{
		"password":     {func(l *mqtt.Login) { l.PasswordFile = wrong }, "check user, password_file"},
		"empty":        {func(l *mqtt.Login) { l.PasswordFile = empty }, "holds 0 bytes"},
		"no password":  {func(l *mqtt.Login) { l.PasswordFile = password + "-" }, "no such file"},
		"no cert":      {func(l *mqtt.Login) { l.Cert, l.Key = "", "" }, "check ca, cert and key"},
		"no pair":      {func(l *mqtt.Login) { l.Key = ca.path("server.key") }, "private key does not match"},
		"other ca":     {func(l *mqtt.Login) { l.CA = ca.path("other.crt") }, "check ca, cert and key"},
		"no ca in pem": {func(l *mqtt.Login) { l.CA = password }, "no certificate in PEM"},
	} {
		t.Run(name, func(t *testing.T) {
			o := mqtt.ClientOptions{URL: url, Login: good}
			c.spoil(&o.Login)
			var h told
			var log logbuffer.Buffer
			o.Health, o.Logger = h.health, slog.New(slog.NewTextHandler(&log, nil))
			s := startSender(t, t.TempDir(), store.Options{}, o)
			eventually(t, "the fault is told", func() bool { return strings.Contains(h.last(), c.want) })
			n := h.count()
			s.stop()
			if lines := strings.Count(log.String(), "level=ERROR"); lines != 1 || n > 2 { // TLS 1.3 may refuse by hanging up
				t.Errorf("told %d times, logged %d times:\n%s", n, lines, log.String())
			}
			if strings.Contains(log.String(), "cret") {
				t.Errorf("the log has the password: %s", log.String())
			}
		})
	}
	var h told
	s := startSender(t, t.TempDir(), store.Options{}, mqtt.ClientOptions{
		URL: url, Login: good, Health: h.health, Outbox: &mqtt.Outbox{Stream: outbox, Subscription: outbox, QoS: 2},
	})
	fill(t, s.db, 0, 3)
	eventually(t, "published", func() bool { return s.c.Stats().Published == 3 })
	if h.last() != "<nil>" {
		t.Errorf("health is %s", h.last())
	}
}

// The broker publishes the will when the box is gone without a word, and not when it says goodbye.
func TestClient_Will(t *testing.T) {
	m := startMosquitto(t)
	w := m.subscriber("wills/#", 0)
	dir := t.TempDir()
	s := startSender(t, dir, store.Options{}, mqtt.ClientOptions{URL: m.url(), Will: &mqtt.Will{Topic: "wills/polite", Payload: []byte("gone")}})
	eventually(t, "connected", func() bool { return s.c.Stats().Connected })
	fill(t, s.db, 0, 1)
	s.stop()
	p := startChild(t, dir, childClient+"="+m.url(), childOutbox+"=1", childFail+"="+mqtt.FailpointPublishSent+":1")
	p.exited(t)
	if pk := w.expect(packets.Publish); pk.TopicName != "wills/rude" || string(pk.Payload) != "gone" {
		t.Errorf("got %s %s", pk.TopicName, pk.Payload)
	}
	if pk := m.subscriber("wills/rude", 0).expect(packets.Publish); !pk.FixedHeader.Retain {
		t.Errorf("not retained: %+v", pk)
	}
}
