package demo

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// gate is a cable: it listens on a port that stays the same and passes what
// comes to its target, unless it is cut.
type gate struct {
	l net.Listener

	mu     sync.Mutex // guards what follows
	target string     // HOST:PORT; "" while the cable is cut
	conns  map[net.Conn]struct{}
}

func newGate() (*gate, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("cable: %w", err)
	}
	return &gate{l: l, conns: make(map[net.Conn]struct{})}, nil
}

func (g *gate) addr() string { return g.l.Addr().String() }

// run passes bytes until ctx ends.
func (g *gate) run(ctx context.Context) {
	defer context.AfterFunc(ctx, func() {
		_ = g.l.Close()
		g.aim("")
	})()
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		c, err := g.l.Accept()
		if err != nil {
			return // closed above
		}
		wg.Go(func() { g.pass(c) })
	}
}

// aim makes target the other end of the cable; "" cuts it. What is open is
// reset.
func (g *gate) aim(target string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.target = target
	for c := range g.conns {
		if tc, ok := c.(*net.TCPConn); ok {
			_ = tc.SetLinger(0) // a reset, nothing that is on its way arrives
		}
		_ = c.Close()
	}
	clear(g.conns)
}

// add notes open connections, unless the cable leads elsewhere by now.
func (g *gate) add(target string, conns ...net.Conn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.target != target {
		return false
	}
	for _, c := range conns {
		g.conns[c] = struct{}{}
	}
	return true
}

func (g *gate) pass(near net.Conn) {
	defer near.Close()
	g.mu.Lock()
	target := g.target
	g.mu.Unlock()
	if target == "" {
		return
	}
	far, err := net.DialTimeout("tcp", target, 2*time.Second)
	if err != nil {
		return // who called tries again
	}
	defer far.Close()
	if !g.add(target, near, far) {
		return
	}
	var wg sync.WaitGroup
	for _, way := range [][2]net.Conn{{near, far}, {far, near}} {
		wg.Go(func() {
			_, _ = io.Copy(way[0], way[1])
			// One end is gone, so is the other.
			_ = near.Close()
			_ = far.Close()
		})
	}
	wg.Wait()
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.conns, near)
	delete(g.conns, far)
}
