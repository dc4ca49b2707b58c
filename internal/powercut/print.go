package powercut

import (
	"fmt"
	"io"
	"time"
)

// Line is how far a run is, in one line.
func (r Result) Line() string {
	s := fmt.Sprintf("%d of %d states", r.States, r.Wanted)
	if r.States > 0 && r.Took > 0 {
		rate := float64(r.States) / r.Took
		left := time.Duration(float64(r.Wanted-r.States) / rate * float64(time.Second))
		s += fmt.Sprintf(", %.0f a second, %v left", rate, left.Round(time.Second))
	}
	return s
}

// Print writes what was done and found, for people.
func (r Result) Print(w io.Writer) {
	fmt.Fprintf(w, "%d states of %d moments were checked in %v: %d runs of the store, %d acts, %d syncs, seed %d.\n",
		r.States, r.Cuts, time.Duration(r.Took*float64(time.Second)).Round(100*time.Millisecond), r.Runs, r.Acts, r.Syncs, r.Seed)
	if r.Finding != nil {
		r.Finding.Print(w)
	}
}

// Print writes all that is known of the finding.
func (f *Finding) Print(w io.Writer) {
	fmt.Fprintf(w, "FOUND: %s\n", f.Problem)
	fmt.Fprintf(w, "  run of seed %d, power cut before moment %d\n", f.Seed, f.Cut)
	if len(f.There) > 0 {
		fmt.Fprintln(w, "  of what was pending, this is on the disk:")
	}
	for _, l := range f.There {
		fmt.Fprintf(w, "    %s\n", l)
	}
	fmt.Fprintln(w, "  the calls around it:")
	for _, l := range f.Around {
		fmt.Fprintf(w, "  %.160s\n", l)
	}
	if f.Dir != "" {
		fmt.Fprintf(w, "  kept in %s: the folder in state/, and the record\n", f.Dir)
	}
}
