package broker

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
)

// wire is a client of the embedded server, over a pipe in this process. It
// stands where a NATS client library would cost the form of headers, which must
// be kept as they came, and a goroutine switch for each message each way, which a
// single publisher feels.
//
// Messages come to the subscription's function in the reading goroutine, in
// order. What is sent is appended to a buffer and written by another goroutine, so
// that sending never blocks.
type wire struct {
	conn net.Conn
	in   *bufio.Reader
	max  int // of a payload with its header

	mu      sync.Mutex // guards the fields below; never held across I/O
	out     []byte
	dropped uint64
	subs    map[uint64]wireSub
	lastSID uint64
	pongs   []chan struct{} // who waits for which PONG, in order
	closed  bool
	kick    chan struct{} // capacity 1
}

type wireSub struct {
	filter string
	fn     func(wireMsg)
}

// wireMsg is a message from the server. Its bytes are the receiver's.
type wireMsg struct {
	subject, reply string
	header, data   []byte
}

const (
	wireReadBuffer = 64 << 10
	// wireMaxOut bounds what waits to be written; beyond it messages are
	// dropped and counted. It fills only when the server does not read.
	wireMaxOut = 32 << 20
)

var errWireClosed = errors.New("connection to the embedded server is closed")

// dialWire greets the server on conn. The client does not hear what it says
// itself (echo is off).
func dialWire(conn net.Conn, name string, maxPayload int) (*wire, error) {
	w := &wire{
		conn: conn, in: bufio.NewReaderSize(conn, wireReadBuffer), max: maxPayload,
		subs: make(map[uint64]wireSub), kick: make(chan struct{}, 1),
	}
	line, err := w.line()
	if err == nil && !bytes.HasPrefix(line, []byte("INFO ")) {
		err = fmt.Errorf("unexpected greeting %.40q", line)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	hello, err := json.Marshal(map[string]any{
		"verbose": false, "pedantic": false, "echo": false, "headers": true, "protocol": 1,
		"name": name, "lang": "go", "version": "1",
	})
	if err != nil {
		return nil, err
	}
	w.out = append(append(append(w.out, "CONNECT "...), hello...), "\r\n"...)
	w.kick <- struct{}{}
	return w, nil
}

// run reads and writes until the connection ends, and returns why. Nobody
// waits for it: closing the pipe ends both directions.
func (w *wire) run() error {
	var wg sync.WaitGroup
	wg.Go(w.write)
	err := w.read()
	w.close()
	wg.Wait()
	return err
}

func (w *wire) close() {
	w.conn.Close()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return
	}
	w.closed = true
	for _, pong := range w.pongs {
		close(pong)
	}
	w.pongs = nil
	w.poke()
}

func (w *wire) poke() {
	select {
	case w.kick <- struct{}{}:
	default:
	}
}

func (w *wire) write() {
	var spare []byte
	for range w.kick {
		w.mu.Lock()
		out, closed := w.out, w.closed
		w.out = spare[:0]
		w.mu.Unlock()
		if closed {
			return
		}
		if len(out) > 0 {
			if _, err := w.conn.Write(out); err != nil {
				w.conn.Close() // ends read, which closes the rest
				return
			}
		}
		spare = out
		if cap(spare) > 1<<20 {
			spare = nil // one burst must not stay for ever
		}
	}
}

// publish sends a message. It says false if that cannot be: the connection is
// gone, too much waits, or the message is larger than the server takes.
func (w *wire) publish(subject, reply string, header, data []byte) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	size := len(header) + len(data)
	if w.closed || size > w.max || len(subject)+len(reply) > maxControlLine-128 || len(w.out)+size > wireMaxOut {
		w.dropped++
		return false
	}
	verb := "PUB "
	if len(header) > 0 {
		verb = "HPUB "
	}
	b := append(append(append(w.out, verb...), subject...), ' ')
	if reply != "" {
		b = append(append(b, reply...), ' ')
	}
	if len(header) > 0 {
		b = append(strconv.AppendInt(b, int64(len(header)), 10), ' ')
	}
	b = append(strconv.AppendInt(b, int64(size), 10), "\r\n"...)
	b = append(append(append(b, header...), data...), "\r\n"...)
	w.out = b
	w.poke()
	return true
}

