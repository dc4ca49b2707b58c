module github.com/edged-io/edged/test/actors/tinygo

go 1.24

require github.com/wasmcloud/tinygo-msgpack v0.1.4
