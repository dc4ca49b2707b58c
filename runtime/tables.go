package runtime

import (
	"reflect"
	"unsafe"

	"github.com/tetratelabs/wazero/api"
)

// tables are those of an instance that may grow, in memory of their own: the
// engine would keep them on the Go heap, and grow them by copies that only the
// garbage collector gives back. What they may grow to is in the actor's budget
// from the beginning; pages that no entry was put into cost nothing.
type tables []table

type table struct {
	references reflect.Value // the engine's slice
	region     region
}

// tablesOf moves the tables of an instance that has not run yet. The engine does
// not offer it; where its fields are not found any more, the tables stay where
// they are. A test sees to that.
func tablesOf(mod api.Module) (moved tables) {
	v := reflect.ValueOf(mod)
	if v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct {
		return nil
	}
	all := v.Elem().FieldByName("Tables")
	if !all.IsValid() || all.Kind() != reflect.Slice || all.Type().Elem().Kind() != reflect.Pointer || all.Type().Elem().Elem().Kind() != reflect.Struct {
		return nil
	}
	for i := range all.Len() {
		references, most := all.Index(i).Elem().FieldByName("References"), all.Index(i).Elem().FieldByName("Max")
		if !references.IsValid() || !references.CanSet() || references.Type() != reflect.TypeFor[[]uintptr]() ||
			!most.IsValid() || most.Type() != reflect.TypeFor[*uint32]() || most.IsNil() {
			continue
		}
		is := references.Interface().([]uintptr)
		n := int(most.Elem().Uint())
		if n <= len(is) {
			continue
		}
		r := newRegion()
		b := r.resize(uint64(n) * uint64(unsafe.Sizeof(uintptr(0))))
		if b == nil {
			continue
		}
		to := unsafe.Slice((*uintptr)(unsafe.Pointer(unsafe.SliceData(b))), n)
		copy(to, is)
		references.Set(reflect.ValueOf(to[:len(is)]))
		moved = append(moved, table{references, r})
	}
	return moved
}

// free is for an instance that never runs again.
func (t tables) free() {
	for _, table := range t {
		table.references.SetZero()
		table.region.free()
	}
}