// subscribe lets fn have what matches filter, from when flush has returned.
func (w *wire) subscribe(filter string, fn func(wireMsg)) (sid uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lastSID++
	sid = w.lastSID
	w.subs[sid] = wireSub{filter, fn}
	w.out = fmt.Appendf(w.out, "SUB %s %d\r\n", filter, sid)
	w.poke()
	return sid
}

func (w *wire) unsubscribe(sid uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.subs, sid)
	w.out = fmt.Appendf(w.out, "UNSUB %d\r\n", sid)
	w.poke()
}

// flush returns when the server has done all that was sent before.
func (w *wire) flush() error {
	pong := make(chan struct{})
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return errWireClosed
	}
	w.pongs = append(w.pongs, pong)
	w.out = append(w.out, "PING\r\n"...)
	w.poke()
	w.mu.Unlock()
	<-pong
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return errWireClosed
	}
	return nil
}

// line reads one line without its end. It is valid until the next read.
func (w *wire) line() ([]byte, error) {
	line, err := w.in.ReadSlice('\n')
	if err != nil {
		return nil, err
	}
	return bytes.TrimRight(line, "\r\n"), nil
}

func (w *wire) read() error {
	for {
		line, err := w.line()
		if err != nil {
			return err
		}
		verb, rest, _ := bytes.Cut(line, []byte{' '})
		switch string(verb) {
		case "MSG", "HMSG":
			err = w.message(len(verb) == len("HMSG"), rest)
		case "PING":
			w.mu.Lock()
			w.out = append(w.out, "PONG\r\n"...)
			w.poke()
			w.mu.Unlock()
		case "PONG":
			w.pong()
		case "-ERR":
			err = fmt.Errorf("embedded server: %s", rest)
		case "+OK", "INFO":
		default:
			err = fmt.Errorf("embedded server: unexpected line %.40q", line)
		}
		if err != nil {
			return err
		}
	}
}

func (w *wire) pong() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.pongs) > 0 {
		close(w.pongs[0])
		w.pongs = w.pongs[1:]
	}
}

// message reads what follows MSG and HMSG: subject sid [reply] [header size]
// total size, and then the bytes.
func (w *wire) message(hasHeader bool, rest []byte) error {
	head, err := parseMsgHead(hasHeader, rest, w.max)
	if err != nil {
		return err
	}
	m := wireMsg{subject: string(head.subject), reply: string(head.reply)}
	body := make([]byte, head.total+2)
	if _, err := io.ReadFull(w.in, body); err != nil {
		return err
	}
	if body[head.total] != '\r' || body[head.total+1] != '\n' {
		return errors.New("embedded server: message without an end")
	}
	if head.header > 0 {
		m.header = body[:head.header:head.header]
	}
	m.data = body[head.header:head.total:head.total]
	w.mu.Lock()
	sub, ok := w.subs[head.sid]
	w.mu.Unlock()
	if ok {
		sub.fn(m)
	}
	return nil
}

type msgHead struct {
	subject, reply []byte
	sid            uint64
	header, total  int
}

func parseMsgHead(hasHeader bool, rest []byte, max int) (h msgHead, err error) {
	var fields [5][]byte
	n := 0
	for len(rest) > 0 && n < len(fields) {
		fields[n], rest, _ = bytes.Cut(rest, []byte{' '})
		n++
	}
	sizes := 1
	if hasHeader {
		sizes = 2
	}
	if len(rest) > 0 || n < 2+sizes || n > 3+sizes {
		return h, errors.New("embedded server: message line with a wrong number of fields")
	}
	h.subject = fields[0]
	if n == 3+sizes {
		h.reply = fields[2]
	}
	h.sid, err = strconv.ParseUint(string(fields[1]), 10, 64)
	if err == nil && hasHeader {
		h.header, err = strconv.Atoi(string(fields[n-2]))
	}
	if err == nil {
		h.total, err = strconv.Atoi(string(fields[n-1]))
	}
	// The server bounds what it takes by the same limit, and what comes through
	// the link by the hub's: leave room for a hub that allows more.
	if err != nil || h.header < 0 || h.total < h.header || h.total > max+(64<<20) {
		return h, errors.New("embedded server: message line with wrong sizes")
	}
	return h, nil
}
