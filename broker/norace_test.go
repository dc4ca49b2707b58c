//go:build !race

package broker_test

const raced = false // the race detector is on
