//go:build !race

package e2e

// raced says that the race detector watches; then it watches the box too.
const raced = false
