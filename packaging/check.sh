#!/bin/sh
# Looks into dist/*.deb: names, what is where, owners, modes, and that the programs are static and for the right machine.
# With `check.sh install`, as root and with mmdebstrap, the native one is also installed, upgraded, removed and purged
# in a small Debian of its own.
set -eu
cd "$(dirname "$0")/.."
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
die() {
	echo "$*" >&2
	exit 1
}

# The e_machine of an ELF file, in hex, low byte first (gabi4+, "ELF Header").
machine_of() { od -An -tx1 -j18 -N2 "$1" | tr -d ' '; }

one() { # deb, Debian architecture, e_machine
	[ "$(dpkg-deb -f "$1" Package Architecture Section Maintainer | tr '\n' '|')" = \
		"Package: edged|Architecture: $2|Section: net|Maintainer: The edged authors <edged@edged.io>|" ] || die "$1: $(dpkg-deb -f "$1")"
	dpkg-deb -c "$1" >"$dir/list"
	for entry in \
		'-rwxr-xr-x root/root /usr/bin/edged' \
		'-rw-r--r-- root/root /etc/edged/edged.toml' \
		'-rw-r--r-- root/root /usr/lib/systemd/system/edged.service' \
		'-rw-r--r-- root/root /usr/lib/sysusers.d/edged.conf' \
		'-rw-r--r-- root/root /usr/lib/udev/rules.d/60-edged-gpio.rules' \
		'-rw-r--r-- root/root /usr/share/doc/edged/copyright' \
		'-rw-r--r-- root/root /usr/share/doc/edged/changelog.gz' \
		'-rw-r--r-- root/root /usr/share/doc/edged/NEWS.gz' \
		'-rw-r--r-- root/root /usr/share/doc/edged/third-party.txt.gz' \
		'-rw-r--r-- root/root /usr/share/man/man1/edged.1.gz' \
		'-rw-r--r-- root/root /usr/share/bash-completion/completions/edged'; do
		awk '{ sub("^\\.?/?", "/", $6); print $1, $2, $6 }' "$dir/list" | grep -qxF -- "$entry" || die "$1 lacks: $entry"
	done
	if awk '$2 != "root/root"' "$dir/list" | grep .; then
		die "$1: files of somebody else"
	fi
	rm -rf "$dir/root" "$dir/control"
	dpkg-deb -x "$1" "$dir/root"
	dpkg-deb -e "$1" "$dir/control"
	[ "$(cat "$dir/control/conffiles")" = /etc/edged/edged.toml ] || die "$1: conffiles: $(cat "$dir/control/conffiles")"
	for script in postinst prerm postrm; do
		[ -x "$dir/control/$script" ] || die "$1: no $script"
		sh -n "$dir/control/$script"
	done
	[ "$(machine_of "$dir/root/usr/bin/edged")" = "$3" ] || die "$1: edged is for another machine"
	! grep -qaE '/ld-(linux|musl)' "$dir/root/usr/bin/edged" || die "$1: edged is not static"
	cmp systemd/edged.service "$dir/root/usr/lib/systemd/system/edged.service"
}

installed() { # deb
	command -v mmdebstrap >/dev/null || die "installing needs mmdebstrap: apt-get install mmdebstrap"
	root=$dir/debian
	mmdebstrap --quiet --variant=minbase --include=systemd,udev,procps,init-system-helpers bookworm "$root"
	inside() { chroot "$root" env DEBIAN_FRONTEND=noninteractive PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"; }
	cp "$1" "$root/edged.deb"
	inside dpkg -i /edged.deb
	inside id edged | grep -q '(gpio)' || die "edged is not in the group gpio: $(inside id edged)"
	inside systemctl is-enabled edged.service >/dev/null || die "the unit is not enabled"
	inside systemd-analyze verify --man=no edged.service || die "the unit has faults"
	inside edged version || die "edged does not run"
	inside edged check --config /etc/edged/edged.toml || die "the device file of the package has faults"
	echo '# mine' >>"$root/etc/edged/edged.toml"
	inside dpkg -i /edged.deb
	inside tail -1 /etc/edged/edged.toml | grep -qx '# mine' || die "an upgrade lost the owner's device file"
	mkdir -p "$root/var/lib/edged/store"
	inside dpkg -r edged
	[ -f "$root/etc/edged/edged.toml" ] && [ ! -e "$root/usr/bin/edged" ] || die "remove left the wrong things"
	inside dpkg -P edged
	[ ! -e "$root/etc/edged/edged.toml" ] || die "purge left the device file"
	[ -d "$root/var/lib/edged/store" ] || die "purge took messages that were acknowledged"
	! inside systemctl is-enabled edged.service 2>/dev/null || die "the unit is still enabled"
}

for want in amd64:3e00 arm64:b700 armhf:2800; do
	found=
	for deb in dist/edged_*_"${want%:*}".deb; do
		[ -f "$deb" ] || continue
		one "$deb" "${want%:*}" "${want#*:}"
		found=$deb
	done
	[ -n "$found" ] || die "no dist/edged_*_${want%:*}.deb"
	echo "$found: as it should be"
	[ "${want%:*}" != "$(dpkg --print-architecture)" ] || native=$found
done
if [ "${1:-}" = install ]; then
	installed "${native:?no package for this machine}"
	echo "$native: installs, upgrades, and goes"
fi
