package box

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/edged-io/edged/store"
)

// smallDisk gives the box that does not run yet no more than 16 MiB. grow gives it
// more, and starts the box again if it has to.
func (b *box) smallDisk() (grow func()) {
	b.t.Helper()
	if may("unshare", "-m", "mount", "-t", "tmpfs", "none", b.dir) {
		return b.ownDisk("16m", "64m")
	}
	device, err := os.ReadFile(b.path("edged.toml"))
	b.must(err)
	limit := func(size string) {
		b.write("edged.toml", string(device)+"[store]\nmax_bytes = \""+size+"\"\n")
	}
	limit("16MiB")
	return func() {
		limit("64MiB")
		b.kill()
		b.start()
	}
}

// ownDisk puts the state directory on a file system of that size, which only
// the box sees. grow makes it larger.
func (b *box) ownDisk(size, later string) (grow func()) {
	b.t.Helper()
	// The namespace is there as long as somebody is in it.
	holder := exec.Command("unshare", "-m", "sh", "-c",
		"mount -t tmpfs -o mode=700,size="+size+" none state && ln -s "+codeCache+" state/cache && echo mounted && exec cat")
	holder.Dir = b.dir
	in, err := holder.StdinPipe()
	b.must(err)
	out, err := holder.StdoutPipe()
	b.must(err)
	b.must(holder.Start())
	b.t.Cleanup(func() {
		in.Close()
		b.must(holder.Wait())
	})
	_, err = io.ReadFull(out, make([]byte, len("mounted\n")))
	b.must(err)
	b.in = []string{"nsenter", "-m", "-t", fmt.Sprint(holder.Process.Pid), "--", "sh", "-c", `cd "$0" && exec "$@"`, b.dir}
	return func() {
		b.t.Helper()
		if out, err := b.command("mount", "-o", "remount,size="+later, b.path("state")).CombinedOutput(); err != nil {
			b.t.Fatalf("remount: %v %s", err, out)
		}
	}
}

func TestBox_fullDisk(t *testing.T) {
	b := newBox(t, unsigned)
	grow := b.smallDisk()
	b.app("apps/good", "1")
	b.start()
	nc := b.nats()
	b.publish(nc, "greenhouse.s.temperature", []byte(`{"value":1}`))
	b.handled(1)

	// Until it is full.
	var acked uint64
	body := slices.Repeat([]byte("0123456789abcdef"), 4<<10)
	fill := func() (refused string) {
		for range 1000 {
			a := b.publish(nc, "kept.a", body)
			if a.Error != nil {
				if a.Error.Code != 503 {
					t.Errorf("refused with code %d, want 503", a.Error.Code)
				}
				return a.Error.Description
			}
			acked = a.Seq
		}
		t.Fatal("a disk of 16 MiB took 64 MiB")
		return ""
	}
	contains(t, fill(), "full")
	if kind, _, hungUp := b.mqtt(4).publish("kept/a", body); !hungUp {
		t.Errorf("MQTT 3.1.1: got packet %d; no ack may come", kind)
	}
	if kind, reason, _ := b.mqtt(5).publish("kept/a", body); kind != mqttPuback || reason != 0x97 {
		t.Errorf("MQTT 5: got packet %d, reason %#x, want PUBACK 0x97, quota exceeded", kind, reason)
	}
	b.logged(`level=WARN msg="stream has no room, messages are refused" part=broker stream=kept`)

	// What needs no disk goes on.
	sub, err := nc.SubscribeSync("core.>")
	b.must(err)
	b.must(nc.Publish("core.a", []byte("x")))
	_, err = sub.NextMsg(patience)
	b.must(err)
	if got := b.stream("kept"); got.Last != acked {
		t.Errorf("the stream ends at %d, acknowledged was %d", got.Last, acked)
	}

	// A box starts on a full disk.
	b.kill()
	b.start()
	nc = b.nats()
	if got := b.stream("kept"); got.First != 1 || got.Last != acked {
		t.Errorf("after a kill: %+v, acknowledged was %d", got, acked)
	}
	if a := b.publish(nc, "kept.a", body); a.Error == nil {
		acked = a.Seq // a restart compacts nothing, but room for one may be left
	}

	// With room it goes on as before.
	grow()
	restarted := !strings.Contains(b.log.String(), "messages are refused")
	nc = b.nats()
	b.eventually("the box takes messages again", func() bool {
		a := b.publish(nc, "kept.a", body)
		if a.Error == nil {
			acked = a.Seq
		}
		return a.Error == nil
	})
	if !restarted {
		b.logged(`msg="stream takes messages again" part=broker stream=kept`)
	}
	b.publish(nc, "greenhouse.s.temperature", []byte(`{"value":1}`))
	b.handled(1)
	b.kill()
	b.start()
	if got := b.stream("kept"); got.First != 1 || got.Last != acked {
		t.Errorf("in the end: %+v, acknowledged was %d", got, acked)
	}
	b.term()
	b.must(b.command("cp", "state/store.db", b.path("copy.db")).Run())
	b.must(os.MkdirAll(b.path("copied"), 0o700))
	b.must(os.Rename(b.path("copy.db"), b.path("copied", "store.db")))
	if n := b.read("copied", "kept", func(seq uint64, data string) bool { return data == string(body) }); n != int(acked) {
		t.Errorf("%d messages can be read, %d were acknowledged", n, acked)
	}
}

