package broker

import (
	"testing"
	"time"
)

func TestLaneView_Resume(t *testing.T) {
	hub := hubStream{created: time.Unix(1000, 0), first: 1, last: 500}
	other := hubStream{created: time.Unix(2000, 0), first: 1, last: 500}
	rec := laneRecord{Created: hub.created, HubSeq: 400, Seq: 90, Since: 5}
	former := func(id string) (formerEpoch, bool) {
		switch id {
		case "moved":
			return formerEpoch{ID: id, Ended: epochMoved, Bounds: bounds{"s": 95}}, true
		case "early":
			return formerEpoch{ID: id, Ended: epochMoved, Bounds: bounds{"s": 80}}, true
		case "diverged":
			return formerEpoch{ID: id, Ended: epochDiverged}, true
		}
		return formerEpoch{}, false
	}
	at := func(epoch string, seq, hubSeq uint64) *hubLast {
		return &hubLast{epoch: epoch, seq: seq, hubSeq: hubSeq}
	}
	for name, c := range map[string]struct {
		hub        hubStream
		rec        laneRecord
		at         *hubLast
		same, held bool
		want       verdict
	}{
		"as it was":                  {hub, rec, at("now", 90, 400), false, false, verdict{next: 91}},
		"a batch had arrived":        {hub, rec, at("now", 93, 403), true, true, verdict{next: 94, ackUpTo: 93}},
		"it is not held any more":    {hub, rec, at("now", 93, 403), false, false, verdict{next: 94, ackUpTo: 93}},
		"it is another message":      {hub, rec, at("now", 93, 403), false, true, verdict{next: 91, diverged: true, what: whatDiverged}},
		"beyond ours":                {hub, rec, at("now", 101, 420), false, false, verdict{next: 91, diverged: true, what: whatDiverged}},
		"the tail is lost":           {hub, rec, at("now", 80, 300), false, false, verdict{next: 81, lost: span{81, 90}, what: whatLost}},
		"nothing was ever sent":      {hub, laneRecord{}, nil, false, false, verdict{next: 41}},
		"first sent, answer lost":    {hub, laneRecord{}, at("now", 95, 3), true, true, verdict{next: 96, ackUpTo: 95}},
		"all is lost":                {hub, rec, nil, false, false, verdict{next: 41, lost: span{5, 90}, what: whatLost}},
		"the hub's limits took it":   {hubStream{created: hub.created, first: 401, last: 500}, rec, nil, false, false, verdict{next: 91}},
		"another hub, empty":         {other, rec, nil, false, false, verdict{next: 41, what: whatOther}},
		"another hub, a stranger":    {other, rec, at("who", 7, 7), false, false, verdict{next: 41, what: whatOther}},
		"another hub, our lane":      {other, rec, at("now", 90, 7), false, false, verdict{next: 91}},
		"another hub, less of it":    {other, rec, at("now", 70, 900), false, false, verdict{next: 71, what: whatOther}},
		"an earlier store":           {hub, laneRecord{}, at("who", 1000, 400), false, false, verdict{next: 41, what: whatEarlier}},
		"a stranger behind us":       {hub, rec, at("who", 7, 450), false, false, verdict{next: 91, what: whatForeign}},
		"a stranger before us":       {hub, rec, at("who", 7, 4), false, false, verdict{next: 41, lost: span{5, 90}, what: whatLost}},
		"junk without a sequence":    {hub, rec, at("", 0, 450), false, false, verdict{next: 91, what: whatForeign}},
		"moved, as it was":           {hub, rec, at("moved", 90, 400), false, false, verdict{next: 91}},
		"moved, a batch had arrived": {hub, rec, at("moved", 94, 404), true, true, verdict{next: 95, ackUpTo: 94}},
		"moved, it went on there":    {hub, rec, at("moved", 300, 420), false, false, verdict{next: 96, ackUpTo: 95}},
		"moved, on there and here":   {hub, rec, at("moved", 98, 420), false, true, verdict{next: 96, ackUpTo: 95}},
		"moved, not the same":        {hub, rec, at("moved", 94, 404), false, true, verdict{next: 91}},
		"moved, it came behind us":   {hub, rec, at("early", 300, 420), false, false, verdict{next: 91, what: whatForeign}},
		"diverged, beyond ours":      {hub, rec, at("diverged", 300, 400), false, false, verdict{next: 91}},
		"diverged, within ours":      {hub, rec, at("diverged", 95, 400), false, true, verdict{next: 91}},
		"diverged, but the same":     {hub, rec, at("diverged", 95, 400), true, true, verdict{next: 96, ackUpTo: 95}},
	} {
		v := laneView{
			rec: c.rec, epoch: "now", former: former, stream: "s", first: 41, last: 100, floor: 90,
			hub: c.hub, hubHas: c.at != nil, same: c.same, held: c.held,
		}
		if c.at != nil {
			v.hubAt = *c.at
		}
		if got := v.resume(); got != c.want {
			t.Errorf("%s:\n got %+v\nwant %+v", name, got, c.want)
		}
	}
}
