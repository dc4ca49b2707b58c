package ota

// OnReach has fn called at each named point of an update. It is to be called before
// Run.
func (a *Agent) OnReach(fn func(point string)) { a.reached = fn }
