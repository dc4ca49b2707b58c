package gpio

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"periph.io/x/conn/v3/driver"
	"periph.io/x/conn/v3/driver/driverreg"
	conngpio "periph.io/x/conn/v3/gpio"
	"periph.io/x/host/v3/gpioioctl"
)

// haltEvery is how often a wait for an edge that should end is told so.
const haltEvery = 5 * time.Millisecond

// kernelChips are the GPIO chips of the kernel, through periph's driver for
// the character device (GPIO v2, Linux 5.10 or newer). The driver is used in
// few ways, because of what version 3.8.5 does in others; each place says so.
type kernelChips struct {
	dev string // where the devices are
}

// periph's list of chips is a variable of its package, so what guards it is one
// of ours.
var periph struct {
	sync.Mutex
	// again are chips that the driver has found a second time. They are kept
	// because both the collector and their Close would close a descriptor
	// twice, by then perhaps somebody else's, and Close closes descriptor 0.
	again []*gpioioctl.GPIOChip
}

// names are the devices there are, whether or not we may open them.
func (k kernelChips) names() []string {
	paths, _ := filepath.Glob(filepath.Join(k.dev, "gpiochip*")) // the pattern is well formed
	names := make([]string, len(paths))
	for i, path := range paths {
		names[i] = filepath.Base(path)
	}
	return names
}

// find returns the chip with the name of a device, or of a symbolic link to
// one. It fails with ErrNoChip if there is none, and says what to do if we may
// not open it.
func (k kernelChips) find(name string) (chip, error) {
	path, err := filepath.EvalSymlinks(filepath.Join(k.dev, name))
	if errors.Is(err, fs.ErrNotExist) || !strings.HasPrefix(name, "gpiochip") {
		return nil, fmt.Errorf("%w: %s", ErrNoChip, name)
	} else if err != nil {
		return nil, fmt.Errorf("chip %s: %w", name, err)
	}
	// The driver logs and skips a chip that it may not open. We ask before it
	// does, so that the person who must act is told.
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("chip %s: %w%s", name, err, permissionHint(path, err))
	}
	if err := f.Close(); err != nil {
		return nil, fmt.Errorf("chip %s: %w", name, err)
	}
	c, err := driverChip(filepath.Base(path))
	if err != nil {
		return nil, fmt.Errorf("chip %s: %w", name, err)
	}
	return kernelChip{c}, nil
}

// permissionHint says how to get the permission that err denies.
func permissionHint(path string, err error) string {
	switch {
	case errors.Is(err, syscall.EPERM):
		return `; hint: the unit denies the device: it needs "DeviceAllow=char-gpiochip rw"`
	case errors.Is(err, syscall.EACCES):
		return `; hint: let the user that runs edged into the group of ` + path + ` (often gpio), or add the udev rule ` +
			`SUBSYSTEM=="gpio", KERNEL=="gpiochip*", GROUP="gpio", MODE="0660" and let it into the group gpio`
	}
	return ""
}

// driverChip returns a chip from the driver's list, letting the driver look for
// chips if it is not there: at the first time, and when a chip came, or might
// be opened, later.
func driverChip(name string) (*gpioioctl.GPIOChip, error) {
	periph.Lock()
	defer periph.Unlock()
	if c := listedChip(name); c != nil {
		return c, nil
	}
	fillStdin()
	defer fillStdin()
	state, err := driverreg.Init() // does nothing the second time
	if err != nil {
		return nil, err
	}
	if c := listedChip(name); c != nil {
		return c, nil
	}
	if err := lookAgain(state); err != nil {
		return nil, err
	}
	if c := listedChip(name); c != nil {
		return c, nil
	}
	return nil, errors.New("the driver finds nothing it can use behind the device (it needs Linux 5.10 or newer)")
}

func listedChip(name string) *gpioioctl.GPIOChip {
	for _, c := range gpioioctl.Chips {
		if c.Name() == name {
			return c
		}
	}
	return nil
}

// lookAgain lets the driver list the chips once more. The registry runs a
// driver only once, but hands it out. What is found twice is set aside.
func lookAgain(state *driverreg.State) error {
	drivers := append([]driver.Impl(nil), state.Loaded...)
	for _, f := range append(append([]driverreg.DriverFailure(nil), state.Skipped...), state.Failed...) {
		drivers = append(drivers, f.D)
	}
	for _, d := range drivers {
		if d.String() != "ioctl-gpio" {
			continue
		}
		if _, err := d.Init(); err != nil {
			return err
		}
	}
	found := gpioioctl.Chips
	gpioioctl.Chips = nil
	for _, c := range found {
		if listedChip(c.Name()) == nil {
			gpioioctl.Chips = append(gpioioctl.Chips, c)
		} else {
			periph.again = append(periph.again, c)
		}
	}
	return nil
}

// fillStdin sees to it that descriptor 0 is taken. The driver closes it when it
// meets a chip twice, as on a Raspberry Pi whose gpiochip4 is a link to
// gpiochip0, and takes a line for closed that gets descriptor 0.
func fillStdin() {
	var st syscall.Stat_t
	if err := syscall.Fstat(0, &st); !errors.Is(err, syscall.EBADF) {
		return
	}
	if fd, err := syscall.Open(os.DevNull, syscall.O_RDONLY, 0); err == nil && fd != 0 {
		_ = syscall.Close(fd) // somebody else was faster
	}
}

