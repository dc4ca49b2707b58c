package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// pushTable publishes to a box that has one core, while nothing else goes on and while a new actor in Go is compiled, as after a
// push to it.
func pushTable(ctx context.Context, s settings) (t *table, err error) {
	t = &table{Name: "push", Columns: []string{"msg/s", "put p50 µs", "put p99 µs", "anonymous MiB"},
		Title: fmt.Sprintf("JetStream's publish of one nats.go publisher, %d bytes, to a box of one core", s.size)}
	golang, err := buildGoActor(ctx, s.dir)
	if err != nil {
		return nil, err
	}
	b, err := newBox(s.edged, filepath.Join(s.dir, "push-box"))
	if err != nil {
		return nil, err
	}
	command := b.command()
	if taskset, err := exec.LookPath("taskset"); err == nil {
		command = exec.Command(taskset, append([]string{"-c", "0"}, command.Args...)...)
	} else {
		command.Env = append(os.Environ(), "GOMAXPROCS=1")
	}
	box, err := startLogging(ctx, command, "msg=ready")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, box.stop()) }()
	addr, err := b.nats()
	if err = errors.Join(err, b.compiled(ctx, 1)); err != nil {
		return nil, err
	}
	pushed := 0
	return t, t.interleave(ctx, s.rounds, []testCase{
		{"edged", func(context.Context) (sample, error) { return pushLoad(addr, box, s) }},
		{"edged, while an actor compiles", func(context.Context) (sample, error) {
			pushed++
			if err := b.addApp(pushed, golang); err != nil {
				return nil, err
			}
			if err := box.cmd.Process.Signal(syscall.SIGHUP); err != nil {
				return nil, err
			}
			m, err := pushLoad(addr, box, s)
			return m, errors.Join(err, b.compiled(ctx, pushed+1)) // and the one it began with
		}},
	})
}

// pushLoad publishes for a second, which is about what compiling takes.
func pushLoad(addr string, p *process, s settings) (sample, error) {
	m, err := wireLoad(addr, 1, s.size, time.Second)
	if err != nil {
		return nil, err
	}
	held, err := p.memory()
	m["anonymous MiB"] = held["anonymous MiB"]
	return m, err
}

// compiled waits until the box has that many modules in its cache.
func (b *box) compiled(ctx context.Context, n int) error {
	return poll(ctx, func() (bool, error) {
		done, err := filepath.Glob(filepath.Join(b.dir, "state", "cache", "*", "sum"))
		return len(done) >= n, err
	})
}

// addApp gives the box an app whose module it has never seen: n makes it another one.
func (b *box) addApp(n int, wasm []byte) error {
	dir := filepath.Join(b.dir, "apps", "pushed")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	module := append(append([]byte{}, wasm...), 0, 5, 4, 'p', byte(n>>8), byte(n), 0) // a custom section
	text := fmt.Sprintf("specversion = \"0.2\"\nname = \"pushed\"\nversion = \"%d\"\n[[actor]]\nname = \"pushed\"\nmodule = \"pushed.wasm\"\n", n)
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "pushed.wasm"), module, 0o644),
		os.WriteFile(filepath.Join(dir, "app.toml"), []byte(text), 0o644))
}
