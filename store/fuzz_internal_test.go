package store

import (
	"bytes"
	"testing"
	"time"
)

// What is decoded from the file may be anything that has the right checksum: an
// older program wrote it, or a bit flipped before it was sealed. None of it may
// panic, and what is taken comes back the same when it is written again.

func sealed(key, body []byte) []byte { return seal(key, body) }

func FuzzDecodeFrame(f *testing.F) {
	key := seqKey(1, 1)
	m := Message{Subject: "a.b", Header: []byte("h"), Data: []byte("data"), Time: time.Unix(1, 2), Trust: TimeSynced, TTL: time.Hour}
	for _, fr := range []frame{{}, {Message: m, stored: 5, published: 5}, {Message: m, stored: 5, published: 3, given: true}} {
		f.Add(fr.encode(key)[sealLen:])
	}
	f.Add([]byte("\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00sdata")) // version 1
	f.Add([]byte{frameVersion})
	f.Fuzz(func(t *testing.T, body []byte) {
		fr, err := decodeFrame(key, sealed(key, body))
		if err != nil {
			return
		}
		if fr.size() != int64(len(fr.Subject)+len(fr.Header)+len(fr.Data)+messageOverhead) {
			t.Fatalf("size %d", fr.size())
		}
		fr.message(newTimeline(), 7)
		again, err := decodeFrame(key, fr.encode(key))
		if err != nil || again.Subject != fr.Subject || !bytes.Equal(again.Header, fr.Header) || !bytes.Equal(again.Data, fr.Data) ||
			!again.Time.Equal(fr.Time) || again.Trust != fr.Trust || again.TTL != fr.TTL ||
			again.stored != fr.stored || again.published != fr.published || again.given != fr.given {
			t.Fatalf("read %+v, written and read again %+v, %v", fr, again, err)
		}
	})
}

func FuzzDecodeTimeline(f *testing.F) {
	f.Add(newTimeline().encode(timelineKey)[sealLen:])
	f.Add(newTimeline().anchored(5).opened(7).encode(timelineKey)[sealLen:])
	f.Fuzz(func(t *testing.T, body []byte) {
		l, err := decodeTimeline(timelineKey, sealed(timelineKey, body))
		if err != nil {
			return
		}
		for _, own := range []time.Duration{-1, 0, 1, l.now().start, l.now().start + 1} {
			l.stamp(own, time.Unix(0, 0))
			l.between(own, own+5)
		}
		l = l.opened(l.now().start + 1).anchored(9)
		if !bytes.Equal(l.encode(timelineKey), mustTimeline(t, l).encode(timelineKey)) {
			t.Fatal("written and read again, it is another")
		}
	})
}

func mustTimeline(t *testing.T, l *timeline) *timeline {
	l, err := decodeTimeline(timelineKey, l.encode(timelineKey))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func FuzzDecodeCounters(f *testing.F) {
	key := idKey(1)
	c := counters{first: 1, last: 2, msgs: 2, bytes: 100}
	f.Add(c.encode(key)[sealLen:])
	f.Add(c.encode(key)[sealLen : sealLen+48]) // with fewer reasons than today
	f.Fuzz(func(t *testing.T, body []byte) {
		c, err := decodeCounters(key, sealed(key, body))
		if err != nil {
			return
		}
		if again, err := decodeCounters(key, c.encode(key)); err != nil || again != c {
			t.Fatalf("read %+v, written and read again %+v, %v", c, again, err)
		}
	})
}

func FuzzDecodePosition(f *testing.F) {
	key := idKey(1)
	p := position{floor: 7}
	f.Add(p.encode(key)[sealLen:])
	_ = p.ack(9)
	p.tried(8, 3)
	f.Add(p.encode(key)[sealLen:])
	f.Fuzz(func(t *testing.T, body []byte) {
		p, err := decodePosition(key, sealed(key, body))
		if err != nil {
			return
		}
		_ = p.ack(p.floor + 2)
		p.ackUpTo(p.floor + 70)
		again, err := decodePosition(key, p.encode(key))
		if err != nil || again.floor != p.floor || len(again.attempts) != len(p.attempts) {
			t.Fatalf("read %+v, written and read again %+v, %v", p, again, err)
		}
	})
}

func FuzzRecords(f *testing.F) {
	key := []byte("k")
	f.Add([]byte(`{"id":1,"config":{"name":"a","max_bytes":1,"on_full":1,"max_age":5}}`))
	f.Add([]byte(`{"id":1,"stream":"a"}`))
	f.Add([]byte(`{"id":1,"stream":"a","seq":5,"time":"2026-01-01T00:00:00Z","data":"eA==","replay_to":"s"}`))
	f.Add([]byte(`{"id":-1,"time":5}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		v := sealed(key, body)
		var s streamRecord
		var sub subscriptionRecord
		var d DeadLetter
		_, _, _ = getJSON(key, v, &s), getJSON(key, v, &sub), getJSON(key, v, &d)
		if d.entry().size != d.size() {
			t.Fatal("size")
		}
	})
}

func FuzzDecodeVersion(f *testing.F) {
	f.Add([]byte{1})
	f.Add([]byte{9})
	f.Fuzz(func(t *testing.T, body []byte) {
		if v, err := decodeVersion(sealed(versionKey, body)); err == nil && (v < 1 || v > formatVersion) {
			t.Fatalf("version %d", v)
		}
	})
}

func FuzzDecodeParked(f *testing.F) {
	key := seqKey(1, 1)
	m := Message{Subject: "a.b", Header: []byte("h"), Data: []byte("data"), Time: time.Unix(1, 2), TTL: time.Hour, ID: "id"}
	for _, r := range []parkedRecord{{}, {absolute: true, due: 5, frame: frame{Message: m, stored: 5, published: 5}}} {
		f.Add(r.encode(key)[sealLen:])
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := decodeParked(key, sealed(key, body))
		if err != nil {
			return
		}
		if _, err := parseFrame(body); err == nil {
			t.Fatal("what is parked passes for a message of a stream")
		}
		again, err := decodeParked(key, r.encode(key))
		if err != nil || again.absolute != r.absolute || again.due != r.due || again.frame.ID != r.frame.ID || !bytes.Equal(again.frame.Data, r.frame.Data) {
			t.Fatalf("read %+v, written and read again %+v, %v", r, again, err)
		}
	})
}

func FuzzDecodeWatermark(f *testing.F) {
	key := producerKey(1, idHash{2})
	f.Add(watermark{5, 7}.encode(key)[sealLen:])
	f.Fuzz(func(t *testing.T, body []byte) {
		m, err := decodeWatermark(key, sealed(key, body))
		if err != nil {
			return
		}
		if again, err := decodeWatermark(key, m.encode(key)); err != nil || again != m {
			t.Fatalf("read %+v, written and read again %+v, %v", m, again, err)
		}
	})
}
