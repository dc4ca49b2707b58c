// Guest does what the tests of the runtime want an actor to do. They build it
// with GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared.
package main

import (
	"bytes"
	"errors"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/edged-io/edged/sdk/go/actor"
)

var (
	calls int
	kept  [][]byte
)

func init() {
	actor.Handle("Test.Echo", func(p []byte) ([]byte, error) { return p, nil })
	actor.Handle("Test.Fail", func(p []byte) ([]byte, error) { return nil, errors.New(string(p)) })
	actor.Handle("Test.Count", func([]byte) ([]byte, error) {
		calls++
		return strconv.AppendInt(nil, int64(calls), 10), nil
	})
	actor.Handle("Test.Call", call)
	actor.Handle("Test.CallTwice", func(p []byte) ([]byte, error) {
		if _, err := call(p); err == nil {
			return nil, errors.New("the first call did not fail")
		}
		return []byte("survived"), nil
	})
	actor.Handle("Test.Panic", func(p []byte) ([]byte, error) { panic(string(p)) })
	actor.Handle("Test.Loop", func([]byte) ([]byte, error) {
		for {
			calls++
		}
	})
	actor.Handle("Test.Sleep", func(p []byte) ([]byte, error) {
		d, err := time.ParseDuration(string(p))
		time.Sleep(d)
		return nil, err
	})
	actor.Handle("Test.Grow", func(p []byte) ([]byte, error) {
		n, err := strconv.Atoi(string(p))
		kept = append(kept, bytes.Repeat([]byte{1}, n))
		return nil, err
	})
	actor.Handle("Test.Exit", func([]byte) ([]byte, error) { os.Exit(3); return nil, nil })
	actor.Handle("Test.Print", func(p []byte) ([]byte, error) { _, err := os.Stdout.Write(p); return nil, err })
	actor.Handle("Test.Environment", func([]byte) ([]byte, error) {
		_, err := os.ReadDir("/")
		if err == nil {
			return nil, errors.New("there is a file system")
		}
		return []byte(strings.Join(os.Args, " ") + "|" + strings.Join(os.Environ(), " ")), nil
	})
	actor.Handle("Test.Goroutines", func(p []byte) ([]byte, error) {
		c := make(chan []byte)
		go func() { c <- p }()
		return <-c, nil
	})
	actor.OnMessage(func(e actor.Event) error {
		if e.Type == "publish" {
			return actor.Publish("out/"+e.ID, e)
		}
		actor.Log.Info("got", e.ID)
		return nil
	})
}

// call makes the host call "link target operation payload".
func call(p []byte) ([]byte, error) {
	parts := bytes.SplitN(p, []byte(" "), 4)
	return actor.CallLink(string(parts[0]), string(parts[1]), string(parts[2]), parts[3])
}

func main() {}
