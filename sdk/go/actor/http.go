package actor

import (
	"errors"

	"github.com/edged-io/edged/sdk/go/msgpack"
)

// A Request is an HTTP request that the box received for the actor.
type Request struct {
	Method string // in upper case
	Path   string // begins with "/"
	Query  string // without "?"
	Header map[string][]string
	Body   []byte
}

// A Response answers a Request. Status 0 means 200.
type Response struct {
	Status int
	Header map[string][]string
	Body   []byte
}

// handleRequest is the operation of wasmcloud:httpserver.
const handleRequest = "HttpServer.HandleRequest"

// OnHTTP registers the handler of HTTP requests (wasmcloud:httpserver). What it
// returns is sent when the turn is committed; an error is answered with status
// 500.
func OnHTTP(h func(Request) (Response, error)) {
	Handle(handleRequest, func(payload []byte) ([]byte, error) {
		request, err := decodeRequest(payload)
		if err != nil {
			return nil, err
		}
		response, err := h(request)
		if err != nil {
			return nil, err
		}
		return appendResponse(nil, response), nil
	})
}

func decodeRequest(payload []byte) (r Request, err error) {
	d := msgpack.NewDecoder(payload)
	for range d.Map() {
		switch string(d.Key()) {
		case "method":
			r.Method = d.Str()
		case "path":
			r.Path = d.Str()
		case "queryString":
			r.Query = d.Str()
		case "header":
			r.Header = decodeHeader(d)
		case "body":
			r.Body = d.Bin()
		default:
			d.Skip()
		}
	}
	if err := d.Done(); err != nil {
		return Request{}, errors.New("request: " + err.Error())
	}
	return r, nil
}

func decodeHeader(d *msgpack.Decoder) map[string][]string {
	h := map[string][]string{}
	for range d.Map() {
		key := d.Str()
		for range d.Array() {
			h[key] = append(h[key], d.Str())
		}
	}
	return h
}

func appendResponse(b []byte, r Response) []byte {
	if r.Status == 0 {
		r.Status = 200
	}
	b = msgpack.AppendMapHeader(b, 3)
	b = msgpack.AppendInt(msgpack.AppendString(b, "statusCode"), int64(r.Status))
	b = appendHeader(msgpack.AppendString(b, "header"), r.Header)
	return msgpack.AppendBin(msgpack.AppendString(b, "body"), r.Body)
}

func appendHeader(b []byte, h map[string][]string) []byte {
	b = msgpack.AppendMapHeader(b, len(h))
	for key, values := range h {
		b = msgpack.AppendArrayHeader(msgpack.AppendString(b, key), len(values))
		for _, v := range values {
			b = msgpack.AppendString(b, v)
		}
	}
	return b
}

func decodeResponse(payload []byte) (r Response, err error) {
	d := msgpack.NewDecoder(payload)
	for range d.Map() {
		switch string(d.Key()) {
		case "statusCode":
			r.Status = int(d.IntIn(0, 65535))
		case "header":
			r.Header = decodeHeader(d)
		case "body":
			r.Body = d.Bin()
		default:
			d.Skip()
		}
	}
	if err := d.Done(); err != nil {
		return Response{}, errors.New("response: " + err.Error())
	}
	return r, nil
}
