// Probe is an actor for tests: it notes what it gets, and does what it is told.
//
// Notes are lines in its state, under "seen". A message whose data begins with
// "!" is a command; what came of it is noted.
package main

import (
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/edged-io/edged/sdk/go/actor"
	"github.com/edged-io/edged/sdk/go/msgpack"
)

func init() {
	actor.OnMessage(func(e actor.Event) error { return take(string(e.Data)) })
	actor.OnMessageAs("Strict", func(e actor.Event) error {
		if strings.HasPrefix(string(e.Data), "bad") {
			return errors.New("that is bad")
		}
		return take(string(e.Data))
	})
	actor.OnHTTP(request)
	actor.Handle("Probe.Echo", func(payload []byte) ([]byte, error) { return payload, nil })
	actor.Handle("Probe.Note", func(payload []byte) ([]byte, error) { return nil, take(string(payload)) })
	actor.OnChunk(func(c actor.Chunk) (bool, error) {
		return false, note(c.Object + " " + strconv.Itoa(int(c.Offset)) + "+" + strconv.Itoa(len(c.Bytes)) + " " + strconv.FormatBool(c.Last))
	})
	actor.Handle("MessageSubscriber.HandleMessage", func(payload []byte) ([]byte, error) {
		subject, reply, body := decode(payload)
		if body == "echo" {
			return nil, send(reply, "", "echo of "+subject)
		}
		return nil, take(body)
	})
}

func main() {}

// ashes keeps the compiler from leaving out a loop.
var ashes int

// request counts requests for all paths but "/spin", and fails after that if it
// is told to.
func request(r actor.Request) (actor.Response, error) {
	if r.Path == "/spin" {
		for {
			ashes++
		}
	}
	if key, ok := strings.CutPrefix(r.Path, "/echo/"); ok {
		reply, err := actor.Call(key, "Probe.Echo", r.Body)
		return actor.Response{Body: reply}, err
	}
	if url, ok := strings.CutPrefix(r.Path, "/get/"); ok {
		reply, err := actor.HTTP.Do("GET", "http://"+url, nil, nil)
		return actor.Response{Body: reply.Body}, err
	}
	n, err := actor.KV.Increment("requests", 1)
	switch {
	case err != nil:
		return actor.Response{}, err
	case r.Path == "/fail":
		return actor.Response{}, errors.New("as it was told")
	case r.Path == "/trap":
		panic("as it was told")
	}
	return actor.Response{Body: []byte(strconv.Itoa(int(n)))}, nil
}

