#!/bin/sh
# Builds dist/*.deb from what make build left in dist/. The same commit gives the same bytes.
set -eu
cd "$(dirname "$0")/.."
GO=${GO:-go}
export VERSION="${1:-$(packaging/version.sh)}"
epoch=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
export SOURCE_DATE_EPOCH="$epoch"

# What goes to /usr/share, the same for every machine.
share=dist/package
rm -rf "$share"
mkdir -p "$share/doc/edged" "$share/man/man1" "$share/bash-completion/completions" "$share/zsh/vendor-completions" \
	"$share/fish/vendor_completions.d" "$share/lintian/overrides"
packaging/third-party.sh dist/edged-linux-amd64 >"$share/doc/edged/third-party.txt"
cp CHANGELOG.md "$share/doc/edged/NEWS"
cat >"$share/doc/edged/changelog" <<END
edged ($VERSION) unstable; urgency=medium

  * See NEWS.gz.

 -- The edged authors <edged@edged.io>  $(LC_ALL=C date -u -R -d "@$epoch")
END
echo "edged: statically-linked-binary" >"$share/lintian/overrides/edged"
go run -tags man ./cmd/edged man "$share/man/man1"
dist/edged completion bash >"$share/bash-completion/completions/edged"
dist/edged completion zsh >"$share/zsh/vendor-completions/_edged"
dist/edged completion fish >"$share/fish/vendor_completions.d/edged.fish"
gzip -9n "$share"/doc/edged/* "$share"/man/man1/*
chmod -R u=rwX,go=rX "$share"

rm -f dist/*.deb
for machine in amd64:amd64 arm64:arm64 armv7:armhf; do
	export BINARY="edged-linux-${machine%:*}" DEB_ARCH="${machine#*:}"
	# nfpm has a module of its own, so that what it drags in stays out of ours.
	"$GO" tool -modfile=packaging/tools/go.mod nfpm package --packager deb --config packaging/nfpm.yaml --target dist
done
packaging/check.sh
