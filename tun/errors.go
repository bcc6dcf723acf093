package tun

import "errors"

var (
	// ErrNoDevice is returned when the kernel has no TUN driver or /dev/net/tun is missing.
	ErrNoDevice = errors.New("no TUN support: load the module tun (OpenWrt: package kmod-tun) and see that /dev/net/tun exists")
	// ErrNoRights is returned when making a device is not permitted.
	ErrNoRights = errors.New("no right to make a TUN device: run as root or with CAP_NET_ADMIN")
	// ErrBusy is returned when another process holds a device of this name.
	ErrBusy = errors.New("device is held by another process")
	// ErrNotTUN is returned when a descriptor given to FromFile is no TUN device, or one with flags we cannot use.
	ErrNotTUN = errors.New("descriptor is no usable TUN device")
	// ErrPacket is returned by Send for a packet that is no IP packet, or says that its checksum is open but is neither
	// TCP nor UDP. It was dropped.
	ErrPacket = errors.New("packet refused")
)
