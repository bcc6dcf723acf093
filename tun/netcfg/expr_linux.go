package netcfg

import (
	"net/netip"

	"golang.org/x/sys/unix"

	"skywire/tun/netcfg/nft"
)

func interfaceName(name string) []byte {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, name)
	return b
}

// arrives matches packets that came in by the device.
func arrives(device string) nft.Expr {
	return nft.Join(nft.Meta(unix.NFT_META_IIFNAME), nft.Is(interfaceName(device)))
}

// leaves matches packets that go out by the device, leavesNot those that go out by another one.
func leaves(device string) nft.Expr {
	return nft.Join(nft.Meta(unix.NFT_META_OIFNAME), nft.Is(interfaceName(device)))
}

func leavesNot(device string) nft.Expr {
	return nft.Join(nft.Meta(unix.NFT_META_OIFNAME), nft.IsNot(interfaceName(device)))
}

func source(p netip.Prefix) nft.Expr      { return address(p, 12, 8) }
func destination(p netip.Prefix) nft.Expr { return address(p, 16, 24) }

// address matches an address of the network header at the offset for its family.
func address(p netip.Prefix, offset4, offset6 uint32) nft.Expr {
	proto, offset, length := byte(unix.NFPROTO_IPV4), offset4, uint32(4)
	if p.Addr().Is6() {
		proto, offset, length = unix.NFPROTO_IPV6, offset6, 16
	}
	n := ipNet(p.Masked())
	return nft.Join(
		nft.Meta(unix.NFT_META_NFPROTO), nft.Is([]byte{proto}),
		nft.Payload(unix.NFT_PAYLOAD_NETWORK_HEADER, offset, length), nft.And(n.Mask), nft.Is(n.IP),
	)
}

// established matches packets of connections that were let through before, and errors about them.
func established() nft.Expr {
	const stateEstablished, stateRelated = 2, 4 // NF_CT_STATE_BIT of the kernel's enum ip_conntrack_info
	return nft.Join(
		nft.Ct(unix.NFT_CT_STATE), nft.And(nft.Native32(stateEstablished|stateRelated)), nft.IsNot(nft.Native32(0)),
	)
}

// clampMSS lowers the MSS of a TCP SYN to what the route's mtu allows.
func clampMSS() nft.Expr {
	const syn, rst, optionMSS = 0x02, 0x04, 2
	return nft.Join(
		nft.Meta(unix.NFT_META_L4PROTO), nft.Is([]byte{unix.IPPROTO_TCP}),
		nft.Payload(unix.NFT_PAYLOAD_TRANSPORT_HEADER, 13, 1), nft.And([]byte{syn | rst}), nft.Is([]byte{syn}),
		nft.RouteMSS(), nft.Swap16(), nft.SetTCPOption(optionMSS, 2, 2),
	)
}

// icmp matches ICMP of either family.
func icmp(v6 bool) nft.Expr {
	proto := byte(unix.IPPROTO_ICMP)
	if v6 {
		proto = unix.IPPROTO_ICMPV6
	}
	return nft.Join(nft.Meta(unix.NFT_META_L4PROTO), nft.Is([]byte{proto}))
}

func reject() nft.Expr { return nft.Reject(unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED) }
