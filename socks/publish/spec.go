package publish

import (
	"fmt"
	"net"
	"strconv"
	"strings"

	"skywire/mesh/app"
)

// maxName bounds the name of a service: it is a label of a domain name.
const maxName = 63

// reserved are the names of what skywire's own apps offer.
const reserved = " bench join manager member messenger socks socks-udp stream viscript vpn apptracker tracker "

// Spec is one service to publish.
type Spec struct {
	Name    string
	Port    uint16 // under which it is known
	Network string // of the program behind it: tcp, udp or unix
	Address string
}

// ParseSpec opens NAME[:PORT]=URL. URL is tcp://HOST:PORT, udp://HOST:PORT or unix:PATH. PORT is the one under which the
// service is known, and needed for unix; without it, that of the URL.
func ParseSpec(text string) (Spec, error) {
	bad := func(why string) (Spec, error) {
		return Spec{}, fmt.Errorf("%w %q: %s; want NAME[:PORT]=tcp://HOST:PORT, udp://HOST:PORT or unix:PATH", ErrSpec, text, why)
	}
	name, to, ok := strings.Cut(text, "=")
	if !ok {
		return bad("no =")
	}
	s := Spec{}
	name, port, known := strings.Cut(name, ":")
	s.Name = strings.ToLower(name)
	switch {
	case !validLabel(s.Name):
		return bad("the name needs 1 to 63 of a-z 0-9 -")
	case strings.Contains(reserved, " "+s.Name+" "):
		return bad("the name belongs to an app of skywire's own")
	}
	if path, unix := strings.CutPrefix(to, "unix:"); unix {
		s.Network, s.Address = "unix", strings.TrimPrefix(path, "//")
		if s.Address == "" || !known {
			return bad("a unix socket needs a path, and NAME:PORT in front")
		}
	} else {
		s.Network, s.Address, ok = strings.Cut(strings.TrimSuffix(to, "/"), "://")
		if !ok || s.Network != "tcp" && s.Network != "udp" {
			return bad("neither tcp://, udp:// nor unix: behind the =")
		}
		host, p, err := net.SplitHostPort(s.Address)
		if err != nil || host == "" {
			return bad("no HOST:PORT behind the =")
		}
		if !known {
			port = p
		}
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return bad("no port number")
	}
	s.Port = uint16(n)
	return s, nil
}

// validLabel tells whether a name can stand in a domain name.
func validLabel(s string) bool {
	return s != "" && len(s) <= maxName && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == "" &&
		!strings.HasPrefix(s, "-") && !strings.HasSuffix(s, "-")
}

// services joins specs of one name, one of TCP and one of UDP, into the service that the node is told of.
func services(specs []Spec) ([]*service, error) {
	var all []*service
	for i := range specs {
		s := &specs[i]
		var sv *service
		for _, o := range all {
			if o.name == s.Name {
				sv = o
			}
		}
		if sv == nil {
			sv = &service{name: s.Name, port: s.Port}
			all = append(all, sv)
		}
		slot := &sv.stream
		if s.Network == "udp" {
			slot = &sv.packets
		}
		if *slot != nil || sv.port != s.Port {
			return nil, fmt.Errorf("%w: %q is published twice, or under two ports", ErrSpec, s.Name)
		}
		*slot = s
	}
	for i, a := range all {
		for _, b := range all[:i] {
			if a.port == b.port && (a.stream != nil && b.stream != nil || a.packets != nil && b.packets != nil) {
				return nil, fmt.Errorf("%w: %q and %q are published under one port", ErrSpec, b.name, a.name)
			}
		}
	}
	return all, nil
}

// kind is the service's type in the node's record.
func (s *service) kind() string {
	switch {
	case s.stream != nil && s.packets != nil:
		return app.TypeBoth
	case s.packets != nil:
		return app.TypeUDP
	}
	return app.TypeTCP
}

// String is the URL.
func (s *Spec) String() string {
	if s.Network == "unix" {
		return "unix:" + s.Address
	}
	return s.Network + "://" + s.Address
}
