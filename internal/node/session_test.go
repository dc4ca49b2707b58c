package node

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/edged-io/edged/internal/claims"
	"github.com/edged-io/edged/lattice/wire"
	"github.com/edged-io/edged/providers/child"
	"github.com/edged-io/edged/sdk/go/provider"
)

// answering is a provider of the SDK that answers with what it is sent.
type answering struct{}

func (answering) PutLink(context.Context, provider.Link) error    { return nil }
func (answering) DeleteLink(context.Context, provider.Link) error { return nil }
func (answering) Call(_ context.Context, inv provider.Invocation) ([]byte, error) {
	return inv.Payload, nil
}

// The box calls a provider of the SDK, which has a seed of its own, with one token and
// in a session from then on; also one that was started again.
func TestNode_provider_session(t *testing.T) {
	r := newRig(t, unsigned)
	key := seed(t, claims.Service).Key().String()
	r.probe("a", "1", greeting("a", "remote = \""+key+"\"\ncontract = \"acme:greeter\"", "hello"), "one")
	r.start()
	var got struct{ Line, Error string }
	if status := r.ask("POST", "/providers", AttachRequest{Key: key, Contract: "acme:greeter"}, &got); status != 200 || got.Error != "" {
		t.Fatal(status, got.Error)
	}
	data, err := provider.ParseHostData(got.Line)
	if err != nil {
		t.Fatal(err)
	}
	run := func() (stop func()) {
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() {
			ended <- provider.Run(ctx, data, func(*provider.Host) (provider.Provider, error) { return answering{}, nil })
		}()
		return func() {
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	}
	stop := run()
	nc := r.latticeClient()
	calls := make(chan bool, 64) // whether it is in a session
	if _, err := nc.Subscribe(wire.ProviderSubject("default", key, "default"), func(m *nats.Msg) {
		inv, err := wire.DecodeInvocation(m.Data)
		if err != nil {
			t.Error(err)
		}
		calls <- wire.InSession(&inv)
	}); err != nil {
		t.Fatal(err)
	}
	if err := nc.FlushTimeout(patience); err != nil {
		t.Fatal(err)
	}
	r.eventually("the provider is there", func() bool {
		all := r.processes.Running()
		return len(all) == 1 && all[0].Health == child.Healthy
	})
	var want []string
	call := func(n int, sessions ...bool) {
		t.Helper()
		for len(calls) > 0 {
			<-calls
		}
		for i := range n {
			want = append(want, fmt.Sprintf("echo: %d", i))
			r.tell("a", fmt.Sprintf("!echo acme:greeter %d", i))
			r.eventually("it is answered", func() bool {
				return strings.HasSuffix(strings.Join(r.seen("a", "one"), "\n"), strings.Join(want, "\n"))
			})
		}
		for i, want := range sessions {
			if got := <-calls; got != want {
				t.Errorf("call %d: in a session %t, want %t", i, got, want)
			}
		}
	}
	call(3, false, true, true)
	stop()
	stop = run()
	r.eventually("the new one is there", func() bool {
		m, err := nc.Request(wire.ProviderSubject("default", key, "default")+".health", []byte{0x80}, 200*time.Millisecond) // the server may think that the old one is there
		return err == nil && len(m.Data) > 0
	})
	call(3, true, false, false, true) // which it does not know, so with a token; one that asks; one in the new session
	stop()
}
