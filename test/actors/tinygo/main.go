// The actor of this suite with the MessagePack library of wasmCloud's TinyGo kit, and laid out as that kit generates
// code: operations are split at the first dot, integers have a fixed width, empty bytes are nil. It is built with the
// ordinary Go toolchain, as TinyGo is in no package archive:
//
//	GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -o tinygo.wasm .
package main

import (
	"errors"
	"strconv"
	"strings"
	"unsafe"

	msgpack "github.com/wasmcloud/tinygo-msgpack"
)

func main() {}

//go:wasmimport wasmbus __guest_request
func guestRequest(operation, payload unsafe.Pointer)

//go:wasmimport wasmbus __guest_response
func guestResponse(ptr unsafe.Pointer, n uint32)

//go:wasmimport wasmbus __guest_error
func guestError(ptr unsafe.Pointer, n uint32)

//go:wasmimport wasmbus __host_call
func wasmHostCall(bd unsafe.Pointer, bdLen uint32, ns unsafe.Pointer, nsLen uint32, op unsafe.Pointer, opLen uint32, ptr unsafe.Pointer, n uint32) uint32

//go:wasmimport wasmbus __host_response_len
func hostResponseLen() uint32

//go:wasmimport wasmbus __host_response
func hostResponse(ptr unsafe.Pointer)

//go:wasmimport wasmbus __host_error_len
func hostErrorLen() uint32

//go:wasmimport wasmbus __host_error
func hostError(ptr unsafe.Pointer)

func at[T ~string | ~[]byte](s T) (unsafe.Pointer, uint32) {
	b := []byte(s)
	return unsafe.Pointer(unsafe.SliceData(b)), uint32(len(b))
}

func hostCall(binding, namespace, operation string, payload []byte) ([]byte, error) {
	bd, bdLen := at(binding)
	ns, nsLen := at(namespace)
	op, opLen := at(operation)
	ptr, n := at(payload)
	if wasmHostCall(bd, bdLen, ns, nsLen, op, opLen, ptr, n) == 0 { // the kit takes every other value for a success
		text := make([]byte, hostErrorLen())
		hostError(unsafe.Pointer(unsafe.SliceData(text)))
		return nil, errors.New("Host error: " + string(text))
	}
	response := make([]byte, hostResponseLen())
	hostResponse(unsafe.Pointer(unsafe.SliceData(response)))
	return response, nil
}

func fail(text string) uint32 {
	guestError(at(text))
	return 0
}

//go:wasmexport __guest_call
func guestCall(opLen, n uint32) uint32 {
	operation, payload := make([]byte, opLen), make([]byte, n)
	guestRequest(unsafe.Pointer(unsafe.SliceData(operation)), unsafe.Pointer(unsafe.SliceData(payload)))
	op := string(operation)
	service, method, ok := strings.Cut(op, ".")
	if !ok {
		return fail("invalid operation: " + op)
	}
	var response []byte
	var err error
	switch service + "." + method {
	case "HttpServer.HandleRequest":
		response, err = handleRequest(payload)
	case "Pingpong.Ping":
		response = encode(func(w msgpack.Writer) { w.WriteString("pong") })
	case "Actor.HealthRequest":
		response, err = healthRequest(payload)
	default:
		return fail(op + ": No handler registered")
	}
	if err != nil {
		return fail(op + ": " + err.Error())
	}
	guestResponse(at(response))
	return 1
}

func encode(write func(msgpack.Writer)) []byte {
	sizer := msgpack.NewSizer()
	write(&sizer)
	buffer := make([]byte, sizer.Len())
	encoder := msgpack.NewEncoder(buffer)
	write(&encoder)
	return buffer
}

func healthRequest(payload []byte) ([]byte, error) {
	d := msgpack.NewDecoder(payload)
	if null, err := d.IsNextNil(); err != nil {
		return nil, err // of no bytes at all
	} else if !null {
		if _, err := d.ReadMapSize(); err != nil {
			return nil, err
		}
	}
	return encode(func(w msgpack.Writer) {
		w.WriteMapSize(2)
		w.WriteString("healthy")
		w.WriteBool(true)
		w.WriteString("message")
		w.WriteString("")
	}), nil
}

func readRequest(payload []byte) (path string, body []byte, err error) {
	d := msgpack.NewDecoder(payload)
	n, err := d.ReadMapSize()
	for ; n > 0 && err == nil; n-- {
		var key string
		if key, err = d.ReadString(); err != nil {
			break
		}
		switch key {
		case "path":
			path, err = d.ReadString()
		case "body":
			body, err = d.ReadByteArray()
		default:
			err = d.Skip()
		}
	}
	return path, body, err
}

func respond(status uint16, body []byte) ([]byte, error) {
	return encode(func(w msgpack.Writer) {
		w.WriteMapSize(3)
		w.WriteString("statusCode")
		w.WriteUint16(status)
		w.WriteString("header")
		w.WriteMapSize(0)
		w.WriteString("body")
		w.WriteByteArray(body)
	}), nil
}

func textOf(reply []byte, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	d := msgpack.NewDecoder(reply)
	text, err := d.ReadString()
	if err != nil {
		return nil, err
	}
	return respond(200, []byte(text))
}

func numberOf(reply []byte, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	d := msgpack.NewDecoder(reply)
	n, err := d.ReadInt32()
	if err != nil {
		return nil, err
	}
	return respond(200, strconv.AppendInt(nil, int64(n), 10))
}

//go:noinline
func openTheBox(lids []byte) byte { return lids[len(lids)] }

func handleRequest(payload []byte) ([]byte, error) {
	path, body, err := readRequest(payload)
	if err != nil {
		return nil, err
	}
	_, rest, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	switch {
	case path == "/echo":
		return respond(200, body)
	case strings.HasPrefix(path, "/count/"):
		return numberOf(hostCall("default", "wasmcloud:keyvalue", "KeyValue.Increment", encode(func(w msgpack.Writer) {
			w.WriteMapSize(2)
			w.WriteString("key")
			w.WriteString(rest)
			w.WriteString("value")
			w.WriteInt32(1)
		})))
	case strings.HasPrefix(path, "/ping/"):
		return textOf(hostCall("", rest, "Pingpong.Ping", nil))
	case path == "/guid":
		return textOf(hostCall("default", "wasmcloud:builtin:numbergen", "NumberGen.GenerateGuid", nil))
	case path == "/random":
		return numberOf(hostCall("default", "wasmcloud:builtin:numbergen", "NumberGen.RandomInRange", encode(func(w msgpack.Writer) {
			w.WriteMapSize(2)
			w.WriteString("min")
			w.WriteUint32(6)
			w.WriteString("max")
			w.WriteUint32(6)
		})))
	case strings.HasPrefix(path, "/log/"):
		unit, err := hostCall("default", "wasmcloud:builtin:logging", "Logging.WriteLog", encode(func(w msgpack.Writer) {
			w.WriteMapSize(2)
			w.WriteString("level")
			w.WriteString("info")
			w.WriteString("text")
			w.WriteString(rest)
		}))
		if err == nil && len(unit) != 0 {
			err = errors.New("a unit of some bytes")
		}
		if err != nil {
			return nil, err
		}
		return respond(200, nil)
	case path == "/fail":
		return nil, errors.New("planned failure")
	case path == "/panic":
		return respond(uint16(openTheBox(body)), nil)
	}
	return respond(404, []byte("no such path"))
}
