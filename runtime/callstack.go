package runtime

import (
	"reflect"
	"unsafe"

	"github.com/tetratelabs/wazero/api"
)

// maxStackBytes is how large the call stack of a guest may become. It lives
// outside of the guest's memory, on the Go heap, and the engine by itself would
// let it grow to 84 MB, by doubling. A tick looks at it, so that it is exceeded
// by no more than what a guest calls within one slice.
const (
	maxStackBytes  = 2 << 20
	keptStackBytes = 64 << 10 // by an instance between two calls
)

// A callStack is where the engine keeps the call stack of a function: a slice of
// bytes in the compiler, of 64-bit words in the interpreter.
type callStack struct {
	bytes *[]byte
	words *[]uint64
}

// callStackOf finds the engine's field. The engine does not offer it; where it
// is not found any more, the engine's own bound is the only one. A test sees to
// that.
func callStackOf(f api.Function) callStack {
	v := reflect.ValueOf(f)
	if v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct {
		return callStack{}
	}
	field := v.Elem().FieldByName("stack")
	if !field.IsValid() {
		return callStack{}
	}
	switch at := unsafe.Pointer(field.UnsafeAddr()); field.Type() {
	case reflect.TypeFor[[]byte]():
		return callStack{bytes: (*[]byte)(at)}
	case reflect.TypeFor[[]uint64]():
		return callStack{words: (*[]uint64)(at)}
	}
	return callStack{}
}

// stackBytes is how much memory the call stack takes.
func (in *instance) stackBytes() int {
	switch s := &in.callStack; {
	case s.bytes != nil:
		return len(*s.bytes)
	case s.words != nil:
		return cap(*s.words) * 8
	}
	return 0
}
