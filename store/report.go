package store

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"
	"time"
)

// Report says what a store file holds and what of it can not be read. After a
// salvage, what could not be read is what was lost.
type Report struct {
	File string    `json:"file"`
	Time time.Time `json:"time"`
	// Bytes is the size of the file, Pages how many of 4 KiB are in use or were.
	Bytes int64 `json:"bytes"`
	Pages int64 `json:"pages"`
	// Damaged says whether there is anything in Findings.
	Damaged  bool     `json:"damaged"`
	Findings []string `json:"findings"` // a line each, the first hundred
	More     int      `json:"more_findings"`
	// Unreadable counts pages, or parts of one, that make no sense. Rootless is a
	// file whose trees can not be found.
	Unreadable int  `json:"unreadable_pages"`
	Rootless   bool `json:"no_root"`
	// Notes are no damage, but worth knowing.
	Notes []string `json:"notes"`

	Streams  []StreamReport `json:"streams"`   // by name
	Lost     []Loss         `json:"lost"`      // beside messages, the first fifty of a kind
	MoreLost map[string]int `json:"more_lost"` // by Loss.What
	// Outside counts messages and streams that were found in pages no tree leads
	// to, and Aside is where the damaged file is now; both are of a salvage.
	Outside int    `json:"found_outside"`
	Aside   string `json:"aside,omitempty"`
	// Quarantine is what was set aside before and nobody has removed yet.
	Quarantine []Aside `json:"quarantine"`
}

// StreamReport is what can be read of a stream.
type StreamReport struct {
	Name  string `json:"name"`
	First uint64 `json:"first"` // sequences; First is Last+1 when it holds none
	Last  uint64 `json:"last"`
	Msgs  int64  `json:"msgs"`
	Bytes int64  `json:"bytes"`
	// Lost is how many messages are missing, and Ranges which sequences, the
	// first hundred ranges.
	Lost       int64   `json:"lost"`
	Ranges     []Range `json:"ranges"`
	MoreRanges int     `json:"more_ranges"`
}

// Range is a range of sequences with both its ends.
type Range struct {
	First uint64 `json:"first"`
	Last  uint64 `json:"last"`
}

func (r Range) String() string { return fmt.Sprintf("%d-%d", r.First, r.Last) }

// Loss is something other than a message that can not be read: the value under
// First, or, with Range, an unknown number of values between First and Last. An
// end that is not known is "".
type Loss struct {
	What  string `json:"what"` // "state", "dead letter", "stream", "subscription", "position", "delayed message", "producer", "identity", "own time"
	First string `json:"first"`
	Last  string `json:"last,omitempty"`
	Range bool   `json:"range"`
}

func (l Loss) String() string { return l.What + " " + l.name() }

func (l Loss) name() string {
	if !l.Range {
		return l.First
	}
	from, to := l.First, l.Last
	if from == "" && to == "" {
		return "all there was"
	}
	if from == "" {
		from = "the first"
	}
	if to == "" {
		to = "the last"
	}
	return fmt.Sprintf("from %s to %s", from, to)
}

// Bounds of what a report lists, so that it stays one however much is damaged.
const (
	maxFindings = 100
	maxLost     = 50
	maxRanges   = 100
)

func newReport(file string) *Report {
	return &Report{
		File: file, Time: time.Now().UTC(), Findings: []string{}, Notes: []string{},
		Streams: []StreamReport{}, Lost: []Loss{}, Quarantine: []Aside{},
	}
}

func (r *Report) find(text string) {
	r.Damaged = true
	if len(r.Findings) == maxFindings {
		r.More++
		return
	}
	r.Findings = append(r.Findings, text)
}

// lose notes a loss. What can be found from messages again is none.
func (r *Report) lose(l Loss) {
	if l.What == lossNames[string(bucketCounters)] {
		return
	}
	n := 0
	for _, known := range r.Lost {
		if known == l {
			return
		}
		if known.What == l.What {
			n++
		}
	}
	if n < maxLost {
		r.Lost = append(r.Lost, l)
		return
	}
	if r.MoreLost == nil {
		r.MoreLost = make(map[string]int)
	}
	r.MoreLost[l.What]++
}

