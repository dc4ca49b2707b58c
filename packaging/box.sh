#!/bin/sh
# Boots the amd64 package under systemd in a virtual box: Debian, no network, a clock that says 1970 at each start of edged;
# no KVM needed.
# In the box, box-check.sh looks at the service and breaks it; what it prints comes out here. Takes a few minutes; as root.
set -eu
cd "$(dirname "$0")/.."
work=dist/box
die() {
	echo "box: $*" >&2
	exit 1
}
for program in mmdebstrap qemu-system-x86_64 mke2fs; do
	PATH=$PATH:/usr/sbin command -v $program >/dev/null ||
		die "no $program: apt-get install --no-install-recommends mmdebstrap qemu-system-x86 e2fsprogs"
done
[ "$(id -u)" -eq 0 ] || die "only root can make the disk of the box"
deb=$(ls dist/edged_*_amd64.deb 2>/dev/null) || die "no dist/edged_*_amd64.deb: make deb"

mkdir -p $work
if [ ! -f $work/debian.tar ]; then
	mmdebstrap --quiet --variant=minbase --include=systemd,systemd-sysv,udev,procps,iproute2,linux-image-cloud-amd64 \
		bookworm $work/debian.part.tar
	mv $work/debian.part.tar $work/debian.tar
fi
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
tar -C "$root" -xf $work/debian.tar
cp "$deb" "$root/edged.deb"
chroot "$root" env PATH=/usr/sbin:/usr/bin:/sbin:/bin dpkg -i /edged.deb >/dev/null

# The owner's part: a device file, and an app if one was built.
sed 's/^allow_unsigned = false.*/allow_unsigned = true/' internal/config/sample.toml >"$root/etc/edged/edged.toml"
for wasm in dist/actors/*.wasm; do
	name=$(basename "$wasm" .wasm)
	[ -f "examples/$name/app.toml" ] || continue
	install -D -m 644 "examples/$name/app.toml" "$root/etc/edged/apps/$name/app.toml"
	install -m 644 "$wasm" "$root/etc/edged/apps/$name/"
done
install -m 755 packaging/box-check.sh "$root/usr/local/bin/box-check"
cat >"$root/etc/systemd/system/box-check.service" <<'END'
[Unit]
Description=Looks at edged and breaks it
[Service]
Type=oneshot
ExecStart=/usr/local/bin/box-check
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0
ExecStopPost=/usr/bin/systemctl poweroff --force
END
# systemd moves a clock that is behind its own release; this moves it back.
mkdir "$root/etc/systemd/system/edged.service.d"
printf '[Service]\nExecStartPre=+/bin/date -s @86400\n' >"$root/etc/systemd/system/edged.service.d/clock.conf"
ln -s ../box-check.service "$root/etc/systemd/system/multi-user.target.wants/"
ln -sf /dev/null "$root/etc/systemd/system/serial-getty@ttyS0.service"

rm -f $work/disk.img
PATH=$PATH:/usr/sbin mke2fs -q -t ext4 -d "$root" $work/disk.img 1500M
cp "$root"/boot/vmlinuz-* $work/vmlinuz
cp "$root"/boot/initrd.img-* $work/initrd

timeout 600 qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp 2 -m 768 -nographic -no-reboot -nic none \
	-kernel $work/vmlinuz -initrd $work/initrd -drive file=$work/disk.img,format=raw,if=virtio \
	-append "root=/dev/vda rw console=ttyS0 panic=-1 quiet loglevel=3 systemd.show_status=0 net.ifnames=0" \
	</dev/null | tr -d '\r' | tee $work/console
grep -qx 'box: all as it should be' $work/console || die "see $work/console"
