package mqtt

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/edged-io/edged/internal/topic"
	"github.com/edged-io/edged/store"
)

// taps brings what others publish on the box to MQTT subscribers. There is one tap for each distinct subject filter in use; where several match a
// message, the first of them in the order of their names brings it, so that it comes once and in order.
type taps struct {
	broker  Broker
	deliver func(*message)

	changing sync.Mutex // held while a tap is opened or closed, by who subscribes: guards open
	open     map[string]*tap
	filters  atomic.Pointer[[]string] // the keys of open, sorted
}

type tap struct {
	users int
	stop  func()
}

func newTaps(b Broker, deliver func(*message)) *taps {
	t := &taps{broker: b, deliver: deliver, open: make(map[string]*tap)}
	t.filters.Store(new([]string))
	return t
}

// tapFilters returns the subject filters for a topic filter. There are none for topics that begin with "$": nobody on the box publishes those
// for MQTT clients.
func tapFilters(filter string) []string {
	_, filter = splitShare(filter)
	if strings.HasPrefix(filter, "$") {
		return nil
	}
	filters, err := topic.Filters(filter)
	if err != nil {
		return nil // validFilter is stricter
	}
	return filters
}

// add begins to listen for a topic filter. Each add is undone by one remove.
func (t *taps) add(filter string) error {
	t.changing.Lock()
	defer t.changing.Unlock()
	defer t.publishFilters()
	added := tapFilters(filter)
	for i, f := range added {
		o := t.open[f]
		if o == nil {
			stop, err := t.broker.Tap(f, func(m store.Message) { t.bring(f, m) })
			if err != nil {
				for _, f := range added[:i] {
					t.drop(f)
				}
				return err
			}
			o = &tap{stop: stop}
			t.open[f] = o
		}
		o.users++
	}
	return nil
}

func (t *taps) remove(filter string) {
	t.changing.Lock()
	defer t.changing.Unlock()
	for _, f := range tapFilters(filter) {
		t.drop(f)
	}
	t.publishFilters()
}

func (t *taps) drop(f string) {
	o := t.open[f]
	if o == nil {
		return
	}
	if o.users--; o.users == 0 {
		o.stop()
		delete(t.open, f)
	}
}

func (t *taps) publishFilters() {
	filters := make([]string, 0, len(t.open))
	for f := range t.open {
		filters = append(filters, f)
	}
	slices.Sort(filters)
	t.filters.Store(&filters)
}

func (t *taps) close() {
	t.changing.Lock()
	defer t.changing.Unlock()
	for f, o := range t.open {
		o.stop()
		delete(t.open, f)
	}
	t.publishFilters()
}

// bring delivers what came through the tap of filter, unless another tap is to do it.
func (t *taps) bring(filter string, m store.Message) {
	if strings.HasPrefix(m.Subject, "$") || strings.HasPrefix(m.Subject, "_INBOX.") {
		return
	}
	for _, f := range *t.filters.Load() {
		if f == filter {
			break
		}
		if topic.Match(f, m.Subject) {
			return
		}
	}
	if msg, ok := fromNATS(m, time.Now()); ok {
		t.deliver(msg)
	}
}
