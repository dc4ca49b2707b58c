package gpio

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edged-io/edged/internal/event"
	"github.com/edged-io/edged/lattice"
	"github.com/edged-io/edged/sdk/go/msgpack"
	"github.com/edged-io/edged/store"
)

// box is a provider that runs, over a store.
type box struct {
	*Provider
	t    *testing.T
	db   *store.DB
	stop func() // ends Run and waits for it
	logs *strings.Builder

	mu     sync.Mutex
	events []sent
	refuse error // what becomes of events
}

type sent struct {
	subject string
	event   event.Event
}

func openStore(t *testing.T, dir string) *store.DB {
	t.Helper()
	db, err := store.Open(store.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

// newBox returns a provider that does not run yet.
func newBox(t *testing.T, db *store.DB) *box {
	t.Helper()
	b := &box{t: t, db: db, logs: new(strings.Builder)}
	p, err := New(Options{
		Device:  "press-7",
		Store:   db,
		Publish: b.take,
		Logger:  slog.New(slog.NewTextHandler(&locked{w: b.logs}, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	b.Provider = p
	return b
}

// startBox returns a provider that runs until stop, or the test, ends.
func startBox(t *testing.T, db *store.DB) *box {
	t.Helper()
	b := newBox(t, db)
	b.start()
	return b
}

func (b *box) start() {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	b.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			b.t.Errorf("Run: %v", err)
		}
	})
	b.t.Cleanup(b.stop)
}

func (b *box) take(subject string, e event.Event, done func(error)) {
	b.mu.Lock()
	b.events = append(b.events, sent{subject, e})
	err := b.refuse
	b.mu.Unlock()
	done(err)
}

func (b *box) sent() []sent {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]sent(nil), b.events...)
}

// locked is a writer for many goroutines.
type locked struct {
	mu sync.Mutex
	w  *strings.Builder
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

const alice, bob = "greenhouse/thermostat", "hall/lamp"

// link is a link of actor for a line of sim0; the name is the line's.
func link(actor string, line int, pairs ...string) lattice.Link {
	values := map[string]string{"chip": SimName, "line": fmt.Sprint(line)}
	for i := 0; i < len(pairs); i += 2 {
		values[pairs[i]] = pairs[i+1]
	}
	return lattice.Link{Actor: actor, Contract: Contract, Name: fmt.Sprint("line", line), Provider: "gpio", Values: values}
}

func output(actor string, line int, pairs ...string) lattice.Link {
	return link(actor, line, append([]string{"direction", "out"}, pairs...)...)
}

func (b *box) put(l lattice.Link) {
	b.t.Helper()
	if err := b.PutLink(b.t.Context(), l); err != nil {
		b.t.Fatal(err)
	}
}

// call calls an operation for actor; fields are pairs of name and value.
func (b *box) call(ctx context.Context, actor, operation string, fields ...any) ([]byte, error) {
	return b.Call(ctx, lattice.Invocation{
		Origin:    lattice.Entity{Key: actor},
		Target:    lattice.Entity{Key: "gpio", Link: "default"},
		Contract:  Contract,
		Operation: operation,
		Payload:   payload(fields...),
	})
}

func payload(fields ...any) []byte {
	p := msgpack.AppendMapHeader(nil, len(fields)/2)
	for i, f := range fields {
		switch f := f.(type) {
		case string:
			p = msgpack.AppendString(p, f)
		case int:
			p = msgpack.AppendInt(p, int64(f))
		case bool:
			p = msgpack.AppendBool(p, f)
		default:
			panic(fmt.Sprint("field ", i))
		}
	}
	return p
}

func (b *box) set(line int, level bool) {
	b.t.Helper()
	if _, err := b.call(b.t.Context(), alice, "Gpio.Set", "chip", SimName, "line", line, "level", level); err != nil {
		b.t.Fatal(err)
	}
}

func (b *box) get(line int) bool {
	b.t.Helper()
	answer, err := b.call(b.t.Context(), alice, "Gpio.Get", "chip", SimName, "line", line)
	if err != nil {
		b.t.Fatal(err)
	}
	return msgpack.NewDecoder(answer).Bool()
}

// level is what a meter at the line of sim0 shows.
func (b *box) level(line int) bool {
	b.t.Helper()
	level, err := b.Sim().Level(line)
	if err != nil {
		b.t.Fatal(err)
	}
	return level
}

// record returns a function that tells the changes of sim0 since record, as
// "line:level" with the time since then if it is not 0.
func (b *box) record() func() string {
	start := time.Now()
	var mu sync.Mutex
	var changes []string
	stop := b.Sim().Watch(func(c SimChange) {
		mu.Lock()
		defer mu.Unlock()
		s := fmt.Sprintf("%d:%s", c.Line, word(c.Level))
		if after := c.Time.Sub(start); after >= time.Millisecond {
			s += "@" + after.Round(time.Millisecond).String()
		}
		changes = append(changes, s)
	})
	b.t.Cleanup(stop)
	return func() string {
		mu.Lock()
		defer mu.Unlock()
		return strings.Join(changes, " ")
	}
}

func TestProvider_Set_stagedUntilCommit(t *testing.T) {
	db := openStore(t, t.TempDir())
	b := startBox(t, db)
	b.put(output(alice, 5))

	turn := db.Begin()
	ctx := store.WithTurn(t.Context(), turn)
	if _, err := b.call(ctx, alice, "Gpio.Set", "chip", SimName, "line", 5, "level", true); err != nil {
		t.Fatal(err)
	}
	if b.get(5) || b.level(5) {
		t.Error("the line is high before the turn is committed")
	}
	if err := turn.Commit(); err != nil {
		t.Fatal(err)
	}
	if !b.get(5) || !b.level(5) {
		t.Error("the line is low after the turn was committed")
	}
}

func TestProvider_Set_discardedTurn(t *testing.T) {
	db := openStore(t, t.TempDir())
	b := startBox(t, db)
	b.put(output(alice, 5))
	err := db.Do(t.Context(), func(ctx context.Context, _ *store.Turn) error {
		if _, err := b.call(ctx, alice, "Gpio.Set", "chip", SimName, "line", 5, "level", true); err != nil {
			t.Error(err)
		}
		return errors.New("the handler failed")
	})
	if err == nil || b.get(5) {
		t.Errorf("err %v, level %v; want an error and a low line", err, b.get(5))
	}
	if _, ok, _ := b.desired(address{SimName, 5}, alice); ok {
		t.Error("a desired level was stored")
	}
}

func TestProvider_Set_inCommitOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := startBox(t, openStore(t, t.TempDir()))
		b.put(output(alice, 1))
		b.put(output(alice, 2))
		changes := b.record()
		for range 3 {
			b.set(1, true)
			b.set(2, true)
			b.set(1, false)
			b.set(2, false)
		}
		b.get(1)
		want := strings.TrimSpace(strings.Repeat("1:high 2:high 1:low 2:low ", 3))
		if got := changes(); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	})
}