func take(data string) error {
	command, ok := strings.CutPrefix(data, "!")
	if !ok {
		return note(data)
	}
	words := strings.SplitN(command, " ", 3)
	for len(words) < 3 {
		words = append(words, "")
	}
	switch words[0] {
	case "publish":
		return noteError(actor.Publish(words[1], event(words[2])))
	case "storm": // that many messages in one turn
		n, _ := strconv.Atoi(words[2])
		for i := range n {
			if err := actor.Publish(words[1], event(strconv.Itoa(i))); err != nil {
				return err
			}
		}
		return nil
	case "burn": // that many rounds of a loop
		n, _ := strconv.Atoi(words[1])
		for i := range n {
			ashes += i & n
		}
		return nil
	case "delay":
		return noteError(actor.Publish(words[1], event(words[2]), actor.Delay(time.Hour)))
	case "key": // of the text, up to a colon
		key, _, _ := strings.Cut(words[2], ":")
		return noteError(actor.Publish(words[1], event(words[2]), actor.Key(key)))
	case "send":
		return noteError(send(words[1], "", words[2]))
	case "ask":
		answer, err := actor.Call("wasmcloud:messaging", "Messaging.Request", message(words[1], "", words[2], 10000))
		if err != nil {
			return noteError(err)
		}
		_, _, body := decode(answer)
		return note("answer: " + body)
	case "call": // a contract, without a payload
		_, err := actor.Call(words[1], words[2], nil)
		return errors.Join(noteError(err), note("called "+words[1]))
	case "need": // of an actor: an operation, and to fail with it
		if _, err := actor.Call(words[1], words[2], []byte{0x80}); err != nil {
			return err
		}
		return note("got it")
	case "need-or-retry":
		if _, err := actor.Call(words[1], words[2], []byte{0x80}); err != nil {
			return actor.Retry(0)
		}
		return note("got it")
	case "echo": // of an actor: its key
		reply, err := actor.Call(words[1], "Probe.Echo", []byte(words[2]))
		return errors.Join(noteError(err), note("echo: "+string(reply)))
	case "GET", "POST":
		r, err := actor.HTTP.Do(words[0], words[1], nil, []byte(words[2]))
		if err != nil {
			return noteError(err)
		}
		return note(strconv.Itoa(r.Status) + " " + string(r.Body))
	case "post-twice": // and fail the first time, which the server tells
		r, err := actor.HTTP.Post(words[1], "text/plain", []byte(words[2]))
		if err == nil && string(r.Body) == "again" {
			return errors.New("as it was told")
		}
		return errors.Join(noteError(err), note("posted"))
	case "put": // so many times a text, as an object
		n, text, _ := strings.Cut(words[2], " ")
		times, _ := strconv.Atoi(n)
		if err := actor.Blobs.CreateContainer("probe"); err != nil {
			return noteError(err)
		}
		return noteError(actor.Blobs.Put("probe", words[1], "text/plain", []byte(strings.Repeat(text, times))))
	case "put-and-fail":
		return errors.Join(actor.Blobs.CreateContainer("probe"), actor.Blobs.Put("probe", words[1], "", nil), errors.New("as it was told"))
	case "get":
		data, err := actor.Blobs.Get("probe", words[1])
		if err != nil {
			return noteError(err)
		}
		return note(strconv.Itoa(len(data)) + " " + string(data[:min(len(data), 10)]))
	case "have-sent":
		c, err := actor.Blobs.Send("probe", words[1])
		if err != nil {
			return noteError(err)
		}
		return note("first " + strconv.Itoa(len(c.Bytes)))
	case "receive":
		e, ok, err := actor.Receive(words[1], wait(words[2]))
		if err != nil || !ok {
			return errors.Join(noteError(err), note("nothing"))
		}
		return note("received " + string(e.Data))
	case "fail": // after it received
		_, _, err := actor.Receive(words[1], wait(words[2]))
		return errors.Join(errors.New("as it was told"), err)
	case "stream":
		s, err := actor.Stream(words[1])
		if err != nil {
			return noteError(err)
		}
		defer s.Close()
		n := 0
		for _, err := range s.All(0) {
			if err != nil {
				return noteError(err)
			}
			n++
		}
		return note("streamed " + strconv.Itoa(n))
	}
	return actor.Reject("no command: " + command)
}

func wait(ms string) time.Duration {
	n, _ := strconv.Atoi(ms)
	return time.Duration(n) * time.Millisecond
}

func event(text string) actor.Event {
	return actor.Event{ID: text, Source: "probe", Type: "test", Data: []byte(text)}
}

func note(line string) error {
	seen, _, err := actor.KV.Get("seen")
	if err != nil {
		return err
	}
	return actor.KV.Set("seen", seen+line+"\n")
}

func noteError(err error) error {
	if err == nil {
		return nil
	}
	return note("error: " + err.Error())
}

func send(subject, reply, body string) error {
	_, err := actor.Call("wasmcloud:messaging", "Messaging.Publish", message(subject, reply, body, 0))
	return err
}

func message(subject, reply, body string, ms int64) []byte {
	b := msgpack.AppendMapHeader(nil, 4)
	b = msgpack.AppendString(msgpack.AppendString(b, "subject"), subject)
	b = msgpack.AppendString(msgpack.AppendString(b, "replyTo"), reply)
	b = msgpack.AppendBin(msgpack.AppendString(b, "body"), []byte(body))
	return msgpack.AppendInt(msgpack.AppendString(b, "timeoutMs"), ms)
}

func decode(payload []byte) (subject, reply, body string) {
	d := msgpack.NewDecoder(payload)
	for range d.Map() {
		switch string(d.Key()) {
		case "subject":
			subject = d.Str()
		case "replyTo":
			reply = d.Str()
		case "body":
			body = string(d.Bin())
		default:
			d.Skip()
		}
	}
	return subject, reply, body
}
