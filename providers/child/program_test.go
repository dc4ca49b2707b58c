package child_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/edged-io/edged/internal/claims"
	"github.com/edged-io/edged/lattice/wire"
)

// The test binary is the providers of these tests, too: a script starts it with the
// word "provider" and how it is to behave.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "provider" {
		if err := provide(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(3)
		}
		return
	}
	os.Exit(m.Run())
}

// program writes the script of a provider that behaves so, and returns its path.
func program(t testing.TB, behaviour string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return script(t, "#!/bin/sh\nexec '"+self+"' provider "+behaviour+"\n")
}

func script(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "provider")
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// provider is a program written after the protocol, and nothing of the box.
type provider struct {
	wire.HostData
	conn      *nats.Conn
	behaviour string
	ended     chan struct{}

	mu    sync.Mutex // guards what follows
	links map[string]wire.Link
	heard []string // of links, in order
	spied *nats.Subscription
}

func provide(behaviour string) error {
	switch behaviour {
	case "crash":
		fmt.Fprint(os.Stderr, "starting\ncannot open /dev/ttyUSB7\n")
		os.Exit(3)
	case "deaf": // reads nothing, listens to nothing
		signal.Ignore(syscall.SIGTERM)
		fmt.Println("deaf is here")
		select {}
	case "flood":
		for {
			fmt.Println(strings.Repeat("flood ", 1000))
		}
	}
	line, err := bufio.NewReader(os.Stdin).ReadBytes('\n')
	if err != nil {
		return err
	}
	h, err := wire.ParseHostData(line)
	if err != nil {
		return err
	}
	p := &provider{HostData: h, behaviour: behaviour, links: map[string]wire.Link{}, ended: make(chan struct{})}
	for _, l := range h.Links {
		p.links[l.Actor] = l
	}
	if behaviour == "forks" {
		fork := exec.Command("sleep", "1000")
		if err := fork.Start(); err != nil {
			return err
		}
		fmt.Println("forked", fork.Process.Pid)
	}
	options := []nats.Option{nats.Timeout(patience)}
	if behaviour != "classic" {
		options = append(options, nats.CustomInboxPrefix(h.Edged.Inbox))
	}
	if p.conn, err = nats.Connect(h.URL, options...); err != nil {
		return err
	}
	defer p.conn.Close()
	return p.serve()
}

func (p *provider) serve() error {
	own := wire.ProviderSubject(p.Lattice, p.Provider, p.LinkName)
	_, err := p.conn.QueueSubscribe(own, wire.ProviderQueue, p.invoked)
	for _, sub := range []struct {
		suffix string
		handle nats.MsgHandler
	}{{wire.SuffixPut, p.put}, {wire.SuffixDelete, p.del}, {wire.SuffixShutdown, p.shutdown}, {wire.SuffixHealth, p.health}} {
		if err == nil {
			_, err = p.conn.Subscribe(own+sub.suffix, sub.handle)
		}
	}
	if err == nil {
		err = p.conn.Flush()
	}
	if err != nil {
		return err
	}
	<-p.ended
	return p.conn.Flush()
}

func (p *provider) put(m *nats.Msg) {
	l, err := wire.DecodeLink(m.Data)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.heard = append(p.heard, fmt.Sprint("put ", l.Values["n"], err))
	if _, known := p.links[l.Actor]; !known { // as kits do
		p.links[l.Actor] = l
	}
}

func (p *provider) del(m *nats.Msg) {
	l, err := wire.DecodeLink(m.Data)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.heard = append(p.heard, fmt.Sprint("del ", l.Values["n"], err))
	delete(p.links, l.Actor)
}

func (p *provider) health(m *nats.Msg) {
	h := wire.Health{Healthy: p.behaviour != "sick"}
	if !h.Healthy {
		h.Message = "the sensor is gone"
	}
	_ = m.Respond(h.Append(nil))
}

