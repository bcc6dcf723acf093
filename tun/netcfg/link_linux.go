package netcfg

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// addrGenModeNone is IN6_ADDR_GEN_MODE_NONE of linux/if_link.h.
const addrGenModeNone = 1

// ClaimLink journals that the device is about to be made, so that it is deleted in the end. It fails with ErrLinkExists
// when there is one.
func (n *Net) ClaimLink() error {
	return n.change(entry{Kind: kindLink, Device: n.c.Device}, func() error {
		_, err := findLink(n.c.Device)
		if err == nil {
			return fmt.Errorf("%s: %w (`ip link delete %[1]s`)", n.c.Device, ErrLinkExists)
		}
		if !gone(err) {
			return fmt.Errorf("look for device %s: %w", n.c.Device, err)
		}
		return nil
	})
}

// SetLink sets the device and takes it up. It is not journaled: it ends with the device.
func (n *Net) SetLink(l Link) error {
	link, err := findLink(n.c.Device)
	if err != nil {
		return fmt.Errorf("find device %s: %w", n.c.Device, explain(err))
	}
	if err := enableIPv6(n.c.Device); err != nil {
		return err
	}
	if err := netlink.LinkSetMTU(link, l.MTU); err != nil {
		return fmt.Errorf("set mtu of %s to %d: %w", n.c.Device, l.MTU, explain(err))
	}
	if err := netlink.LinkSetTxQLen(link, l.QueueLen); err != nil {
		return fmt.Errorf("set queue length of %s: %w", n.c.Device, explain(err))
	}
	if l.GSOMaxSize > 0 {
		// Only a gain of a few percent; old kernels cannot.
		if err := netlink.LinkSetGSOMaxSize(link, l.GSOMaxSize); err != nil {
			n.log.Debug("gso_max_size not set", "device", n.c.Device, "err", err)
		}
	}
	// A link-local address would bring router solicitations and multicast reports into the mesh.
	if err := netlink.LinkSetIP6AddrGenMode(link, addrGenModeNone); err != nil {
		n.log.Debug("addrgenmode not set", "device", n.c.Device, "err", err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("take %s up: %w", n.c.Device, explain(err))
	}
	return nil
}

// Address gives the device an address.
func (n *Net) Address(group string, p netip.Prefix) error {
	e := entry{Kind: kindAddress, Group: group, Device: n.c.Device, Prefix: p.String()}
	err := n.change(e, func() error {
		link, err := findLink(n.c.Device)
		if err != nil {
			return err
		}
		a := &netlink.Addr{IPNet: ipNet(p)}
		if p.Addr().Is6() {
			a.Flags = unix.IFA_F_NODAD // the address is derived from a key: nobody else has it
		}
		return netlink.AddrAdd(link, a)
	})
	if errors.Is(err, unix.EEXIST) {
		return nil // another role's, which takes it back
	}
	if err != nil {
		return fmt.Errorf("add address %s to %s: %w", p, n.c.Device, err)
	}
	return nil
}

// Addresses lists the device's addresses; tests and status use it.
func (n *Net) Addresses() ([]netip.Prefix, error) {
	link, err := findLink(n.c.Device)
	if err != nil {
		return nil, fmt.Errorf("find device %s: %w", n.c.Device, err)
	}
	list, err := netlink.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list addresses of %s: %w", n.c.Device, err)
	}
	var out []netip.Prefix
	for _, a := range list {
		if p, ok := prefixOf(a.IPNet); ok {
			out = append(out, p)
		}
	}
	return out, nil
}

func removeLink(name string) error {
	link, err := findLink(name)
	if gone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if link.Type() != "tun" && link.Type() != "tuntap" {
		return nil // somebody reused the name
	}
	if err := netlink.LinkDel(link); err != nil && !gone(err) {
		return err
	}
	return nil
}

func removeAddress(device, prefix string) error {
	p, err := netip.ParsePrefix(prefix)
	if err != nil {
		return err
	}
	link, err := findLink(device)
	if err == nil {
		err = netlink.AddrDel(link, &netlink.Addr{IPNet: ipNet(p)})
	}
	if gone(err) {
		return nil
	}
	return err
}

// findLink gives the link of a name, or an error for which gone is true.
func findLink(name string) (netlink.Link, error) {
	link, err := netlink.LinkByName(name)
	var missing netlink.LinkNotFoundError
	if errors.As(err, &missing) {
		return nil, fmt.Errorf("%s: %w", name, unix.ENODEV)
	}
	return link, err
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func prefixOf(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	a, ok := netip.AddrFromSlice(n.IP)
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(a.Unmap(), bits), ok
}
