package powercut

import (
	"encoding/gob"
	"fmt"
	"io"
)

// Kind is what a call does to the folder.
type Kind uint8

// The kinds of calls. Files and folders are known by number, in the order in
// which they appeared; 0 is the folder of the store.
const (
	Write    Kind = iota // Data at Off of File
	Truncate             // File has Size bytes
	Create               // File, empty, is Name in Dir
	Mkdir                // folder File is Name in Dir
	Rename               // Name in Dir becomes To in ToDir
	Link                 // File is To in ToDir, too
	Unlink               // Name in Dir is gone; so is a folder
	Sync                 // what was done to File, or to the names in it, is on the disk
	Mark                 // the workload says Data
)

var kindNames = [...]string{"write", "truncate", "create", "mkdir", "rename", "link", "unlink", "sync", "mark"}

func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("kind %d", k)
}

// Op is one call.
type Op struct {
	Kind       Kind
	File       int
	Off, Size  int64
	Data       []byte
	Dir, ToDir int
	Name, To   string
}

func (o Op) String() string {
	switch o.Kind {
	case Write:
		return fmt.Sprintf("write file %d, %d bytes at %d (page %d)", o.File, len(o.Data), o.Off, o.Off/pageSize)
	case Truncate:
		return fmt.Sprintf("truncate file %d to %d bytes", o.File, o.Size)
	case Sync:
		return fmt.Sprintf("sync %d", o.File)
	case Mark:
		return fmt.Sprintf("mark %s", o.Data)
	case Rename, Link:
		return fmt.Sprintf("%s %d/%s to %d/%s", o.Kind, o.Dir, o.Name, o.ToDir, o.To)
	}
	return fmt.Sprintf("%s %d/%s, number %d", o.Kind, o.Dir, o.Name, o.File)
}

// Moment is the beginning or the end of an op. A sync counts when it has ended;
// anything else may reach the disk as soon as it has begun.
type Moment struct {
	Op  int
	End bool
}

// Record is what a run asked of the disk, in order. Calls of several threads
// overlap.
type Record struct {
	Ops     []Op
	Moments []Moment
}

// Syncs returns how many syncs came to their end.
func (r *Record) Syncs() (n int) {
	for _, m := range r.Moments {
		if m.End && r.Ops[m.Op].Kind == Sync {
			n++
		}
	}
	return n
}

// Save writes the record to w, for Load.
func (r *Record) Save(w io.Writer) error { return gob.NewEncoder(w).Encode(r) }

// Load reads what Save wrote.
func Load(from io.Reader) (*Record, error) {
	var r Record
	if err := gob.NewDecoder(from).Decode(&r); err != nil {
		return nil, fmt.Errorf("record: %w", err)
	}
	for _, m := range r.Moments {
		if m.Op < 0 || m.Op >= len(r.Ops) {
			return nil, fmt.Errorf("record: a moment of call %d, of %d", m.Op, len(r.Ops))
		}
	}
	return &r, nil
}

// around describes the moments before and after cut.
func (r *Record) around(cut, n int) (lines []string) {
	for i := max(0, cut-n); i < min(len(r.Moments), cut+n); i++ {
		m := r.Moments[i]
		where, what := "  ", "begin"
		if i == cut {
			lines = append(lines, "-- the power is cut here --")
		}
		if m.End {
			what = "end  "
		}
		if r.Ops[m.Op].Kind == Mark {
			what = "     "
		}
		lines = append(lines, fmt.Sprintf("%s%6d %s %s", where, i, what, r.Ops[m.Op]))
	}
	return lines
}
