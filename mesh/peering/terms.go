package peering

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"skywire/mesh/app"
	"skywire/mesh/key"
	"skywire/mesh/member"
	"skywire/signal"
)

// gates reads [KEY@]HOST:PORT words, or finds where this node can be reached.
func (g *Gateway) gates(ctx context.Context, home *app.Client, words []string) (all []member.Contact, err error) {
	self := home.Self().Key
	if len(words) == 0 {
		if words, err = ownAddresses(ctx, home); err != nil {
			return nil, err
		}
	}
	for _, w := range words {
		if !strings.Contains(w, "@") {
			w = self.String() + "@" + w
		}
		c, err := contactOf(w)
		if err != nil {
			return nil, usage(err)
		}
		if _, _, err := net.SplitHostPort(strings.TrimPrefix(c.Addr, "udp://")); err != nil {
			return nil, usage(fmt.Errorf("address %q: want HOST:PORT", c.Addr))
		}
		if len(all) < maxGates {
			all = append(all, c)
		}
	}
	return all, nil
}

// ownAddresses are those that the node publishes, or else those of this box at the node's port.
func ownAddresses(ctx context.Context, home *app.Client) (all []string, err error) {
	var records []struct {
		Key   key.Public `json:"key"`
		Addrs []string   `json:"addresses"`
	}
	if err := home.Call(ctx, "node.records", nil, &records); err != nil {
		return nil, err
	}
	for _, r := range records {
		for _, a := range r.Addrs {
			if a, udp := strings.CutPrefix(a, "udp://"); udp && r.Key == home.Self().Key && !strings.HasPrefix(a, ":") {
				all = append(all, a)
			}
		}
	}
	if len(all) > 0 {
		return all, nil
	}
	var status struct {
		Listen []string `json:"listen"`
	}
	if err := home.Call(ctx, "node.status", nil, &status); err != nil {
		return nil, err
	}
	interfaces, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("addresses: %w", err)
	}
	for _, l := range status.Listen {
		at, err := netip.ParseAddrPort(strings.TrimPrefix(l, "udp://"))
		if err != nil {
			continue
		}
		if !at.Addr().IsUnspecified() {
			all = append(all, at.String())
			continue
		}
		for _, i := range interfaces {
			n, ok := i.(*net.IPNet)
			if a, is := netip.AddrFromSlice(n.IP); ok && is && a.Unmap().IsGlobalUnicast() && !home.Self().Prefix.Contains(a) {
				all = append(all, netip.AddrPortFrom(a.Unmap(), at.Port()).String())
			}
		}
	}
	if len(all) == 0 {
		return nil, signal.Errorf(signal.ErrUsage, "no address of this node is known that others can dial: give one with --at HOST:PORT")
	}
	return all, nil
}

// grant makes terms of words. What is asked for names services of the other side, which are not looked for here.
func (g *Gateway) grant(ctx context.Context, home *app.Client, t Terms, theirs bool) (v Grant, err error) {
	for _, text := range t.Exports {
		e, err := ParseExport(text, func(name string) (key.Public, error) {
			if theirs {
				return key.Public{}, fmt.Errorf("which node offers it is for the other side to say")
			}
			return home.Resolve(ctx, name)
		})
		if err != nil {
			return v, usage(err)
		}
		if e.Service != "" && !theirs {
			describe(ctx, home, &e)
		}
		v.Exports = append(v.Exports, e)
	}
	if v.Messaging, err = ParseMessaging(orWord(t.Messaging, "no")); err != nil {
		return v, usage(err)
	}
	v.Verbs, v.Nodes, v.Rate, v.Quota = t.Verbs, t.Nodes, t.Rate, t.Quota
	if !v.Sort() {
		return v, usage(fmt.Errorf("a name stands twice among the exports or verbs"))
	}
	return v, nil
}

func orWord(s, d string) string {
	if s == "" {
		return d
	}
	return s
}

// describe fills in type and port of a service from who offers it.
func describe(ctx context.Context, home *app.Client, e *Export) {
	all, err := home.Services(ctx, "")
	if err != nil {
		return
	}
	for _, s := range all {
		if s.Name == e.Service && (e.Node.IsZero() || e.Node == s.Key) && member.ValidName(s.Type) {
			e.Type, e.Port = s.Type, s.Port
			return
		}
	}
}

// ParseExport reads one thing to export:
//
//	web                       the service web of whichever node offers it
//	web=alice:http            the service http of the node alice, as web
//	web=@tag:http             of a node whose certificate has the tag
//	db=tcp://10.0.0.7:5432    an address that this box reaches
//	lan=10.0.0.0/24:80-443    a subnet and ports; streams to it say their target
func ParseExport(text string, resolve func(name string) (key.Public, error)) (e Export, err error) {
	bad := func(why string) (Export, error) {
		return Export{}, fmt.Errorf("export %q: %s; want NAME, NAME=NODE:SERVICE, NAME=@TAG:SERVICE, NAME=tcp://ADDRESS:PORT or NAME=SUBNET:PORT-PORT", text, why)
	}
	name, to, is := strings.Cut(text, "=")
	if !member.ValidName(name) {
		return bad("the name needs 1 to 32 of a-z, 0-9 and inner hyphens")
	}
	e = Export{Name: name, Type: "tcp", Service: name}
	if !is {
		return e, nil
	}
	if at, ok := strings.CutPrefix(to, "tcp://"); ok {
		a, err := netip.ParseAddrPort(at)
		if err != nil || a.Port() == 0 {
			return bad("no ADDRESS:PORT")
		}
		e.Service, e.Subnet, e.Low, e.High, e.Port = "", netip.PrefixFrom(a.Addr().Unmap(), a.Addr().Unmap().BitLen()), a.Port(), a.Port(), a.Port()
		return e, nil
	}
	i := strings.LastIndexByte(to, ':')
	if i <= 0 || i == len(to)-1 {
		return bad("nothing behind the =")
	}
	left, right := to[:i], to[i+1:]
	if p, err := netip.ParsePrefix(strings.Trim(left, "[]")); err == nil {
		low, high, is := strings.Cut(right, "-")
		if !is {
			high = low
		}
		l, err1 := strconv.ParseUint(low, 10, 16)
		h, err2 := strconv.ParseUint(high, 10, 16)
		if err1 != nil || err2 != nil || l == 0 || l > h || p.Masked() != p {
			return bad("no SUBNET:PORT-PORT")
		}
		e.Type, e.Service, e.Subnet, e.Low, e.High = "socks", "", p, uint16(l), uint16(h)
		return e, nil
	}
	e.Service = right
	if tag, ok := strings.CutPrefix(left, "@"); ok {
		if e.Tag = tag; !member.ValidName(tag) {
			return bad("no tag")
		}
		return e, nil
	}
	if e.Node, err = resolve(left); err != nil {
		return Export{}, fmt.Errorf("export %q: node %s: %w", text, left, err)
	}
	return e, nil
}
