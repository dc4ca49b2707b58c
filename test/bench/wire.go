package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// connections are shared by the publishers, as in a program with that many of them.
const connections = 4

// wireTable lets the same nats.go code publish to a box and to nats-server: JetStream's publish call, over TCP, to a stream that
// nobody reads. Both servers run all the while, as processes; the one that is not asked is idle.
func wireTable(ctx context.Context, s settings) (t *table, err error) {
	t = &table{Name: "wire", Columns: []string{"msg/s", "put p50 µs", "put p99 µs"},
		Title: fmt.Sprintf("JetStream's publish of nats.go, %d bytes, over TCP to a process", s.size)}
	b, err := newBox(s.edged, filepath.Join(s.dir, "wire-box"))
	if err != nil {
		return nil, err
	}
	box, err := b.start(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, box.stop()) }()
	boxAddr, err := b.nats()
	if err != nil {
		return nil, err
	}

	program, err := buildNATS(ctx, s.dir)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(s.dir, "wire-nats")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	server, natsAddr, err := startNATS(ctx, program, dir, "jetstream { store_dir: \""+dir+"\", sync_interval: always }\n")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, server.stop()) }()
	if err := createStream(ctx, natsAddr); err != nil {
		return nil, err
	}

	var cases []testCase
	for _, p := range publishers {
		for _, target := range []struct{ name, addr string }{{"edged", boxAddr}, {"js-always", natsAddr}} {
			cases = append(cases, testCase{fmt.Sprintf("%s, %d", target.name, p), func(context.Context) (sample, error) {
				return wireLoad(target.addr, p, s.size, s.dur)
			}})
		}
	}
	return t, t.interleave(ctx, s.rounds, cases)
}

// createStream makes on nats-server the stream that the box's manifest declares.
func createStream(ctx context.Context, addr string) error {
	nc, err := nats.Connect("nats://" + addr)
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	_, err = js.CreateStream(ctx, jetstream.StreamConfig{Name: "bench", Subjects: []string{"bench.>"},
		Storage: jetstream.FileStorage, MaxBytes: 64 << 20, Discard: jetstream.DiscardOld, Replicas: 1})
	return err
}

func wireLoad(addr string, p, size int, d time.Duration) (sample, error) {
	var clients []jetstream.JetStream
	for range min(p, connections) {
		nc, err := nats.Connect("nats://" + addr)
		if err != nil {
			return nil, err
		}
		defer nc.Close()
		js, err := jetstream.New(nc)
		if err != nil {
			return nil, err
		}
		clients = append(clients, js)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var turn atomic.Int64
	start := time.Now()
	took, err := publish(p, size, until(d), func(data []byte) error {
		js := clients[int(turn.Add(1))%len(clients)]
		_, err := js.Publish(ctx, "bench.load", data)
		return err
	})
	if err != nil {
		return nil, err
	}
	return rates(took, time.Since(start)), nil
}
