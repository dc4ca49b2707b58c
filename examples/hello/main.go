// Hello greets whoever asks for a path.
package main

import "github.com/edged-io/edged/sdk/go/actor"

func init() { actor.OnHTTP(hello) }

func main() {}

func hello(r actor.Request) (actor.Response, error) {
	return actor.Response{Body: []byte("Hello, " + r.Path[1:] + "!\n")}, nil
}
