package gpio

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edged-io/edged/internal/event"
)

// wave is what a contact does: how long it waits, and the level then.
type wave struct {
	after time.Duration
	level bool
}

// waveform reads "5ms high 1ms low …".
func waveform(t *testing.T, s string) (waves []wave) {
	t.Helper()
	fields := strings.Fields(s)
	for i := 0; i < len(fields); i += 2 {
		d, err := time.ParseDuration(fields[i])
		if err != nil {
			t.Fatal(err)
		}
		waves = append(waves, wave{d, fields[i+1] == "high"})
	}
	return waves
}

// waveforms are contacts, and which edges they are with a debounce of 20ms.
// The time of an edge is that since which the level holds.
var waveforms = []struct{ name, wave, want string }{
	{"clean press", "0s high 100ms low", "rising@0s falling@100ms"},
	{"press that bounces", "0s high 1ms low 2ms high 1ms low 500us high 3ms low 1ms high", "rising@8.5ms"},
	{"press and release that bounce", "0s high 2ms low 2ms high 200ms low 1ms high 3ms low", "rising@4ms falling@208ms"},
	{"glitch", "0s high 5ms low", ""},
	{"glitches for long", "0s high 5ms low 15ms high 5ms low 15ms high 5ms low", ""},
	{"two presses", "0s high 50ms low 50ms high 50ms low", "rising@0s falling@50ms rising@100ms falling@150ms"},
	{"dropout while pressed", "0s high 50ms low 10ms high 50ms low", "rising@0s falling@110ms"},
	{"just long enough", "0s high 21ms low 21ms high", "rising@0s falling@21ms rising@42ms"},
	{"just too short", "0s high 19ms low", ""},
	{"chatter without an end in sight, then rest", "0s high 10ms low 10ms high 10ms low 10ms high 10ms low 10ms high", "rising@60ms"},
	{"same level again", "0s high 30ms high 30ms high", "rising@0s"},
	{"nothing", "", ""},
}

// edges tells events as "edge@time since start".
func edges(t *testing.T, events []sent, start time.Time) string {
	t.Helper()
	var words []string
	for _, s := range events {
		at, err := time.Parse(time.RFC3339Nano, s.event.Time)
		if err != nil {
			t.Fatal(err)
		}
		var data edgeData
		if err := json.Unmarshal(s.event.Data, &data); err != nil {
			t.Fatal(err)
		}
		if data.Level != (data.Edge == edgeRising) {
			t.Errorf("%s edge to level %v", data.Edge, data.Level)
		}
		words = append(words, fmt.Sprintf("%s@%s", data.Edge, at.Sub(start)))
	}
	return strings.Join(words, " ")
}

func TestProvider_Run_debounce(t *testing.T) {
	for _, edge := range []string{"both", "rising", "falling"} {
		for _, c := range waveforms {
			t.Run(edge+"/"+c.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					b := startBox(t, openStore(t, t.TempDir()))
					b.put(link(alice, 3, "direction", "in", "topic", "door", "edge", edge, "debounce", "20ms"))
					synctest.Wait()
					start := time.Now()
					for _, w := range waveform(t, c.wave) {
						time.Sleep(w.after)
						if err := b.SetSim(SimName, 3, w.level); err != nil {
							t.Fatal(err)
						}
					}
					time.Sleep(time.Second)
					synctest.Wait()
					var want []string
					for _, w := range strings.Fields(c.want) {
						if edge == "both" || strings.HasPrefix(w, edge) {
							want = append(want, w)
						}
					}
					if got := edges(t, b.sent(), start); got != strings.Join(want, " ") {
						t.Errorf("got %q, want %q", got, strings.Join(want, " "))
					}
				})
			})
		}
	}
}

func TestProvider_Run_edgesWithoutDebounce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := startBox(t, openStore(t, t.TempDir()))
		b.put(link(alice, 3, "direction", "in", "topic", "a.both"))
		b.put(link(alice, 4, "direction", "in", "topic", "a.rising", "edge", "rising"))
		synctest.Wait()
		start := time.Now()
		for range 3 {
			for _, level := range []bool{true, false} {
				for line := 3; line <= 4; line++ {
					if err := b.SetSim(SimName, line, level); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		synctest.Wait()
		bySubject := map[string][]sent{}
		for _, s := range b.sent() {
			bySubject[s.subject] = append(bySubject[s.subject], s)
		}
		if got, want := edges(t, bySubject["a.both"], start), strings.TrimSpace(strings.Repeat("rising@0s falling@0s ", 3)); got != want {
			t.Errorf("both: got %q, want %q", got, want)
		}
		if got, want := edges(t, bySubject["a.rising"], start), "rising@0s rising@0s rising@0s"; got != want {
			t.Errorf("rising: got %q, want %q", got, want)
		}
	})
}

func TestProvider_Run_edgeBeforeRun(t *testing.T) {
	for _, debounce := range []string{"0s", "20ms"} {
		synctest.Test(t, func(t *testing.T) {
			b := newBox(t, openStore(t, t.TempDir()))
			b.put(link(alice, 3, "direction", "in", "topic", "door", "debounce", debounce))
			if err := b.SetSim(SimName, 3, true); err != nil {
				t.Fatal(err)
			}
			b.start()
			time.Sleep(time.Second)
			synctest.Wait()
			if got := b.sent(); len(got) != 1 {
				t.Errorf("debounce %s: got %d edges, want 1", debounce, len(got))
			}
		})
	}
}

