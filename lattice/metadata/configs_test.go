package metadata

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/edged-io/edged/internal/logbuffer"
	"github.com/edged-io/edged/store"
)

// configBox is a host of the lattice, as far as configurations go.
type configBox struct {
	*Configs
	line *line
	log  logbuffer.Buffer
}

func startConfigs(t *testing.T, conn *nats.Conn) *configBox {
	t.Helper()
	db, err := store.Open(store.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	b := &configBox{line: newLine()}
	b.Configs, err = NewConfigs(Options{
		Conn: conn, Lattice: "home", Store: db, Link: b.line.state, Logger: slog.New(slog.NewTextHandler(&b.log, nil)),
		retryMin: 20 * time.Millisecond, retryMax: 200 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// Two boxes have the same configurations. Where both changed one while they were apart,
// that of the lattice holds, and the other one is told. What others keep in the bucket for
// single actors is left alone, and what makes no sense is left out.
func TestConfigs_twoBoxes(t *testing.T) {
	h := newHub(t)
	a, b := startConfigs(t, h.connect()), startConfigs(t, h.connect())
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	has := func(x *configBox, want string) {
		t.Helper()
		eventually(t, "it is not "+want, func() bool { return fmt.Sprint(x.All()) == want })
	}
	must(a.Put("pump", map[string]string{"speed": "1"}))
	must(a.Put("empty", nil))
	has(b, "map[empty:map[] pump:map[speed:1]]")
	must(b.Delete("empty"))
	has(a, "map[pump:map[speed:1]]")
	eventually(t, "b has not told all", b.Synced)

	b.line.set(false)
	must(b.Put("pump", map[string]string{"speed": "of b"}))
	must(a.Put("pump", map[string]string{"speed": "2"}))
	eventually(t, "a has not told all", a.Synced)
	b.line.set(true)
	has(b, "map[pump:map[speed:2]]")
	eventually(t, "the loss is not told", func() bool { return strings.Contains(b.log.String(), "a change of a configuration is lost") })

	js, err := jetstream.New(h.connect(), jetstream.WithDefaultTimeout(patience))
	must(err)
	kv, err := js.KeyValue(t.Context(), "CONFIGDATA_home")
	must(err)
	for key, value := range map[string]string{actor + "_a": "raw", "odd": `["x"]`, "odd2": `{"a":1}`, "good": `{"a":"b"}`} {
		if _, err := kv.Put(t.Context(), key, []byte(value)); err != nil {
			t.Fatal(err)
		}
	}
	has(a, "map[good:map[a:b] pump:map[speed:2]]")
	eventually(t, "what makes no sense is not told", func() bool { return strings.Count(a.log.String(), "a record of the lattice is left out") == 2 })
	if strings.Contains(a.log.String(), actor) {
		t.Errorf("what is an actor's was looked at:\n%s", a.log.String())
	}
}

func TestIsConfigName(t *testing.T) {
	for _, good := range []string{"a", "pump.v1", "A-b_c=1", actor, "x_" + actor} {
		if !IsConfigName(good) {
			t.Errorf("%q is none", good)
		}
	}
	for _, bad := range []string{"", ".", "a.", ".a", "a..b", "a b", "a/b", "a>", "ü", actor + "_key", strings.Repeat("x", 257)} {
		if IsConfigName(bad) {
			t.Errorf("%q is one", bad)
		}
	}
}

func FuzzDecodeConfig(f *testing.F) {
	for _, s := range []string{`{"a":"b"}`, `{}`, `null`, `{"a":null}`, `{"a":1}`, "{\"a\":\"\xff\"}"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		r, err := decodeConfig("name", value)
		if err != nil {
			return
		}
		if back, err := decodeConfig("name", r.value); err != nil || !back.equal(r) {
			t.Errorf("%q is written as %q, which reads as %q, %v", value, r.value, back.value, err)
		}
	})
}
