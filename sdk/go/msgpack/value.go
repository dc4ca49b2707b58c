package msgpack

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"sync"
)

// Marshal writes a value as the contracts of the lattice have it: a struct as a map by
// the names in its tags `msgpack:"name"`, or `msgpack:"name,omitempty"` for a field that
// is left out when it is zero; a []byte as a bin; a map with string keys in their order;
// a nil pointer as nil. Fields without a tag are left out. It is for programs outside of
// the sandbox: reflection makes a guest large. An error says which type has no form.
func Marshal(v any) ([]byte, error) { return appendValue(nil, reflect.ValueOf(v)) }

func appendValue(b []byte, v reflect.Value) (_ []byte, err error) {
	switch v.Kind() {
	case reflect.Bool:
		return AppendBool(b, v.Bool()), nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return AppendInt(b, v.Int()), nil
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return AppendUint(b, v.Uint()), nil
	case reflect.Float32, reflect.Float64:
		return AppendFloat(b, v.Float()), nil
	case reflect.String:
		return AppendString(b, v.String()), nil
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			return appendValue(b, v.Elem())
		}
		return AppendNil(b), nil
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			return AppendBin(b, v.Bytes()), nil
		}
		b = AppendArrayHeader(b, v.Len())
		for i := 0; i < v.Len() && err == nil; i++ {
			b, err = appendValue(b, v.Index(i))
		}
		return b, err
	case reflect.Map:
		if v.Type().Key().Kind() != reflect.String {
			break
		}
		keys := slices.SortedFunc(slices.Values(v.MapKeys()), func(x, y reflect.Value) int { return strings.Compare(x.String(), y.String()) })
		b = AppendMapHeader(b, len(keys))
		for _, k := range keys {
			if b, err = appendValue(AppendString(b, k.String()), v.MapIndex(k)); err != nil {
				return nil, err
			}
		}
		return b, nil
	case reflect.Struct:
		all := fieldsOf(v.Type()) // which all values of the type share
		present := make([]field, 0, len(all))
		for _, f := range all {
			if !f.optional || !v.Field(f.index).IsZero() {
				present = append(present, f)
			}
		}
		b = AppendMapHeader(b, len(present))
		for _, f := range present {
			if b, err = appendValue(AppendString(b, f.name), v.Field(f.index)); err != nil {
				return nil, fmt.Errorf("%s: %w", f.name, err)
			}
		}
		return b, nil
	case reflect.Invalid:
		return AppendNil(b), nil
	}
	return nil, fmt.Errorf("msgpack: no form for a %s", v.Type())
}

// Unmarshal reads one value, which has to be all of b, into what v points to, in every
// form that the kits of the lattice write: the keys of a struct in any order, unknown
// ones skipped, or an array in the order of the fields; integers of any width; bytes as
// bin, str or integers; nil for a zero value. A []byte may be a part of b.
func Unmarshal(b []byte, v any) error {
	p := reflect.ValueOf(v)
	if p.Kind() != reflect.Pointer || p.IsNil() {
		return fmt.Errorf("msgpack: can not read into a %T", v)
	}
	d := NewDecoder(b)
	if err := d.read(p.Elem(), 0); err != nil {
		return err
	}
	return d.Done()
}

// read reads a value into v, inside of depth others. The error is of a type that has no
// form; what is wrong with the bytes stays in d.
func (d *Decoder) read(v reflect.Value, depth int) error {
	t := v.Type()
	if depth++; depth > MaxDepth { // a type may hold itself
		d.fail(ErrDepth)
		return nil
	}
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(d.Bool())
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		limit := int64(math.MaxInt64) >> (64 - t.Bits())
		v.SetInt(d.IntIn(-limit-1, limit))
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		n := d.Uint()
		if n > math.MaxUint64>>(64-t.Bits()) {
			d.fail(ErrRange)
			return nil
		}
		v.SetUint(n)
	case reflect.Float32, reflect.Float64:
		v.SetFloat(d.Float())
	case reflect.String:
		v.SetString(d.Str())
	case reflect.Pointer:
		if v.SetZero(); d.TakeNil() {
			return nil
		}
		v.Set(reflect.New(t.Elem()))
		return d.read(v.Elem(), depth)
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			v.SetBytes(d.Bin())
			return nil
		}
		v.Set(reflect.MakeSlice(t, 0, 0))
		for range d.Array() { // grown as values come: a header promises what it likes
			e := reflect.New(t.Elem()).Elem()
			if err := d.read(e, depth); err != nil || d.err != nil {
				return err
			}
			v.Set(reflect.Append(v, e))
		}
	case reflect.Map:
		if t.Key().Kind() != reflect.String {
			return fmt.Errorf("msgpack: no form for a %s", t)
		}
		v.Set(reflect.MakeMap(t))
		for range d.Map() {
			key, e := reflect.New(t.Key()).Elem(), reflect.New(t.Elem()).Elem()
			key.SetString(d.Str())
			if err := d.read(e, depth); err != nil || d.err != nil {
				return err
			}
			v.SetMapIndex(key, e)
		}
	case reflect.Struct:
		return d.readStruct(v, depth)
	default:
		return fmt.Errorf("msgpack: no form for a %s", t)
	}
	return nil
}

func (d *Decoder) readStruct(v reflect.Value, depth int) error {
	all := fieldsOf(v.Type())
	if d.Kind() == Array {
		for i := range d.Array() {
			if i >= len(all) {
				d.Skip()
			} else if err := d.read(v.Field(all[i].index), depth); err != nil {
				return err
			}
		}
		return nil
	}
	for range d.Map() {
		key := d.Key()
		i := slices.IndexFunc(all, func(f field) bool { return f.name == string(key) }) // they are few
		if i < 0 {
			d.Skip()
		} else if err := d.read(v.Field(all[i].index), depth); err != nil {
			return err
		}
	}
	return nil
}

// field is a field of a struct that has a form.
type field struct {
	name     string
	index    int
	optional bool
}

// known are the fields of the types that were seen. What is in it is not changed.
var known sync.Map // reflect.Type → []field

func fieldsOf(t reflect.Type) []field {
	if all, ok := known.Load(t); ok {
		return all.([]field)
	}
	all := make([]field, 0, t.NumField())
	for i := range t.NumField() {
		name, option, _ := strings.Cut(t.Field(i).Tag.Get("msgpack"), ",")
		if name != "" {
			all = append(all, field{name, i, option == "omitempty"})
		}
	}
	known.Store(t, all)
	return all
}
