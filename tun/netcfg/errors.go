package netcfg

import (
	"errors"
	"fmt"
)

var (
	// ErrNoRights is returned when the kernel refuses a change for want of CAP_NET_ADMIN.
	ErrNoRights = errors.New("no right to change the network: run as root or with CAP_NET_ADMIN")
	// ErrNoNFT is returned when the kernel has no nftables, or lacks a part of it that is needed.
	ErrNoNFT = errors.New("the kernel's nftables lack something: load nf_tables, nft_chain_nat, nft_masq, nft_ct, nft_objref, nft_limit, nft_quota and nft_reject_inet " +
		"(OpenWrt: kmod-nft-core, kmod-nft-nat), or do NAT yourself with --no-nat")
	// ErrNoIPv6 is returned when the kernel runs without IPv6, which mesh addresses need.
	ErrNoIPv6 = errors.New("the kernel runs without IPv6, which mesh addresses need: boot without ipv6.disable=1")
	// ErrLinkExists is returned when a device of the wished name exists that no earlier run of ours made.
	ErrLinkExists = errors.New("a device of this name exists and is not ours: choose another with --dev, or delete it")
	// ErrRouteExists is returned when the box has the same route already.
	ErrRouteExists = errors.New("the box has a route to the same prefix already")
)

// HeldError is returned by Open when another process owns the device.
type HeldError struct {
	Device string
	PID    int // 0: not known
}

func (e *HeldError) Error() string {
	return fmt.Sprintf("device %s is held by another vpn process (pid %d): stop it first, or choose another device with --dev",
		e.Device, e.PID)
}
