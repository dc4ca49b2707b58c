// Package powercut shows what a power cut can do to the store, by trying it
// some ten thousand times.
//
// A workload uses a store in a folder of a real disk, in a process of its own,
// while a tracer writes down what that process asks of the disk: the record.
// From the record follow the states in which a power cut could have left the
// folder: at each moment, what was synced is there, and of what was written
// since, any part may be. Each state is laid out in a scratch folder, the store
// is opened there, and what it holds is compared with what the workload had
// been told until that moment.
//
// The nouns: an act is something the workload did to the store, with an
// invariant; a mark in the record says when it began and when it was told to
// be done; a record is the calls of a run, in order; a cut is a moment of the
// record; a state is a folder that a cut may leave; a finding is a state that
// breaks a promise.
//
// What it proves is that the store asks the kernel for the right things in the
// right order. It believes that the kernel and the disk then do them: that what
// was synced is there, that a sector of 512 bytes is old or new, and that names
// in a folder change in order. A disk that lies about its cache is not found.
//
// The tracer is ptrace(2), for Linux 5.3 and later on amd64, arm64 and arm.
package powercut
