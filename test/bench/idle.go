package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// idleTable compares what servers cost that do nothing: time from exec to ready, memory half a second later, size of the program.
// The box has all its parts on, with an actor of about 100 KB that it has compiled in an earlier run.
func idleTable(ctx context.Context, s settings) (*table, error) {
	t := &table{Name: "idle", Columns: []string{"ready ms", "RSS MiB", "anonymous MiB", "program MiB"},
		Title: "From exec to ready, and idle half a second later"}
	nats, err := buildNATS(ctx, s.dir)
	if err != nil {
		return nil, err
	}
	b, err := newBox(s.edged, filepath.Join(s.dir, "idle-box"))
	if err != nil {
		return nil, err
	}
	warm, err := b.start(ctx)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(b.compiled(ctx, 1), warm.stop()); err != nil {
		return nil, err
	}
	cases := []testCase{
		{"edged, all parts, 100 KB actor", func(ctx context.Context) (sample, error) {
			p, err := b.start(ctx)
			return idle(ctx, p, s.edged, err)
		}},
		{"nats-server", func(ctx context.Context) (sample, error) {
			p, _, err := startNATS(ctx, nats, s.dir, "")
			return idle(ctx, p, nats, err)
		}},
	}
	if program, err := findMosquitto(); err == nil {
		cases = append(cases, testCase{"mosquitto", func(ctx context.Context) (sample, error) {
			p, err := startMosquitto(ctx, program, s.dir)
			return idle(ctx, p, program, err)
		}})
	} else {
		t.Title += " (no mosquitto on this machine)"
	}
	return t, t.interleave(ctx, s.rounds, cases)
}

func findMosquitto() (string, error) {
	if program, err := exec.LookPath("mosquitto"); err == nil {
		return program, nil
	}
	return exec.LookPath("/usr/sbin/mosquitto") // not on the path of everybody
}

// idle measures p half a second after it was ready, and stops it. err is that of starting it.
func idle(ctx context.Context, p *process, program string, err error) (sample, error) {
	if err != nil {
		return nil, err
	}
	select {
	case <-time.After(500 * time.Millisecond):
	case <-ctx.Done():
		return nil, errors.Join(ctx.Err(), p.stop())
	}
	m, err := p.memory()
	if err := errors.Join(err, p.stop()); err != nil {
		return nil, err
	}
	info, err := os.Stat(program)
	if err != nil {
		return nil, err
	}
	m["ready ms"] = float64(p.ready.Microseconds()) / 1e3
	m["program MiB"] = float64(info.Size()) / (1 << 20)
	return m, nil
}