func TestProvider_PutLink_oneOwner(t *testing.T) {
	b := startBox(t, openStore(t, t.TempDir()))
	b.put(output(alice, 5))

	err := b.PutLink(t.Context(), output(bob, 5))
	if !errors.Is(err, ErrOwned) {
		t.Fatalf("second owner: got %v, want ErrOwned", err)
	}
	for _, want := range []string{alice, bob, "line 5", SimName, "line5"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the refusal %q does not name %q", err, want)
		}
	}
	again := output(alice, 5)
	again.Name = "another"
	if err := b.PutLink(t.Context(), again); !errors.Is(err, ErrOwned) {
		t.Errorf("another link of the same actor: got %v, want ErrOwned", err)
	}
	if err := b.DeleteLink(t.Context(), output(alice, 5)); err != nil {
		t.Fatal(err)
	}
	b.put(output(bob, 5))
}

func TestProvider_Call_deniesByDefault(t *testing.T) {
	b := startBox(t, openStore(t, t.TempDir()))
	b.put(output(alice, 5))
	b.put(link(alice, 6, "direction", "in"))
	for _, c := range []struct {
		name, actor, operation string
		fields                 []any
		want                   error
	}{
		{"a line of another", bob, "Gpio.Get", []any{"chip", SimName, "line", 5}, ErrNotOwned},
		{"a line of nobody", alice, "Gpio.Get", []any{"chip", SimName, "line", 7}, ErrNotOwned},
		{"no such chip", alice, "Gpio.Get", []any{"chip", "gpiochip0", "line", 5}, ErrNotOwned},
		{"the host", "", "Gpio.Get", []any{"chip", SimName, "line", 5}, ErrNotOwned},
		{"set an input", alice, "Gpio.Set", []any{"chip", SimName, "line", 6, "level", true}, ErrRequest},
		{"pulse an input", alice, "Gpio.Pulse", []any{"chip", SimName, "line", 6, "level", true, "ms", 5}, ErrRequest},
		{"no level", alice, "Gpio.Set", []any{"chip", SimName, "line", 5}, ErrRequest},
		{"no ms", alice, "Gpio.Pulse", []any{"chip", SimName, "line", 5, "level", true}, ErrRequest},
		{"a pulse too long", alice, "Gpio.Pulse", []any{"chip", SimName, "line", 5, "level", true, "ms", 10001}, ErrRequest},
		{"a pulse of nothing", alice, "Gpio.Pulse", []any{"chip", SimName, "line", 5, "level", true, "ms", 0}, ErrRequest},
		{"a line below zero", alice, "Gpio.Get", []any{"chip", SimName, "line", -1}, ErrRequest},
		{"an operation that is none", alice, "Gpio.Toggle", nil, ErrOperation},
	} {
		if _, err := b.call(t.Context(), c.actor, c.operation, c.fields...); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
	}
	if b.level(5) {
		t.Error("a refused call moved the line")
	}
}

