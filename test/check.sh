#!/bin/sh
# What make check holds, cheapest first. Every step runs; the names of those that failed come last.
set -u
cd "$(dirname "$0")/.."
GO=${GO:-go}
failed=
step() { # name, command…
	name=$1
	shift
	echo "check: $name"
	"$@" || failed="$failed $name"
}
formatted() {
	files=$(find . -name '*.go' -not -path '*/testdata/*' -exec gofmt -l {} +) && [ -z "$files" ] && return
	echo "not as gofmt has it:" "$files"
	return 1
}
step format formatted
step modules "$GO" mod verify
step tidy "$GO" mod tidy -diff
step vet "$GO" vet ./...
step actors env GOOS=wasip1 GOARCH=wasm "$GO" build -o /dev/null ./sdk/... ./examples/...
step foreign-vet "$GO" vet -tags foreign ./test/actors
step staticcheck "$GO" tool staticcheck ./...
step bench-vet "$GO" -C test/bench vet ./...
step bench-test "$GO" -C test/bench test ./...
step house "$GO" test ./internal/house
step unit systemd/check.sh
[ -z "$failed" ] || { echo "check failed:$failed" >&2 && exit 1; }
