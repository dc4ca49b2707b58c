package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/edged-io/edged/internal/claims"
)

// lattice are three boxes and a hub, in networks of their own where that is allowed:
// one box asks, the other two answer. All have one cluster key.
type lattice struct {
	t        *testing.T
	hub      *hub
	asks     *box
	answers  []*box
	lines    map[*box]line
	actor    string    // key of the one that answers
	provider *provider // that answers, on the same boxes
	netted   bool
}

// line leads from a box to the hub.
type line struct {
	wire  *wire
	proxy *proxy // where networks of one's own are not allowed: it can be cut, and no more
}

func (l line) set(q quality) {
	switch {
	case l.wire != nil:
		l.wire.set(q)
	case q.loss == 1:
		l.proxy.swallow()
	default:
		l.proxy.heal()
	}
}

// radio is what a line is like unless it is cut.
var radio = quality{delay: 5 * time.Millisecond, jitter: 10 * time.Millisecond, loss: 0.01}

func newLattice(t *testing.T) *lattice {
	t.Helper()
	l := &lattice{t: t, lines: make(map[*box]line)}
	r := seeded(t)
	middle := newNetns(t)
	l.netted = middle != nil
	wires := make([]*wire, 3)
	nets := make([]*netns, 3)
	for i := range nets {
		if l.netted {
			if nets[i] = newNetns(t); nets[i] != nil {
				wires[i] = newWire(t, i+1, nets[i], middle, r)
			}
			l.netted = wires[i] != nil
		}
	}
	if !l.netted {
		t.Log("networks are not allowed here: the boxes are on the loopback, behind proxies that can cut a line")
		middle = nil
	}
	l.hub = newHubWith(t, &hub{net: middle, wary: true})
	dir := t.TempDir()
	cluster, account := newSeed(t, claims.Cluster), newSeed(t, claims.Account)
	if err := os.WriteFile(filepath.Join(dir, "cluster.seed"), []byte(cluster.Reveal()), 0o600); err != nil {
		t.Fatal(err)
	}
	l.provider = newProvider(t, newSeed(t, claims.Service).Key().String())
	caller, asking := signed(t, account, "asks", "wasmcloud:httpserver", "test:echo")
	answerer, key := signed(t, account, "answers")
	l.actor = key
	for i, name := range []string{"asks", "b", "c"} {
		var addr string
		var way line
		if l.netted {
			addr, way.wire = fmt.Sprintf("10.64.%d.2:%d", i+1, l.hub.leaf), wires[i]
			way.wire.set(radio)
		} else {
			way.proxy = newProxy(t, l.hub.leafAddr())
			addr = way.proxy.addr()
			nets[i] = nil
		}
		b := newBox(t, name, addr).warm()
		b.net = nets[i]
		b.append("[lattice]\ncluster_seed_file = " + fmt.Sprintf("%q", filepath.Join(dir, "cluster.seed")) + "\n")
		l.lines[b] = way
		manifest := "specversion = \"0.2\"\nname = \"member\"\nversion = \"1\"\n[[actor]]\nname = \"member\"\nmodule = \"member.wasm\"\nlimits = { memory = \"64MiB\", time = \"20s\" }\n"
		wasm := answerer
		if i == 0 {
			l.asks, wasm = b, caller
			manifest += "[[capability]]\nname = \"httpserver\"\n[[capability.config]]\nlisten = \"127.0.0.1:0\"\n"
			manifest += "[[link]]\nactor = \"member\"\ncontract = \"test:echo\"\nprovider = \"" + l.provider.key + "\"\n"
		} else {
			l.answers = append(l.answers, b)
		}
		app := filepath.Join(b.dir, "apps", "member")
		if err := errors.Join(
			os.MkdirAll(app, 0o755),
			os.WriteFile(filepath.Join(app, "app.toml"), []byte(manifest), 0o600),
			os.WriteFile(filepath.Join(app, "member.wasm"), wasm, 0o600),
		); err != nil {
			t.Fatal(err)
		}
	}
	l.asks.up() // it compiles for all
	for _, b := range l.answers {
		b.start()
	}
	for _, b := range append(l.answers, l.asks) {
		b.serves(b.process())
		if b != l.asks {
			l.provider.on(b)
		}
	}
	// A link that is put at one box is one of the actor on another.
	at := l.answers[0]
	at.linkIs("up") // until it has called the hub it hangs up once on who has a login
	if err := at.net.in(func() error {
		out, code := edged(t, "link", "put", asking, l.provider.key, "test:echo", "--link-name", "put", "--config", at.config())
		if code != 0 {
			return fmt.Errorf("edged link put: exit code %d\n%s", code, out)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return l
}

// up starts a box again, with what runs on it.
func (l *lattice) up(b *box) {
	l.t.Helper()
	b.up()
	l.provider.on(b)
}

// signed returns the module of a member that has a call alias and may use contracts, and
// its key.
func signed(t *testing.T, account claims.Seed, alias string, caps ...string) (wasm []byte, key string) {
	t.Helper()
	module, err := os.ReadFile(built.member)
	if err != nil {
		t.Fatal(err)
	}
	key = newSeed(t, claims.Module).Key().String()
	wasm, err = claims.SignModule(module, claims.Claims[claims.ModuleClaims]{
		Subject: key, Wascap: claims.ModuleClaims{Name: "member", Caps: caps, CallAlias: alias},
	}, account)
	if err != nil {
		t.Fatal(err)
	}
	return wasm, key
}

func newSeed(t *testing.T, kind claims.Kind) claims.Seed {
	t.Helper()
	s, err := claims.Generate(kind)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// append adds to the device file.
func (b *box) append(text string) {
	b.t.Helper()
	was, err := os.ReadFile(b.config())
	if err == nil {
		err = os.WriteFile(b.config(), append(was, text...), 0o600)
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

// paths are what callers ask for: an actor by key and by alias, a provider by the link of
// the app, and by one that was put at another box.
func (l *lattice) paths() []string {
	return []string{"/actor/" + l.actor + "/", "/actor/answers/", "/link/default/"}
}

// handled returns how many calls from elsewhere a box has handled, by its own count.
func (b *box) handled() (n int) {
	b.t.Helper()
	c := http.Client{Timeout: patience, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(_ context.Context, network, addr string) (net.Conn, error) { return b.net.Dial(network, addr) },
	}}
	r, err := c.Get("http://" + b.addresses().Admin + "/metrics")
	if err != nil {
		b.t.Fatal(err)
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, `edged_lattice_calls_total{direction="in",result="ok"} `); ok {
			if _, err := fmt.Sscan(rest, &n); err != nil {
				b.t.Fatal(err)
			}
		}
	}
	return n
}

// load has callers ask all the time.
type load struct {
	l      *lattice
	client *http.Client
	base   string
	end    context.CancelFunc
	wg     sync.WaitGroup

	mu     sync.Mutex // guards what follows
	calls  int
	good   int
	errors map[string]int
	silent []string
	row    int // good ones since the last that was not
}

// answerTime is how long a caller waits, many times what a call may take.
const answerTime = time.Minute

// begin lets callers ask what paths say, one after the other.
func (l *lattice) begin(callers int, paths ...string) *load {
	l.t.Helper()
	d := &load{
		l: l, errors: make(map[string]int), base: "http://" + l.asks.addresses().HTTP["member-httpserver-1"],
		client: &http.Client{Timeout: answerTime, Transport: &http.Transport{
			MaxIdleConnsPerHost: callers,
			DialContext:         func(_ context.Context, network, addr string) (net.Conn, error) { return l.asks.net.Dial(network, addr) },
		}},
	}
	ctx, end := context.WithCancel(context.Background())
	d.end = end
	for c := range callers {
		d.wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				if d.ask(paths[(c+i)%len(paths)], fmt.Sprintf("%d-%d", c, i)) {
					continue
				}
				select { // who is told at once that nobody is there asks again in a while
				case <-time.After(20 * time.Millisecond):
				case <-ctx.Done():
				}
			}
		})
	}
	l.t.Cleanup(func() { end(); d.wg.Wait() })
	return d
}

// ask makes one call. What comes back is the answer, or an error that says why not.
func (d *load) ask(path, text string) (good bool) {
	began := time.Now()
	r, err := d.client.Get(d.base + path + text)
	status, answer := 0, ""
	if err == nil {
		var b []byte
		b, err = io.ReadAll(r.Body)
		r.Body.Close()
		status, answer = r.StatusCode, string(b)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.calls++
	switch {
	case err != nil:
		d.silent = append(d.silent, fmt.Sprintf("%s after %s: %v", path, time.Since(began).Round(time.Millisecond), err))
	case status == http.StatusOK && strings.HasSuffix(answer, text):
		d.good++
		d.row++
		return true
	case status == http.StatusBadGateway && answer != "":
		d.errors[answer[strings.LastIndex(answer, ": ")+1:]]++
	default:
		d.silent = append(d.silent, fmt.Sprintf("%s: status %d, %q", path, status, answer))
	}
	d.row = 0
	return false
}

// well waits until many calls in a row have been answered.
func (d *load) well(after string) {
	d.l.t.Helper()
	d.mu.Lock()
	d.row = 0
	d.mu.Unlock()
	eventually(d.l.t, "all calls are answered after "+after, func() (bool, string) {
		d.mu.Lock()
		defer d.mu.Unlock()
		return d.row >= 30, fmt.Sprintf("%d calls, %d good, errors %v", d.calls, d.good, d.errors)
	})
}

// fails waits until calls fail, which they do with a reason.
func (d *load) fails(after string) {
	d.l.t.Helper()
	d.mu.Lock()
	before := d.calls - d.good
	d.mu.Unlock()
	eventually(d.l.t, "calls fail after "+after, func() (bool, string) {
		d.mu.Lock()
		defer d.mu.Unlock()
		return d.calls-d.good >= before+5, fmt.Sprintf("%d calls, %d good, errors %v", d.calls, d.good, d.errors)
	})
}

// done ends the load. Each call has had an answer or an error.
func (d *load) done() {
	d.l.t.Helper()
	d.end()
	d.wg.Wait()
	d.l.t.Logf("%d calls, %d answered, errors %v", d.calls, d.good, d.errors)
	if len(d.silent) > 0 {
		d.l.t.Errorf("%d calls had neither an answer nor a reason, such as %s", len(d.silent), d.silent[0])
	}
	if again := d.l.provider.twice; len(again) > 0 {
		d.l.t.Errorf("%d calls were handled more than once, such as %s", len(again), again[0])
	}
}

// spread waits until both boxes that answer have had calls, their actors and the provider
// on them.
func (l *lattice) spread() {
	l.t.Helper()
	actors, providers := make(map[*box]int), make(map[*box]int)
	for _, b := range l.answers {
		actors[b], providers[b] = b.handled(), l.provider.count(b)
	}
	eventually(l.t, "both boxes answer", func() (bool, string) {
		var state []string
		all := true
		for _, b := range l.answers {
			a, p := b.handled()-actors[b], l.provider.count(b)-providers[b]
			all = all && a > 0 && p > 0
			state = append(state, fmt.Sprintf("%s: actor %d, provider %d", b.device, a, p))
		}
		return all, strings.Join(state, ", ")
	})
}

// Boxes go away under load, in every way that a box can, and come back. Each call is
// answered by who is there, or fails with a reason; none is left without a word.
func TestLattice_boxesGoAway(t *testing.T) {
	l := newLattice(t)
	d := l.begin(8, l.paths()...)
	d.well("the start")
	l.spread()
	b, c := l.answers[0], l.answers[1]
	b.kill()
	d.well("a box was killed")
	l.up(b)
	l.spread()
	l.lines[c].set(quality{loss: 1})
	d.well("a line was cut")
	l.lines[c].set(radio)
	l.spread()
	b.kill()
	c.kill()
	d.fails("both boxes were killed")
	l.up(c)
	d.well("a box came back")
	l.hub.stop()
	d.fails("the hub went away")
	l.hub.start()
	d.well("the hub came back")
	l.up(b)
	l.spread()
	l.lines[l.asks].set(quality{loss: 1})
	d.fails("the line of the caller was cut")
	l.lines[l.asks].set(radio)
	d.well("the line of the caller was mended")
	d.done()
}

// EDGED_LATTICE=long has boxes, lines and the hub fail at random for some minutes, several
// at a time, over worse lines.
func TestLattice_long(t *testing.T) {
	if os.Getenv("EDGED_LATTICE") != "long" {
		t.Log("only with EDGED_LATTICE=long, see make lattice")
		return
	}
	l := newLattice(t)
	r := seeded(t)
	d := l.begin(16, l.paths()...)
	d.well("the start")
	for round := range 60 {
		var undo []func()
		var what []string
		broken := func(name string, mend func()) {
			what, undo = append(what, name), append(undo, mend)
		}
		for _, b := range append(l.answers, l.asks) {
			switch n := r.IntN(8); {
			case n == 0 && b != l.asks:
				b.kill()
				broken(b.device+" killed", func() { l.up(b) })
			case n == 1 && b != l.asks:
				b.stop()
				broken(b.device+" stopped", func() { l.up(b) })
			case n == 2:
				l.lines[b].set(quality{loss: 1})
				broken(b.device+" cut", func() { l.lines[b].set(radio) })
			case n == 3:
				l.lines[b].set(quality{delay: 100 * time.Millisecond, jitter: 200 * time.Millisecond, loss: 0.1})
				broken(b.device+" far away", func() { l.lines[b].set(radio) })
			}
		}
		if r.IntN(8) == 0 {
			l.hub.stop()
			broken("hub stopped", l.hub.start)
		}
		within(r, 5*time.Second, nil)
		for _, mend := range undo {
			mend()
		}
		t.Logf("round %d: %s", round, strings.Join(what, ", "))
		d.well("that")
	}
	l.spread()
	d.done()
}