// kernelChip is one chip.
type kernelChip struct{ c *gpioioctl.GPIOChip }

func (k kernelChip) size() int { return k.c.LineCount() }

// open asks for a set of one line. The driver's type for single lines is no
// use: reading an output turns it into an input, and the direction of an edge
// is not told.
//
// The driver has no way to ask for an output that begins high. Such a line is
// low for some microseconds.
func (k kernelChip) open(offset int, r request) (line, error) {
	periph.Lock()
	defer periph.Unlock()
	fillStdin()
	set, err := k.lineSet(offset, r)
	if err != nil {
		return nil, k.explain(offset, err)
	}
	l := &kernelLine{set: set}
	switch {
	case r.output:
		err = l.drive(r.level)
	case r.edge != edgeNone:
		// The first wait prepares the descriptor, without a lock. Done here,
		// Halt and the watcher have nothing to race for.
		_, _, err = set.WaitForEdge(time.Nanosecond)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			err = nil
		}
	}
	if err != nil {
		return nil, errors.Join(err, l.close())
	}
	return l, nil
}

// lineSet asks the driver, which looks lines up by name and takes the first
// one it meets. Many lines have no name or share one, so the one that is meant
// is put in front of its namesakes for as long as the driver looks.
func (k kernelChip) lineSet(offset int, r request) (*gpioioctl.LineSet, error) {
	lines := k.c.Lines()
	name := lines[offset].Name()
	first := offset
	for i, l := range lines {
		if l.Name() == name {
			first = i
			break
		}
	}
	direction := gpioioctl.LineInput
	if r.output {
		direction = gpioioctl.LineOutput
	}
	lines[first], lines[offset] = lines[offset], lines[first]
	set, err := k.c.LineSet(direction, periphEdge(r), periphPull(r), name)
	lines[first], lines[offset] = lines[offset], lines[first]
	if err != nil {
		return nil, err
	}
	if got := set.Lines()[0].Number(); got != offset {
		return nil, errors.Join(fmt.Errorf("the driver opened line %d", got), set.Close())
	}
	return set, nil
}

// explain adds to an error of the driver who has the line. The driver gives
// texts and no error numbers.
func (k kernelChip) explain(offset int, err error) error {
	if !strings.Contains(err.Error(), syscall.EBUSY.Error()) {
		return err
	}
	if by := k.c.Lines()[offset].Consumer(); by != "" {
		return fmt.Errorf("%w: it is used by %q, of the kernel or another program", err, by)
	}
	return fmt.Errorf("%w: it is used by the kernel or another program (gpioinfo shows which)", err)
}

func periphEdge(r request) conngpio.Edge {
	if r.output {
		return conngpio.NoEdge
	}
	switch r.edge {
	case edgeRising:
		return conngpio.RisingEdge
	case edgeFalling:
		return conngpio.FallingEdge
	case edgeBoth:
		return conngpio.BothEdges
	}
	return conngpio.NoEdge
}

func periphPull(r request) conngpio.Pull {
	switch r.pull {
	case pullUp:
		return conngpio.PullUp
	case pullDown:
		return conngpio.PullDown
	}
	return conngpio.PullNoChange
}

// kernelLine is a line of the kernel, which is ours until close.
type kernelLine struct {
	set    *gpioioctl.LineSet
	closed atomic.Bool
}

func (l *kernelLine) level() (bool, error) {
	if l.closed.Load() {
		return false, errReleased
	}
	bits, err := l.set.Read(1)
	return bits&1 == 1, err
}

func (l *kernelLine) drive(level bool) error {
	if l.closed.Load() {
		return errReleased
	}
	var bits conngpio.GPIOValue
	if level {
		bits = 1
	}
	return l.set.Out(bits, 1)
}

func (l *kernelLine) waitEdge(ctx context.Context, timeout time.Duration) (edge, error) {
	if ctx.Err() != nil {
		return edgeNone, nil
	}
	left, halted := make(chan struct{}), make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(halted)
		l.halt(left)
	})
	_, e, err := l.set.WaitForEdge(timeout)
	close(left)
	if !stop() {
		<-halted
	}
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return edgeNone, nil
	case err != nil:
		return edgeNone, err
	case e == conngpio.RisingEdge:
		return edgeRising, nil
	case e == conngpio.FallingEdge:
		return edgeFalling, nil
	}
	return edgeNone, nil
}

// halt ends the wait that is under way, until left is closed. Once is not
// enough: Halt moves the deadline of the wait, and a wait that is about to
// begin sets a deadline of its own.
func (l *kernelLine) halt(left <-chan struct{}) {
	t := time.NewTicker(haltEvery)
	defer t.Stop()
	for {
		// An error means that there is no wait to end.
		_ = l.set.Halt()
		select {
		case <-left:
			return
		case <-t.C:
		}
	}
}

func (l *kernelLine) close() error {
	if l.closed.Swap(true) {
		return errReleased
	}
	return l.set.Close()
}
