package main

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/edged-io/edged/sdk/go/actor"
	"github.com/edged-io/edged/sdk/go/msgpack"
)

// A box with state, and a list of everything else that it was asked for.
type box struct {
	state map[string]string
	asked []string
}

func (b *box) serve(_, target, operation string, payload []byte) ([]byte, error) {
	d := msgpack.NewDecoder(payload)
	switch operation {
	case "KeyValue.Get":
		v, ok := b.state[d.Str()]
		out := msgpack.AppendMapHeader(nil, 2)
		out = msgpack.AppendString(msgpack.AppendString(out, "value"), v)
		return msgpack.AppendBool(msgpack.AppendString(out, "exists"), ok), d.Done()
	case "KeyValue.Set":
		fields := map[string]string{}
		for range d.Map() {
			if key := d.Str(); d.Kind() == msgpack.Str {
				fields[key] = d.Str()
			} else {
				d.Skip()
			}
		}
		b.state[fields["key"]] = fields["value"]
		return nil, d.Done()
	case "PubSub.Publish", "Gpio.Set":
		b.asked = append(b.asked, target+" "+string(payload))
		return nil, nil
	}
	return nil, errors.New("unexpected " + operation)
}

func deliver(t *testing.T, topic, id, data string) string {
	t.Helper()
	answer, err := actor.Deliver("", actor.Event{ID: id, Source: "sensor", Type: "reading", Data: []byte(data), Extensions: map[string]string{"topic": topic}})
	if err != nil {
		t.Fatalf("%s: %v", id, err)
	}
	return string(answer)
}

func TestThermostat(t *testing.T) {
	b := &box{state: map[string]string{}}
	before := actor.SetHost(b.serve)
	t.Cleanup(func() { actor.SetHost(before) })
	deliver(t, "greenhouse/3/temperature", "a", "21.5")
	deliver(t, "greenhouse.3.temperature", "b", `{"value": 20.25, "unit": "C"}`)
	deliver(t, "greenhouse/4/temperature", "c", "-3e0")
	if len(b.asked) != 0 {
		t.Errorf("asked for %q while it was cool", b.asked)
	}
	deliver(t, "greenhouse/3/temperature", "d", `{"value": 31}`)
	if b.state["mean:3"] != "3 72.75" || b.state["mean:4"] != "1 -3" {
		t.Errorf("state %q", b.state)
	}
	want := []string{
		"edged:pubsub \x82\xa5topic\xa8alarms/3\xa5event\x84\xa2id\xa8sensor/d\xa6source\xaathermostat\xa4type\xb0greenhouse.alarm\xa4data\xc4\x0d" + `{"value": 31}`,
		"edged:gpio \x83\xa4chip\xa4sim0\xa4line\x04\xa5level\xc3",
	}
	if !slices.Equal(b.asked, want) {
		t.Errorf("asked for %q, want %q", b.asked, want)
	}
}

func TestThermostat_rejectsWhatIsNoReading(t *testing.T) {
	b := &box{state: map[string]string{}}
	before := actor.SetHost(b.serve)
	t.Cleanup(func() { actor.SetHost(before) })
	for topic, data := range map[string]string{"greenhouse/3/temperature": `"warm"`, "greenhouse/3": "21", "": "21"} {
		if answer := deliver(t, topic, "x", data); !strings.Contains(answer, "reject") {
			t.Errorf("%s %s: got %q, want a rejection", topic, data, answer)
		}
	}
	if len(b.state) != 0 {
		t.Errorf("state %q", b.state)
	}
}
