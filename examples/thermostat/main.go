// Thermostat keeps the mean temperature of each sensor, and where it is too hot
// raises an alarm and closes the relay of the fan.
package main

import (
	"strconv"
	"strings"

	"github.com/edged-io/edged/sdk/go/actor"
)

func init() { actor.OnMessage(handle) }

func main() {}

func handle(e actor.Event) error {
	level := e.Levels() // greenhouse/<sensor>/temperature
	celsius, err := e.Number("value")
	if err != nil || len(level) != 3 {
		return actor.Reject("no temperature on " + e.Topic())
	}
	old, _, err := actor.KV.Get("mean:" + level[1]) // "<count> <sum>", or ""
	if err != nil {
		return err
	}
	first, second, _ := strings.Cut(old, " ")
	count, _ := strconv.Atoi(first)
	sum, _ := strconv.ParseFloat(second, 64)
	err = actor.KV.Set("mean:"+level[1], strconv.Itoa(count+1)+" "+strconv.FormatFloat(sum+celsius, 'g', -1, 64))
	if err != nil || celsius <= 30 {
		return err
	}
	alarm := actor.Event{ID: e.Source + "/" + e.ID, Source: "thermostat", Type: "greenhouse.alarm", Data: e.Data}
	if err := actor.Publish("alarms/"+level[1], alarm); err != nil {
		return err
	}
	return actor.GPIO("sim0").Set(4, true)
}
