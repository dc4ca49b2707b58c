package box

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

// module is the smallest actor, which imports one function with that many
// parameters.
func module(from, name string, params int) string {
	section := func(id byte, body ...[]byte) []byte {
		b := slices.Concat(body...)
		return append([]byte{id, byte(len(b))}, b...)
	}
	word := func(s string) []byte { return append([]byte{byte(len(s))}, s...) }
	i32s := func(n int) []byte { return append([]byte{byte(n)}, slices.Repeat([]byte{0x7f}, n)...) }
	return string(slices.Concat(
		[]byte("\x00asm\x01\x00\x00\x00"),
		section(1, []byte{2, 0x60}, i32s(params), i32s(1), []byte{0x60}, i32s(2), i32s(1)),
		section(2, []byte{1}, word(from), word(name), []byte{0, 0}),
		section(3, []byte{1, 1}),
		section(5, []byte{1, 0, 1}),
		section(7, []byte{2}, word("__guest_call"), []byte{0, 1}, word("memory"), []byte{2, 0}),
		section(10, []byte{1, 4, 0, 0x41, 1, 0x0b}),
	))
}

func TestBox_badApps(t *testing.T) {
	bad := map[string]struct{ toml, wasm, want string }{
		"notoml":    {"this is no toml\n", "", "notoml/app.toml:1: not TOML"},
		"notwasm":   {"", "#!/bin/sh\n", "not a wasm module: it begins with"},
		"component": {"", "\x00asm\x0d\x00\x01\x00", "a WebAssembly component; actors are core modules"},
		"wascc":     {"", module("wapc", "__host_call", 4), "imports wapc.__host_call with 4 parameters: a waSCC module"},
		"launch":    {"", module("env", "launch", 1), "imports what no host provides: env.launch"},
		"cut":       {"", module("env", "launch", 1)[:60], "actor a of app cut: section at byte 47"},
	}
	b := newBox(t, unsigned)
	b.app("apps/good", "1")
	b.start()
	b.store(1, 5)
	for name, app := range bad {
		if app.toml == "" {
			app.toml = fmt.Sprintf("specversion = \"0.2\"\nname = %q\nversion = \"1\"\n[[actor]]\nname = \"a\"\nmodule = \"a.wasm\"\n", name)
			b.write("apps/"+name+"/a.wasm", app.wasm)
		}
		b.write("apps/"+name+"/app.toml", app.toml)
		code, _, errOut := b.edged("reload", "--config", "edged.toml")
		if code == 0 {
			t.Errorf("%s was accepted", name)
		}
		contains(t, errOut, app.want)
		b.must(os.Rename(b.path("apps", name), b.path(name)))
	}
	for name := range bad {
		b.must(os.Rename(b.path(name), b.path("apps", name)))
	}
	b.kill()
	b.start()
	for name, app := range bad {
		b.eventually(name+" is told", func() bool { return strings.Contains(b.health(), app.want) }) // once it was compiled
		contains(t, b.log.String(), name)
	}
	if got := b.stream("kept"); got.First != 1 || got.Last != 5 {
		t.Errorf("what was stored before: %+v", got)
	}
	b.publish(b.nats(), "greenhouse.s.temperature", []byte(`{"value":1}`))
	b.handled(1)
	b.term()
}

func TestBox_tooLarge(t *testing.T) {
	const size = 8 << 20
	b := newBox(t, unsigned)
	b.app("apps/good", "1")
	b.start()
	b.store(1, 5)

	// A NATS client that believes what the server says refuses by itself; one that
	// does not is told.
	conn, err := net.Dial("tcp", b.addr("nats"))
	b.must(err)
	defer conn.Close()
	b.must(conn.SetDeadline(time.Now().Add(patience)))
	in := bufio.NewReader(conn)
	_, err = in.ReadString('\n')
	b.must(err)
	_, err = fmt.Fprintf(conn, "CONNECT {\"verbose\":false}\r\nPUB kept.large %d\r\n%s\r\n", size, strings.Repeat("x", 64<<10))
	b.must(err)
	line, err := in.ReadString('\n')
	b.must(err)
	contains(t, line, "-ERR 'Maximum Payload Violation'")

	payload := slices.Repeat([]byte("x"), size)
	if kind, reason, hungUp := b.mqtt(4).publish("kept/large", payload); !hungUp {
		t.Errorf("MQTT 3.1.1: got packet %d, reason %#x; no ack may come", kind, reason)
	}
	if kind, reason, _ := b.mqtt(5).publish("kept/large", payload); kind != mqttDisconnect || reason != 0x95 {
		t.Errorf("MQTT 5: got packet %d, reason %#x, want DISCONNECT 0x95, packet too large", kind, reason)
	}
	b.logged("packet too large")

	// What is a little too large, and not worth a disconnect.
	if a := b.publish(b.nats(), "kept.a", make([]byte, 1<<20)); a.Error != nil {
		t.Errorf("1 MiB: %+v", *a.Error)
	}
	b.kill()
	b.start()
	if got := b.stream("kept"); got.First != 1 || got.Last != 6 {
		t.Errorf("what was stored: %+v", got)
	}
}

func TestBox_oddTopics(t *testing.T) {
	b := newBox(t, unsigned)
	b.app("apps/good", "1")
	b.start()
	b.store(1, 1)
	got, err := b.nats().SubscribeSync("kept.>")
	b.must(err)
	last := uint64(1)
	for topic, subject := range map[string]string{
		"kept/a b":    "kept.a%20b",
		"kept/a.b/c":  "kept.a%2Eb.c",
		"kept//c":     "kept.%00.c",
		"kept/ü/100%": "kept.ü.100%25",
	} {
		for _, version := range []byte{4, 5} {
			if kind, reason, hungUp := b.mqtt(version).publish(topic, []byte(topic)); kind != mqttPuback || reason != 0 || hungUp {
				t.Errorf("%q by version %d: packet %d, reason %#x", topic, version, kind, reason)
			}
			last++
			m, err := got.NextMsg(patience)
			b.must(err)
			if m.Subject != subject || string(m.Data) != topic {
				t.Errorf("%q came as %s", topic, m.Subject)
			}
		}
	}
	for _, topic := range []string{"kept/+/c", "kept/#", "kept/\x00"} {
		if kind, _, hungUp := b.mqtt(4).publish(topic, nil); !hungUp {
			t.Errorf("%q by 3.1.1: got packet %d; no ack may come", topic, kind)
		}
		if kind, reason, hungUp := b.mqtt(5).publish(topic, nil); !hungUp && (kind != mqttDisconnect || reason < 0x80) {
			t.Errorf("%q by 5: got packet %d, reason %#x, want a DISCONNECT", topic, kind, reason)
		}
	}
	// A NATS subject with a wildcard can not be told from a filter.
	nc := b.nats()
	for _, subject := range []string{"kept.*", "kept.>"} {
		reply, err := nc.SubscribeSync(nats.NewInbox())
		b.must(err)
		b.must(nc.PublishRequest(subject, reply.Subject, []byte("x")))
		m, err := reply.NextMsg(patience)
		b.must(err)
		contains(t, string(m.Data), `"error"`, "subject")
	}
	if s := b.stream("kept"); s.Last != last {
		t.Errorf("the stream ends at %d, want %d", s.Last, last)
	}
	b.term()
}