func TestProvider_Set_integerAsLevel(t *testing.T) {
	b := startBox(t, openStore(t, t.TempDir()))
	b.put(output(alice, 5))
	if _, err := b.call(t.Context(), alice, "Gpio.Set", "chip", SimName, "line", 5, "level", 1); err != nil {
		t.Fatal(err)
	}
	if !b.get(5) {
		t.Error("low, want high")
	}
}

func TestProvider_Run_safeLevelAndBoot(t *testing.T) {
	for _, c := range []struct {
		name                        string
		values                      []string
		atFirst, set, stopped, boot bool
	}{
		{"defaults", nil, false, true, false, true},
		{"safe high", []string{"safe", "high"}, true, false, true, false},
		{"initial high", []string{"initial", "high"}, true, true, false, true},
		{"safe high, initial low", []string{"safe", "high", "initial", "low"}, false, false, true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			db := openStore(t, t.TempDir())
			b := startBox(t, db)
			b.put(output(alice, 5, c.values...))
			b.put(output(alice, 6, c.values...))
			if b.get(5) != c.atFirst {
				t.Errorf("at first: got %v, want %v", b.level(5), c.atFirst)
			}
			b.set(5, c.set)
			b.stop()
			if b.level(5) != c.stopped || b.level(6) != c.stopped {
				t.Errorf("stopped: got %v and %v, want %v", b.level(5), b.level(6), c.stopped)
			}
			if err := b.Sim().Set(5, true); err != nil {
				t.Errorf("the line is still held: %v", err)
			}

			b = newBox(t, db)
			b.put(output(alice, 5, c.values...))
			b.put(output(alice, 6, c.values...))
			if b.level(5) != c.boot || b.level(6) != c.atFirst {
				t.Errorf("at boot: got %v and %v, want %v and %v", b.level(5), b.level(6), c.boot, c.atFirst)
			}
			b.Close()
			b.Close()
			if b.level(5) != c.stopped {
				t.Errorf("closed: got %v, want %v", b.level(5), c.stopped)
			}
		})
	}
}

func TestProvider_PutLink_anotherOwnersLevel(t *testing.T) {
	b := startBox(t, openStore(t, t.TempDir()))
	b.put(output(alice, 5))
	b.set(5, true)
	if err := b.DeleteLink(t.Context(), output(alice, 5)); err != nil {
		t.Fatal(err)
	}
	if b.level(5) {
		t.Error("high after the link was deleted, want the safe level")
	}
	b.put(output(bob, 5))
	if b.level(5) {
		t.Error("the new owner began with the level of the old one")
	}
	if err := b.DeleteLink(t.Context(), output(bob, 5)); err != nil {
		t.Fatal(err)
	}
	b.put(output(alice, 5))
	if !b.get(5) {
		t.Error("low, want the level that its owner had set")
	}
}

