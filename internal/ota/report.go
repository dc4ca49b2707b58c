package ota

// State is how far an update has come.
type State string

// The states of an update. Each is on the box's disk before the step that it
// announces.
const (
	Idle        State = "idle"        // nothing was ever desired
	Fetching    State = "fetching"    // files are on their way
	StagedWhole State = "staged"      // the release is whole on disk; next come its checks
	Trial       State = "trial"       // the release is being started; the old one is kept
	Committed   State = "committed"   // the release is what the box runs, also after a boot
	RolledBack  State = "rolled-back" // the release was refused or failed; the old one runs
)

// Reported is what a box says about its update: the value of its key in the bucket
// EDGE_REPORTED. State, Version, Digest and Error are about the release that is
// desired; what runs in the meantime, or after it was rolled back, is Running.
type Reported struct {
	App     string   `json:"app"`
	State   State    `json:"state"`
	Version string   `json:"version"`
	Digest  string   `json:"digest"`            // of the manifest
	Error   string   `json:"error"`             // why it was rolled back, or what the box tries again
	Release string   `json:"release"`           // as of Desired.Release
	Desired string   `json:"desired"`           // digest of the whole desired state that this answers
	Refused bool     `json:"refused,omitempty"` // rolled back because of its signature
	Running *Running `json:"running,omitempty"`
}

// Running is the release of the same app that the box runs; it is nil if there is none.
type Running struct {
	Version string `json:"version"`
	Digest  string `json:"digest"` // of the manifest
	Release string `json:"release"`
}

// Settled says that the box is done with what it answers.
func (r Reported) Settled() bool { return r.State == Committed || r.State == RolledBack }

// Status is the desired and the reported state of a box. Either may be missing.
type Status struct {
	Desired  *Desired
	Reported *Reported
}
