package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"skywire/mesh/forward"
	"skywire/mesh/link/framed"
	"skywire/mesh/link/tcp"
)

// address is an ADDR in its parts.
type address struct {
	scheme, host, port string
	path               string // of wss and ws
}

func (a address) String() string {
	return a.scheme + "://" + net.JoinHostPort(a.host, a.port) + a.path
}

// parseAddress takes an ADDR: udp://host:port, host:port, tcp://host:port, wss://host[:port]/path, ws://host[:port]/path.
func parseAddress(s string) (address, error) {
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok {
		scheme, rest = "udp", s
	}
	a := address{scheme: scheme}
	switch scheme {
	case "udp", "tcp":
	case "wss", "ws":
		if i := strings.IndexByte(rest, '/'); i >= 0 {
			rest, a.path = rest[:i], rest[i:]
		}
		if a.path == "" {
			a.path = "/"
		}
		if strings.ContainsFunc(a.path, func(r rune) bool { return r <= ' ' || r >= 0x7f }) || len(a.path) > maxPath {
			return address{}, fmt.Errorf("path %q: want at most %d visible ASCII characters", a.path, maxPath)
		}
	default:
		return address{}, fmt.Errorf("carrier %q: there are udp, tcp, wss and ws", scheme)
	}
	var err error
	if a.host, a.port, err = net.SplitHostPort(rest); err != nil {
		if !strings.Contains(err.Error(), "missing port") {
			return address{}, err
		}
		a.host, a.port = strings.Trim(rest, "[]"), defaultPorts[scheme]
	}
	if _, err := strconv.ParseUint(a.port, 10, 16); err != nil {
		return address{}, fmt.Errorf("port %q is none", a.port)
	}
	return a, nil
}

// maxPath bounds the path of a wss address, which has to fit the head of a request.
const maxPath = 128

// CheckAddr reports what is wrong with an ADDR; dial: it is to be dialled, so it needs a host and a port that is one.
func CheckAddr(s string, dial bool) error {
	a, err := parseAddress(s)
	switch {
	case err != nil:
		return err
	case dial && a.host == "":
		return errors.New("no host")
	case dial && strings.Trim(a.port, "0") == "":
		return fmt.Errorf("port %q is none from 1 to 65535", a.port)
	}
	return nil
}

// endpoints turns an ADDR into what can be sent to: names are looked up, and stream carriers get a place to dial for each
// address.
func (n *Node) endpoints(ctx context.Context, text string) ([]forward.Endpoint, error) {
	a, err := parseAddress(text)
	if err != nil {
		return nil, err
	}
	if a.scheme != "udp" {
		return n.carriers.targets(ctx, a)
	}
	addrs, err := lookup(ctx, net.JoinHostPort(a.host, a.port))
	if err != nil {
		return nil, err
	}
	var eps []forward.Endpoint
	for _, at := range addrs {
		if i, ok := n.socketFor(at); ok {
			eps = append(eps, forward.Endpoint{Addr: at, Socket: i})
		}
	}
	if len(eps) == 0 {
		return nil, errNoFamily
	}
	return eps, nil
}

// lastEndpoint is where a neighbour was, as pinName wrote it; nothing where that would have to be looked up.
func (n *Node) lastEndpoint(name string) []forward.Endpoint {
	a, err := parseAddress(name)
	if err != nil {
		return nil
	}
	if _, err := netip.ParseAddr(a.host); err != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	eps, _ := n.endpoints(ctx, name)
	return eps
}

// targets returns the places to dial for an address of a stream carrier. Behind a proxy it is one, and the proxy looks the
// name up.
func (c *carriers) targets(ctx context.Context, a address) ([]forward.Endpoint, error) {
	proxy, err := c.proxyFor(a)
	if err != nil {
		return nil, err
	}
	where := a
	if proxy != nil {
		where = address{host: proxy.Hostname(), port: proxy.Port()}
		if where.port == "" {
			where.port = "80"
		}
	}
	addrs, err := lookup(ctx, net.JoinHostPort(where.host, where.port))
	if err != nil {
		return nil, err
	}
	var eps []forward.Endpoint
	for _, at := range addrs {
		first, dial := c.dialer(a, at, proxy)
		e, err := c.set.Target(first, a.String(), at, dial)
		if err != nil {
			return nil, err
		}
		eps = append(eps, e)
	}
	return eps, nil
}

// dialer returns how an address is dialled, at is where the server, or the proxy, was found.
func (c *carriers) dialer(a address, at netip.AddrPort, proxy *url.URL) (uint16, framed.Dialer) {
	if a.scheme == "tcp" {
		return forward.FirstTCP, func(ctx context.Context) (net.Conn, error) { return tcp.Dial(ctx, at) }
	}
	client := c.wssClient(a, proxy)
	return forward.FirstWSS, func(ctx context.Context) (net.Conn, error) {
		conn, err := tcp.Dial(ctx, at)
		if err != nil {
			return nil, err
		}
		return client(ctx, conn)
	}
}

// upgrade returns what makes a stream of frames of a connection that a listener of an address accepts.
func (c *carriers) upgrade(a address) (uint16, framed.Upgrade, error) {
	if a.scheme == "tcp" {
		return forward.FirstTCP, tcp.Prepare, nil
	}
	upgrade, err := wssServer(a)
	if err != nil {
		return 0, nil, err
	}
	return forward.FirstWSS, func(conn net.Conn) (net.Conn, error) {
		conn, err := tcp.Prepare(conn)
		if err != nil {
			return nil, err
		}
		return upgrade(conn)
	}, nil
}

// proxyFor returns the proxy by which an address is reached; nil: none.
func (c *carriers) proxyFor(a address) (*url.URL, error) {
	text := c.n.cfg.Carriers.Proxy
	if a.scheme != "wss" || text == "" || direct(a.host, c.n.cfg.Carriers.NoProxy) {
		return nil, nil
	}
	return wssProxy(text)
}

// direct reports whether a host is one of those that are reached without a proxy: names, domains and prefixes by commas.
func direct(host, list string) bool {
	at, err := netip.ParseAddr(host)
	named := err != nil
	if named && host == "localhost" || !named && at.IsLoopback() {
		return true
	}
	for entry := range strings.SplitSeq(list, ",") {
		entry = strings.TrimSpace(entry)
		domain := strings.TrimPrefix(strings.TrimPrefix(entry, "*"), ".")
		switch {
		case entry == "":
		case entry == "*", strings.EqualFold(entry, host):
			return true
		case named && len(host) > len(domain) && strings.EqualFold(host[len(host)-len(domain)-1:], "."+domain):
			return true
		case !named:
			if p, err := netip.ParsePrefix(entry); err == nil && p.Contains(at) {
				return true
			}
		}
	}
	return false
}

// defaultPorts of the carriers.
var defaultPorts = map[string]string{"udp": strconv.Itoa(DefaultPort), "tcp": strconv.Itoa(DefaultPort), "wss": "443", "ws": "80"}