func TestProvider_PutLink_linesWithTheSamePrefix(t *testing.T) {
	db := openStore(t, t.TempDir())
	b := startBox(t, db)
	b.put(output(alice, 30))
	b.set(30, true)
	b.put(output(alice, 3))
	if b.get(3) {
		t.Error("line 3 began with the level of line 30")
	}
}

func TestProvider_PutLink_again(t *testing.T) {
	b := startBox(t, openStore(t, t.TempDir()))
	b.put(output(alice, 5))
	b.set(5, true)
	b.get(5)
	changes := b.record()
	b.put(output(alice, 5))
	b.put(output(alice, 5, "safe", "low", "initial", "high"))
	if got := changes(); got != "" {
		t.Errorf("the line moved: %s", got)
	}
	moved := output(alice, 7)
	moved.Name = "line5"
	b.put(moved)
	if b.level(5) {
		t.Error("the line that the link has left is not at its safe level")
	}
	if err := b.SetSim(SimName, 5, true); err != nil {
		t.Errorf("the line that the link has left is still held: %v", err)
	}
	b.put(link(alice, 5, "direction", "in", "topic", "a.b"))
	if got := len(b.Lines()); got != 1 {
		t.Errorf("%d lines are held, want 1", got)
	}
	if !b.get(5) {
		t.Error("low, want high")
	}
}

func TestProvider_PutLink_refusedKeepsWhatWas(t *testing.T) {
	b := startBox(t, openStore(t, t.TempDir()))
	b.put(output(alice, 5))
	b.put(output(bob, 6))
	b.set(5, true)
	for name, values := range map[string]map[string]string{
		"not a line of the chip": {"chip": SimName, "line": "32", "direction": "out"},
		"owned":                  {"chip": SimName, "line": "6", "direction": "out"},
		"no chip":                {"chip": "gpiochip99", "line": "6", "direction": "out"},
		"bad values":             {"chip": SimName, "line": "5", "direction": "up"},
	} {
		l := output(alice, 5)
		l.Values = values
		if err := b.PutLink(t.Context(), l); err == nil {
			t.Errorf("%s: no error", name)
		}
		if !b.get(5) {
			t.Errorf("%s: the line moved", name)
		}
	}
	err := b.PutLink(t.Context(), lattice.Link{Actor: bob, Name: "x", Values: map[string]string{"chip": "gpiochip99", "line": "0", "direction": "in"}})
	if !errors.Is(err, ErrNoChip) || !strings.Contains(err.Error(), "there is") || !strings.Contains(err.Error(), SimName) {
		t.Errorf("got %v, want ErrNoChip and the chips there are", err)
	}
}

func TestProvider_Pulse_endsAtDesiredLevel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := startBox(t, openStore(t, t.TempDir()))
		b.put(output(alice, 5))
		pulse := func(level bool, ms int) {
			t.Helper()
			before := time.Now()
			if _, err := b.call(t.Context(), alice, "Gpio.Pulse", "chip", SimName, "line", 5, "level", level, "ms", ms); err != nil {
				t.Fatal(err)
			}
			if !time.Now().Equal(before) {
				t.Error("Pulse waited")
			}
		}
		for _, c := range []struct {
			name string
			do   func()
			want string
		}{
			{"alone", func() { pulse(true, 500) }, "5:high 5:low@500ms"},
			{"longest", func() { pulse(true, 10000) }, "5:high 5:low@10s"},
			{"another takes over", func() { pulse(true, 500); time.Sleep(300 * time.Millisecond); pulse(true, 500) }, "5:high 5:low@800ms"},
			{"set meanwhile", func() { pulse(true, 500); b.set(5, true); b.get(5); b.set(5, false); b.get(5) }, "5:high 5:low@500ms"},
			{"set meanwhile to the level", func() { pulse(true, 500); b.set(5, true) }, "5:high"},
			{"on a high line", func() { pulse(false, 20) }, "5:low 5:high@20ms"},
		} {
			changes := b.record()
			c.do()
			time.Sleep(11 * time.Second)
			synctest.Wait()
			if got := changes(); got != c.want {
				t.Errorf("%s: got %s, want %s", c.name, got, c.want)
			}
		}
		b.set(5, false)
		pulse(true, 10000)
		b.stop()
		if b.level(5) {
			t.Error("stopped during a pulse: high, want the safe level")
		}
	})
}

