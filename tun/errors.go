package tun

import (
	"errors"
	"fmt"
)

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

// LostError is returned by Send and Flush when the kernel refused several packets. One refused packet is told by the bare
// error, whatever call it was given to the device by.
type LostError struct {
	Packets int
	Err     error // of the last one
}

func (e *LostError) Error() string { return fmt.Sprintf("%d packets refused: %v", e.Packets, e.Err) }

// Unwrap returns the kernel's error.
func (e *LostError) Unwrap() error { return e.Err }

// Lost returns the number of packets; mesh/forward counts them as dropped.
func (e *LostError) Lost() int { return e.Packets }
