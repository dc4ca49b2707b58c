package e2e

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// netns is a network of its own: a loopback, and the ends of wires. A nil one is that of
// the tests.
type netns struct {
	t  *testing.T
	fd *os.File
}

// newNetns makes one; its loopback is up. nil says that this machine does not allow it.
func newNetns(t *testing.T) *netns {
	t.Helper()
	made := make(chan *netns)
	go func() { // the thread ends with it, and leaves the network to the file
		runtime.LockOSThread()
		if unix.Unshare(unix.CLONE_NEWNET) != nil {
			made <- nil
			return
		}
		fd, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			made <- nil
			return
		}
		made <- &netns{t, fd}
	}()
	n := <-made
	if n == nil {
		return nil
	}
	t.Cleanup(func() { n.fd.Close() })
	n.run("ip", "link", "set", "lo", "up")
	return n
}

// in runs f in a thread that is in the network. Sockets that f opens, and processes that
// it starts, stay there.
func (n *netns) in(f func() error) error {
	if n == nil {
		return f()
	}
	done := make(chan error)
	go func() { // ends with f; its thread is not used again
		runtime.LockOSThread()
		if err := unix.Setns(int(n.fd.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("enter a network: %w", err)
			return
		}
		done <- f()
	}()
	return <-done
}

func (n *netns) run(name string, args ...string) {
	n.t.Helper()
	if err := n.in(func() error {
		out, err := exec.Command(name, args...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s %v: %w: %s", name, args, err, out)
		}
		return nil
	}); err != nil {
		n.t.Fatal(err)
	}
}

// Dial connects within the network.
func (n *netns) Dial(network, address string) (c net.Conn, err error) {
	err = n.in(func() error {
		c, err = net.DialTimeout(network, address, patience)
		return err
	})
	return c, err
}

// wire joins two networks by packets, and can lose and delay them as a radio does. The
// kernels of small machines lack netem, so it is done here.
type wire struct {
	mu      sync.Mutex // guards what follows
	quality quality
	random  *rand.Rand
	lost    int
	carried int
}

// quality is that of a wire, one way.
type quality struct {
	delay, jitter time.Duration // of a packet: delay and at most jitter more
	loss          float64       // of 1; 1 is a wire that is cut, and nobody is told
}

func (w *wire) set(q quality) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.quality = q
}

// counts are of packets.
func (w *wire) counts() (carried, lost int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.carried, w.lost
}

// newWire joins networks a and b, which get the addresses 10.64.n.1 and 10.64.n.2. nil
// says that this machine does not allow it.
func newWire(t *testing.T, n int, a, b *netns, r *rand.Rand) *wire {
	t.Helper()
	w := &wire{random: rand.New(rand.NewPCG(r.Uint64(), 0))} // its own: wires carry at the same time
	var ends []*os.File
	for i, side := range []*netns{a, b} {
		f, err := side.tun(fmt.Sprintf("wire%d", n))
		if err != nil {
			t.Logf("no wire: %v", err)
			return nil
		}
		t.Cleanup(func() { f.Close() })
		ends = append(ends, f)
		side.run("ip", "addr", "add", fmt.Sprintf("10.64.%d.%d/30", n, i+1), "dev", fmt.Sprintf("wire%d", n))
		side.run("ip", "link", "set", fmt.Sprintf("wire%d", n), "up")
	}
	var wg sync.WaitGroup
	for i := range ends {
		wg.Go(func() { w.carry(ends[i], ends[1-i]) })
	}
	t.Cleanup(func() {
		for _, f := range ends {
			f.Close()
		}
		wg.Wait()
	})
	return w
}

// tun is the end of a wire: what is written to it comes out of the device, and the other
// way.
func (n *netns) tun(name string) (f *os.File, err error) {
	err = n.in(func() error {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("/dev/net/tun: %w", err)
		}
		req, err := unix.NewIfreq(name)
		if err == nil {
			req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
			err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
		}
		if err != nil {
			unix.Close(fd)
			return fmt.Errorf("device %s: %w", name, err)
		}
		f = os.NewFile(uintptr(fd), name)
		return nil
	})
	return f, err
}