func (p *provider) shutdown(m *nats.Msg) {
	var body struct {
		Host string `json:"host_id"`
	}
	if json.Unmarshal(m.Data, &body) != nil || body.Host != p.Host || p.behaviour == "stubborn" {
		return
	}
	fmt.Println("cleaning up")
	_ = m.Respond([]byte("shutting down"))
	close(p.ended)
}

// invoked serves operations that tell what the provider knows.
func (p *provider) invoked(m *nats.Msg) {
	inv, err := wire.DecodeInvocation(m.Data)
	r := wire.Response{ID: inv.ID}
	if err == nil {
		err = p.check(&inv)
	}
	if err == nil {
		r.Payload, err = p.handle(&inv)
	}
	if err != nil {
		r.Failed, r.Error = true, err.Error()
	}
	r.Length = uint64(len(r.Payload))
	_ = m.Respond(r.Append(nil))
}

func (p *provider) check(inv *wire.Invocation) error {
	issuer, err := wire.Check(inv, inv.Payload, time.Now())
	if err == nil && (len(p.Issuers) == 0 || issuer.String() != p.Issuers[0]) {
		err = fmt.Errorf("issuer %s", issuer)
	}
	return err
}

func (p *provider) handle(inv *wire.Invocation) ([]byte, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch inv.Operation {
	case "Test.Env":
		return []byte(strings.Join(os.Environ(), "\n")), nil
	case "Test.Where":
		return json.Marshal(p.HostData)
	case "Test.Links":
		return json.Marshal(p.links)
	case "Test.Heard":
		return json.Marshal(p.heard)
	case "Test.Read":
		b, err := os.ReadFile(string(inv.Payload))
		return b, err
	case "Test.Write":
		return nil, os.WriteFile(string(inv.Payload), []byte("x"), 0o600)
	case "Test.Signal":
		return nil, syscall.Kill(os.Getppid(), 0)
	case "Test.Exit":
		os.Exit(4)
	case "Test.Try": // what a provider that wants more than it may gets for it
		sub, publish := inv.Payload[0], string(inv.Payload[1:])
		nc, err := nats.Connect(p.URL, nats.Timeout(patience), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
		if err != nil {
			return nil, err
		}
		defer nc.Close()
		if sub == 's' {
			_, err = nc.SubscribeSync(publish)
		} else {
			err = nc.Publish(publish, nil)
		}
		return nil, cmpErr(err, nc.Flush(), nc.LastError())
	case "Test.Spy": // what it may listen to of others
		nc, err := nats.Connect(p.URL, nats.Timeout(patience))
		if err == nil {
			p.spied, err = nc.SubscribeSync(string(inv.Payload))
		}
		return nil, cmpErr(err, nc.Flush())
	case "Test.Spied":
		if m, err := p.spied.NextMsg(time.Second); err == nil {
			return m.Data, nil
		}
	case "Test.CallActor":
		return p.callActor(inv)
	}
	return append([]byte(inv.Operation+" "), inv.Payload...), nil
}

func cmpErr(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// callActor calls the actor that called it, as the payload says it is.
func (p *provider) callActor(inv *wire.Invocation) ([]byte, error) {
	seed, err := claims.ParseSeed(p.Seed)
	if err != nil {
		return nil, err
	}
	link := p.links[inv.Origin.Key]
	i := wire.Invocation{
		Origin: wire.Entity{Key: string(inv.Payload), Link: p.LinkName, Contract: link.Contract}, Target: wire.Entity{Key: inv.Origin.Key},
		Operation: "Actor.Called", Payload: []byte("hello"), Length: 5, ID: nats.NewInbox(), Host: p.Host,
	}
	i.ID = i.ID[len(i.ID)-22:]
	if err := wire.Sign(&i, i.Payload, seed); err != nil {
		return nil, err
	}
	m, err := p.conn.Request(wire.ActorSubject(p.Lattice, i.Target.Key), i.Append(nil), patience)
	if err != nil {
		return nil, err
	}
	r, err := wire.DecodeResponse(m.Data)
	if err == nil && r.Failed {
		err = fmt.Errorf("%s", r.Error)
	}
	return r.Payload, err
}
