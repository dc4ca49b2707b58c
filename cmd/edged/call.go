package main

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/edged-io/edged/internal/node"
	"github.com/edged-io/edged/sdk/go/msgpack"
)

func newCall() *cobra.Command {
	var cfg string
	var raw bool
	cmd := &cobra.Command{
		Use: "call ACTOR OPERATION [JSON]", Short: "Have an actor handle an operation, and show its reply",
		Args: usage(cobra.RangeArgs(2, 3)),
		Long: `Have an actor handle an operation in a turn of its own, and show its reply. The
actor is named by app/name, by its key, or by its call alias. What is given as
JSON goes to it as MessagePack, and its MessagePack comes back as JSON, where
bytes that are no text are shown as {"base64": "…"}; bytes can be given like
that too. Without JSON the operation gets no bytes at all.`,
		Example: `  edged call greenhouse/thermostat Actor.HealthRequest '{}'
  edged call shop/cart HttpServer.HandleRequest '{"method":"GET","path":"/","queryString":"","header":{},"body":""}'
  edged call shop/cart Cart.Load --raw <request.msgpack >reply.msgpack`,
		RunE: func(cmd *cobra.Command, args []string) error {
			payload, err := callPayload(cmd, args, raw)
			if err != nil {
				return err
			}
			b, err := findBox(cfg)
			if err != nil {
				return err
			}
			var reply node.CallReply
			if err := b.send(cmd.Context(), http.MethodPost, "/call", node.CallRequest{Actor: args[0], Operation: args[1], Payload: payload}, &reply); err != nil {
				return err
			}
			if raw {
				_, err := cmd.OutOrStdout().Write(reply.Payload)
				return err
			}
			return showReply(cmd.OutOrStdout(), reply.Payload)
		},
	}
	configFlag(cmd, &cfg)
	cmd.Flags().BoolVar(&raw, "raw", false, "take the payload from standard input and print the reply, both as they are")
	return cmd
}

// maxCall is the longest payload that is read.
const maxCall = 16 << 20

func callPayload(cmd *cobra.Command, args []string, raw bool) ([]byte, error) {
	switch {
	case raw && len(args) > 2:
		return nil, usageOf(cmd, errors.New("want JSON, or --raw, not both"))
	case raw:
		b, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), maxCall+1))
		if err == nil && len(b) > maxCall {
			err = fmt.Errorf("more than %d bytes", maxCall)
		}
		return b, err
	case len(args) < 3:
		return nil, nil
	}
	b, err := payloadOf(args[2])
	if err != nil {
		return nil, usageOf(cmd, err)
	}
	return b, nil
}

// payloadOf is one JSON value as MessagePack.
func payloadOf(text string) ([]byte, error) {
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	var v any
	err := d.Decode(&v)
	if err == nil {
		if _, more := d.Token(); more != io.EOF {
			err = errors.New("more than one value")
		}
	}
	if err != nil {
		return nil, fmt.Errorf("JSON: %w", err)
	}
	return appendJSON(nil, v)
}

// base64Key is the name of the one member of an object that stands for bytes.
const base64Key = "base64"

// appendJSON appends a value as encoding/json reads it, with numbers as they are
// written.
func appendJSON(b []byte, v any) (_ []byte, err error) {
	switch v := v.(type) {
	case nil:
		return msgpack.AppendNil(b), nil
	case bool:
		return msgpack.AppendBool(b, v), nil
	case string:
		return msgpack.AppendString(b, v), nil
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return msgpack.AppendInt(b, n), nil
		}
		f, err := v.Float64()
		return msgpack.AppendFloat(b, f), err
	case []any:
		b = msgpack.AppendArrayHeader(b, len(v))
		for _, e := range v {
			if b, err = appendJSON(b, e); err != nil {
				return nil, err
			}
		}
		return b, nil
	case map[string]any:
		if text, ok := v[base64Key].(string); ok && len(v) == 1 {
			p, err := base64.StdEncoding.DecodeString(text)
			return msgpack.AppendBin(b, p), err
		}
		b = msgpack.AppendMapHeader(b, len(v))
		for _, k := range slices.Sorted(maps.Keys(v)) {
			if b, err = appendJSON(msgpack.AppendString(b, k), v[k]); err != nil {
				return nil, err
			}
		}
		return b, nil
	}
	return nil, fmt.Errorf("a %T can not be sent", v)
}

// showReply prints a reply: nothing for no bytes, else JSON, or the bytes in
// quotes where they are no MessagePack.
func showReply(w io.Writer, reply []byte) error {
	if len(reply) == 0 {
		return nil
	}
	d := msgpack.NewDecoder(reply)
	v := readValue(d, 0)
	if d.Done() != nil {
		_, err := fmt.Fprintf(w, "%q\n", reply)
		return err
	}
	return printJSON(w, v)
}

// readValue reads a value as encoding/json takes it.
func readValue(d *msgpack.Decoder, depth int) any {
	if depth == msgpack.MaxDepth {
		d.Skip()
		return "…"
	}
	switch d.Kind() {
	case msgpack.Bool:
		return d.Bool()
	case msgpack.Int:
		return json.Number(intText(d.Raw()))
	case msgpack.Float:
		f := d.Float()
		if math.IsNaN(f) || math.IsInf(f, 0) { // which JSON does not have
			return fmt.Sprint(f)
		}
		return f
	case msgpack.Str:
		return d.Str()
	case msgpack.Bin:
		b := d.Bin()
		if utf8.Valid(b) {
			return string(b)
		}
		return map[string]string{base64Key: base64.StdEncoding.EncodeToString(b)}
	case msgpack.Array:
		all := []any{}
		for range d.Array() {
			all = append(all, readValue(d, depth+1))
		}
		return all
	case msgpack.Map:
		all := map[string]any{}
		for range d.Map() {
			key := readValue(d, depth+1)
			text, ok := key.(string)
			if !ok {
				text = fmt.Sprint(key)
			}
			all[text] = readValue(d, depth+1)
		}
		return all
	}
	d.Skip()
	return nil
}

// intText is an integer of any width in decimal.
func intText(raw []byte) string {
	d := msgpack.NewDecoder(raw)
	n := d.Int()
	if d.Done() == nil {
		return fmt.Sprint(n)
	}
	return fmt.Sprint(msgpack.NewDecoder(raw).Uint())
}