// LostLines names what is missing, a line for each stream and kind of thing.
func (r *Report) LostLines() []string {
	lines := []string{}
	for _, s := range r.Streams {
		if s.Lost > 0 || len(s.Ranges) > 0 {
			lines = append(lines, s.lostLine())
		}
	}
	for _, kind := range lossOrder {
		if line := r.lostOf(kind); line != "" {
			lines = append(lines, line)
		}
	}
	return lines
}

// lostOf names what is missing of a kind: the first few, and how many more.
func (r *Report) lostOf(kind string) string {
	var names []string
	n := r.MoreLost[kind]
	for _, l := range r.Lost {
		switch {
		case l.What != kind:
		case len(names) < 8:
			names = append(names, l.name())
		default:
			n++
		}
	}
	if len(names) == 0 {
		return ""
	}
	if n > 0 {
		names = append(names, fmt.Sprintf("and %d more", n))
	}
	return kind + ": " + strings.Join(names, ", ")
}

func (s *StreamReport) lostLine() string {
	line := fmt.Sprintf("stream %s: %d messages", s.Name, s.Lost)
	if s.Lost == 1 {
		line = fmt.Sprintf("stream %s: 1 message", s.Name)
	}
	return line + s.rangesText(": ")
}

func (s *StreamReport) rangesText(before string) string {
	if len(s.Ranges) == 0 {
		return ""
	}
	var text []string
	for _, r := range s.Ranges[:min(len(s.Ranges), 16)] {
		text = append(text, r.String())
	}
	if more := s.MoreRanges + len(s.Ranges) - len(text); more > 0 {
		text = append(text, fmt.Sprintf("and %d more ranges", more))
	}
	return before + strings.Join(text, " ")
}

// log tells the story of a salvage.
func (r *Report) log(log *slog.Logger) {
	log.Warn("damaged store set aside, what could be read was carried over",
		"file", r.Aside, "unreadable_pages", r.Unreadable, "no_root", r.Rootless, "found_outside", r.Outside, "findings", len(r.Findings)+r.More)
	for _, s := range r.Streams {
		if s.Lost > 0 || len(s.Ranges) > 0 {
			log.Error("stream lost messages", "stream", s.Name, "kept", s.Msgs,
				"first", s.First, "last", s.Last, "lost", s.Lost, "gaps", s.rangesText(""))
		}
	}
	for _, kind := range lossOrder {
		if line := r.lostOf(kind); line != "" {
			log.Error("store lost values", "what", line)
		}
	}
}

// QuarantineDir is the folder, beside the store, where damaged files go.
const QuarantineDir = "quarantine"

// asidePrefix is that of the names of stores there.
const asidePrefix = "store-"

// reportSuffix is that of what is known of a file in quarantine.
const reportSuffix = ".report.json"

// maxReport bounds a report in a file, which could be anything by now.
const maxReport = 1 << 20

// nameOf says which thing a key of a bucket is, as a person knows it.
func (a *audit) nameOf(bucket string, key []byte) string {
	if len(key) == 0 {
		return ""
	}
	switch bucket {
	case string(bucketState):
		if n := int(key[0]); n < len(key) {
			return fmt.Sprintf("%s/%s", plain(key[1:1+n]), plain(key[1+n:]))
		}
	case string(bucketDead):
		if len(key) == 8 {
			return fmt.Sprint(binary.BigEndian.Uint64(key))
		}
	case string(bucketMessages), string(bucketIDs), string(bucketDelayed):
		if id, seq, ok := splitSeqKey(key); ok {
			return fmt.Sprintf("%s %d", a.streamName(id), seq)
		}
	case string(bucketCounters):
		if len(key) == 4 {
			return a.streamName(binary.BigEndian.Uint32(key))
		}
	case string(bucketPositions):
		if len(key) == 4 {
			id := binary.BigEndian.Uint32(key)
			for name, s := range a.subs {
				if s.ID == id {
					return plain([]byte(name))
				}
			}
			return fmt.Sprintf("number %d", id)
		}
	default:
		return plain(key)
	}
	return fmt.Sprintf("%x", key)
}

