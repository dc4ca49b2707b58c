package demo

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// Comparison is what is different between the messages of one sensor that had
// to reach the hub and those that the hub holds.
type Comparison struct {
	Sensor     string `json:"sensor"`
	Due        int    `json:"due"`
	Held       int    `json:"held"`
	Missing    int    `json:"missing"`
	Repeated   int    `json:"repeated"`     // held again
	OutOfOrder int    `json:"out_of_order"` // held behind one that was sent later
	Unknown    int    `json:"unknown"`      // held, and never sent
}

// Same says whether there is no difference.
func (c Comparison) Same() bool {
	return c.Missing == 0 && c.Repeated == 0 && c.OutOfOrder == 0 && c.Unknown == 0
}

func (c *Comparison) add(d Comparison) {
	c.Sensor = d.Sensor
	c.Due += d.Due
	c.Held += d.Held
	c.Missing += d.Missing
	c.Repeated += d.Repeated
	c.OutOfOrder += d.OutOfOrder
	c.Unknown += d.Unknown
}

// compare compares ids, both in order. The first due of sent must be held. The
// rest may be: it was sent, and nobody knows whether it arrived.
func compare(sensor string, sent []string, due int, held []string) Comparison {
	c := Comparison{Sensor: sensor, Due: due, Held: len(held)}
	place := make(map[string]int, len(sent))
	for i, id := range sent {
		place[id] = i
	}
	seen := make([]bool, len(sent))
	latest := -1
	for _, id := range held {
		i, known := place[id]
		switch {
		case !known:
			c.Unknown++
			continue
		case seen[i]:
			c.Repeated++
			continue
		case i < latest:
			c.OutOfOrder++
		}
		seen[i] = true
		latest = max(latest, i)
	}
	for _, there := range seen[:due] {
		if !there {
			c.Missing++
		}
	}
	return c
}

// Print writes the comparison for people.
func (r Result) Print(w io.Writer) {
	if r.Rounds == 0 {
		return
	}
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "sensor\tacknowledged\tat the hub\tmissing\trepeated\tout of order\tunknown\t")
	row := func(c Comparison) {
		fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t\n", c.Sensor, c.Due, c.Held, c.Missing, c.Repeated, c.OutOfOrder, c.Unknown)
	}
	var readings, alarms Comparison
	for _, c := range r.Readings {
		row(c)
		readings.add(c)
	}
	for _, c := range r.Alarms {
		alarms.add(c)
	}
	readings.Sensor, alarms.Sensor = "all", "alarms"
	row(readings)
	row(alarms)
	_ = t.Flush() // w is the terminal

	verdict := "SAME: the hub holds every acknowledged reading and every alarm once, in order."
	if !r.Same {
		verdict = "DIFFERENT: the hub does not hold what was acknowledged, once and in order."
	}
	fmt.Fprintf(w, "\n%s\n%s of the box, %s of the link, up to %s waiting on its disk.\n",
		verdict, count(r.Kills, "kill"), count(r.Cuts, "cut"), count(int(r.Peak), "message"))
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
