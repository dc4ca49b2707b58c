package mqtt

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	paho "github.com/eclipse/paho.mqtt.golang"

	"github.com/edged-io/edged/store"
)

// clientRecord is the session with the broker on disk: what tells its repeats from those of an earlier one, and what it is subscribed to.
type clientRecord struct {
	Version int      `json:"v"`
	Epoch   []byte   `json:"epoch"`
	Filters []string `json:"filters,omitempty"` // each a digit, the quality of service, and the filter
}

// subscribeError tells of filters that the broker refused.
type subscribeError struct{ filters, plain []string }

func (e *subscribeError) Error() string {
	var all []string
	if len(e.filters) > 0 {
		all = append(all, "the broker refuses the subscription to "+strings.Join(e.filters, ", ")+": check what it allows this client")
	}
	if len(e.plain) > 0 {
		all = append(all, "the broker has no shared subscriptions, every client of the group gets all of "+strings.Join(e.plain, ", "))
	}
	return strings.Join(all, "; ")
}

func recordKey(o *ClientOptions) string { return "c\x00" + clientKey(o.URL, o.ClientID) }

// resume brings our memory of the session in line with the broker's, begins to take messages, waits for the end of what was in flight, and subscribes
// to what the session lacks. A broker that has kept the session with the same filters is not asked again: it would send its retained messages
// anew each time. lacks says what the broker refused.
func (l *link) resume(ctx context.Context, present bool, begin func()) (lacks, err error) {
	o := &l.c.o
	if o.Store == nil {
		begin()
		return nil, nil
	}
	record, err := loadRecord(o)
	if err != nil {
		return nil, err
	}
	if !present || record == nil {
		record = &clientRecord{Version: sessionVersion}
		e := newEpoch()
		record.Epoch = e[:]
		if err := clientRepeats(o.URL, o.ClientID, e).forget(ctx, o.Store); err != nil {
			return nil, fmt.Errorf("begin a session: %w", err)
		}
		if err := saveRecord(ctx, o, record); err != nil {
			return nil, err
		}
	}
	l.repeats = clientRepeats(o.URL, o.ClientID, epoch(record.Epoch))
	begin()
	// A SUBSCRIBE could get the identifier of a message in flight: paho knows only those of PUBLISH packets.
	if err := l.flight.wait(ctx, l.lost); err != nil {
		return nil, fmt.Errorf("end what was in flight: %w", err)
	}
	wanted := make([]string, 0, len(o.Filters))
	for _, f := range o.Filters {
		wanted = append(wanted, fmt.Sprintf("%d%s", f.QoS, f.shared()))
	}
	slices.Sort(wanted)
	if slices.Equal(wanted, record.Filters) {
		return nil, nil
	}
	have, err := l.subscribe(ctx, record.Filters)
	if refused := (*subscribeError)(nil); errors.As(err, &refused) {
		lacks = err
	} else if err != nil {
		return nil, err
	}
	record.Filters = have
	return lacks, saveRecord(ctx, o, record)
}

// subscribe asks for all filters and takes back those of old that are not wanted any more. It returns what the session has then, as a record has it.
// Where a shared subscription is refused a plain one takes its place. A subscribeError says what is missing.
func (l *link) subscribe(ctx context.Context, old []string) (have []string, err error) {
	wanted, plain := make(map[string]byte), make(map[string]byte)
	for _, f := range l.c.o.Filters {
		wanted[f.shared()] = max(f.QoS, wanted[f.shared()])
	}
	var missing subscribeError
	refused, err := l.ask(ctx, wanted)
	if err != nil {
		return nil, err
	}
	for _, f := range l.c.o.Filters {
		switch {
		case !slices.Contains(refused, f.shared()):
		case f.Group == "":
			missing.filters = append(missing.filters, f.Topic)
			delete(wanted, f.Topic)
		default:
			plain[f.Topic] = max(f.QoS, plain[f.Topic])
			delete(wanted, f.shared())
		}
	}
	if refused, err = l.ask(ctx, plain); err != nil {
		return nil, err
	}
	for filter, qos := range plain {
		if slices.Contains(refused, filter) {
			missing.filters = append(missing.filters, filter)
			continue
		}
		missing.plain = append(missing.plain, filter)
		wanted[filter] = qos
	}
	for _, o := range old {
		if _, keep := wanted[o[1:]]; keep {
			continue
		}
		if err := l.wait(ctx, l.paho.Unsubscribe(o[1:])); err != nil {
			return nil, fmt.Errorf("unsubscribe from %s: %w", o[1:], err)
		}
	}
	for filter, qos := range wanted {
		have = append(have, fmt.Sprintf("%d%s", qos, filter))
	}
	slices.Sort(have)
	if len(missing.filters)+len(missing.plain) > 0 {
		slices.Sort(missing.filters)
		slices.Sort(missing.plain)
		return have, &missing
	}
	return have, nil
}

// ask subscribes and returns the filters that were refused.
func (l *link) ask(ctx context.Context, filters map[string]byte) (refused []string, err error) {
	if len(filters) == 0 {
		return nil, nil
	}
	token := l.paho.SubscribeMultiple(filters, nil).(*paho.SubscribeToken)
	if err := l.wait(ctx, token); err != nil {
		return nil, fmt.Errorf("subscribe: %w", err)
	}
	for filter, code := range token.Result() {
		if code > 2 {
			refused = append(refused, filter)
		}
	}
	return refused, nil
}

// loadRecord returns nil if there is no record that makes sense.
func loadRecord(o *ClientOptions) (*clientRecord, error) {
	t := o.Store.Begin()
	defer t.Discard()
	value, ok, err := t.Get(spaceSessions, recordKey(o))
	if err != nil || !ok {
		return nil, err
	}
	return decodeClientRecord(value), nil
}

func decodeClientRecord(value []byte) *clientRecord {
	var r clientRecord
	if json.Unmarshal(value, &r) != nil || r.Version != sessionVersion || len(r.Epoch) != len(epoch{}) {
		return nil
	}
	for _, f := range r.Filters {
		if f == "" || strings.Trim(f[:1], "012") != "" {
			return nil
		}
	}
	return &r
}

func saveRecord(ctx context.Context, o *ClientOptions, r *clientRecord) error {
	value, err := json.Marshal(r)
	if err == nil {
		err = o.Store.Do(ctx, func(_ context.Context, t *store.Turn) error { return t.Put(spaceSessions, recordKey(o), value) })
	}
	if err != nil {
		return fmt.Errorf("save the session with the MQTT broker: %w", err)
	}
	return nil
}
