package config

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	maxStringBytes = 1024
	maxItems       = 256 // of an array or a free table, where the field has no other limit
)

// Size is a number of bytes. A file has it as a string with a unit ("64KiB", "16MiB", "1GiB", or "kB", "MB", "GB" for powers of ten) or as a
// plain integer.
type Size int64

// Duration is a time span. A file has it as a string with units, such as "500ms" or "1h30m".
type Duration = time.Duration

// refused is a key that is known and that this version does not enforce.
type refused struct{}

// table is a part of a document that is decoded later, when it is known what it must hold.
type table struct {
	path   string
	values map[string]any
	text   bool // all values are strings, whatever they stand for, as in the values of a link
}

var (
	sizeType     = reflect.TypeFor[Size]()
	durationType = reflect.TypeFor[Duration]()
	refusedType  = reflect.TypeFor[refused]()
	tableType    = reflect.TypeFor[table]()
)

// decode fills the struct v points to from a table and notes a fault for whatever does not fit. A field is a key by its tag `toml`. More tags:
// `default` is the value, as text, when the key is not there; `required:"true"`; `min` and `max` of numbers, sizes and durations; `items`, the
// most elements; `oneof` the values allowed, joined by "|"; `later` the values, or with a final "*" the beginnings
// of values, that are known and that this version does not enforce; `why` what is to be done about a key that is refused. The tags of a list are those of its elements.
func (d *document) decode(t table, v any) { d.decodeStruct(t, reflect.ValueOf(v).Elem()) }

func (d *document) decodeStruct(t table, v reflect.Value) {
	known := make(map[string]bool)
	for i := range v.NumField() {
		f := v.Type().Field(i)
		key := f.Tag.Get("toml")
		if key == "" {
			continue
		}
		known[key] = true
		path := child(t.path, key)
		raw, ok := t.values[key]
		switch {
		case ok:
			d.set(path, raw, v.Field(i), f.Tag, t.text)
		case f.Tag.Get("required") != "":
			d.fault(path, "required")
		case f.Type.Kind() == reflect.Struct && f.Type != refusedType && f.Type != tableType:
			d.decodeStruct(table{path: path}, v.Field(i))
		default:
			d.setDefault(path, v.Field(i), f.Tag)
		}
	}
	for key := range t.values {
		if !known[key] {
			d.fault(child(t.path, key), "unknown key")
		}
	}
}

// setDefault gives a field its default. A list has its elements joined by a comma.
func (d *document) setDefault(path string, v reflect.Value, tag reflect.StructTag) {
	text, ok := tag.Lookup("default")
	if !ok {
		return
	}
	if v.Kind() != reflect.Slice {
		d.set(path, text, v, tag, true)
		return
	}
	list := []any{}
	for s := range strings.SplitSeq(text, ",") {
		list = append(list, s)
	}
	d.set(path, list, v, tag, true)
}

// set gives a field the value of a key. With text a number or boolean may be a string, and so may a list, with commas between.
func (d *document) set(path string, raw any, v reflect.Value, tag reflect.StructTag, text bool) {
	if s, ok := raw.(string); ok && text {
		raw = untext(s, v)
	}
	switch v.Type() {
	case refusedType:
		if why := tag.Get("why"); why != "" {
			d.fault(path, "not enforced by this version: %s", why)
			return
		}
		d.fault(path, "not enforced by this version")
		return
	case sizeType:
		if n, ok := size(raw); ok {
			d.setNumber(path, n, v, tag, func(s string) int64 { n, _ := size(s); return n })
			return
		}
		d.fault(path, `want a size like "16MiB" or a number of bytes, got %s`, describe(raw))
		return
	case durationType:
		if s, ok := raw.(string); ok {
			if n, err := time.ParseDuration(s); err == nil {
				d.setNumber(path, int64(n), v, tag, func(s string) int64 { n, _ := time.ParseDuration(s); return int64(n) })
				return
			}
		}
		d.fault(path, `want a duration like "500ms", got %s`, describe(raw))
		return
	}
	switch v.Kind() {
	case reflect.String:
		d.setString(path, raw, v, tag)
	case reflect.Bool:
		if b, ok := raw.(bool); ok {
			v.SetBool(b)
			return
		}
		d.fault(path, "want true or false, got %s", describe(raw))
	case reflect.Int, reflect.Int64:
		if n, ok := raw.(int64); ok {
			d.setNumber(path, n, v, tag, func(s string) int64 { n, _ := strconv.ParseInt(s, 10, 64); return n })
			return
		}
		d.fault(path, "want an integer, got %s", describe(raw))
	case reflect.Slice:
		d.setList(path, raw, v, tag, text)
	case reflect.Map:
		d.setMap(path, raw, v)
	case reflect.Struct, reflect.Pointer:
		d.setTable(path, raw, v)
	}
}

func (d *document) setString(path string, raw any, v reflect.Value, tag reflect.StructTag) {
	s, ok := raw.(string)
	if !ok {
		d.fault(path, "want a string, got %s", describe(raw))
		return
	}
	if len(s) > maxStringBytes {
		d.fault(path, "%d bytes, at most %d", len(s), maxStringBytes)
		return
	}
	if d.allowed(path, s, tag) {
		v.SetString(s)
	}
}

