#!/bin/sh
# Makes sure that the programs the tests start are here. As root it installs what is missing with apt-get;
# otherwise, or where there is no apt-get, it says what to install, and fails if the tests cannot do without.
set -eu
PATH=$PATH:/usr/sbin:/sbin
packages= required=
has() { command -v "$1" >/dev/null 2>&1; }
need() { # program, packages, what for
	has "$1" && return
	echo "missing: $1 ($3)" >&2
	packages="$packages $2" required="$required $1"
}
need mosquitto mosquitto "the MQTT broker of the end-to-end tests"
need strace strace "counts syncs"
need curl curl "asks the actor of the README"
need wat2wasm wabt "assembles the zoo of hostile actors"
need ip iproute2 "makes a network of its own for a test"
need qemu-arm-static qemu-user-static "runs the tests of the actor host as on ARM v7"
need wat2wasm wabt "assembles the actors of some tests"
need node nodejs "runs the providers in JavaScript"
need npm npm "installs what they need"
need python3 python3 "runs the provider that is written without a kit"
has gcc || packages="$packages gcc libc6-dev" # the race detector is linked with it; make test does without
modules() { "$(dirname "$0")/providers/install.sh"; }
if [ -z "$packages" ]; then
	modules
	exit
fi

install() {
	# shellcheck disable=SC2086 # one word per package
	DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $packages </dev/null
}
if [ "$(id -u)" -eq 0 ] && has apt-get; then
	install || { apt-get update -q && install; } || echo "apt-get did not install$packages" >&2
else
	echo "to run all tests as they are meant, on Debian or Ubuntu: sudo apt-get install$packages" >&2
fi
for program in $required; do
	has "$program" || exit 1
done
modules
