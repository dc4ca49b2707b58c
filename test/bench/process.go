package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is a started server.
type process struct {
	cmd   *exec.Cmd
	ready time.Duration // from exec to the sign that it serves
	done  chan struct{} // closed when it has written its last line
}

// startLogging starts cmd and waits until a line of its log contains mark.
func startLogging(ctx context.Context, cmd *exec.Cmd, mark string) (*process, error) {
	log, err := cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, done: make(chan struct{})}
	ready := make(chan time.Duration, 1)
	var last string // read when done is closed
	go func() {     // ends with the process, which stop waits for
		defer close(p.done)
		lines := bufio.NewScanner(log)
		lines.Buffer(nil, 1<<20)
		for seen := false; lines.Scan(); {
			last = lines.Text()
			if !seen && strings.Contains(last, mark) {
				seen = true
				ready <- time.Since(start)
			}
		}
	}()
	select {
	case p.ready = <-ready:
		return p, nil
	case <-p.done:
		err = fmt.Errorf("%s ended before it was ready: %s", cmd.Path, last)
	case <-time.After(30 * time.Second):
		err = fmt.Errorf("%s is not ready after 30 s", cmd.Path)
	case <-ctx.Done():
		err = ctx.Err()
	}
	return nil, errors.Join(err, p.kill())
}

// startListening starts cmd and waits until addr takes connections.
func startListening(ctx context.Context, cmd *exec.Cmd, addr string) (*process, error) {
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, done: make(chan struct{})}
	close(p.done)
	err := poll(ctx, func() (bool, error) {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			return false, nil
		}
		p.ready = time.Since(start)
		return true, c.Close()
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", cmd.Path, err), p.kill())
	}
	return p, nil
}

func (p *process) kill() error {
	err := p.cmd.Process.Kill()
	<-p.done
	_ = p.cmd.Wait() // it was killed
	return err
}

// stop asks the process to end, and waits.
func (p *process) stop() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	<-p.done
	err := p.cmd.Wait()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return nil // Mosquitto and nats-server end with the signal
	}
	return err
}

// memory returns what the process holds, in MiB.
func (p *process) memory() (sample, error) { return memoryOf(p.cmd.Process.Pid) }

func memoryOf(pid int) (sample, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return nil, err
	}
	m := sample{}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if column := map[string]string{"VmRSS:": "RSS MiB", "RssAnon:": "anonymous MiB"}[f[0]]; column != "" && len(f) == 3 {
			kib, err := strconv.ParseFloat(f[1], 64)
			if err != nil {
				return nil, err
			}
			m[column] = kib / 1024
		}
	}
	return m, nil
}

// box is a state directory with an app: one actor, which sleeps, and one stream.
type box struct{ edged, dir string }

const manifest = `specversion = "0.2"
name = "bench"
version = "1.0.0"

[[actor]]
name = "sleeper"
module = "sleeper.wasm"

[[stream]]
name = "bench"
subjects = ["bench.>"]
max_bytes = "64MiB"
on_full = "drop-oldest"

[[capability]]
name = "pubsub.local"
[[capability.config]]
topic = "sleeper.in"
delivery = "push"
`

const deviceFile = `[device]
id = "bench"
state_dir = "state"
[nats]
listen = "127.0.0.1:0"
[mqtt]
listen = "127.0.0.1:0"
[trust]
allow_unsigned = true
[apps]
dir = "apps"
[store]
max_bytes = "256MiB"
[admin]
listen = "127.0.0.1:0"
`

func newBox(edged, dir string) (*box, error) {
	app := filepath.Join(dir, "apps", "bench")
	if err := os.MkdirAll(app, 0o755); err != nil {
		return nil, err
	}
	for name, data := range map[string][]byte{
		filepath.Join(dir, "edged.toml"):   []byte(deviceFile),
		filepath.Join(app, "app.toml"):     []byte(manifest),
		filepath.Join(app, "sleeper.wasm"): actorModule(),
	} {
		if err := os.WriteFile(name, data, 0o644); err != nil {
			return nil, err
		}
	}
	return &box{edged, dir}, nil
}

// start runs the box until it logs that it is ready.
func (b *box) start(ctx context.Context) (*process, error) {
	return startLogging(ctx, b.command(), "msg=ready")
}

func (b *box) command() *exec.Cmd {
	return exec.Command(b.edged, "run", "--config", filepath.Join(b.dir, "edged.toml"))
}

// nats returns the address of the box's listener for NATS clients.
func (b *box) nats() (string, error) {
	raw, err := os.ReadFile(filepath.Join(b.dir, "state", "addresses.json"))
	if err != nil {
		return "", err
	}
	var a struct {
		NATS string `json:"nats"`
	}
	if err := json.Unmarshal(raw, &a); err != nil {
		return "", fmt.Errorf("addresses.json: %w", err)
	}
	return a.NATS, nil
}

// buildNATS builds nats-server the way edged is built, and returns the program.
func buildNATS(ctx context.Context, dir string) (string, error) {
	out := filepath.Join(dir, "nats-server")
	if _, err := os.Stat(out); err == nil {
		return out, nil
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", out, "github.com/nats-io/nats-server/v2")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if b, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build nats-server: %w: %s", err, b)
	}
	return out, nil
}

// startNATS runs nats-server on a free port, with the lines of configuration given.
func startNATS(ctx context.Context, program, dir, lines string) (p *process, addr string, err error) {
	if addr, err = freeAddr(); err != nil {
		return nil, "", err
	}
	file := filepath.Join(dir, "nats.conf")
	if err := os.WriteFile(file, []byte("listen: \""+addr+"\"\n"+lines), 0o644); err != nil {
		return nil, "", err
	}
	p, err = startLogging(ctx, exec.Command(program, "-c", file), "Server is ready")
	return p, addr, err
}

// startMosquitto runs Mosquitto on a free port.
func startMosquitto(ctx context.Context, program, dir string) (*process, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "mosquitto.conf")
	conf := "listener " + port + " 127.0.0.1\nallow_anonymous true\nlog_type error\n"
	if os.Geteuid() == 0 {
		conf += "user root\n" // else it gives up its rights, and then can not read the file
	}
	if err := os.WriteFile(file, []byte(conf), 0o644); err != nil {
		return nil, err
	}
	return startListening(ctx, exec.Command(program, "-c", file), addr)
}

func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}
