package box

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

// zoo is where the hostile actors live.
const zoo = "../../examples/hostile"

// animal is a hostile actor. Its file says how its messages end.
type animal struct {
	name, wat string
	ends      string // "handled", "dead letter: TEXT | TEXT", both with ", or " between, or "refused: TEXT"
}

// slow says whether it keeps a core, or an instance, for its whole time.
func (a animal) slow() bool { return strings.HasSuffix(a.ends, ": time limit exceeded") }

// told takes its end apart.
func (a animal) told() (handled bool, dead []string) {
	before, texts, isDead := strings.Cut(a.ends, "dead letter: ")
	if isDead {
		dead = strings.Split(texts, " | ")
	}
	return strings.HasPrefix(before, "handled"), dead
}

func animals(t *testing.T, dir string) (all []animal) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(zoo, dir, "*.wat"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no animals in %s: %v", dir, err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		_, ends, ok := strings.Cut(string(text), "\n;; ends: ")
		if !ok {
			t.Fatalf("%s does not say how it ends", f)
		}
		ends, _, _ = strings.Cut(ends, "\n")
		all = append(all, animal{strings.TrimSuffix(filepath.Base(f), ".wat"), f, ends})
	}
	return all
}

// assemble makes the modules of animals in dir.
func assemble(t *testing.T, dir string, all ...animal) {
	t.Helper()
	for _, a := range all {
		cmd := exec.Command("wat2wasm", "--enable-tail-call", a.wat, "-o", filepath.Join(dir, a.name+".wasm"))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v %s (wat2wasm comes with the package wabt; see test/needs.sh)", a.name, err, out)
		}
	}
}

// A budget is a cgroup with a limit on memory, for one process and its children.
type budget struct {
	dir       string // "" where none can be made
	limitFile string
}

// newBudget makes one of that many bytes, if this is root and there are cgroups.
func newBudget(t *testing.T, bytes int64) budget {
	t.Helper()
	name := fmt.Sprintf("edged-zoo-%d", os.Getpid())
	for root, limit := range map[string]string{"/sys/fs/cgroup": "memory.max", "/sys/fs/cgroup/memory": "memory.limit_in_bytes"} {
		dir := filepath.Join(root, name)
		if os.Mkdir(dir, 0o755) != nil {
			continue
		}
		if _, err := os.Stat(filepath.Join(dir, limit)); err != nil || os.WriteFile(filepath.Join(dir, limit), []byte(strconv.FormatInt(bytes, 10)), 0o600) != nil { // there is no such controller
			_ = os.Remove(dir)
			continue
		}
		_ = os.WriteFile(filepath.Join(dir, "memory.swap.max"), []byte("0"), 0o600) // where there is swap
		t.Cleanup(func() {                                                          // the box has ended: its own cleanup came later
			if err := os.Remove(dir); err != nil {
				t.Error(err)
			}
		})
		return budget{dir, limit}
	}
	return budget{}
}

// wrap is what comes before a program that is to run in the budget.
func (g budget) wrap() []string {
	if g.dir == "" {
		return nil
	}
	return []string{"sh", "-c", `echo $$ > "$0/cgroup.procs" && exec "$@"`, g.dir}
}

// killed is how many processes were killed because the budget was exceeded.
func (g budget) killed(t *testing.T) int {
	t.Helper()
	for _, name := range []string{"memory.events", "memory.oom_control"} {
		text, err := os.ReadFile(filepath.Join(g.dir, name))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(text)) {
			if n, ok := strings.CutPrefix(line, "oom_kill "); ok {
				killed, err := strconv.Atoi(strings.TrimSpace(n))
				if err != nil {
					t.Fatal(err)
				}
				return killed
			}
		}
	}
	t.Fatalf("%s has no oom_kill", g.dir)
	return 0
}

// memory returns a field of the status of the box's process, in KiB.
func (b *box) memory(field string) int {
	b.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", b.cmd.Process.Pid))
	b.must(err)
	_, rest, ok := strings.Cut(string(text), "\n"+field+":")
	if !ok {
		b.t.Fatalf("no %s in the status of the process", field)
	}
	n, err := strconv.Atoi(strings.Fields(rest)[0])
	b.must(err)
	return n
}

// deadLetter is what the zoo looks at.
type deadLetter struct {
	Stream, Subject, Reason, Error, Actor string
}

func (b *box) deadLetters() []deadLetter {
	b.t.Helper()
	code, out, errOut := b.edged("dlq", "ls", "--json", "--config", "edged.toml")
	if code != 0 {
		b.t.Fatalf("dlq ls: %d %s", code, errOut)
	}
	var list struct{ Items []deadLetter }
	b.must(json.Unmarshal([]byte(out), &list))
	return list.Items
}

// load is what the well-behaved actor is asked: readings that are all too hot,
// at a steady rate. Its answers are the alarms that it publishes in the turns
// that count the readings.
type load struct {
	t    *testing.T
	nc   *nats.Conn
	stop context.CancelFunc
	done sync.WaitGroup

	mu      sync.Mutex // guards what follows
	sent    []time.Time
	late    []time.Duration // by how much each reading was sent too late
	latency []time.Duration // of each reading; 0 until there is an alarm
	missing int
	twice   int
}

