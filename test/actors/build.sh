#!/bin/sh
# Builds the actors of other languages into the folder that is given: c.wasm, rust.wasm, as.wasm, tinygo.wasm, and
# wapc-as.wasm, which is the guest in the test data of wapc-go.
set -eu
PATH=/usr/bin:$PATH # see needs.sh
mkdir -p "$1"
out=$(cd "$1" && pwd)
cd "$(dirname "$0")"

clang --target=wasm32 -O2 -nostdlib -Wall -Wno-parentheses -Wl,--no-entry -o "$out/c.wasm" c/actor.c

rustc --edition 2021 --target wasm32-unknown-unknown --crate-type cdylib -O -C strip=debuginfo -o "$out/rust.wasm" rust/actor.rs

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
cp -r as/package.json as/package-lock.json as/assembly "$tmp"
(cd "$tmp" && npm ci --no-audit --no-fund --loglevel=error >&2 && npm run --silent build -- --debug -o "$out/as.wasm")
wapc=$(cd ../bench && GOFLAGS=-mod=mod go mod download -json github.com/wapc/wapc-go@v0.7.0 | sed -n 's/.*"Dir": "\(.*\)".*/\1/p')
cp "$wapc/testdata/as/assembly/index.ts" "$tmp/assembly/index.ts"
chmod u+w "$tmp/assembly/index.ts"
(cd "$tmp" && npm run --silent build -- -o "$out/wapc-as.wasm")

# The library has a file that only TinyGo compiles.
cp -r tinygo "$tmp"
cd "$tmp/tinygo"
go mod vendor
mv unsafe.go.replacement vendor/github.com/wasmcloud/tinygo-msgpack/unsafe_wasm.go
GOOS=wasip1 GOARCH=wasm go build -mod=vendor -trimpath -buildmode=c-shared -ldflags -s -o "$out/tinygo.wasm" .
