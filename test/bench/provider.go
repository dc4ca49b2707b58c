package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/edged-io/edged/internal/claims"
	"github.com/edged-io/edged/lattice/wire"
	"github.com/edged-io/edged/sdk/go/provider"
)

// providerProcess is set, to the address of the server, in the environment of this program when it is the provider of the table lattice.
const providerProcess = "EDGED_BENCH_PROVIDER"

// echoer is a provider of the SDK that answers with what it is sent.
type echoer struct{}

func (echoer) PutLink(context.Context, provider.Link) error    { return nil }
func (echoer) DeleteLink(context.Context, provider.Link) error { return nil }
func (echoer) Call(_ context.Context, inv provider.Invocation) ([]byte, error) {
	return inv.Payload, nil
}

// beProvider is main of that process. It also answers bare requests, which is what its calls are held against.
func beProvider(url string) {
	provider.Main(func(*provider.Host) (provider.Provider, error) {
		nc, err := nats.Connect(url)
		if err != nil {
			return nil, err
		}
		if _, err := nc.Subscribe("bench.process", func(m *nats.Msg) { _ = m.Respond(m.Data) }); err != nil {
			return nil, err
		}
		return echoer{}, nc.Flush()
	})
}

// startProvider starts that process, as a child process of a box: its key signs with own, and it believes cluster. actor is linked to it.
func startProvider(url, key, actor string, own, cluster claims.Seed) (stop func(), err error) {
	line, err := wire.HostData{
		Host: actor, Lattice: "bench", LinkName: "default", URL: url, Provider: key, Seed: own.Reveal(), Issuers: []string{cluster.Key().String()},
		Links: []wire.Link{{Actor: actor, Provider: key, Name: "default", Contract: "wasmcloud:keyvalue"}},
	}.Line()
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), providerProcess+"="+url)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return nil, fmt.Errorf("provider: %w", err)
	}
	if _, err = io.Copy(stdin, bytes.NewReader(line)); err == nil {
		err = stdin.Close()
	}
	return func() {
		_ = cmd.Process.Signal(os.Interrupt) // it is gone otherwise
		late := time.AfterFunc(5*time.Second, func() { _ = cmd.Process.Kill() })
		defer late.Stop()
		_ = cmd.Wait()
	}, err
}