const sensors = 4

func newLoad(b *box, every time.Duration) *load {
	b.t.Helper()
	ctx, stop := context.WithCancel(b.t.Context())
	l := &load{t: b.t, nc: b.nats(), stop: stop}
	_, err := l.nc.Subscribe("alarms.>", l.alarm)
	b.must(err)
	b.must(l.nc.Flush())
	l.done.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case due := <-tick.C:
				l.reading(time.Since(due))
			}
		}
	})
	b.t.Cleanup(l.end)
	return l
}

// reading sends the next one.
func (l *load) reading(late time.Duration) {
	l.mu.Lock()
	n := len(l.sent)
	l.late = append(l.late, late)
	l.sent, l.latency = append(l.sent, time.Now()), append(l.latency, 0)
	l.missing++
	l.mu.Unlock()
	m := &nats.Msg{
		Subject: fmt.Sprintf("greenhouse.s%d.temperature", n%sensors),
		Header:  nats.Header{"Nats-Msg-Id": {strconv.Itoa(n)}},
		Data:    fmt.Appendf(nil, `{"value":31,"n":%d}`, n),
	}
	if err := l.nc.PublishMsg(m); err != nil {
		l.t.Errorf("reading %d: %v", n, err)
	}
}

// alarm notes when the answer to a reading came.
func (l *load) alarm(m *nats.Msg) {
	var body struct{ N int }
	if err := json.Unmarshal(m.Data, &body); err != nil {
		l.t.Errorf("alarm %q: %v", m.Data, err)
		return
	}
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.latency[body.N] != 0 {
		l.twice++
		return
	}
	l.latency[body.N] = now.Sub(l.sent[body.N])
	l.missing--
}

// window is how long what was sent in a time took. Stall is the p99 of what it
// took the machine to wake this process up for it.
type window struct{ p50, p99, stall time.Duration }

// median is that of each figure.
func median(all []window) window {
	var p50, p99, stall []time.Duration
	for _, w := range all {
		p50, p99, stall = append(p50, w.p50), append(p99, w.p99), append(stall, w.stall)
	}
	for _, d := range [][]time.Duration{p50, p99, stall} {
		slices.Sort(d)
	}
	n := len(all) / 2
	return window{p50[n], p99[n], stall[n]}
}

// window measures for d from now on, and waits for all that was sent in it.
func (l *load) window(d time.Duration) window {
	l.t.Helper()
	l.mu.Lock()
	from := len(l.sent)
	l.mu.Unlock()
	<-time.After(d)
	l.mu.Lock()
	to := len(l.sent)
	l.mu.Unlock()
	var all, late []time.Duration
	for end := time.Now().Add(patience); ; {
		l.mu.Lock()
		all, late = slices.Sorted(slices.Values(l.latency[from:to])), slices.Sorted(slices.Values(l.late[from:to]))
		l.mu.Unlock()
		if len(all) > 0 && all[0] > 0 {
			break
		}
		if time.Now().After(end) {
			l.t.Fatalf("the readings %d to %d are not answered", from, to)
		}
		<-time.After(time.Millisecond)
	}
	return window{all[len(all)/2], all[len(all)*99/100], late[len(late)*99/100]}
}

// end stops sending and waits for the last answer.
func (l *load) end() {
	l.stop()
	l.done.Wait()
	for end := time.Now().Add(patience); ; {
		l.mu.Lock()
		missing, twice, sent := l.missing, l.twice, len(l.sent)
		l.mu.Unlock()
		if missing == 0 && twice == 0 {
			return
		}
		if twice > 0 || time.Now().After(end) {
			l.t.Errorf("of %d readings %d were never answered, and %d twice", sent, missing, twice)
			return
		}
		<-time.After(time.Millisecond)
	}
}

// stolen is how long processes other than this one and the box have had the
// machine's cores, in all.
func (b *box) stolen() time.Duration {
	b.t.Helper()
	const tick = 10 * time.Millisecond
	text, err := os.ReadFile("/proc/stat")
	b.must(err)
	total := 0
	for i, field := range strings.Fields(strings.SplitN(string(text), "\n", 2)[0])[1:9] {
		if i == 3 || i == 4 { // idle, and waiting for the disk
			continue
		}
		n, err := strconv.Atoi(field)
		b.must(err)
		total += n
	}
	text, err = os.ReadFile(fmt.Sprintf("/proc/%d/stat", b.cmd.Process.Pid))
	b.must(err)
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	for _, field := range fields[11:13] {
		n, err := strconv.Atoi(field)
		b.must(err)
		total -= n
	}
	var own syscall.Rusage
	b.must(syscall.Getrusage(syscall.RUSAGE_SELF, &own))
	return time.Duration(total)*tick - time.Duration(own.Utime.Nano()+own.Stime.Nano())
}
