package broker

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// synthetic returns an entry that costs nothing to make.
func synthetic(seq uint64) (e entry) {
	e.seq = seq
	x := (seq + 0x9e3779b97f4a7c15) * 0xbf58476d1ce4e5b9
	binary.LittleEndian.PutUint64(e.hash[:], x^x>>29)
	binary.LittleEndian.PutUint64(e.hash[16:], x)
	return e
}

func heapBytes() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func TestLaneDigest_Add_tenMillion(t *testing.T) {
	d := newDigest(time.Unix(1, 0), "e", 1)
	const n = 10_000_000
	most, early := 0, uint64(0)
	for seq := uint64(1); seq <= n; seq++ {
		d.add(synthetic(seq), seq)
		most = max(most, len(d.Ranges))
		if seq == n/100 {
			early = heapBytes()
		}
	}
	if late := heapBytes(); late > 2*early {
		t.Errorf("the heap has grown from %d to %d bytes", early, late)
	}
	if most > maxRanges+2 {
		t.Errorf("got %d ranges, want at most %d", most, maxRanges+2)
	}
	var sum DigestRange
	for i, r := range d.Ranges {
		if i > 0 && r.From != d.Ranges[i-1].To+1 {
			t.Fatalf("range %d is from %d, the one before to %d", i, r.From, d.Ranges[i-1].To)
		}
		sum.join(r)
	}
	if sum.Count != n || d.to() != n {
		t.Errorf("the ranges have %d messages up to %d, want %d", sum.Count, d.to(), n)
	}
	if text, err := json.Marshal(d); err != nil || len(text) > 32<<10 {
		t.Errorf("it is %d bytes, %v", len(text), err)
	}
}

// TestLaneDigest_Random_agreesWithReader lets a digest go through gaps, losses and what
// cannot be compared, and a reader must agree with it on all ranges that it claims.
func TestLaneDigest_Random_agreesWithReader(t *testing.T) {
	r := seed(t)
	for range 50 {
		d := newDigest(time.Unix(1, 0), "e", 1)
		d.Size = 8
		held := make(map[uint64]bool) // what a hub would have
		seq := uint64(0)
		for range 3000 {
			switch n := r.IntN(400); {
			case n == 0:
				seq += uint64(r.IntN(30)) // a gap
			case n == 1 && seq > 0:
				to := seq + uint64(r.IntN(20)) // the hub has some of them
				for seq < to {
					if seq++; r.IntN(2) == 0 {
						held[seq] = true
					}
				}
				d.skip(seq, whyNotHeld)
			case n == 2 && seq > 20:
				to := seq - uint64(r.IntN(20)) // the hub loses what is behind
				for s := to + 1; s <= seq; s++ {
					delete(held, s)
				}
				d.cut(to, whyLost)
				seq = to
			default:
				seq++
				held[seq] = true
				d.add(synthetic(seq), seq)
			}
			if len(d.Ranges) > 2*maxRanges {
				t.Fatalf("got %d ranges", len(d.Ranges))
			}
		}
		if err := d.check(); err != nil {
			t.Fatal(err)
		}
		all := make([]uint64, 0, len(held))
		for s := range held {
			all = append(all, s)
		}
		slices.Sort(all)
		e := &epochCheck{known: d, got: make([]rangeCheck, len(d.Ranges))}
		for i, x := range d.Ranges {
			e.got[i].From, e.got[i].To = x.From, x.To
		}
		for _, s := range all {
			e.take(synthetic(s), s)
		}
		proven := 0
		for i := range d.Ranges {
			if d.Ranges[i].Why == "" {
				proven++
				if !d.Ranges[i].same(&e.got[i].DigestRange) {
					t.Fatalf("range %d:\nbox %+v\nhub %+v", i, d.Ranges[i], e.got[i].DigestRange)
				}
			}
		}
		if proven == 0 || e.otherN+e.beforeN > 0 {
			t.Errorf("%d ranges can be compared, %d messages are outside", proven, e.otherN+e.beforeN)
		}
	}
}