// plain is text that can be printed; what a flipped bit made of a key may not.
func plain(b []byte) string {
	q := fmt.Sprintf("%q", b)
	return q[1 : len(q)-1]
}

func (a *audit) streamName(id uint32) string {
	if s := a.streams[id]; s != nil {
		return plain([]byte(s.name))
	}
	return fmt.Sprintf("number %d", id)
}

var lossNames = map[string]string{
	string(bucketState): "state", string(bucketDead): "dead letter", string(bucketStreams): "stream", string(bucketSubs): "subscription",
	string(bucketPositions): "position", string(bucketCounters): "counters", string(bucketIDs): "identity", string(bucketMeta): "own time",
	string(bucketDelayed): "delayed message", string(bucketProducers): "producer",
}

// lossOrder is by how much a loss matters.
var lossOrder = []string{"stream", "subscription", "position", "state", "delayed message", "dead letter", "producer", "identity", "own time"}

func lossName(bucket string) string {
	if name, ok := lossNames[bucket]; ok {
		return name
	}
	return bucket
}

// conclude tells what is known of the streams, by name.
func (a *audit) conclude() {
	a.r.Streams = []StreamReport{}
	for id, s := range a.streams {
		r := StreamReport{Name: s.name, First: s.first, Last: max(s.last, s.old.last), Msgs: s.msgs, Bytes: s.bytes, Ranges: []Range{}}
		if s.msgs == 0 {
			r.First = r.Last + 1
		}
		missing := a.missing(id, s)
		if s.counted {
			r.Lost = max(0, s.old.msgs-s.msgs)
		} else {
			for _, m := range missing {
				r.Lost += int64(m.Last - m.First + 1)
			}
		}
		if r.Lost > 0 { // else what is not there went by itself
			n := min(len(missing), maxRanges)
			r.Ranges = append(r.Ranges, missing[:n]...)
			r.MoreRanges = len(missing) - n + s.moreGaps
		}
		a.r.Streams = append(a.r.Streams, r)
	}
	slices.SortFunc(a.r.Streams, func(x, y StreamReport) int { return strings.Compare(x.Name, y.Name) })
}

// missing returns the sequences that a stream does not hold although, for all
// that is known, it should: the gaps that are where something can not be read.
func (a *audit) missing(id uint32, s *auditStream) (ranges []Range) {
	gaps := s.gaps
	if s.counted && s.old.msgs > 0 {
		if s.msgs == 0 {
			gaps = []Range{{s.old.first, s.old.last}}
		} else {
			if s.first > s.old.first {
				gaps = append([]Range{{s.old.first, s.first - 1}}, gaps...)
			}
			if s.last < s.old.last {
				gaps = append(gaps, Range{s.last + 1, s.old.last})
			}
		}
	}
	if len(a.gone) == 0 {
		return gaps
	}
	for _, g := range gaps {
		for _, k := range a.gone {
			first, last, any := k.of(id)
			if first, last = max(first, g.First), min(last, g.Last); !any || first > last {
				continue
			}
			if n := len(ranges); n > 0 && ranges[n-1].Last+1 >= first {
				ranges[n-1].Last = max(ranges[n-1].Last, last)
			} else {
				ranges = append(ranges, Range{first, last})
			}
		}
	}
	return ranges
}

// of returns which sequences of a stream the keys are, if any.
func (k keyRange) of(stream uint32) (first, last uint64, any bool) {
	low, high := seqKey(stream, 0), seqKey(stream, math.MaxUint64)
	if k.low != nil && bytes.Compare(k.low, high) > 0 || k.high != nil && bytes.Compare(k.high, low) <= 0 {
		return 0, 0, false
	}
	first, last = 0, math.MaxUint64
	if bytes.Compare(k.low, low) > 0 && len(k.low) >= 12 {
		first = binary.BigEndian.Uint64(k.low[4:])
	}
	if k.high != nil && bytes.Compare(k.high, high) <= 0 && len(k.high) >= 12 {
		last = binary.BigEndian.Uint64(k.high[4:])
		if len(k.high) == 12 { // that one is not in it
			last--
		}
	}
	return first, last, true
}
