package box

import (
	"fmt"
	"net"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"golang.org/x/sys/unix"

	"github.com/edged-io/edged/internal/claims"
)

// What strace tells of connections that are tried.
var (
	connects = regexp.MustCompile(`connect\(\d+, (.*)`)
	local    = regexp.MustCompile(`sa_family=AF_UNIX|inet_addr\("127\.|inet_pton\(AF_INET6, "::1"`)
)

// A box starts without a network, whatever its clock says: all that was let in
// before runs, and nobody outside is called before it is ready. There is a hub
// in its file, and an MQTT broker in a manifest, at addresses that nobody has.
func TestBox_offline(t *testing.T) {
	b := newBox(t, "[hub]\nurl = \"nats-leaf://192.0.2.1:7422\"\n")
	seed, public := b.key("fleet")
	device, err := os.ReadFile(b.path("edged.toml"))
	b.must(err)
	b.write("edged.toml", string(device)+"[trust]\nissuers = [\""+public+"\"]\n")
	b.app("apps/good", "1")
	manifest, err := os.ReadFile(b.path("apps", "good", "app.toml"))
	b.must(err)
	b.write("apps/good/app.toml", string(manifest)+"[[capability]]\nname = \"pubsub.mqtt\"\n[[capability.config]]\nurl = \"tcp://192.0.2.2:1883\"\ntopic = \"greenhouse/far/temperature\"\n")
	b.expiring("apps/good", seed, time.Date(2031, 1, 1, 0, 0, 0, 0, time.UTC))

	b.env = []string{"EDGED_CLOCK=2030-06-01T00:00:00Z"}
	b.start()
	b.publish(b.nats(), "greenhouse.s.temperature", []byte(`{"value":31}`))
	b.handled(1)
	b.kill()
	for _, year := range []string{"1970", "2099"} {
		t.Run(year, func(t *testing.T) { b.offline(t, year) })
	}
	if got := b.read("state", "alarms", func(uint64, string) bool { return true }); got != 3 {
		t.Errorf("%d alarms are stored, want 3", got)
	}
}

func (b *box) offline(t *testing.T, year string) {
	b.env = []string{"EDGED_CLOCK=" + year + "-01-01T00:00:00Z"}
	trace := b.path("trace-" + year)
	wrap := []string{"strace", "-f", "-o", trace, "-e", "trace=connect,write", "-s", "300"}
	if may("unshare", "-n", "ip", "link", "set", "lo", "up") {
		wrap = append([]string{"unshare", "-n", "sh", "-c", `ip link set lo up && exec "$@"`, "sh"}, wrap...)
	}
	b.start(wrap...)
	b.eventually("the tracer has written", func() bool {
		text, err := os.ReadFile(trace)
		return err == nil && strings.Contains(string(text), "msg=ready ")
	})
	s := b.status()
	// That the broker of the app is away is told, and nothing else is wrong.
	others := slices.DeleteFunc(slices.Clone(s.Problems), func(p string) bool {
		return strings.HasPrefix(p, "mqtt greenhouse-pubsub-mqtt-1: ")
	})
	if len(others) != 0 || len(s.Apps) != 1 || s.Link != "down" {
		t.Errorf("status %+v", s)
	}
	nc, err := nats.Connect("nats://"+b.addr("nats"), nats.SetCustomDialer(netOf(b.cmd.Process.Pid)), nats.Timeout(patience))
	b.must(err)
	defer nc.Close()
	if a := b.publish(nc, "greenhouse.s.temperature", []byte(`{"value":31}`)); a.Error != nil {
		t.Errorf("publish: %+v", *a.Error)
	}
	b.handled(1)

	// The hub is called now, and not before.
	outside := func() (before, after int) {
		text, err := os.ReadFile(trace)
		b.must(err)
		ready := false
		for line := range strings.Lines(string(text)) {
			ready = ready || strings.Contains(line, "msg=ready ")
			if m := connects.FindStringSubmatch(line); m == nil || local.MatchString(m[1]) {
				continue
			}
			if ready {
				after++
			} else {
				before++
				t.Errorf("before it is ready: %s", line)
			}
		}
		return before, after
	}
	b.eventually("the hub is called", func() bool {
		before, after := outside()
		return before > 0 || after > 0
	})
	b.kill()
}

// expiring signs an app until then.
func (b *box) expiring(dir, seedFile string, until time.Time) {
	b.t.Helper()
	text, err := os.ReadFile(b.path(seedFile))
	b.must(err)
	seed, err := claims.ParseSeed(string(text))
	b.must(err)
	files, err := claims.DigestApp(b.path(dir))
	b.must(err)
	at := until.Unix()
	token, err := claims.Sign(claims.Claims[claims.AppClaims]{
		Subject: "greenhouse", Expires: &at,
		Wascap: claims.AppClaims{Name: "greenhouse", Version: "1", Files: files},
	}, seed)
	b.must(err)
	b.write(dir+"/app.sig", token)
}

// netOf dials from the network of a process.
type netOf int

func (pid netOf) Dial(network, address string) (net.Conn, error) {
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
	if os.IsPermission(err) || os.Getuid() != 0 {
		return net.Dial(network, address) // it has none of its own
	}
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	type dialled struct {
		conn net.Conn
		err  error
	}
	done := make(chan dialled)
	go func() {
		// Never unlocked: the thread ends with the goroutine, and nobody else
		// finds itself in that network.
		runtime.LockOSThread()
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- dialled{nil, err}
			return
		}
		conn, err := net.Dial(network, address)
		done <- dialled{conn, err}
	}()
	d := <-done
	return d.conn, d.err
}