func TestProvider_Pulse_makesTurnIrrevocable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := openStore(t, t.TempDir())
		b := startBox(t, db)
		b.put(output(alice, 5))
		turn := db.Begin()
		ctx := store.WithTurn(t.Context(), turn)
		if err := turn.Put("s", "k", []byte("1")); err != nil {
			t.Fatal(err)
		}
		if _, err := b.call(ctx, alice, "Gpio.Pulse", "chip", SimName, "line", 5, "level", true, "ms", 10000); err != nil {
			t.Fatal(err)
		}
		if !b.level(5) {
			t.Error("the pulse waits for the commit")
		}
		ended := make(chan error, 1)
		go func() {
			ended <- db.Do(t.Context(), func(_ context.Context, o *store.Turn) error { return o.Put("s", "k", []byte("2")) })
		}()
		synctest.Wait()
		if len(ended) != 0 {
			t.Error("a turn on the same key does not wait for that of the pulse")
		}
		if err := turn.Commit(); err != nil {
			t.Errorf("the turn of the pulse lost: %v", err)
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func TestProvider_Run_stopsCalls(t *testing.T) {
	b := startBox(t, openStore(t, t.TempDir()))
	b.put(output(alice, 5))
	b.stop()
	if _, err := b.call(t.Context(), alice, "Gpio.Get", "chip", SimName, "line", 5); !errors.Is(err, ErrClosed) {
		t.Errorf("Call: got %v, want ErrClosed", err)
	}
	if err := b.PutLink(t.Context(), output(alice, 6)); !errors.Is(err, ErrClosed) {
		t.Errorf("PutLink: got %v, want ErrClosed", err)
	}
	if err := b.DeleteLink(t.Context(), output(alice, 5)); err != nil {
		t.Errorf("DeleteLink: %v", err)
	}
	if err := b.Run(t.Context()); err != nil {
		t.Errorf("Run: %v", err)
	}
	if got := b.Lines(); len(got) != 0 {
		t.Errorf("Lines: got %v", got)
	}
}

func TestProvider_Close_endsRun(t *testing.T) {
	b := startBox(t, openStore(t, t.TempDir()))
	b.put(output(alice, 5, "safe", "high"))
	b.put(link(alice, 6, "direction", "in", "topic", "door"))
	b.Close()
	b.stop()
	if !b.level(5) {
		t.Error("low, want the safe level")
	}
}

func TestProvider_SetSim(t *testing.T) {
	b := startBox(t, openStore(t, t.TempDir()))
	b.put(output(alice, 5))
	b.put(link(alice, 6, "direction", "in", "pull", "up"))
	b.put(link(bob, 7, "direction", "in", "topic", "hall/door", "edge", "falling"))
	if !b.get(6) {
		t.Error("an untouched line with a pull-up is low")
	}
	for line, want := range map[int]bool{5: false, 6: true, 8: true, -1: false, 32: false} {
		if err := b.SetSim(SimName, line, true); (err == nil) != want {
			t.Errorf("set line %d: got %v", line, err)
		}
	}
	if err := b.SetSim("gpiochip0", 0, true); !errors.Is(err, ErrNoChip) {
		t.Errorf("set a line of a real chip: got %v, want ErrNoChip", err)
	}
	got := fmt.Sprintf("%+v", b.Lines())
	want := fmt.Sprintf("%+v", []LineInfo{
		{Chip: SimName, Line: 5, Direction: "out", Owner: alice, Link: "line5"},
		{Chip: SimName, Line: 6, Direction: "in", Owner: alice, Link: "line6", Level: true, Edge: "none"},
		{Chip: SimName, Line: 7, Direction: "in", Owner: bob, Link: "line7", Edge: "falling", Topic: "hall/door"},
	})
	if got != want {
		t.Errorf("Lines: got %s, want %s", got, want)
	}
}

func TestNew_missingOptions(t *testing.T) {
	full := Options{Device: "d", Store: openStore(t, t.TempDir()), Publish: func(string, event.Event, func(error)) {}}
	if _, err := New(full); err != nil {
		t.Error(err)
	}
	for name, o := range maps.All(map[string]Options{
		"device": {Store: full.Store, Publish: full.Publish}, "store": {Device: "d", Publish: full.Publish}, "publish": {Device: "d", Store: full.Store},
	}) {
		if _, err := New(o); err == nil {
			t.Errorf("without %s: no error", name)
		}
	}
}
