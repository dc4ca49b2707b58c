package actor

import (
	"time"

	"github.com/edged-io/edged/sdk/go/msgpack"
)

// GPIO is a chip of lines (edged:gpio), such as "gpiochip0", or "sim0", which
// every box has. A line must be declared in the manifest.
type GPIO string

// Set gives an output line a level, when the turn is committed and again after
// each start of the box.
func (chip GPIO) Set(line int, level bool) error {
	b := chip.request(3, line)
	b = msgpack.AppendBool(msgpack.AppendString(b, "level"), level)
	_, err := Call("edged:gpio", "Gpio.Set", b)
	return err
}

// Get reads the level of a line now.
func (chip GPIO) Get(line int) (bool, error) {
	response, err := Call("edged:gpio", "Gpio.Get", chip.request(2, line))
	if err != nil {
		return false, err
	}
	d := msgpack.NewDecoder(response)
	level := d.Bool()
	return level, d.Done()
}

// Pulse gives an output line a level for that long, at once: a turn that fails
// afterwards does not undo it.
func (chip GPIO) Pulse(line int, level bool, long time.Duration) error {
	b := chip.request(4, line)
	b = msgpack.AppendBool(msgpack.AppendString(b, "level"), level)
	b = msgpack.AppendInt(msgpack.AppendString(b, "ms"), long.Milliseconds())
	_, err := Call("edged:gpio", "Gpio.Pulse", b)
	return err
}

func (chip GPIO) request(fields, line int) []byte {
	b := msgpack.AppendMapHeader(nil, fields)
	b = msgpack.AppendString(msgpack.AppendString(b, "chip"), string(chip))
	return msgpack.AppendInt(msgpack.AppendString(b, "line"), int64(line))
}
