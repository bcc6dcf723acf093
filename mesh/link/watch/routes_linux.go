package watch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"net/netip"
	"os"
	"sort"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// routesLooked is how many routes are told apart: a box with a table of the whole Internet is no box that roams.
const routesLooked = 1024

// subscribe puts a note into wake for each message of the kernel about links, addresses and routes. What they say is not read: a
// look at the whole is as cheap and never out of step.
func subscribe(ctx context.Context, wake chan<- struct{}) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("netlink: %w", err)
	}
	f := os.NewFile(uintptr(fd), "netlink")
	defer f.Close()
	groups := uint32(unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR | unix.RTMGRP_IPV4_ROUTE | unix.RTMGRP_IPV6_ROUTE)
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		return fmt.Errorf("netlink: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = f.Close() }) // ends Read
	defer stop()
	buf := make([]byte, 4096) // a longer message is cut, which does no harm
	for {
		if _, err := f.Read(buf); err != nil && !errors.Is(err, unix.ENOBUFS) { // ENOBUFS: more came than fitted
			return fmt.Errorf("netlink: %w", err)
		}
		select {
		case wake <- struct{}{}:
		default: // there is one already
		}
	}
}

// addRoutes adds what the main table says.
func (s *State) addRoutes() error {
	var others []string
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		all, err := netlink.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
		if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
			return fmt.Errorf("list routes: %w", err)
		}
		for _, r := range all[:min(len(all), routesLooked)] {
			if name := s.named(r.LinkIndex); name == "" {
				continue
			}
			gw, ok := netip.AddrFromSlice(r.Gw)
			if ones := prefixLen(&r); ones == 0 && ok {
				s.Gateways = append(s.Gateways, Gateway{Interface: r.LinkIndex, Addr: zoned(gw.Unmap(), s.named(r.LinkIndex)), Metric: r.Priority})
				continue
			}
			others = append(others, fmt.Sprint(r.Dst, r.Gw, r.LinkIndex, r.Priority, r.Type))
		}
	}
	sort.Slice(s.Gateways, func(i, j int) bool {
		a, b := s.Gateways[i], s.Gateways[j]
		return cmp.Or(cmp.Compare(a.Metric, b.Metric), cmp.Compare(a.Interface, b.Interface), a.Addr.Compare(b.Addr)) < 0
	})
	sort.Strings(others)
	h := fnv.New64a()
	for _, o := range others {
		_, _ = h.Write([]byte(o))
	}
	s.Routes = h.Sum64()
	return nil
}

// prefixLen is how many bits of its destination a route looks at.
func prefixLen(r *netlink.Route) int {
	if r.Dst == nil {
		return 0
	}
	ones, _ := r.Dst.Mask.Size()
	return ones
}

func zoned(a netip.Addr, zone string) netip.Addr {
	if a.IsLinkLocalUnicast() && a.Is6() {
		return a.WithZone(zone)
	}
	return a
}
