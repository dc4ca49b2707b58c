#!/bin/sh
# Prints each module linked into a binary, with its version and the text of its licence.
set -eu
binary=$1
GO=${GO:-go}
modules=$("$GO" version -m "$binary" | awk '$1 == "dep" { print $2 "@" $3 }')
echo "$(basename "$binary") holds these modules."
for module in $modules; do
	dir=$("$GO" mod download -json "$module" | sed -n 's/^\t"Dir": "\(.*\)",*$/\1/p')
	printf '\n======== %s\n\n' "$module"
	found=
	for text in "$dir"/LICEN[CS]E* "$dir"/COPYING* "$dir"/NOTICE*; do
		[ -f "$text" ] || continue
		found=yes
		cat "$text"
	done
	[ -n "$found" ] || { echo "$module: no licence found in $dir" >&2 && exit 1; }
done
printf '\n======== the Go standard library and runtime, %s\n\n' "$("$GO" version "$binary" | sed 's/.*: //')"
cat "$("$GO" env GOROOT)/LICENSE"
