package outbound

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Public, as an entry of a Bound, stands for all addresses of the Internet.
const Public = "public"

// ErrBound is a server that the box lets no app reach.
var ErrBound = errors.New("the box lets no app reach this server")

// A Bound is what apps may reach from a box, whatever their manifests say. The zero
// Bound is nothing.
type Bound struct {
	public      bool
	allow, deny []entry
}

// entry is a name, with a port or without, or addresses.
type entry struct {
	name string // "" for addresses; "*.x" for all below x
	net  netip.Prefix
	port uint16 // 0 for any
}

// ParseBound reads entries: "public", a name such as printer.local, *.NAME for all
// below it, an address or a network such as 192.168.1.0/24; a name or an address may
// have a :PORT. A server is reached if deny has neither its name nor its address, and
// allow has its address, or the address is public and allow has "public" or its
// name. So an address that is not public has to be there as one. The error says
// which list and entry is wrong.
func ParseBound(allow, deny []string) (b Bound, err error) {
	for _, text := range allow {
		if text == Public {
			b.public = true
			continue
		}
		e, err := parseEntry(text)
		if err != nil {
			return Bound{}, fmt.Errorf("allow: %w", err)
		}
		b.allow = append(b.allow, e)
	}
	for _, text := range deny {
		e, err := parseEntry(text)
		if err != nil {
			return Bound{}, fmt.Errorf("deny: %w", err)
		}
		b.deny = append(b.deny, e)
	}
	return b, nil
}

func parseEntry(text string) (e entry, err error) {
	bad := fmt.Errorf("%.200q: want %q, a name, an address or a network, with :PORT or without", text, Public)
	if net, err := netip.ParsePrefix(text); err == nil {
		if net != net.Masked() {
			return e, fmt.Errorf("%.200q: the network is %s", text, net.Masked())
		}
		return entry{net: net}, nil
	}
	host := text
	if at, err := netip.ParseAddr(text); err != nil || at.Zone() != "" { // an IPv6 address has colons of its own
		if i := strings.LastIndexByte(text, ':'); i >= 0 {
			n, err := strconv.ParseUint(text[i+1:], 10, 16)
			if err != nil || n == 0 {
				return e, bad
			}
			host, e.port = text[:i], uint16(n)
		}
	}
	if ip, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")); err == nil && ip.Zone() == "" {
		ip = ip.Unmap()
		e.net = netip.PrefixFrom(ip, ip.BitLen())
		return e, nil
	}
	name, below := strings.CutPrefix(host, "*.")
	clean, err := cleanHost(name, false)
	if err != nil || text == "" {
		return e, bad
	}
	if e.name = clean; below {
		e.name = "*." + clean
	}
	return e, nil
}

func (e entry) hasName(host string, port uint16) bool {
	if e.name == "" || e.port != 0 && e.port != port {
		return false
	}
	below, wide := strings.CutPrefix(e.name, "*.")
	return host == e.name || wide && strings.HasSuffix(host, "."+below)
}

func (e entry) hasAddr(ip netip.Addr, port uint16) bool {
	return e.name == "" && e.net.Contains(ip) && (e.port == 0 || e.port == port)
}

// Host says whether a host, as Clean has it, may be asked for at all: ErrBound if no
// address of it could be reached. It looks nothing up.
func (b Bound) Host(host string, port uint16) error {
	if ip, err := netip.ParseAddr(host); err == nil {
		return b.Addr(host, netip.AddrPortFrom(ip, port))
	}
	for _, e := range b.deny {
		if e.hasName(host, port) {
			return ErrBound
		}
	}
	if b.public {
		return nil
	}
	for _, e := range b.allow {
		if e.hasName(host, port) || e.name == "" { // an address may be that of the host
			return nil
		}
	}
	return ErrBound
}

// Addr says whether a connection may be made to an address, which is one of host:
// ErrBound if not. Ask it for the address that is dialled, not for one looked up
// before.
func (b Bound) Addr(host string, at netip.AddrPort) error {
	ip, port := at.Addr().Unmap().WithZone(""), at.Port()
	for _, e := range b.deny {
		if e.hasName(host, port) || e.hasAddr(ip, port) || e.hasAddr(inner(ip), port) {
			return ErrBound
		}
	}
	public := isPublic(ip)
	if public && b.public {
		return nil
	}
	for _, e := range b.allow {
		if e.hasAddr(ip, port) || public && e.hasName(host, port) {
			return nil
		}
	}
	return ErrBound
}

// notPublic are networks that are not the Internet's, or lead back.
var notPublic = prefixes(
	"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24",
	"192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
	// What is global of IPv6 is in 2000::/3; this is not.
	"2001::/23", "2001:db8::/32", "3fff::/20",
)

var (
	global6 = netip.MustParsePrefix("2000::/3")
	nat64   = netip.MustParsePrefix("64:ff9b::/96")
	sixTo4  = netip.MustParsePrefix("2002::/16")
)

func prefixes(all ...string) (p []netip.Prefix) {
	for _, text := range all {
		p = append(p, netip.MustParsePrefix(text))
	}
	return p
}

// inner is the IPv4 address that an address of IPv6 leads to, else ip itself.
func inner(ip netip.Addr) netip.Addr {
	b := ip.As16()
	switch {
	case ip.Is4():
		return ip
	case nat64.Contains(ip):
		return netip.AddrFrom4([4]byte(b[12:]))
	case sixTo4.Contains(ip):
		return netip.AddrFrom4([4]byte(b[2:6]))
	}
	return ip
}

// isPublic says whether an address is one of the Internet: not of this machine, of its
// networks, of the metadata service of a cloud, or of no network at all.
func isPublic(ip netip.Addr) bool {
	ip = ip.Unmap()
	if !ip.IsValid() || ip.Zone() != "" {
		return false
	}
	if in := inner(ip); in != ip {
		return isPublic(in)
	}
	if ip.Is6() && !global6.Contains(ip) {
		return false
	}
	for _, p := range notPublic {
		if p.Contains(ip) {
			return false
		}
	}
	return true
}
