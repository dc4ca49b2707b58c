package e2e

import (
	"net"
	"sync"
	"testing"
)

// proxy is the line between a box and its hub. It can be cut.
type proxy struct {
	l net.Listener

	mu     sync.Mutex // guards all below
	target string     // "" refuses
	hole   bool       // takes bytes and passes none on, without an end
	conns  map[net.Conn]struct{}
	resets int
}

func newProxy(t *testing.T, target string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{l: l, target: target, conns: make(map[net.Conn]struct{})}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { p.serve(c) })
		}
	})
	t.Cleanup(func() {
		p.aim("")
		l.Close()
		p.reset()
		wg.Wait()
	})
	return p
}

func (p *proxy) addr() string { return p.l.Addr().String() }

// aim leads new connections to target.
func (p *proxy) aim(target string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = target
}

func (p *proxy) serve(c net.Conn) {
	if !p.hold(c) {
		return
	}
	defer p.drop(c)
	p.mu.Lock()
	target, hole := p.target, p.hole
	p.mu.Unlock()
	if hole {
		p.copy(nil, c)
		return
	}
	up, err := net.Dial("tcp", target)
	if err != nil || !p.hold(up) {
		return
	}
	defer p.drop(up)
	var wg sync.WaitGroup
	wg.Go(func() { p.copy(up, c) })
	p.copy(c, up)
	wg.Wait()
}

// hold takes a connection in, unless there is nowhere to lead it.
func (p *proxy) hold(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.target == "" {
		c.Close()
		return false
	}
	p.conns[c] = struct{}{}
	return true
}

func (p *proxy) drop(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
	c.Close()
}

// copy passes bytes on until an end; to is nil inside a black hole.
func (p *proxy) copy(to, from net.Conn) {
	buf := make([]byte, 16<<10)
	for {
		n, err := from.Read(buf)
		p.mu.Lock()
		hole := p.hole
		p.mu.Unlock()
		if err == nil && !hole && to != nil {
			_, err = to.Write(buf[:n])
		}
		if err == nil {
			continue
		}
		if hole { // the other end is not told
			return
		}
		from.Close()
		if to != nil {
			to.Close()
		}
		return
	}
}

// reset ends every connection with a reset.
func (p *proxy) reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.resets++
	for c := range p.conns {
		if tc, ok := c.(*net.TCPConn); ok {
			_ = tc.SetLinger(0)
		}
		c.Close()
	}
}

// swallow makes the line a black hole: it takes connections and bytes, passes
// nothing on, and tells neither side.
func (p *proxy) swallow() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hole = true
}

// heal ends the black hole. What was in it is lost.
func (p *proxy) heal() {
	p.mu.Lock()
	p.hole = false
	p.mu.Unlock()
	p.reset()
}
