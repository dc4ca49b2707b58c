// Package strictjson finds what the standard decoder of JSON lets pass and another reader
// may read otherwise: it would take the last of two equal keys, and "EXP" for "exp".
package strictjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
)

// maxNesting is how deep arrays and objects may be.
const maxNesting = 32

// object is an object or array that is being read.
type object struct {
	keys  map[string]bool // nil in an array
	named []string        // keys that are known here and must be written as they are
	value bool            // the next token is the value of the last key
	inner reflect.Type    // of that value, nil where it is not known
	of    reflect.Type
}

// CheckKeys finds a key that is there twice in its object, or that is one of v's, a
// pointer to a struct, but for the case of a letter. It is for JSON that is decoded into
// v too: what is cut off is no error here.
func CheckKeys(data []byte, v any) error {
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
