// Modbus is a capability provider for devices that speak Modbus/TCP: actors read and
// write their tables, and are told when an entry that they watch has changed.
//
// Link values: address ("10.0.0.7", or with a port), unit (1), timeout ("1s"), watch
// ("holding:0-3 coils:5", nothing by default) and poll ("1s").
//
// Operations of example:modbus, as MessagePack:
//
//	Modbus.Read   {table, address, count} → [u16]; table is holding, input, coils or discrete
//	Modbus.Write  {table, address, value} → nothing; table is holding or coils
//	Modbus.HandleChange {table, address, value}: a call of the actor
//
// A reading is what the device says at the moment of the call; a write has happened when
// its answer leaves, and can not be undone.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/edged-io/edged/sdk/go/msgpack"
	"github.com/edged-io/edged/sdk/go/provider"
)

func main() {
	provider.Main(func(h *provider.Host) (provider.Provider, error) {
		return &modbus{host: h, devices: make(map[string]*device)}, nil
	})
}

// modbus serves one device for each link.
type modbus struct {
	host *provider.Host

	mu      sync.RWMutex // guards devices
	devices map[string]*device
}

// device is what a link leads to.
type device struct {
	client
	link  provider.Link
	watch []span
	poll  time.Duration
	stop  context.CancelFunc
	done  chan struct{} // closed when nobody polls any more
}

// span is a part of a table that is watched.
type span struct {
	table        string
	first, count uint16
}

// newDevice reads the values of a link, all faults in one go.
func newDevice(l provider.Link) (*device, error) {
	d := &device{link: l, done: make(chan struct{})}
	d.address = l.Values["address"]
	var faults []error
	if d.address == "" {
		faults = append(faults, errors.New("address: missing; such as 10.0.0.7 or 10.0.0.7:1502"))
	} else if _, _, err := net.SplitHostPort(d.address); err != nil {
		d.address = net.JoinHostPort(strings.Trim(d.address, "[]"), "502")
	}
	unit, err := strconv.ParseUint(cmp.Or(l.Values["unit"], "1"), 10, 8)
	if err != nil {
		faults = append(faults, fmt.Errorf("unit: %q is not a number from 0 to 255", l.Values["unit"]))
	}
	d.unit = byte(unit)
	for _, v := range []struct {
		name string
		to   *time.Duration
	}{{"timeout", &d.timeout}, {"poll", &d.poll}} {
		*v.to, err = time.ParseDuration(cmp.Or(l.Values[v.name], "1s"))
		if err != nil || *v.to < 10*time.Millisecond || *v.to > time.Hour {
			faults = append(faults, fmt.Errorf("%s: %q is not a time from 10ms to 1h", v.name, l.Values[v.name]))
		}
	}
	if d.watch, err = readWatch(l.Values["watch"]); err != nil {
		faults = append(faults, err)
	}
	return d, errors.Join(faults...)
}

// readWatch reads "holding:0-3 coils:5".
func readWatch(text string) (all []span, err error) {
	for _, part := range strings.FieldsFunc(text, func(r rune) bool { return r == ' ' || r == ',' }) {
		name, numbers, _ := strings.Cut(part, ":")
		from, to, more := strings.Cut(numbers, "-")
		if !more {
			to = from
		}
		first, err1 := strconv.ParseUint(from, 10, 16)
		last, err2 := strconv.ParseUint(to, 10, 16)
		t, ok := tables[name]
		if !ok || err1 != nil || err2 != nil || last < first || int(last-first) >= t.most {
			return nil, fmt.Errorf("watch: %q: want TABLE:FIRST-LAST, with holding, input (125 at once), coils or discrete (2000)", part)
		}
		all = append(all, span{name, uint16(first), uint16(last - first + 1)})
	}
	return all, nil
}

func (m *modbus) PutLink(_ context.Context, l provider.Link) error {
	d, err := newDevice(l)
	if err != nil {
		return err
	}
	// It lives as long as the link, not as the call that made it.
	ctx, stop := context.WithCancel(context.Background())
	d.stop = stop
	m.mu.Lock()
	m.devices[l.Actor] = d
	m.mu.Unlock()
	go m.follow(ctx, d) // DeleteLink and Close wait for it
	return nil
}

