//go:build hardware

package gpio

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// These tests need a chip of the kernel, one line that nothing is wired to, and
// one with a button that gives a high pulse of 100ms. They print "PRESS" to
// standard output when somebody, or test/gpio/run.sh, is to press it.
//
//	EDGED_GPIO_CHIP=gpiochip0 EDGED_GPIO_OUT=5 EDGED_GPIO_BUTTON=3 go test -tags hardware -run Hardware ./providers/gpio

// hardwareLink is a link for the line that the variable names.
func hardwareLink(t *testing.T, variable string, pairs ...string) (line int, values map[string]string) {
	t.Helper()
	chip, number := os.Getenv("EDGED_GPIO_CHIP"), os.Getenv(variable)
	if chip == "" || number == "" {
		t.Fatalf("EDGED_GPIO_CHIP and %s must say which chip and line to use", variable)
	}
	line, err := strconv.Atoi(number)
	if err != nil {
		t.Fatal(err)
	}
	values = map[string]string{"chip": chip, "line": number}
	for i := 0; i < len(pairs); i += 2 {
		values[pairs[i]] = pairs[i+1]
	}
	return line, values
}

// waitFor polls until cond holds.
func waitFor(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !cond(); runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("waited 30s for %s", what)
		}
		<-time.After(time.Millisecond)
	}
}

// openFiles is how many descriptors this process has.
func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestHardware_output(t *testing.T) {
	line, values := hardwareLink(t, "EDGED_GPIO_OUT", "direction", "out")
	l := output(alice, line)
	l.Values = values
	chip := values["chip"]
	set := func(b *box, level bool) {
		t.Helper()
		if _, err := b.call(t.Context(), alice, "Gpio.Set", "chip", chip, "line", line, "level", level); err != nil {
			t.Fatal(err)
		}
	}
	get := func(b *box) bool {
		t.Helper()
		answer, err := b.call(t.Context(), alice, "Gpio.Get", "chip", chip, "line", line)
		if err != nil {
			t.Fatal(err)
		}
		return answer[0] == 0xc3
	}
	db := openStore(t, t.TempDir())
	b := startBox(t, db)
	b.put(l)
	for _, level := range []bool{false, true, false, true} {
		set(b, level)
		if get(b) != level {
			t.Errorf("set to %v, reads back %v", level, !level)
		}
	}
	t.Logf("Lines: %+v", b.Lines())

	other := startBox(t, openStore(t, t.TempDir()))
	err := other.PutLink(t.Context(), l)
	if err == nil || !strings.Contains(err.Error(), "used by") {
		t.Errorf("a line that is in use: got %v", err)
	}
	t.Logf("in use: %v", err)

	if _, err := b.call(t.Context(), alice, "Gpio.Pulse", "chip", chip, "line", line, "level", false, "ms", 50); err != nil {
		t.Fatal(err)
	}
	if get(b) {
		t.Error("high during a low pulse")
	}
	waitFor(t, "the end of a pulse", func() bool { return get(b) })
	b.stop()

	b = startBox(t, db)
	b.put(l)
	if !get(b) {
		t.Error("low after a new start, want the desired level")
	}
}

// Every line is the one that is meant, although most have no name.
func TestHardware_linesAreTold(t *testing.T) {
	line, values := hardwareLink(t, "EDGED_GPIO_OUT")
	c, err := kernelChips{dev: "/dev"}.find(values["chip"])
	if err != nil {
		t.Fatal(err)
	}
	one, err := c.open(line, request{output: true, level: true})
	if err != nil {
		t.Fatal(err)
	}
	two, err := c.open(line+1, request{output: true})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		a, errA := one.level()
		b, errB := two.level()
		if !a || b || errA != nil || errB != nil {
			t.Errorf("levels %v and %v, errors %v and %v; want high and low", a, b, errA, errB)
		}
		if err := two.drive(false); err != nil {
			t.Error(err)
		}
	}
	debug, err := os.ReadFile("/sys/kernel/debug/gpio")
	t.Logf("the kernel says (%v):\n%s", err, debug)
	if err := errors.Join(one.close(), two.close()); err != nil {
		t.Error(err)
	}
}

func TestHardware_edges(t *testing.T) {
	for _, c := range []struct{ edge, debounce, want string }{
		{"both", "0s", "rising falling"},
		{"rising", "0s", "rising"},
		{"both", "20ms", "rising falling"},
		{"falling", "20ms", "falling"},
		{"both", "1s", ""}, // the pulse is shorter
	} {
		t.Run(c.edge+" "+c.debounce, func(t *testing.T) {
			line, values := hardwareLink(t, "EDGED_GPIO_BUTTON", "direction", "in", "topic", "door", "edge", c.edge, "debounce", c.debounce)
			b := startBox(t, openStore(t, t.TempDir()))
			l := link(alice, line)
			l.Values = values
			b.put(l)
			pressed := time.Now()
			fmt.Println("PRESS")
			want := len(strings.Fields(c.want))
			if want > 0 {
				waitFor(t, "edges", func() bool { return len(b.sent()) >= want })
			}
			<-time.After(4 * time.Second) // no more may come
			var got []string
			for _, s := range b.sent() {
				at, err := time.Parse(time.RFC3339Nano, s.event.Time)
				if err != nil {
					t.Fatal(err)
				}
				t.Logf("%s after %s", s.event.Data, at.Sub(pressed))
				for _, e := range []string{"rising", "falling"} {
					if strings.Contains(string(s.event.Data), e) {
						got = append(got, e)
					}
				}
			}
			if strings.Join(got, " ") != c.want {
				t.Errorf("got %v, want %s", got, c.want)
			}
		})
	}
}

// A wait for an edge ends at once, whenever it is told to, and leaves nothing.
func TestHardware_stopsWaiting(t *testing.T) {
	line, values := hardwareLink(t, "EDGED_GPIO_BUTTON", "direction", "in", "topic", "door")
	b := startBox(t, openStore(t, t.TempDir()))
	l := link(alice, line)
	l.Values = values
	b.put(l)
	if err := b.DeleteLink(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	files, routines := openFiles(t), runtime.NumGoroutine()
	begin := time.Now()
	const times = 200
	for range times {
		b.put(l)
		if err := b.DeleteLink(t.Context(), l); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d times in %s", times, time.Since(begin))
	waitFor(t, "goroutines to end", func() bool { return runtime.NumGoroutine() <= routines })
	if got := openFiles(t); got > files {
		t.Errorf("%d descriptors are open, %d were", got, files)
	}
}

// The driver may be asked to look for chips again and again.
func TestHardware_lookAgain(t *testing.T) {
	_, values := hardwareLink(t, "EDGED_GPIO_OUT")
	k := kernelChips{dev: "/dev"}
	for range 3 {
		if _, err := k.find(values["chip"]); err != nil {
			t.Fatal(err)
		}
		if _, err := driverChip("gpiochip77"); err == nil { // looks again, and finds all chips twice
			t.Fatal("there is a gpiochip77")
		}
		runtime.GC()
		var st syscall.Stat_t
		if err := syscall.Fstat(0, &st); err != nil {
			t.Fatalf("descriptor 0: %v", err)
		}
	}
	t.Logf("chips: %v", k.names())
	_, err := k.find("gpiochip77")
	t.Logf("no such chip: %v", err)
}
