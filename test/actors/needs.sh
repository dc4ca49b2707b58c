#!/bin/sh
# Makes sure that the compilers for the actors of other languages are here: clang and lld for C, Debian's rustc with
# its wasm32 library for Rust, npm for AssemblyScript. As root it installs what is missing with apt-get; otherwise it
# says what to install. What `make test` runs needs none of them.
set -eu
PATH=/usr/bin:$PATH # Debian's rustc has the library; another one in PATH may not
packages=
has() { command -v "$1" >/dev/null 2>&1; }
has clang || packages="$packages clang"
has wasm-ld || packages="$packages lld"
has npm || packages="$packages npm"
[ -d "$(rustc --print target-libdir --target wasm32-unknown-unknown 2>/dev/null)" ] ||
	packages="$packages rustc libstd-rust-dev-wasm32"
[ -n "$packages" ] || exit 0
if [ "$(id -u)" -ne 0 ] || ! has apt-get; then
	echo "make foreign needs, on Debian or Ubuntu: sudo apt-get install --no-install-recommends$packages" >&2
	exit 1
fi
install() {
	# shellcheck disable=SC2086 # one word per package
	DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends -o DPkg::Lock::Timeout=300 $packages </dev/null
}
install || { apt-get update -q && install; }