// TestVerifier_Take_constantMemory lets a verifier read a lane of 200,000 messages.
func TestVerifier_Take_constantMemory(t *testing.T) {
	const n = 200_000
	d := newDigest(time.Unix(1, 0).UTC(), "e", 1)
	x := newHasher()
	message := func(seq uint64) (nats.Header, []byte) {
		return nats.Header{headerEpoch: {"e"}, headerSeq: {fmt.Sprint(seq)}, headerTime: {"t"}, "Nats-Batch-Id": {"b"}}, binary.BigEndian.AppendUint64(nil, seq)
	}
	for seq := uint64(1); seq <= n; seq++ {
		h, body := message(seq)
		d.add(x.entry(seq, "s.x", h, body), seq+7)
	}
	up := &jetstream.StreamInfo{Created: d.Created}
	v := newVerifier("s", "edge.up.a.s.", up, DeviceDigest{Epoch: "e", Lanes: []LaneDigest{*d}})
	var early uint64
	for seq := uint64(1); seq <= n; seq++ {
		h, body := message(seq)
		v.take("edge.up.a.s.s.x", h, body, seq+7)
		if seq == n/100 {
			early = heapBytes()
		}
	}
	if late := heapBytes(); late > 2*early {
		t.Errorf("the heap has grown from %d to %d bytes", early, late)
	}
	if r := v.report(); r.Result != ResultSame || r.Proven != n || len(r.Unproven) != 0 {
		t.Errorf("got %+v", r)
	}
}

func FuzzParseDigest(f *testing.F) {
	d := newDigest(time.Unix(1, 0).UTC(), "e", 5)
	for seq := uint64(5); seq < 3000; seq++ {
		d.add(synthetic(seq), seq)
	}
	text, err := json.Marshal(DeviceDigest{Device: "a", Epoch: "e", Streams: []string{"s"}, Lanes: []LaneDigest{*d}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(`{"error":"no"}`))
	f.Add([]byte(`{"lanes":[{"epoch":"e","ranges":[{"from":1,"to":18446744073709551615}]}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		box, err := parseDigest(data)
		if err != nil {
			return
		}
		v := newVerifier("s", "edge.up.a.s.", &jetstream.StreamInfo{}, box)
		for _, seq := range []uint64{1, 7, 1 << 40, ^uint64(0)} {
			v.take("edge.up.a.s.x", nats.Header{headerEpoch: {box.Epoch}, headerSeq: {fmt.Sprint(seq)}}, data, seq)
		}
		v.report()
	})
}

func BenchmarkHasher_Entry(b *testing.B) {
	for _, size := range []int{128, 1024, 16 << 10} {
		b.Run(fmt.Sprintf("bytes=%d", size), func(b *testing.B) {
			x, body := newHasher(), bytes.Repeat([]byte("x"), size)
			h := nats.Header{headerEpoch: {"e"}, headerSeq: {"1234567"}, headerTime: {stampTime(time.Unix(1, 5))}, "Content-Type": {"application/json"}}
			d := newDigest(time.Unix(1, 0), "e", 1)
			b.ReportAllocs()
			b.SetBytes(int64(size))
			seq := uint64(0)
			for b.Loop() {
				seq++
				d.add(x.entry(seq, "sensors.s1.temperature", h, body), seq)
			}
		})
	}
}

// randomHeader is one that a publisher may send.
func randomHeader(r *rand.Rand) nats.Header {
	h := make(nats.Header)
	for range r.IntN(4) {
		name := []string{"A", "a", "Content-Type", "ce-id", "Nats-Msg-Id", "X-Äh"}[r.IntN(6)]
		h[name] = append(h[name], []string{"", " x ", "ä\tö", "1"}[r.IntN(4)])
	}
	return h
}
