package broker

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/nats-io/nats-server/v2/server"
)

// HubServer is a NATS server with JetStream in this process, as a stand-in for
// the deployment that boxes sync with: one account, no authentication,
// loopback only. It is for the demo and for trying things out.
type HubServer struct {
	o   server.Options
	log *serverLog
	ns  *server.Server // nil while it does not run
}

// NewHubServer prepares a hub that keeps its streams in dir and has the
// JetStream domain "hub". It starts nothing; log takes the server's complaints.
func NewHubServer(dir string, log *slog.Logger) *HubServer {
	o := server.Options{
		ServerName: "hub", Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true,
		JetStream: true, JetStreamDomain: "hub", StoreDir: dir,
	}
	o.LeafNode.Host, o.LeafNode.Port = o.Host, server.RANDOM_PORT
	return &HubServer{o: o, log: newServerLog(log)}
}

// Start returns when clients and boxes can connect. A hub that was stopped
// starts again on the ports it had, with what it held.
func (h *HubServer) Start() error {
	if h.ns != nil {
		return errors.New("hub: it runs")
	}
	o := h.o // the server notes the ports in it
	ns, err := server.NewServer(&o)
	if err != nil {
		return fmt.Errorf("hub: %w", err)
	}
	ns.SetLoggerV2(h.log, false, false, false)
	ns.Start()
	if !ns.ReadyForConnections(startTimeout) {
		ns.Shutdown()
		ns.WaitForShutdown()
		return errors.Join(fmt.Errorf("hub: not ready within %s", startTimeout), h.log.fatal())
	}
	h.o.Port, h.o.LeafNode.Port = o.Port, o.LeafNode.Port
	h.ns = ns
	return nil
}

// Stop ends the server and waits for its goroutines. It may be called again.
func (h *HubServer) Stop() {
	if h.ns == nil {
		return
	}
	h.ns.Shutdown()
	h.ns.WaitForShutdown()
	h.ns = nil
}

// ClientURL is where NATS clients connect, once it has been started.
func (h *HubServer) ClientURL() string { return fmt.Sprintf("nats://127.0.0.1:%d", h.o.Port) }

// LeafAddr is where boxes connect, as HOST:PORT, once it has been started.
func (h *HubServer) LeafAddr() string { return fmt.Sprintf("127.0.0.1:%d", h.o.LeafNode.Port) }
