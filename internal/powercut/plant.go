package powercut

// Plants are faults put in on purpose, to see that they are found. The first two
// are in the workload's use of the store, the others in what it asks of the
// disk: the second half of the record, or one place in it, is changed to what a
// store with that fault would have asked.
const (
	plantEarly = "told before the sync"
	plantSplit = "a turn in two transactions"

	plantNoData  = "no sync of the data before the root"
	plantOneData = "one such sync is missing"
	plantNoRoot  = "no sync of the root"
	plantOneRoot = "one sync of the root is missing"
	plantSwap    = "the root before the data"
	plantOneSwap = "one root before its data"
	plantNoDir   = "no sync of the folder"
)

// plant changes the record from the moment on that it returns. A root is a write
// of one of the file's first two pages.
func (r *Record) plant(what string) (*Record, int) {
	middle := len(r.Moments) / 2
	switch what {
	case plantNoData, plantOneData:
		return r.dropSyncs(middle, what == plantOneData, func(before *Op) bool { return before != nil && !before.isRoot() }), middle
	case plantNoRoot, plantOneRoot:
		return r.dropSyncs(middle, what == plantOneRoot, func(before *Op) bool { return before != nil && before.isRoot() }), middle
	case plantSwap, plantOneSwap:
		return r.swapRoots(middle, what == plantOneSwap), middle
	case plantNoDir:
		return r.dropSyncs(0, false, func(before *Op) bool { return before == nil }), 0
	}
	return r, 0
}

func (o *Op) isRoot() bool {
	return o.Kind == Write && o.Off < 2*pageSize && len(o.Data) <= pageSize
}

// dropSyncs leaves out syncs for which bad returns true, given the write of the
// same file that came before, if any.
func (r *Record) dropSyncs(from int, one bool, bad func(before *Op) bool) *Record {
	p := &Record{Ops: r.Ops}
	last := make(map[int]*Op)
	dropped := make(map[int]bool)
	store := none
	for i, m := range r.Moments {
		o := &r.Ops[m.Op]
		switch {
		case o.Kind == Rename && m.End:
			store = o.File
		case o.Kind == Write:
			last[o.File] = o
		case o.Kind == Sync && !m.End && i >= from && (o.File == store || last[o.File] == nil) && bad(last[o.File]) && !(one && len(dropped) > 0):
			dropped[m.Op] = true
		}
		if !dropped[m.Op] {
			p.Moments = append(p.Moments, m)
		}
	}
	return p
}

// swapRoots moves roots to before the data that they lead to.
func (r *Record) swapRoots(from int, one bool) *Record {
	p := &Record{Ops: r.Ops}
	first := make(map[int]int) // file → its first write since its last root, in p
	swapped := none            // the last op moved
	store := none
	for i, m := range r.Moments {
		o := &r.Ops[m.Op]
		if o.Kind == Rename && m.End {
			store = o.File // what is renamed is one that takes its place
		}
		at, data := first[o.File]
		move := o.File == store && o.Kind == Write && o.isRoot() && data && i >= from && (!one || swapped == none || swapped == m.Op)
		switch {
		case move:
			p.Moments = append(p.Moments, Moment{})
			copy(p.Moments[at+1:], p.Moments[at:])
			p.Moments[at], swapped = m, m.Op
			first[o.File] = at + 1
		default:
			if o.Kind == Write && !data && !o.isRoot() {
				first[o.File] = len(p.Moments)
			}
			p.Moments = append(p.Moments, m)
		}
		if o.Kind == Write && o.isRoot() && m.End {
			delete(first, o.File)
		}
	}
	return p
}