func (m *modbus) DeleteLink(_ context.Context, l provider.Link) error {
	m.mu.Lock()
	d := m.devices[l.Actor]
	delete(m.devices, l.Actor)
	m.mu.Unlock()
	d.end()
	return nil
}

// Close ends what is left when the provider stops.
func (m *modbus) Close() error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	for _, d := range m.devices {
		d.end()
	}
	return nil
}

func (d *device) end() {
	d.stop()
	d.close()
	<-d.done
}

// Requests of the contract.
type (
	readRequest struct {
		Table   string `msgpack:"table"`
		Address uint16 `msgpack:"address"`
		Count   uint16 `msgpack:"count"`
	}
	entry struct {
		Table   string `msgpack:"table"`
		Address uint16 `msgpack:"address"`
		Value   uint16 `msgpack:"value"`
	}
)

func (m *modbus) Call(_ context.Context, inv provider.Invocation) ([]byte, error) {
	m.mu.RLock()
	d := m.devices[inv.Link.Actor]
	m.mu.RUnlock()
	if d == nil {
		return nil, errors.New("the link is gone")
	}
	switch inv.Operation {
	case "Modbus.Read":
		var r readRequest
		if err := msgpack.Unmarshal(inv.Payload, &r); err != nil {
			return nil, err
		}
		t, ok := tables[r.Table]
		if !ok {
			return nil, fmt.Errorf("there is no table %.20q: want holding, input, coils or discrete", r.Table)
		}
		values, err := d.get(t, r.Address, r.Count)
		if err != nil {
			return nil, err
		}
		return msgpack.Marshal(values)
	case "Modbus.Write":
		var e entry
		if err := msgpack.Unmarshal(inv.Payload, &e); err != nil {
			return nil, err
		}
		switch {
		case e.Table == "holding":
			return nil, d.put(writeHolding, e.Address, e.Value)
		case e.Table == "coils" && e.Value <= 1:
			return nil, d.put(writeCoil, e.Address, e.Value*0xff00) // 6.5: on is FF00
		}
		return nil, fmt.Errorf("can not write %d to table %.20q: want holding, or coils with 0 or 1", e.Value, e.Table)
	default:
		return nil, fmt.Errorf("%w: %s", provider.ErrUnknown, inv.Operation)
	}
}

// follow tells the actor what changes. The first reading is a change from nothing. A
// change that the actor did not take is told again at the next reading.
func (m *modbus) follow(ctx context.Context, d *device) {
	defer close(d.done)
	if len(d.watch) == 0 {
		return
	}
	known := make([][]uint16, len(d.watch)) // what the actor has been told; nil for nothing
	away := false
	next := time.NewTicker(d.poll)
	defer next.Stop()
	for {
		for i, s := range d.watch {
			values, err := d.get(tables[s.table], s.first, s.count)
			if ctx.Err() != nil {
				return
			}
			if away != (err != nil) {
				away = err != nil
				m.host.Log.Warn("device", "address", d.address, "away", away, "err", err)
			}
			if err == nil {
				known[i] = m.tell(ctx, d, s, known[i], values)
			}
		}
		select {
		case <-next.C:
		case <-ctx.Done():
			return
		}
	}
}

// tell calls the actor for each entry that differs from what it knows, and returns what
// it knows then.
func (m *modbus) tell(ctx context.Context, d *device, s span, known, values []uint16) []uint16 {
	if known != nil && slices.Equal(known, values) {
		return known
	}
	for i, v := range values {
		if known != nil && known[i] == v {
			continue
		}
		b, err := msgpack.Marshal(entry{s.table, s.first + uint16(i), v})
		if err == nil {
			_, err = m.host.Call(ctx, d.link, "Modbus.HandleChange", b)
		}
		if err != nil {
			m.host.Log.Warn("change not taken", "actor", d.link.Actor, "table", s.table, "address", s.first+uint16(i), "err", err)
			return known
		}
	}
	return values
}