// carry brings packets from one end to the other until one is closed.
func (w *wire) carry(from, to *os.File) {
	packets := make(chan packet, 1024) // as many as the device of a router holds
	var wg sync.WaitGroup
	wg.Go(func() { deliver(packets, to) })
	defer wg.Wait()
	defer close(packets)
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		w.mu.Lock()
		q := w.quality
		gone := q.loss > 0 && w.random.Float64() < q.loss
		wait := q.delay
		if q.jitter > 0 {
			wait += time.Duration(w.random.Int64N(int64(q.jitter)))
		}
		if gone {
			w.lost++
		} else {
			w.carried++
		}
		w.mu.Unlock()
		if gone {
			continue
		}
		select {
		case packets <- packet{time.Now().Add(wait), append([]byte(nil), buf[:n]...)}:
		default: // the queue is full: lost, as on a real one
		}
	}
}

// packet is under way until due.
type packet struct {
	due  time.Time
	data []byte
}

// deliver hands packets out when they are due; they may overtake one another.
func deliver(packets <-chan packet, to *os.File) {
	var under packetHeap
	for {
		var due <-chan time.Time
		if len(under) > 0 {
			due = time.After(time.Until(under[0].due))
		}
		select {
		case p, ok := <-packets:
			if !ok {
				return
			}
			heap.Push(&under, p)
		case <-due:
			if _, err := to.Write(heap.Pop(&under).(packet).data); err != nil {
				continue // the other end is closed, or down; whoever closed it closes this one
			}
		}
	}
}

type packetHeap []packet

func (h packetHeap) Len() int           { return len(h) }
func (h packetHeap) Less(i, j int) bool { return h[i].due.Before(h[j].due) }
func (h packetHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *packetHeap) Push(p any)        { *h = append(*h, p.(packet)) }
func (h *packetHeap) Pop() any {
	old := *h
	p := old[len(old)-1]
	*h = old[:len(old)-1]
	return p
}

// startIn starts a command in a network; it dies with the tests.
func (n *netns) startIn(cmd *exec.Cmd) error {
	// The kernel sends the signal when the thread that started it ends, so a thread that
	// is in the network for a moment can not be the one.
	if n != nil && cmd.SysProcAttr != nil {
		attr := *cmd.SysProcAttr
		attr.Pdeathsig = syscall.Signal(0)
		cmd.SysProcAttr = &attr
	}
	return n.in(cmd.Start)
}

// A wire carries a connection, with loss and delay, and none while it is cut.
func TestWire(t *testing.T) {
	a, b := newNetns(t), newNetns(t)
	if a == nil || b == nil {
		t.Log("networks are not allowed here; nothing was tried")
		return
	}
	w := newWire(t, 1, a, b, seeded(t))
	if w == nil {
		return
	}
	var l net.Listener
	if err := b.in(func() (err error) {
		l, err = net.Listen("tcp", "10.64.1.2:0")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				buf := make([]byte, 1)
				for {
					if _, err := c.Read(buf); err != nil {
						return
					}
					if _, err := c.Write(buf); err != nil {
						return
					}
				}
			}()
		}
	}()
	w.set(quality{delay: time.Millisecond, jitter: time.Millisecond, loss: 0.05})
	c, err := a.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	echo := func(within time.Duration) error {
		if err := c.SetDeadline(time.Now().Add(within)); err != nil {
			return err
		}
		if _, err := c.Write([]byte{1}); err != nil {
			return err
		}
		_, err := c.Read(make([]byte, 1))
		return err
	}
	for range 20 {
		if err := echo(patience); err != nil {
			t.Fatal(err)
		}
	}
	if carried, lost := w.counts(); carried < 40 || lost == 0 {
		t.Errorf("%d packets carried, %d lost", carried, lost)
	}
	w.set(quality{loss: 1})
	if err := echo(200 * time.Millisecond); err == nil {
		t.Error("an answer came over a wire that is cut")
	}
	w.set(quality{})
	if err := echo(patience); err != nil {
		t.Errorf("after the wire was mended: %v", err)
	}
}
