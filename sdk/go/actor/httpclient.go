package actor

import "github.com/edged-io/edged/sdk/go/msgpack"

// HTTP asks servers on the network, by the actor's default link. The manifest says
// which URLs it may ask for; anything else is ErrNotPermitted.
var HTTP HTTPClient

// HTTPClient asks servers on the network (wasmcloud:httpclient).
type HTTPClient struct {
	Link string // "" for the default one
}

// Get asks for a URL.
func (c HTTPClient) Get(url string) (Response, error) { return c.Do("GET", url, nil, nil) }

// Post sends a body to a URL, at once: a call that fails afterwards does not undo it,
// and does it again when it is repeated. The box sends an Idempotency-Key that is the
// same then.
func (c HTTPClient) Post(url, contentType string, body []byte) (Response, error) {
	return c.Do("POST", url, map[string][]string{"Content-Type": {contentType}}, body)
}

// Do makes a request of any method. An answer of any status is an answer, and no
// error; the names in its header are in lower case.
func (c HTTPClient) Do(method, url string, header map[string][]string, body []byte) (Response, error) {
	link := c.Link
	if link == "" {
		link = "default"
	}
	b := msgpack.AppendMapHeader(nil, 4)
	b = msgpack.AppendString(msgpack.AppendString(b, "method"), method)
	b = msgpack.AppendString(msgpack.AppendString(b, "url"), url)
	b = appendHeader(msgpack.AppendString(b, "headers"), header)
	b = msgpack.AppendBin(msgpack.AppendString(b, "body"), body)
	answer, err := CallLink(link, "wasmcloud:httpclient", "HttpClient.Request", b)
	if err != nil {
		return Response{}, err
	}
	return decodeResponse(answer)
}
