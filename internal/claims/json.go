package claims

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"
)

// maxNesting is how deep the JSON of a token may be.
const maxNesting = 32

// unmarshal reads JSON as the kits that wrote the first tokens do. The standard
// decoder would take the last of two equal keys, "EXP" for "exp", and replace what
// is no UTF-8; a token that two readers read differently must not pass.
func unmarshal(data []byte, v any) error {
	if !utf8.Valid(data) {
		return errors.New("not UTF-8")
	}
	if err := checkKeys(data, v); err != nil {
		return err
	}
	err := json.Unmarshal(data, v)
	var bad *json.UnmarshalTypeError
	if errors.As(err, &bad) { // its text names types of ours
		return fmt.Errorf("%s is %s, which it can not be", cmp.Or(bad.Field, "it"), bad.Value)
	}
	return err
}

// object is an object or array that is being read.
type object struct {
	keys  map[string]bool // nil in an array
	named []string        // keys that are known here and must be written as they are
	value bool            // the next token is the value of the last key
	inner reflect.Type    // of that value, nil where it is not known
	of    reflect.Type
}

// checkKeys finds keys that are there twice, or that are one of v's but for the
// case of a letter.
func checkKeys(data []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	next := reflect.TypeOf(v).Elem()
	var open []object
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return nil // json.Unmarshal finds what is missing
		}
		if err != nil {
			return err
		}
		var at *object
		if len(open) > 0 {
			at = &open[len(open)-1]
		}
		switch token {
		case json.Delim('{'), json.Delim('['):
			if len(open) == maxNesting {
				return fmt.Errorf("nested deeper than %d", maxNesting)
			}
			of := next
			if at != nil {
				of, at.value = at.inner, false
			}
			o := object{of: of}
			if token == json.Delim('{') {
				o.keys, o.named = make(map[string]bool), fieldNames(of)
			}
			open = append(open, o)
			continue
		case json.Delim('}'), json.Delim(']'):
			open = open[:len(open)-1]
			continue
		}
		if at == nil || at.keys == nil {
			continue
		}
		if at.value {
			at.value = false
			continue
		}
		if err := at.key(token.(string)); err != nil { // the decoder lets no other token be a key
			return err
		}
	}
}

func (o *object) key(k string) error {
	if o.keys[k] {
		return fmt.Errorf("the key %.40q is there twice", k)
	}
	if i := slices.IndexFunc(o.named, func(n string) bool { return n != k && strings.EqualFold(n, k) }); i >= 0 {
		return fmt.Errorf("the key %.40q is not %q", k, o.named[i])
	}
	o.keys[k], o.value, o.inner = true, true, nil
	if o.of != nil && o.of.Kind() == reflect.Struct {
		for f := range o.of.NumField() {
			if name, _, _ := strings.Cut(o.of.Field(f).Tag.Get("json"), ","); name == k {
				o.inner = o.of.Field(f).Type
			}
		}
	}
	return nil
}

// fieldNames are the keys of a struct.
func fieldNames(t reflect.Type) (names []string) {
	if t == nil || t.Kind() != reflect.Struct {
		return nil
	}
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		if name != "" {
			names = append(names, name)
		}
	}
	return names
}
