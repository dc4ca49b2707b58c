package providertest_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/edged-io/edged/lattice/wire"
	"github.com/edged-io/edged/providers/providertest"
	"github.com/edged-io/edged/sdk/go/msgpack"
	"github.com/edged-io/edged/sdk/go/provider"
)

// careless is a provider with one fault, written with nothing but the wire.
type careless struct {
	t     *testing.T
	fault string
	data  provider.HostData
	nc    *nats.Conn

	mu    sync.Mutex // guards links
	links map[string]bool
}

func startCareless(t *testing.T, fault, line string) {
	t.Helper()
	data, err := provider.ParseHostData(line)
	if err != nil {
		t.Fatal(err)
	}
	nc, err := nats.Connect(data.URL, nats.Timeout(patience))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	p := &careless{t: t, fault: fault, data: data, nc: nc, links: make(map[string]bool)}
	root := wire.ProviderSubject(data.Lattice, data.Key, data.LinkName)
	for suffix, h := range map[string]nats.MsgHandler{
		wire.SuffixPut: p.put, wire.SuffixDelete: p.del, wire.SuffixHealth: p.health, wire.SuffixShutdown: p.shutdown,
	} {
		if _, err := nc.Subscribe(root+suffix, h); err != nil {
			t.Fatal(err)
		}
	}
	if fault == "no queue group" {
		_, err = nc.Subscribe(root, p.call)
	} else {
		_, err = nc.QueueSubscribe(root, wire.ProviderQueue, p.call)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (p *careless) put(m *nats.Msg) {
	l, err := wire.DecodeLink(m.Data)
	if err != nil {
		if p.fault == "dies of garbage" {
			p.nc.Close()
		}
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.links[l.Actor] = true
}

func (p *careless) del(m *nats.Msg) {
	l, err := wire.DecodeLink(m.Data)
	if err != nil || p.fault == "keeps links" {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.links, l.Actor)
}

func (p *careless) health(m *nats.Msg) {
	h := wire.Health{Healthy: p.fault != "unwell", Message: "a reason"}
	_ = m.Respond(h.Append(nil))
}

func (p *careless) shutdown(m *nats.Msg) {
	var from struct {
		HostID string `json:"host_id"`
	}
	if json.Unmarshal(m.Data, &from) != nil || from.HostID != p.data.HostID && p.fault != "obeys every host" || p.fault == "does not stop" {
		return
	}
	text := "shutting down"
	if p.fault == "another farewell" {
		text = "bye"
	}
	_ = m.Respond([]byte(text))
	if p.fault != "obeys every host" || from.HostID == p.data.HostID {
		_ = p.nc.Flush()
		p.nc.Close()
	}
}

func (p *careless) call(m *nats.Msg) {
	i, err := wire.DecodeInvocation(m.Data)
	if err != nil {
		return
	}
	p.mu.Lock()
	linked := p.links[i.Origin.Key]
	p.mu.Unlock()
	r := wire.Response{ID: i.ID, Payload: i.Payload, Length: uint64(len(i.Payload))}
	if i.Operation != "Echo.Echo" {
		r = wire.Response{ID: i.ID, Failed: true, Error: "method not handled"}
	}
	if problem := p.problem(&i, linked); problem != "" {
		if p.fault == "silent" && !linked {
			return
		}
		r = wire.Response{ID: i.ID, Failed: true, Error: problem}
	}
	switch {
	case p.fault == "another id":
		r.ID = "another"
	case p.fault == "length":
		r.Length++
	}
	b := r.Append(nil)
	if p.fault == "empty error" && !r.Failed {
		b[0]++
		b = msgpack.AppendString(msgpack.AppendString(b, "error"), "")
	}
	if p.fault == "no length" {
		b = bytes.Replace(b, []byte("content_length"), []byte("content_lengty"), 1)
	}
	_ = m.Respond(b)
	if p.fault == "answers twice" {
		_ = m.Respond(b)
	}
}

func (p *careless) problem(i *wire.Invocation, linked bool) string {
	if !linked && p.fault != "any actor" {
		return "not linked"
	}
	issuer, err := wire.Check(i, i.Payload, time.Now())
	switch {
	case i.Chunked():
		return "payloads in the object store are not read"
	case p.fault == "no token check":
		return ""
	case err != nil:
		return err.Error()
	case issuer.String() != p.data.Issuers[0] && p.fault != "any issuer":
		return "issuer is not trusted"
	case i.Target.Key != p.data.Key && p.fault != "any target":
		return "not for this one"
	}
	return ""
}

// Each fault is found, by the checks that look for it and by few others.
func TestRun_Faults(t *testing.T) {
	tokens := []string{"no-token", "token-garbage", "token-signature", "token-issuer", "token-payload", "token-operation", "token-origin", "token-expired"}
	for _, c := range []struct {
		fault  string
		failed []string
		warned []string
	}{
		{"", nil, nil},
		{"no token check", append(tokens, "other-target"), nil},
		{"any issuer", []string{"token-issuer"}, nil},
		{"any target", []string{"other-target"}, nil},
		{"any actor", []string{"unlinked-actor", "link-delete"}, nil},
		{"keeps links", []string{"link-delete"}, nil},
		{"no queue group", []string{"queue-group"}, nil},
		{"answers twice", []string{"one-answer", "queue-group"}, nil},
		{"another id", []string{"answer", "in-flight", "call Echo.Echo", "unknown-operation"}, nil},
		{"empty error", []string{"answer", "call Echo.Echo"}, nil},
		{"no length", []string{"answer", "call Echo.Echo", "unknown-operation"}, nil},
		{"length", []string{"answer", "call Echo.Echo"}, nil},
		{"dies of garbage", []string{"garbage"}, nil},
		{"obeys every host", []string{"shutdown-other-host"}, nil},
		{"does not stop", []string{"shutdown"}, nil},
		{"another farewell", nil, []string{"shutdown"}},
		{"unwell", []string{"start"}, nil},
		{"silent", nil, []string{"unlinked-actor", "link-delete"}},
	} {
		t.Run(strings.ReplaceAll(c.fault, " ", "-"), func(t *testing.T) {
			t.Parallel()
			o := providertest.Options{Calls: calls("Echo.Echo"), Ready: func(line string) { startCareless(t, c.fault, line) }}
			hurried := true // what they lack is waited for; little else can be said of them under load
			switch c.fault {
			case "does not stop", "unwell", "dies of garbage":
				o.Timeout, o.Start = time.Second, 2*time.Second
			case "silent":
				o.Timeout, o.Start = time.Second, patience
			case "keeps links", "any actor":
				o.Timeout, o.Start = 3*time.Second, patience
			default:
				hurried = false
			}
			results := run(t, o)
			for _, name := range c.failed {
				if r := results[name]; r.Status != providertest.Fail {
					t.Errorf("%s: got %+v, want FAIL", name, r)
				}
				delete(results, name)
			}
			for _, name := range c.warned {
				if r := results[name]; r.Status != providertest.Warn {
					t.Errorf("%s: got %+v, want WARN", name, r)
				}
				delete(results, name)
			}
			for name, r := range results {
				if r.Status == providertest.Fail && !hurried {
					t.Errorf("%s: %+v", name, r)
				}
			}
		})
	}
}
