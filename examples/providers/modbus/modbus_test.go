package main

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/edged-io/edged/sdk/go/provider"
)

// The examples of the specification, 6.1 and 6.3, in frames.
func TestClient_get(t *testing.T) {
	for name, c := range map[string]struct {
		table          string
		address, count uint16
		request, reply string
		want           []uint16
	}{
		"coils": {"coils", 0x13, 0x13, "000100000006 01 01 00130013", "000100000006 01 01 03 cd6b05",
			[]uint16{1, 0, 1, 1, 0, 0, 1, 1, 1, 1, 0, 1, 0, 1, 1, 0, 1, 0, 1}},
		"holding": {"holding", 0x6b, 3, "000100000006 01 03 006b0003", "000100000009 01 03 06 022b00000064", []uint16{0x022b, 0, 0x64}},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := net.Pipe()
			defer b.Close()
			want := strings.ReplaceAll(c.request, " ", "")
			served := make(chan error, 1)
			go func() { served <- serveOnce(b, want, c.reply) }()
			d := client{unit: 1, timeout: time.Minute, conn: a}
			got, err := d.get(tables[c.table], c.address, c.count)
			if err != nil || !slices.Equal(got, c.want) {
				t.Errorf("got %v, %v", got, err)
			}
			if err := <-served; err != nil {
				t.Error(err)
			}
		})
	}
}

// serveOnce answers one request, which has to be that.
func serveOnce(conn net.Conn, request, reply string) error {
	want, err := hex.DecodeString(request)
	if err != nil {
		return err
	}
	got := make([]byte, len(want))
	if _, err := io.ReadFull(conn, got); err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("request %x, want %x", got, want)
	}
	b, err := hex.DecodeString(strings.ReplaceAll(reply, " ", ""))
	if err == nil {
		_, err = conn.Write(b)
	}
	return err
}

func TestReadReply_refuses(t *testing.T) {
	for name, c := range map[string]struct{ reply, want string }{
		"exception":           {"000100000003018302", "illegal data address"},
		"unknown exception":   {"0001000000030183ee", "exception 238"},
		"another transaction": {"0002000000050103020001", "another request"},
		"another unit":        {"0001000000050203020001", "another request"},
		"another function":    {"0001000000050104020001", "function 4"},
		"too long":            {"00010000ffff0103020001", "answer of 65534 bytes"},
		"too short":           {"00010000000201", "answer of 1 bytes"},
		"cut":                 {"0001000000050103", "unexpected EOF"},
	} {
		b, err := hex.DecodeString(c.reply)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := readReply(bytes.NewReader(b), 1, 1, 3); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	var c client
	if _, err := c.get(tables["holding"], 65535, 2); err == nil {
		t.Error("an entry beyond the last was read")
	}
	if _, err := c.get(tables["holding"], 0, 126); err == nil {
		t.Error("more than fits was read")
	}
}

func TestNewDevice(t *testing.T) {
	d, err := newDevice(provider.Link{Values: map[string]string{"address": "10.0.0.7", "watch": "holding:0-3, coils:5"}})
	if err != nil || d.address != "10.0.0.7:502" || d.unit != 1 || !slices.Equal(d.watch, []span{{"holding", 0, 4}, {"coils", 5, 1}}) {
		t.Errorf("got %+v, %v", d, err)
	}
	if d, err := newDevice(provider.Link{Values: map[string]string{"address": "::1"}}); err != nil || d.address != "[::1]:502" {
		t.Errorf("got %+v, %v", d, err)
	}
	_, err = newDevice(provider.Link{Values: map[string]string{"unit": "300", "poll": "1", "watch": "holding:9-2", "timeout": "1d"}})
	for _, want := range []string{"address: missing", "unit:", "poll:", "watch:", "timeout:"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in %v", want, err)
		}
	}
}

func FuzzReply(f *testing.F) {
	for _, seed := range []string{"000100000009010306022b00000064", "000100000003018302", "00010000000601010 3cd6b05"} {
		b, _ := hex.DecodeString(strings.ReplaceAll(seed, " ", ""))
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, table := range tables {
			reply, err := readReply(bytes.NewReader(b), 1, 1, table.read)
			if err != nil {
				if errors.Is(err, io.ErrShortBuffer) {
					t.Error(err)
				}
				continue
			}
			if values, err := entries(table, reply, 3); err == nil && len(values) != 3 {
				t.Errorf("%d values, want 3", len(values))
			}
		}
	})
}
