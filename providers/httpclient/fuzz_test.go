package httpclient_test

import (
	"context"
	"crypto/x509"
	"errors"
	"net"
	"testing"

	"github.com/edged-io/edged/internal/outbound"
	"github.com/edged-io/edged/lattice"
	"github.com/edged-io/edged/providers"
	"github.com/edged-io/edged/providers/httpclient"
	"github.com/edged-io/edged/store"
)

func pkcs8(key any) ([]byte, error) { return x509.MarshalPKCS8PrivateKey(key) }

// FuzzRequest: whatever an actor sends, it asks for nothing that no rule allows.
func FuzzRequest(f *testing.F) {
	f.Add(request("GET", "http://127.0.0.1/x", "", "X", "1"))
	f.Add(request("POST", "http://user@127.0.0.1:80/../x", "body", "Host", "x"))
	f.Add([]byte("\x81\xa3url\xc4\x02ht"))
	f.Add([]byte("\x81\xa7headers\x81\xa1x\x91\xa1y"))
	db, err := store.Open(store.Options{Dir: f.TempDir()})
	if err != nil {
		f.Fatal(err)
	}
	defer db.Close()
	never := &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		f.Error("a name is looked up")
		return nil, errors.New("no")
	}}
	p, err := httpclient.New(httpclient.Options{Store: db, Bound: outbound.Bound{}, Resolver: never})
	if err != nil {
		f.Fatal(err)
	}
	if err := p.PutLink(context.Background(), link(map[string]string{httpclient.ValueAllow: "* http://*:*/*"})); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		_, err := p.Call(t.Context(), lattice.Invocation{
			Origin: lattice.Entity{Key: "a/x"}, Target: lattice.Entity{Link: "default"}, Operation: httpclient.Request, Payload: payload,
		})
		if !errors.Is(err, providers.ErrFormat) && !errors.Is(err, providers.ErrNotPermitted) {
			t.Errorf("got %v", err)
		}
	})
}