// read opens the store of a box that does not run, and returns how many messages
// of a stream it holds. Each has to be right.
func (b *box) read(dir, stream string, right func(seq uint64, data string) bool) (n int) {
	b.t.Helper()
	db, err := store.Open(store.Options{Dir: b.path(dir)})
	b.must(err)
	defer db.Close()
	b.must(db.Read(stream, 1, 1<<20, 1<<30, func(m store.Message) error {
		if !right(m.Seq, string(m.Data)) {
			b.t.Errorf("message %d reads %.40q", m.Seq, m.Data)
		}
		n++
		return nil
	}))
	return n
}

// A damaged store is set aside, and what can be read of it is there. The log and
// the health of the box say so until somebody has looked.
func TestBox_damagedStore(t *testing.T) {
	const stored = 400
	damages := map[string]struct {
		damage func([]byte) []byte
		least  int // messages that must survive
	}{
		"truncated":     {func(b []byte) []byte { return b[:len(b)*6/10] }, 1},
		"cut to a byte": {func(b []byte) []byte { return b[:1] }, 0},
		"flipped bit": {func(b []byte) []byte {
			b[strings.Index(string(b), "message 200")] ^= 1
			return b
		}, stored * 9 / 10},
		"both roots": {func(b []byte) []byte {
			b[20], b[4096+20] = ^b[20], ^b[4096+20]
			return b
		}, stored},
	}
	b := newBox(t, unsigned)
	b.app("apps/good", "1")
	b.start()
	b.store(1, stored)
	b.kill()
	whole, err := os.ReadFile(b.path("state", "store.db"))
	b.must(err)
	whole = whole[:(len(strings.TrimRight(string(whole), "\x00"))+4095)/4096*4096]
	right := func(seq uint64, data string) bool { return data == fmt.Sprintf("message %d", seq) }
	for name, d := range damages {
		t.Run(name, func(t *testing.T) {
			b.must(os.RemoveAll(b.path("state", "quarantine")))
			b.must(os.WriteFile(b.path("state", "store.db"), d.damage(slices.Clone(whole)), 0o600))
			b.start()
			contains(t, b.log.String(), `msg="store file is damaged"`, `msg="damaged store set aside, what could be read was carried over"`)
			aside := b.path("state", "quarantine", "store-1.db")
			contains(t, b.health(), "degraded", "a damaged file was set aside", "quarantine/store-1.db")
			if b.publish(b.nats(), "greenhouse.s.temperature", []byte(`{"value":1}`)).Error != nil {
				t.Error("the box takes no messages")
			}
			b.handled(1)
			b.must(os.Remove(aside))
			if got := b.health(); got != "ok\n" {
				t.Errorf("looked at, and still: %s", got)
			}
			b.term()
			if n := b.read("state", "kept", right); n < d.least {
				t.Errorf("%d messages survived, at least %d should", n, d.least)
			} else {
				t.Logf("%d of %d messages survived", n, stored)
			}
		})
	}
}
