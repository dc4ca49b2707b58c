#!/bin/sh
# Runs each fuzzer of the module for the time given (10s). A finding is written to the package's testdata/fuzz and ends the run.
set -eu
cd "$(dirname "$0")/.."
time=${1:-10s}
fuzzers=$(find . -name testdata -prune -o -name '*_test.go' -exec sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p;T;F' {} + |
	paste - - | awk '{ sub("/[^/]*$", "", $2); print $2 ":" $1 }' | sort)
for fuzzer in $fuzzers; do
	echo "== $fuzzer"
	go test -run '^$' -fuzz "^${fuzzer#*:}\$" -fuzztime "$time" "${fuzzer%:*}" </dev/null
done
