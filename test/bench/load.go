package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// engine is a durable queue: one stream, one consumer that acknowledges what it is given.
type engine interface {
	// put returns once the message is as safe as the engine makes it. Many goroutines call it.
	put(data []byte) error
	// consume starts the consumer. It calls got with how many messages it has taken.
	consume(got func(n int)) error
	// settle returns once everything that was put is consumed and acknowledged.
	settle(ctx context.Context) error
	close() error
}

// engines of the table store, in its order.
var engines = []struct {
	name string
	open func(dir string) (engine, error)
}{
	{"edged", func(dir string) (engine, error) { return openStore(dir, ackLot) }},
	{"js-always", func(dir string) (engine, error) { return openJetStream(dir, true) }},
	{"js-default", func(dir string) (engine, error) { return openJetStream(dir, false) }},
	{"edged, an ack at once", func(dir string) (engine, error) { return openStore(dir, 1) }},
}

var publishers = []int{1, 16, 256}

// storeTable compares engines through their own interfaces, in this process: put, deliver, acknowledge.
func storeTable(ctx context.Context, s settings) (*table, error) {
	t := &table{Name: "store", Columns: []string{"msg/s", "put p50 µs", "put p99 µs"},
		Title: fmt.Sprintf("Put, deliver and acknowledge messages of %d bytes, through the store's own interface", s.size)}
	var cases []testCase
	for _, p := range publishers {
		for _, e := range engines {
			cases = append(cases, testCase{fmt.Sprintf("%s, %d", e.name, p), func(ctx context.Context) (sample, error) {
				dir, err := os.MkdirTemp(s.dir, "store-")
				if err != nil {
					return nil, err
				}
				defer os.RemoveAll(dir)
				eng, err := e.open(dir)
				if err != nil {
					return nil, err
				}
				m, err := queueLoad(ctx, eng, p, s.size, until(s.dur))
				if cerr := eng.close(); err == nil {
					err = cerr
				}
				return m, err
			}})
		}
	}
	cases = append(cases, testCase{"disk, 1", func(context.Context) (sample, error) { return diskSync(s.dir, s.dur/2) }})
	return t, t.interleave(ctx, s.rounds, cases)
}

// until returns a function that says whether there is still time.
func until(d time.Duration) func() bool {
	end := time.Now().Add(d)
	return func() bool { return time.Now().Before(end) }
}

// queueLoad lets p publishers put as long as more says so, and reports the rate over the time until all is acknowledged.
func queueLoad(ctx context.Context, e engine, p, size int, more func() bool) (sample, error) {
	var consumed atomic.Int64
	if err := e.consume(func(n int) { consumed.Add(int64(n)) }); err != nil {
		return nil, err
	}
	start := time.Now()
	latencies, err := publish(p, size, more, e.put)
	if err != nil {
		return nil, err
	}
	if err := e.settle(ctx); err != nil {
		return nil, err
	}
	took := time.Since(start)
	if got := int(consumed.Load()); got < len(latencies) {
		return nil, fmt.Errorf("consumed %d of %d messages", got, len(latencies))
	}
	return rates(latencies, took), nil
}

func rates(latencies []float64, took time.Duration) sample {
	return sample{
		"msg/s":      float64(len(latencies)) / took.Seconds(),
		"put p50 µs": quantile(latencies, 0.5),
		"put p99 µs": quantile(latencies, 0.99),
		"messages":   float64(len(latencies)),
	}
}

// publish lets p goroutines put, and returns how long each put took, in microseconds.
func publish(p, size int, more func() bool, put func([]byte) error) ([]float64, error) {
	var wg sync.WaitGroup
	took := make([][]float64, p)
	errs := make([]error, p)
	for i := range p {
		wg.Go(func() {
			for more() && errs[i] == nil {
				data := make([]byte, size)
				data[0] = byte(i)
				start := time.Now()
				errs[i] = put(data)
				took[i] = append(took[i], float64(time.Since(start).Nanoseconds())/1e3)
			}
		})
	}
	wg.Wait()
	var all []float64
	for i := range took {
		if errs[i] != nil {
			return nil, errs[i]
		}
		all = append(all, took[i]...)
	}
	return all, nil
}

// diskSync is what the disk can do: 4 KiB over bytes that are there already, and fdatasync.
func diskSync(dir string, d time.Duration) (sample, error) {
	f, err := os.Create(filepath.Join(dir, "disk"))
	if err != nil {
		return nil, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	const pages = 1024
	if _, err := f.Write(make([]byte, pages*4096)); err != nil {
		return nil, err
	}
	if err := f.Sync(); err != nil {
		return nil, err
	}
	n := int64(0)
	start := time.Now()
	took, err := publish(1, 4096, until(d), func(b []byte) error {
		n++
		if _, err := f.WriteAt(b, n%pages*4096); err != nil {
			return err
		}
		return fdatasync(f)
	})
	if err != nil {
		return nil, err
	}
	return rates(took, time.Since(start)), nil
}

// runOnce runs "engine:publishers:messages" and prints how many messages that were.
func runOnce(ctx context.Context, s settings, what string) error {
	parts := strings.Split(what, ":")
	if len(parts) != 3 {
		return fmt.Errorf("-once %s: want engine:publishers:messages", what)
	}
	p, err1 := strconv.Atoi(parts[1])
	count, err2 := strconv.Atoi(parts[2])
	if err1 != nil || err2 != nil || p < 1 {
		return fmt.Errorf("-once %s: want engine:publishers:messages", what)
	}
	for _, e := range engines {
		if e.name != parts[0] {
			continue
		}
		eng, err := e.open(s.dir)
		if err != nil {
			return err
		}
		defer eng.close()
		var left atomic.Int64
		left.Store(int64(count))
		m, err := queueLoad(ctx, eng, p, s.size, func() bool { return left.Add(-1) >= 0 })
		if err != nil {
			return err
		}
		fmt.Printf("%.0f messages, %.0f a second\n", m["messages"], m["msg/s"])
		return nil
	}
	return fmt.Errorf("no engine %q", parts[0])
}
