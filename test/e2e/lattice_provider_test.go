package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	wirefmt "github.com/edged-io/edged/lattice/wire"
)

// provider answers calls of a contract, on a box, as a program does that was started there
// by hand: it has the login that the box leaves for those, and a NATS client.
type provider struct {
	t       *testing.T
	key     string
	mu      sync.Mutex        // guards what follows
	handled map[*box]int      // calls
	seen    map[string]string // texts, and who had them
	twice   []string
	conns   map[*box]*nats.Conn
	puts    map[string]wirefmt.Link // links that it was told of, by actor
}

func newProvider(t *testing.T, key string) *provider {
	return &provider{t: t, key: key, handled: make(map[*box]int), seen: make(map[string]string), conns: make(map[*box]*nats.Conn), puts: make(map[string]wirefmt.Link)}
}

// on starts an instance on a box that has started, in place of the one before.
func (p *provider) on(b *box) {
	p.t.Helper()
	var login struct{ URL, User, Password string }
	text, err := os.ReadFile(filepath.Join(b.dir, "state", "lattice.json"))
	if err == nil {
		err = json.Unmarshal(text, &login)
	}
	if err != nil {
		p.t.Fatal(err)
	}
	nc, err := nats.Connect(login.URL, nats.UserInfo(login.User, login.Password), nats.SetCustomDialer(b.net), nats.Timeout(time.Minute),
		nats.MaxReconnects(-1), nats.ReconnectWait(100*time.Millisecond))
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(nc.Close)
	p.mu.Lock()
	old := p.conns[b]
	p.conns[b] = nc
	p.mu.Unlock()
	if old != nil { // it would look for the box where that was before
		old.Close()
	}
	for _, link := range []string{"default", "put"} { // of the app, and by a control tool
		subject := wirefmt.ProviderSubject("default", p.key, link)
		if _, err := nc.QueueSubscribe(subject, "rpc", func(m *nats.Msg) { p.answer(b, m) }); err != nil {
			p.t.Fatal(err)
		}
		if _, err := nc.Subscribe(subject+wirefmt.SuffixPut, p.put); err != nil {
			p.t.Fatal(err)
		}
	}
	if err := nc.Flush(); err != nil {
		p.t.Fatal(err)
	}
}

func (p *provider) answer(b *box, m *nats.Msg) {
	inv, err := wirefmt.DecodeInvocation(m.Data)
	if err == nil {
		_, err = wirefmt.Check(&inv, inv.Payload, time.Time{})
	}
	if err != nil {
		p.t.Errorf("an invocation that no provider would take: %v", err)
		return
	}
	text := string(inv.Payload)
	p.mu.Lock()
	p.handled[b]++
	if at, again := p.seen[text]; again {
		p.twice = append(p.twice, text+" on "+at+" and "+b.device)
	}
	p.seen[text] = b.device
	p.mu.Unlock()
	r := wirefmt.Response{ID: inv.ID, Payload: inv.Payload, Length: uint64(len(inv.Payload)), Text: true}
	_ = m.Respond(r.Append(nil)) // the box may be gone
}

func (p *provider) put(m *nats.Msg) {
	l, err := wirefmt.DecodeLink(m.Data)
	if err != nil {
		p.t.Errorf("a link that no provider would take: %v", err)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.puts[l.Actor] = l
}

// count returns how many calls the instances on a box have had.
func (p *provider) count(b *box) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.handled[b]
}
