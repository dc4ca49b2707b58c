package mqtt_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/edged-io/edged/providers/mqtt"
	"github.com/edged-io/edged/store"
)

// The test binary is also the process that gets killed: with childDir it serves a store until then.
const (
	childDir    = "EDGED_TEST_MQTT_DIR"
	childHold   = "EDGED_TEST_MQTT_HOLD"   // confirmations never come
	childClient = "EDGED_TEST_MQTT_BROKER" // a client of that broker, in place of a listener
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		fmt.Fprintln(os.Stderr, child(dir))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func child(dir string) error {
	if qos := os.Getenv(childOutbox); qos != "" {
		return outboxChild(dir, os.Getenv(childClient), qos)
	}
	db, err := store.Open(store.Options{Dir: dir})
	if err != nil {
		return err
	}
	if err := db.EnsureStream(store.StreamConfig{Name: "telemetry"}); err != nil {
		return err
	}
	b := &fakeBroker{streams: map[string]string{"sensors.>": "telemetry"}}
	if os.Getenv(childHold) != "" {
		b.hold()
	}
	if url := os.Getenv(childClient); url != "" {
		c, err := mqtt.NewClient(mqtt.ClientOptions{
			URL: url, ClientID: "box", Filters: []mqtt.Filter{{Topic: "sensors/#", QoS: childQoS()}}, Store: db, Stage: b.Stage, Failpoint: killAt(os.Getenv(childFail)),
		})
		if err != nil {
			return err
		}
		fmt.Println("up")
		return c.Run(context.Background())
	}
	l, err := mqtt.NewListener(mqtt.ListenerOptions{Listen: "127.0.0.1:0", Store: db, Broker: b})
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	return l.Run(context.Background())
}

// childQoS is 2 for a child that kills itself.
func childQoS() byte {
	if os.Getenv(childFail) != "" {
		return 2
	}
	return 1
}

// process is such a child.
type process struct {
	cmd  *exec.Cmd
	line string // the first it printed
}

func startChild(t *testing.T, dir string, env ...string) *process {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(append(os.Environ(), childDir+"="+dir), env...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &process{cmd: cmd}
	t.Cleanup(p.kill)
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("child: %v", err)
	}
	p.line = strings.TrimSpace(line)
	return p
}

// kill sends SIGKILL and waits for the end.
func (p *process) kill() {
	if p.cmd.ProcessState == nil {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
	}
}

func read(t *testing.T, dir string) []string {
	t.Helper()
	db, err := store.Open(store.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	return storedIn(t, db, "telemetry")
}

// storedBytes waits until the store file of a child has not changed for a moment: what it was sent is on disk, since nothing else is written.
func settled(t *testing.T, dir string) {
	t.Helper()
	var last time.Time
	since := time.Now()
	eventually(t, "the store is at rest", func() bool {
		info, err := os.Stat(dir + "/store.db")
		if err != nil {
			t.Fatal(err)
		}
		if info.ModTime() != last {
			last, since = info.ModTime(), time.Now()
		}
		return time.Since(since) > 300*time.Millisecond
	})
}

func TestListener_Crash_betweenSyncAndAck(t *testing.T) {
	dir := t.TempDir()
	p := startChild(t, dir, childHold+"=1")
	w, _ := connect(t, p.line, 4, "c", false)
	const n = 64
	var want []string
	for i := range uint16(n) {
		body, _ := json.Marshal(map[string]any{"n": i})
		want = append(want, string(body))
		w.send(pub("sensors/a", string(body), 1+byte(i%2), i+1))
	}
	w.quiet() // all were read, none was acknowledged
	settled(t, dir)
	p.kill()
	if _, err := w.receive(deadline); err == nil {
		t.Fatal("something was acknowledged")
	}
	equal(t, read(t, dir), want)

	p = startChild(t, dir)
	w, present := connect(t, p.line, 4, "c", false)
	if !present {
		t.Error("the session is gone")
	}
	for i, body := range want {
		w.send(dup(pub("sensors/a", body, 1+byte(i%2), uint16(i+1))))
	}
	for i := range want {
		if pk := w.expect(packets.Puback + byte(i%2)); int(pk.PacketID) != i+1 {
			t.Fatalf("got an ack of %d, want %d", pk.PacketID, i+1)
		}
	}
	w.send(pub("sensors/a", "new", 1, 1))
	w.expect(packets.Puback)
	p.kill()
	equal(t, read(t, dir), append(want, "new"))
}

func TestListener_Crash_anyTime(t *testing.T) {
	dir := t.TempDir()
	const n = 1500
	acked, base := 0, 0 // messages up to acked are acknowledged
	sent := 0
	for round := 0; acked < n; round++ {
		p := startChild(t, dir)
		w, _ := connect(t, p.line, 4, "c", false)
		kill := time.AfterFunc(time.Duration(20+30*round)*time.Millisecond, func() { _ = p.cmd.Process.Kill() })
		for base = acked; base < sent; base++ { // in their order, with the same identifiers
			if _, err := w.nc.Write(w.encode(dup(pub("sensors/a", fmt.Sprint(base), 1, uint16(base%500+1))))); err != nil {
				break
			}
		}
		if base == sent {
			acked, sent = w.pump(acked, sent, n)
		}
		kill.Stop()
		p.kill()
		if round > 100 {
			t.Fatal("no progress")
		}
	}
	got := read(t, dir)
	for i := range n {
		if i >= len(got) || got[i] != fmt.Sprint(i) {
			t.Fatalf("message %d: got %q of %d", i, got[min(i, len(got)-1)], len(got))
		}
	}
	if len(got) != n {
		t.Fatalf("%d messages stored, want %d", len(got), n)
	}
}

// pump sends messages up to n, 64 in flight, until all are acknowledged or the connection breaks.
func (w *wire) pump(acked, sent, n int) (int, int) {
	for acked < n {
		for sent < n && sent-acked < 64 {
			pk := w.encode(pub("sensors/a", fmt.Sprint(sent), 1, uint16(sent%500+1)))
			sent++
			if _, err := w.nc.Write(pk); err != nil {
				return acked, sent
			}
		}
		pk, err := w.receive(deadline)
		if err != nil {
			return acked, sent
		}
		if pk.FixedHeader.Type != packets.Puback || int(pk.PacketID) != acked%500+1 {
			w.t.Fatalf("got %s of %d, want an ack of %d", packets.PacketNames[pk.FixedHeader.Type], pk.PacketID, acked%500+1)
		}
		acked++
	}
	return acked, sent
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
