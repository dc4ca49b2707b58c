package runtime

// Interpret has all hosts that are made from now on interpret their guests,
// until the function that it returns is called.
func Interpret() (restore func()) {
	before := interpreted
	interpreted = true
	return func() { interpreted = before }
}

// Interpreted says whether they do.
func Interpreted() bool { return interpreted }