// allowed checks a value against the tags oneof and later.
func (d *document) allowed(path, s string, tag reflect.StructTag) bool {
	if later := tag.Get("later"); later != "" && slices.ContainsFunc(strings.Split(later, "|"), func(l string) bool {
		prefix, open := strings.CutSuffix(l, "*")
		return l == s || open && strings.HasPrefix(s, prefix)
	}) {
		d.fault(path, "%q is not enforced by this version", s)
		return false
	}
	if oneof := tag.Get("oneof"); oneof != "" && !slices.Contains(strings.Split(oneof, "|"), s) {
		d.fault(path, "is %q, want %s", clip(s), strings.ReplaceAll(oneof, "|", " or "))
		return false
	}
	return true
}

// setNumber checks a number against its range, whose ends are written in the tags as the value is in a file.
func (d *document) setNumber(path string, n int64, v reflect.Value, tag reflect.StructTag, read func(string) int64) {
	if !d.allowed(path, strconv.FormatInt(n, 10), reflect.StructTag(`later:`+strconv.Quote(tag.Get("later")))) {
		return
	}
	if s := tag.Get("min"); s != "" && n < read(s) {
		d.fault(path, "too small, at least %s", s)
		return
	}
	if s := tag.Get("max"); s != "" && n > read(s) {
		d.fault(path, "too large, at most %s", s)
		return
	}
	if v.OverflowInt(n) || n < 0 {
		d.fault(path, "out of range")
		return
	}
	v.SetInt(n)
}

// setList decodes an array, or an array of tables.
func (d *document) setList(path string, raw any, v reflect.Value, tag reflect.StructTag, text bool) {
	list, ok := raw.([]any)
	if !ok {
		d.fault(path, "want an array, got %s", describe(raw))
		return
	}
	limit := maxItems
	if s := tag.Get("items"); s != "" {
		limit, _ = strconv.Atoi(s)
	}
	if len(list) > limit {
		d.fault(path, "%d elements, at most %d", len(list), limit)
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(list), len(list)))
	for i, e := range list {
		d.set(item(path, i), e, v.Index(i), tag, text)
	}
}

// setMap decodes a table with keys of the user's choice and string values.
func (d *document) setMap(path string, raw any, v reflect.Value) {
	values, ok := raw.(map[string]any)
	if !ok {
		d.fault(path, "want a table, got %s", describe(raw))
		return
	}
	if len(values) > maxItems {
		d.fault(path, "%d keys, at most %d", len(values), maxItems)
		return
	}
	m := make(map[string]string, len(values))
	for key, e := range values {
		s, ok := e.(string)
		switch {
		case !ok:
			d.fault(child(path, key), "want a string, got %s", describe(e))
		case len(s) > maxStringBytes:
			d.fault(child(path, key), "%d bytes, at most %d", len(s), maxStringBytes)
		default:
			m[key] = s
		}
	}
	v.Set(reflect.ValueOf(m))
}

func (d *document) setTable(path string, raw any, v reflect.Value) {
	values, ok := raw.(map[string]any)
	if !ok {
		d.fault(path, "want a table, got %s", describe(raw))
		return
	}
	if v.Type() == tableType {
		v.Set(reflect.ValueOf(table{path: path, values: values}))
		return
	}
	if v.Kind() == reflect.Pointer {
		v.Set(reflect.New(v.Type().Elem()))
		v = v.Elem()
	}
	d.decodeStruct(table{path: path, values: values}, v)
}

// untext reads a string as what the field holds, if it can be; else the string stays, and is a fault later.
func untext(s string, v reflect.Value) any {
	switch {
	case v.Type() == durationType:
		return s
	case v.Kind() == reflect.Bool:
		if b, err := strconv.ParseBool(s); err == nil {
			return b
		}
	case v.Kind() == reflect.Slice:
		list := []any{}
		for one := range strings.SplitSeq(s, ",") {
			list = append(list, strings.TrimSpace(one))
		}
		return list
	case v.Kind() == reflect.Int || v.Kind() == reflect.Int64:
		if n, err := strconv.ParseInt(s, 10, 64); err == nil {
			return n
		}
	}
	return s
}

var sizeUnits = map[string]int64{"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}

// size reads a size. It reports false for what is not one, a negative one included.
func size(raw any) (int64, bool) {
	switch x := raw.(type) {
	case int64:
		return x, x >= 0
	case string:
		digits := strings.TrimRight(x, "BKMGTikb ")
		unit, known := sizeUnits[strings.TrimSpace(x[len(digits):])]
		n, err := strconv.ParseUint(digits, 10, 63)
		if err != nil || !known || n > math.MaxInt64/uint64(unit) {
			return 0, false
		}
		return int64(n) * unit, true
	}
	return 0, false
}

// describe says what a value is, for a fault.
func describe(raw any) string {
	switch x := raw.(type) {
	case string:
		return strconv.Quote(clip(x))
	case int64, float64, bool:
		return fmt.Sprint(x)
	case []any:
		return "an array"
	case map[string]any:
		return "a table"
	}
	return "a date or time"
}

func clip(s string) string {
	if len(s) > 60 {
		return s[:60] + "…"
	}
	return s
}