func TestProvider_Run_event(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := startBox(t, openStore(t, t.TempDir()))
		b.put(link(alice, 3, "direction", "in", "topic", "hall/front.door"))
		synctest.Wait()
		for _, level := range []bool{true, false} {
			if err := b.SetSim(SimName, 3, level); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		got := b.sent()
		if len(got) != 2 {
			t.Fatalf("got %d events, want 2", len(got))
		}
		if got[0].subject != "hall.front%2Edoor" {
			t.Errorf("subject %s", got[0].subject)
		}
		e := got[0].event
		if e.Type != "edged.gpio.edge" || e.Source != "/press-7/gpio/sim0/3" || e.DataContentType != "application/json" {
			t.Errorf("event %+v", e)
		}
		if want := `{"chip":"sim0","line":3,"edge":"rising","level":true}`; string(e.Data) != want {
			t.Errorf("data %s, want %s", e.Data, want)
		}
		if e.ID == "" || e.ID == got[1].event.ID {
			t.Errorf("ids %q and %q", e.ID, got[1].event.ID)
		}
		header, data, err := e.Binary()
		if err != nil {
			t.Fatal(err)
		}
		if back, ok := event.Parse(header, "x", data); !ok || back.ID != e.ID || back.Source != e.Source {
			t.Errorf("came back as %+v, %v", back, ok)
		}
	})
}

func TestProvider_DeleteLink_stopsEdges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := startBox(t, openStore(t, t.TempDir()))
		l := link(alice, 3, "direction", "in", "topic", "door", "debounce", "20ms")
		b.put(l)
		synctest.Wait()
		if err := b.SetSim(SimName, 3, true); err != nil {
			t.Fatal(err)
		}
		if err := b.DeleteLink(t.Context(), l); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if err := b.SetSim(SimName, 3, false); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if got := b.sent(); len(got) != 0 {
			t.Errorf("got %d edges, want none", len(got))
		}
	})
}

func TestProvider_Run_refusedEdges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := startBox(t, openStore(t, t.TempDir()))
		b.put(link(alice, 3, "direction", "in", "topic", "door", "edge", "rising"))
		press := func() {
			t.Helper()
			for _, level := range []bool{true, false} {
				if err := b.SetSim(SimName, 3, level); err != nil {
					t.Fatal(err)
				}
			}
			synctest.Wait()
		}
		refuse := func(err error) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.refuse = err
		}
		press()
		refuse(errors.New("full"))
		press()
		press()
		refuse(nil)
		press()
		if got := b.Lines()[0]; got.Edges != 2 || got.Lost != 2 {
			t.Errorf("got %d edges, %d lost; want 2 and 2", got.Edges, got.Lost)
		}
		b.stop()
		if got := b.logs.String(); strings.Count(got, "edges are lost") != 1 || strings.Count(got, "edges are stored again") != 1 {
			t.Errorf("logs: %s", got)
		}
	})
}

func TestProvider_Run_boundsEdgesInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var waiting []func(error)
		b := newBox(t, openStore(t, t.TempDir()))
		b.publish = func(_ string, _ event.Event, done func(error)) { waiting = append(waiting, done) }
		b.start()
		b.put(link(alice, 3, "direction", "in", "topic", "door", "edge", "rising"))
		synctest.Wait()
		for i := range 2 * (maxInFlight + 10) {
			if err := b.SetSim(SimName, 3, i%2 == 0); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		if len(waiting) != maxInFlight {
			t.Errorf("%d edges wait, want %d", len(waiting), maxInFlight)
		}
		for _, done := range waiting {
			done(nil)
		}
		if got := b.Lines()[0]; got.Edges != maxInFlight || got.Lost != 10 {
			t.Errorf("got %d edges, %d lost; want %d and 10", got.Edges, got.Lost, maxInFlight)
		}
	})
}

// A debouncer must do the right thing even if the kernel drops or merges edges.
func TestDebouncer_lostEdges(t *testing.T) {
	start := time.Unix(0, 0)
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	d := debouncer{wait: 20 * time.Millisecond}
	if _, moving := d.left(at(0)); moving {
		t.Error("a debouncer that saw nothing waits")
	}
	d.see(true, at(0))
	if left, moving := d.left(at(5)); left != 15*time.Millisecond || !moving {
		t.Errorf("left %s, %v", left, moving)
	}
	d.see(true, at(10)) // the falling edge between was not told
	if left, _ := d.left(at(10)); left != 20*time.Millisecond {
		t.Errorf("a second rising edge left %s", left)
	}
	if _, real := d.settle(false, at(30)); real {
		t.Error("an edge that has gone again is real")
	}
	if left, moving := d.left(at(30)); left != 20*time.Millisecond || !moving {
		t.Errorf("after a lost edge: left %s, %v", left, moving)
	}
	if _, real := d.settle(false, at(50)); real {
		t.Error("back at the level of before is an edge")
	}
	if _, moving := d.left(at(50)); moving {
		t.Error("still waiting")
	}
}
