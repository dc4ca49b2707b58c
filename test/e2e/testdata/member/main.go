// Member asks for what others in the lattice answer, and answers what others ask.
package main

import (
	"strings"

	"github.com/edged-io/edged/sdk/go/actor"
)

func init() {
	actor.Handle("Test.Echo", func(payload []byte) ([]byte, error) { return payload, nil })
	actor.OnHTTP(ask)
}

func main() {}

// ask has an actor or the provider of a link answer: /actor/KEY/TEXT or /link/NAME/TEXT.
func ask(r actor.Request) (actor.Response, error) {
	parts := strings.SplitN(r.Path, "/", 4)
	if len(parts) != 4 {
		return actor.Response{Status: 404}, nil
	}
	var answer []byte
	var err error
	if parts[1] == "actor" {
		answer, err = actor.Call(parts[2], "Test.Echo", []byte(parts[3]))
	} else {
		answer, err = actor.CallLink(parts[2], "test:echo", "Test.Echo", []byte(parts[3]))
	}
	if err != nil {
		return actor.Response{Status: 502, Body: []byte(err.Error())}, nil
	}
	return actor.Response{Body: answer}, nil
}
