package main

import "testing"

// A program without its pages goes on.
func TestDropStartPages(t *testing.T) {
	for range 2 {
		if err := dropStartPages(); err != nil {
			t.Fatal(err)
		}
	}
}
