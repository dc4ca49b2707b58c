#!/bin/sh
# Runs in the virtual box of box.sh, started by its systemd.
set -eu
unit=edged.service
fail() {
	echo "box: FAILED: $*"
	systemctl --no-pager --full status $unit || true
	journalctl --no-pager -u $unit -n 40 || true
	exit 1
}
prop() { systemctl show -p "$1" --value $unit; }
within() { # seconds, what, command…
	seconds=$1 what=$2
	shift 2
	while ! "$@"; do
		[ "$seconds" -gt 0 ] || fail "$what"
		seconds=$((seconds - 1))
		sleep 1
	done
}
active() { [ "$(prop ActiveState)" = active ]; }
# One question, one moment: between two, the process may have gone.
another() {
	now=$(systemctl show -p ActiveState -p MainPID $unit | sort | tr '\n' ' ')
	case $now in
	*" MainPID=0 " | *" MainPID=$pid ") return 1 ;;
	"ActiveState=active MainPID="*) return 0 ;;
	esac
	return 1
}
field() { awk -v f="$1:" '$1 == f { print $2 }' "/proc/$pid/status"; }

within 120 "not active two minutes after boot" active
pid=$(prop MainPID)
[ "$pid" -gt 1 ] || fail "active without a process"
echo "box: active $(($(prop ActiveEnterTimestampMonotonic) / 1000)) ms after the kernel started, \
$((($(prop ActiveEnterTimestampMonotonic) - $(prop ExecMainStartTimestampMonotonic)) / 1000)) ms after exec"

echo "box: $(date -u +%Y) is the year, and the interfaces are: $(ls /sys/class/net | tr '\n' ' ')"

[ "$(stat -c %U "/proc/$pid")" = edged ] || fail "runs as $(stat -c %U "/proc/$pid")"
[ "$(field CapEff)" = 0000000000000000 ] || fail "has capabilities $(field CapEff)"
[ "$(field CapBnd)" = 0000000000000000 ] || fail "may get capabilities $(field CapBnd)"
[ "$(field NoNewPrivs)" = 1 ] && [ "$(field Seccomp)" = 2 ] || fail "privileges or system calls are not held"
[ "$(stat -c '%U %a' /var/lib/edged)" = "edged 700" ] || fail "state directory: $(stat -c '%U %a' /var/lib/edged)"
for secret in edged.sock lattice.json; do
	[ "$(stat -c %a /var/lib/edged/$secret)" = 600 ] || fail "$secret has mode $(stat -c %a /var/lib/edged/$secret)"
done
edged status >/dev/null || fail "edged status"
journalctl -q -u $unit | grep -q 'msg=ready' || fail "did not log that it is ready"
echo "box: runs as its user, without a capability"

systemctl reload $unit
within 20 "not active after a reload" active
[ "$(prop MainPID)" = "$pid" ] || fail "a reload ended it"
echo "box: reloads"

kill -KILL "$pid"
within 60 "not back after SIGKILL" another
pid=$(prop MainPID)
echo "box: back after SIGKILL"

kill -STOP "$pid"
within 180 "not back after it hung" another
journalctl -q -u $unit | grep -qi 'watchdog timeout' || fail "came back, but not through the watchdog"
pid=$(prop MainPID)
echo "box: back after it hung"

before=$(date +%s)
systemctl stop $unit
[ "$(prop Result)" = success ] || fail "stopped with $(prop Result)"
echo "box: stops well, in $(($(date +%s) - before)) s"
echo "box: all as it should be"
