package demo

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/edged-io/edged/broker"
	"github.com/edged-io/edged/internal/event"
)

// device is the box of the demo.
const device = "demo-box"

// Names on the hub.
const (
	hubDomain = "hub"
	streamUp  = "EDGE_UP"
	laneOf    = "edge.up." + device + "."

	hubTimeout = 30 * time.Second // for a connection to it, and an answer
)

// hub is the NATS deployment, and a client of it that looks at the lanes as
// anybody in the cloud would.
type hub struct {
	server *broker.HubServer
	nc     *nats.Conn
	stream jetstream.Stream
	log    *os.File
	next   uint64 // the first message of EDGE_UP that is not compared yet
	// What forget has left of earlier rounds.
	oldReadings, oldAlarms uint64
}

// startHub starts a hub with its state in dir.
func startHub(ctx context.Context, dir string) (h *hub, err error) {
	h = &hub{next: 1}
	defer func() {
		if err != nil {
			h.stop()
		}
	}()
	if h.log, err = os.Create(filepath.Join(dir, "hub.log")); err != nil {
		return h, fmt.Errorf("log of the hub: %w", err)
	}
	h.server = broker.NewHubServer(filepath.Join(dir, "hub"), slog.New(slog.NewTextHandler(h.log, nil)))
	if err := h.server.Start(); err != nil {
		return h, err
	}
	if h.nc, err = nats.Connect(h.server.ClientURL(), nats.Timeout(hubTimeout)); err != nil {
		return h, fmt.Errorf("connect to the hub: %w", err)
	}
	if _, err := broker.InitHub(ctx, h.nc, broker.HubInitOptions{Domain: hubDomain}); err != nil {
		return h, err
	}
	js, err := jetstream.New(h.nc, jetstream.WithDefaultTimeout(hubTimeout))
	if err != nil {
		return h, fmt.Errorf("JetStream of the hub: %w", err)
	}
	if h.stream, err = js.Stream(ctx, streamUp); err != nil {
		return h, fmt.Errorf("stream %s of the hub: %w", streamUp, err)
	}
	return h, nil
}

func (h *hub) stop() {
	if h.nc != nil {
		h.nc.Close()
	}
	if h.server != nil {
		h.server.Stop()
	}
	if h.log != nil {
		_ = h.log.Close() // a log
	}
}

// held counts the messages of this round that are there now.
func (h *hub) held(ctx context.Context) (readings, alarms uint64, err error) {
	info, err := h.stream.Info(ctx, jetstream.WithSubjectFilter(laneOf+">"))
	if err != nil {
		return 0, 0, fmt.Errorf("stream %s of the hub: %w", streamUp, err)
	}
	for subject, n := range info.State.Subjects {
		switch lane, _ := split(subject); lane {
		case streamReadings:
			readings += n
		case streamAlarms:
			alarms += n
		}
	}
	return readings - min(h.oldReadings, readings), alarms - min(h.oldAlarms, alarms), nil
}

// split returns the stream of a box that a message of the hub is from, and the
// sensor it is about: edge.up.<device>.telemetry.greenhouse.<sensor>.temperature,
// edge.up.<device>.alarms.alarms.<sensor>.
func split(subject string) (stream, sensor string) {
	tokens := strings.Split(strings.TrimPrefix(subject, laneOf), ".")
	if len(tokens) > 2 {
		sensor = tokens[2]
	}
	return tokens[0], sensor
}

// heldIDs are ids of events in the order in which the hub holds them, by stream
// and sensor.
type heldIDs map[string]map[string][]string

func (h heldIDs) add(stream, sensor, id string) {
	if h[stream] == nil {
		h[stream] = make(map[string][]string)
	}
	h[stream][sensor] = append(h[stream][sensor], id)
}

// read reads what came since the last read from the hub, message by message.
func (h *hub) read(ctx context.Context) (heldIDs, error) {
	ids, err := h.readFrom(ctx, h.next)
	if err != nil {
		return nil, fmt.Errorf("read stream %s of the hub: %w", streamUp, err)
	}
	return ids, nil
}

func (h *hub) readFrom(ctx context.Context, first uint64) (heldIDs, error) {
	c, err := h.stream.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{
		FilterSubjects: []string{laneOf + ">"}, DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: first,
	})
	if err != nil {
		return nil, err
	}
	info, err := c.Info(ctx)
	if err != nil {
		return nil, err
	}
	ids := make(heldIDs)
	if info.NumPending == 0 {
		return ids, nil
	}
	all, err := c.Messages()
	if err != nil {
		return nil, err
	}
	defer all.Stop()
	for left := info.NumPending; left > 0; left-- {
		m, err := all.Next(jetstream.NextContext(ctx))
		if err != nil {
			return nil, err
		}
		meta, err := m.Metadata()
		if err != nil {
			return nil, err
		}
		h.next = meta.Sequence.Stream + 1
		stream, sensor := split(m.Subject())
		ids.add(stream, sensor, idOf(m))
	}
	return ids, nil
}

// idOf returns the id of the event in a message, "" if it is none.
func idOf(m jetstream.Msg) string {
	var block event.Header
	for name, values := range m.Headers() {
		for _, v := range values {
			if next, err := block.Append(name, v); err == nil {
				block = next
			}
		}
	}
	e, _ := event.Parse(block, m.Subject(), m.Data())
	return e.ID
}

// forget removes what was compared. The last message of each lane stays: it
// tells the box how far the hub is.
func (h *hub) forget(ctx context.Context) error {
	for _, stream := range []string{streamReadings, streamAlarms} {
		err := h.stream.Purge(ctx, jetstream.WithPurgeSubject(laneOf+stream+".>"), jetstream.WithPurgeKeep(1))
		if err != nil {
			return fmt.Errorf("purge stream %s of the hub: %w", streamUp, err)
		}
	}
	h.oldReadings, h.oldAlarms = 0, 0
	readings, alarms, err := h.held(ctx)
	h.oldReadings, h.oldAlarms = readings, alarms
	return err
}
