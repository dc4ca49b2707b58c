// Broken traps when it starts.
package main

import "github.com/edged-io/edged/sdk/go/actor"

func init() {
	actor.OnMessage(func(actor.Event) error { return nil })
	panic("broken by design")
}

func main() {}
