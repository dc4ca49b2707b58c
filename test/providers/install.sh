#!/bin/sh
# Installs, from the lockfiles, what the JavaScript provider and the Modbus device of the tests need.
set -eu
cd "$(dirname "$0")/../.."
for dir in sdk/js examples/providers/keyvalue-sqlite test/providers; do
	# The example holds a copy of the SDK, which changes without its lockfile.
	done=$dir/node_modules/.installed
	want=$(cat "$dir/package-lock.json" sdk/js/*.js | cksum)
	[ -f "$done" ] && [ "$(cat "$done")" = "$want" ] && continue
	npm ci --prefix "$dir" --no-audit --no-fund --loglevel=error </dev/null
	echo "$want" >"$done"
done
