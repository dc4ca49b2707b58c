// Collector sums up what has come in whenever it is asked: it pulls the readings
// that wait, and publishes how many there were and their mean.
package main

import (
	"strconv"

	"github.com/edged-io/edged/sdk/go/actor"
)

func init() { actor.OnMessage(collect) }

func main() {}

// most is how many readings one summary is made of; what is left comes into the
// next one.
const most = 1000

func collect(asked actor.Event) error {
	readings, err := actor.Stream("greenhouse/+/humidity") // as app.toml has it
	if err != nil {
		return err
	}
	defer readings.Close()
	count, unread, sum := 0, 0, 0.0
	for count+unread < most {
		events, err := readings.Next(most-count-unread, 0)
		if err != nil {
			return err
		}
		if len(events) == 0 {
			break
		}
		for _, e := range events {
			humidity, err := e.Number("value")
			if err != nil {
				unread++
				continue
			}
			count++
			sum += humidity
		}
	}
	if count+unread == 0 {
		return nil
	}
	mean := 0.0
	if count > 0 {
		mean = sum / float64(count)
	}
	// The readings are acknowledged with this summary, or come again with the next
	// attempt, which has the same id.
	return actor.Publish("summaries/humidity", actor.Event{
		ID: asked.Source + "/" + asked.ID, Source: "collector", Type: "greenhouse.summary", DataContentType: "application/json",
		Data: []byte(`{"count":` + strconv.Itoa(count) + `,"unread":` + strconv.Itoa(unread) + `,"mean":` + strconv.FormatFloat(mean, 'g', 4, 64) + `}`),
	})
}
