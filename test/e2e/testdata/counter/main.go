// Counter counts the readings of each sensor in its state, and notes there what
// comes again or out of order. Each tenth reading raises an alarm.
package main

import (
	"strconv"
	"strings"

	"github.com/edged-io/edged/sdk/go/actor"
)

// version is set by the linker, so that the modules of two versions differ.
var version = "1"

func init() {
	actor.OnMessage(handle)
	actor.OnMessageAs("Hold", func(actor.Event) error { return actor.Retry(24 * 3600e9) })
}

func main() {}

func handle(e actor.Event) error {
	level := e.Levels()
	switch {
	case level[0] == "sensors" && len(level) == 3:
		return reading(level[1], e)
	case level[0] == "cmd":
		return command(string(e.Data))
	case level[0] == "report":
		return report(e)
	}
	return actor.Reject("unexpected topic " + e.Topic())
}

// reading keeps "<count> <last> <odd>" of a sensor.
func reading(sensor string, e actor.Event) error {
	number, err := e.Number("n")
	if err != nil {
		return actor.Reject(err.Error())
	}
	n := int(number)
	old, _, err := actor.KV.Get("sensor:" + sensor)
	if err != nil {
		return err
	}
	field := strings.SplitN(old+"  ", " ", 3)
	count, _ := strconv.Atoi(field[0])
	last, _ := strconv.Atoi(field[1])
	odd := strings.TrimSpace(field[2])
	if n != last+1 && len(odd) < 200 {
		odd += "," + strconv.Itoa(n) + "after" + strconv.Itoa(last)
	}
	count++
	state := strconv.Itoa(count) + " " + strconv.Itoa(n) + " " + odd
	if err := actor.KV.Set("sensor:"+sensor, strings.TrimSpace(state)); err != nil || n%10 != 0 {
		return err
	}
	id := sensor + "/" + strconv.Itoa(n) + "/" + strconv.Itoa(count) // a reading counted twice is another alarm
	return actor.Publish("alarms/"+sensor, actor.Event{ID: id, Source: "counter", Type: "alarm", Data: []byte(id)})
}

func command(what string) error {
	all, _, err := actor.KV.Get("commands")
	if err != nil {
		return err
	}
	return actor.KV.Set("commands", strings.TrimSpace(all+" "+what))
}

// report publishes the values of the keys that it is asked for, a line each.
func report(e actor.Event) error {
	text := e.ID
	for _, key := range strings.Fields(string(e.Data)) {
		value, _, err := actor.KV.Get(key)
		if err != nil {
			return err
		}
		text += "\n" + key + "=" + value
	}
	text += "\nversion=" + version
	return actor.Publish("reports", actor.Event{ID: e.ID, Source: "counter", Type: "report", Data: []byte(text)})
}
