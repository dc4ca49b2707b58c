package httpsettings

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// ParseAddress reads where to listen: an IP address, or localhost for
// 127.0.0.1, and a port.
func ParseAddress(s string) (netip.AddrPort, error) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("want ADDRESS:PORT, got %q", clip(s))
	}
	a, err := parseHost(host)
	if err != nil {
		return netip.AddrPort{}, err
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || strconv.FormatUint(n, 10) != port {
		return netip.AddrPort{}, fmt.Errorf("port must be 0 to 65535, got %q", clip(port))
	}
	return netip.AddrPortFrom(a, uint16(n)), nil
}

func parseHost(host string) (netip.Addr, error) {
	if host == "localhost" {
		host = "127.0.0.1"
	}
	a, err := netip.ParseAddr(host)
	if err != nil {
		return a, fmt.Errorf("want an IP address or localhost, got %q", clip(host))
	}
	return a.Unmap(), nil
}

// A Permit is a range of addresses on which apps may listen: an IP address or
// localhost, and a port or "*" for all of them. 0.0.0.0 stands for every address
// of IPv4, [::] for every address.
type Permit struct {
	addr netip.Addr
	port int // -1 for all
}

// ParsePermit reads "127.0.0.1:*" or "0.0.0.0:8443".
func ParsePermit(s string) (Permit, error) {
	if host, ok := strings.CutSuffix(s, ":*"); ok {
		a, err := ParseAddress(host + ":0")
		return Permit{a.Addr(), -1}, err
	}
	a, err := ParseAddress(s)
	return Permit{a.Addr(), int(a.Port())}, err
}

// Covers says whether an app may listen on a.
func (p Permit) Covers(a netip.AddrPort) bool {
	if p.port >= 0 && p.port != int(a.Port()) {
		return false
	}
	return p.addr == a.Addr() || p.addr == netip.IPv6Unspecified() || p.addr == netip.IPv4Unspecified() && a.Addr().Is4()
}

// Overlap says whether only one of two addresses can be listened on: they have a
// port in common, which is not 0, and one covers the other.
func Overlap(one, other string) bool {
	a, err := ParseAddress(one)
	b, err2 := ParseAddress(other)
	if err != nil || err2 != nil || a.Port() == 0 {
		return false
	}
	return Permit{a.Addr(), int(a.Port())}.Covers(b) || Permit{b.Addr(), int(b.Port())}.Covers(a)
}
