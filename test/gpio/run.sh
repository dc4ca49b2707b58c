#!/bin/sh
# Runs the hardware tests of providers/gpio on a virtual arm64 machine with a
# real GPIO chip of the kernel (an ARM PL061, line 3 of which is a button that
# QEMU presses). Takes a minute or two and downloads 60 MB, so it is no part of
# the normal run.
#
#   test/gpio/run.sh            needs Debian, qemu-system-arm, cpio, Go
#
# KERNEL and BUSYBOX may name an arm64 kernel with CONFIG_GPIO_PL061=y and a
# static arm64 busybox; without them Debian's are downloaded, not installed.
set -eu
cd "$(dirname "$0")/../.."

missing=
command -v qemu-system-aarch64 >/dev/null || missing="$missing qemu-system-arm"
command -v cpio >/dev/null || missing="$missing cpio"
if [ -n "$missing" ]; then
	echo "test/gpio: please install:$missing" >&2
	exit 1
fi

dir=$(mktemp -d)
qemu=
finish() {
	[ -z "$qemu" ] || kill "$qemu" 2>/dev/null || true
	rm -rf "$dir"
}
trap finish EXIT
trap 'exit 1' INT TERM

if [ -z "${KERNEL:-}" ] || [ -z "${BUSYBOX:-}" ]; then
	if ! dpkg --print-foreign-architectures | grep -qx arm64; then
		echo "test/gpio: please run: dpkg --add-architecture arm64 && apt-get update" >&2
		exit 1
	fi
	image=$(apt-cache depends linux-image-arm64:arm64 | sed -n 's/.*Depends: \(linux-image-[^ ]*\).*/\1/p' | head -n 1)
	(cd "$dir" && apt-get -q download "$image" busybox-static:arm64 >/dev/null)
	for deb in "$dir"/*.deb; do dpkg-deb -x "$deb" "$dir/debian"; done
	KERNEL=$(echo "$dir"/debian/boot/vmlinuz-*)
	BUSYBOX=$dir/debian/bin/busybox
fi

mkdir -p "$dir/root/bin" "$dir/root/proc" "$dir/root/sys" "$dir/root/dev" "$dir/root/tmp"
cp "$BUSYBOX" "$dir/root/bin/busybox"
CGO_ENABLED=0 GOARCH=arm64 go test -c -tags hardware -o "$dir/root/gpio.test" ./providers/gpio
cat >"$dir/root/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs devtmpfs /dev
/bin/busybox mount -t tmpfs tmpfs /tmp
/bin/busybox mount -t debugfs debugfs /sys/kernel/debug
# As on a Raspberry Pi, whose chips have second names. The driver's way with them
# is one of the things that are tried.
/bin/busybox ln -s gpiochip0 /dev/gpiochip4
export EDGED_GPIO_CHIP=gpiochip0 EDGED_GPIO_OUT=5 EDGED_GPIO_BUTTON=3 TMPDIR=/tmp
/gpio.test -test.v -test.run Hardware -test.timeout 5m && echo ALL-PASS
/bin/busybox poweroff -f
INIT
chmod +x "$dir/root/init"
(cd "$dir/root" && find . | cpio -o -H newc --quiet | gzip -1) >"$dir/initrd.gz"

# The monitor reads a FIFO; the console goes to a file that we read along.
mkfifo "$dir/monitor"
: >"$dir/console"
qemu-system-aarch64 -machine virt -cpu cortex-a72 -accel tcg,thread=multi -m 512 -smp 2 \
	-display none -no-reboot -monitor stdio -serial "file:$dir/console" \
	-kernel "$KERNEL" -initrd "$dir/initrd.gz" -append "console=ttyAMA0 panic=-1 quiet" \
	<"$dir/monitor" >/dev/null &
qemu=$!
exec 3>"$dir/monitor"

presses=0
waited=0
while kill -0 "$qemu" 2>/dev/null && [ "$waited" -lt 3000 ]; do
	asked=$(grep -c PRESS "$dir/console" || true)
	if [ "$asked" -gt "$presses" ]; then
		presses=$((presses + 1))
		echo system_powerdown >&3
	fi
	sleep 0.1
	waited=$((waited + 1))
done
tr -d '\r' <"$dir/console"
grep -q ALL-PASS "$dir/console"
