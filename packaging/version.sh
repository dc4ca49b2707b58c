#!/bin/sh
# Prints the version of this checkout, in a form that Debian and semver sort alike:
#   1.2.0            at the tag v1.2.0
#   1.2.0+3.g1a2b3c  three commits after it, .dirty when files differ from the commit
#   0.0.0+17.g1a2b3c before the first tag
#   0.0.0+unknown    outside git
set -eu
cd "$(dirname "$0")/.."
if ! hash=$(git rev-parse --short=10 HEAD 2>/dev/null); then
	echo 0.0.0+unknown
	exit
fi
dirty=
git diff --quiet HEAD -- 2>/dev/null || dirty=.dirty
if tag=$(git describe --tags --abbrev=0 --match 'v[0-9]*' 2>/dev/null); then
	after=$(git rev-list --count "$tag"..HEAD)
	version=${tag#v}
else
	after=$(git rev-list --count HEAD)
	version=0.0.0
fi
if [ "$after" -gt 0 ]; then
	version=$version+$after.g$hash$dirty
elif [ -n "$dirty" ]; then
	version=$version+dirty
fi
echo "$version"
