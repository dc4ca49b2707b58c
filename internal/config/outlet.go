package config

// Outlet takes what an actor publishes to a broker elsewhere. Whoever publishes for an actor puts a message whose subject matches one of the
// filters of one of its outlets into the stream of that outlet, in the actor's turn, and nowhere else; everything else goes to the box's own streams. No
// two outlets of an actor and link name match the same subject.
type Outlet struct {
	// Stream is the outbox, <app>-<capability>-<n>-out. It holds no subjects of its own: messages are put there by its name, and wait until the
	// broker has them.
	Stream  string
	Actor   string
	Link    string   // link name
	Filters []string // subject filters
}
