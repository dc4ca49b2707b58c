//go:build race

package broker_test

const raced = true // the race detector is on
