package main

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// jetStream is an embedded nats-server with one file stream of one replica. It is called in the process, without a socket; the
// stream is a work queue, so that a message goes when it is acknowledged.
type jetStream struct {
	server *server.Server
	conns  []*nats.Conn
	js     jetstream.JetStream
	cons   jetstream.Consumer
	run    jetstream.ConsumeContext
}

// openJetStream starts the server in dir. With always it syncs each write, otherwise every two minutes.
func openJetStream(dir string, always bool) (engine, error) {
	s, err := server.NewServer(&server.Options{DontListen: true, JetStream: true, StoreDir: dir, SyncAlways: always,
		NoSigs: true, NoLog: true, JetStreamMaxMemory: 64 << 20, JetStreamMaxStore: 8 << 30})
	if err != nil {
		return nil, err
	}
	s.Start()
	j := &jetStream{server: s}
	if !s.ReadyForConnections(10 * time.Second) {
		return nil, errors.Join(errors.New("the server is not ready after 10 s"), j.close())
	}
	if j.js, err = j.connect(); err != nil {
		return nil, errors.Join(err, j.close())
	}
	ctx := context.Background()
	_, err = j.js.CreateStream(ctx, jetstream.StreamConfig{Name: queue, Subjects: []string{queue},
		Storage: jetstream.FileStorage, Retention: jetstream.WorkQueuePolicy, Replicas: 1})
	if err == nil {
		j.cons, err = j.js.CreateConsumer(ctx, queue, jetstream.ConsumerConfig{Durable: subscription,
			AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: 1 << 16})
	}
	if err != nil {
		return nil, errors.Join(err, j.close())
	}
	return j, nil
}

func (j *jetStream) connect() (jetstream.JetStream, error) {
	nc, err := nats.Connect("", nats.InProcessServer(j.server))
	if err != nil {
		return nil, err
	}
	j.conns = append(j.conns, nc)
	return jetstream.New(nc)
}

func (j *jetStream) put(data []byte) error {
	_, err := j.js.Publish(context.Background(), queue, data)
	return err
}

func (j *jetStream) consume(got func(n int)) error {
	js, err := j.connect() // the publishers' connection stays theirs
	if err != nil {
		return err
	}
	c, err := js.Consumer(context.Background(), queue, subscription)
	if err != nil {
		return err
	}
	j.run, err = c.Consume(func(m jetstream.Msg) {
		if m.Ack() == nil { // without waiting for the server
			got(1)
		}
	}, jetstream.PullMaxMessages(512))
	return err
}

func (j *jetStream) settle(ctx context.Context) error {
	return poll(ctx, func() (bool, error) {
		i, err := j.cons.Info(ctx)
		return err == nil && i.NumPending == 0 && i.NumAckPending == 0, err
	})
}

func (j *jetStream) close() error {
	if j.run != nil {
		j.run.Stop()
	}
	for _, nc := range j.conns {
		nc.Close()
	}
	j.server.Shutdown()
	j.server.WaitForShutdown()
	return nil
}
