package broker

import (
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// testGate is a TCP relay that can be cut.
type testGate struct {
	l net.Listener

	mu     sync.Mutex
	target string // "" refuses
	hole   bool   // takes bytes and passes none on
	conns  map[net.Conn]struct{}
	passed int64
	limit  int64 // after so many bytes more the line is cut; 0 is never
	rate   int   // bytes per second that go up; 0 is no bound
}

func newTestGate(t testing.TB) *testGate {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := &testGate{l: l, conns: make(map[net.Conn]struct{})}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { g.serve(c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		g.reset()
		wg.Wait()
	})
	return g
}

func (g *testGate) addr() string { return g.l.Addr().String() }

func (g *testGate) aim(target string) {
	g.mu.Lock()
	g.target = target
	g.mu.Unlock()
}

func (g *testGate) serve(c net.Conn) {
	defer c.Close()
	g.mu.Lock()
	target := g.target
	g.mu.Unlock()
	if target == "" {
		return
	}
	up, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	defer up.Close()
	g.mu.Lock()
	g.conns[c], g.conns[up] = struct{}{}, struct{}{}
	g.mu.Unlock()
	var wg sync.WaitGroup
	wg.Go(func() { g.copy(up, c, true) })
	wg.Go(func() { g.copy(c, up, false) })
	wg.Wait()
	g.mu.Lock()
	delete(g.conns, c)
	delete(g.conns, up)
	g.mu.Unlock()
}

func (g *testGate) copy(to, from net.Conn, counted bool) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 1024)
	for {
		n, err := from.Read(buf)
		if err != nil {
			if tc, ok := to.(*net.TCPConn); ok && err != io.EOF {
				_ = tc.SetLinger(0) // a reset is passed on as one
			}
			return
		}
		g.mu.Lock()
		hole, rate := g.hole, g.rate
		cut := false
		if counted {
			g.passed += int64(n)
			if g.limit > 0 && g.passed >= g.limit {
				g.limit, cut = 0, true
			}
		}
		g.mu.Unlock()
		if cut {
			g.reset()
			return
		}
		if hole {
			continue
		}
		if counted && rate > 0 {
			<-time.After(time.Duration(n) * time.Second / time.Duration(rate))
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

// reset ends every connection with a reset.
func (g *testGate) reset() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for c := range g.conns {
		if tc, ok := c.(*net.TCPConn); ok {
			_ = tc.SetLinger(0)
		}
		c.Close()
	}
}

func (g *testGate) String() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return fmt.Sprintf("target %q, hole %t, %d connections, %d bytes passed, limit %d", g.target, g.hole, len(g.conns), g.passed, g.limit)
}

// narrow lets so many bytes per second up; 0 is no bound.
func (g *testGate) narrow(rate int) {
	g.mu.Lock()
	g.rate = rate
	g.mu.Unlock()
}

// blackHole swallows everything from now on, or no more.
func (g *testGate) blackHole(on bool) {
	g.mu.Lock()
	g.hole = on
	g.mu.Unlock()
	if !on {
		g.reset() // bytes are missing in what is open
	}
}

// cutAfter resets every connection once n more bytes have gone up.
func (g *testGate) cutAfter(n int64) {
	g.mu.Lock()
	g.limit = g.passed + n
	g.mu.Unlock()
}
