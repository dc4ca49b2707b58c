package actor_test

import (
	"errors"
	"testing"

	"github.com/edged-io/edged/sdk/go/actor"
)

func TestHTTPClient(t *testing.T) {
	var link, target, operation, payload string
	actor.SetHost(func(l, to, op string, p []byte) ([]byte, error) {
		link, target, operation, payload = l, to, op, string(p)
		return []byte("\x83\xaastatusCode\xcd\x01\x94\xa6header\x81\xa1a\x91\xa1b\xa4body\xc4\x02no"), nil
	})
	r, err := actor.HTTP.Post("http://x/", "t", []byte("b"))
	if err != nil || r.Status != 404 || r.Header["a"][0] != "b" || string(r.Body) != "no" {
		t.Errorf("got %+v, %v", r, err)
	}
	const want = "\x84\xa6method\xa4POST\xa3url\xa9http://x/\xa7headers\x81\xacContent-Type\x91\xa1t\xa4body\xc4\x01b"
	if payload != want || link != "default" || target != "wasmcloud:httpclient" || operation != "HttpClient.Request" {
		t.Errorf("asked %s %s %s with %q", link, target, operation, payload)
	}
	if _, err := (actor.HTTPClient{Link: "slow"}).Get("http://x/"); err != nil || link != "slow" || payload != "\x84\xa6method\xa3GET\xa3url\xa9http://x/\xa7headers\x80\xa4body\xc4\x00" {
		t.Errorf("asked %s with %q, %v", link, payload, err)
	}
	actor.SetHost(func(string, string, string, []byte) ([]byte, error) {
		return nil, errors.New("httpclient: not permitted: GET http://x: the manifest does not allow this URL")
	})
	if _, err := actor.HTTP.Get("http://x/"); !errors.Is(err, actor.ErrNotPermitted) {
		t.Errorf("got %v, want ErrNotPermitted", err)
	}
	actor.SetHost(func(string, string, string, []byte) ([]byte, error) { return []byte("\x81"), nil })
	if _, err := actor.HTTP.Get("http://x/"); err == nil {
		t.Error("half an answer: no error")
	}
}
