// Package meshtcp opens the kernel's TCP connections from a node's mesh address through its TUN.
//
// It says nothing about who is at the other end: mesh/stream has both ends prove themselves. Every socket is bound to the
// device, so that nothing leaves by another one when routes change or the device goes, and nothing that another device
// brings is heard.
package meshtcp

import (
	"errors"
	"net/netip"
	"time"
)

// userTimeout ends a connection whose bytes nobody acknowledges; as long as mesh/stream's QUIC lives without an answer.
const userTimeout = 60 * time.Second

// BBR is the congestion control that makes TCP worth having: of what kernels have, it alone is not held back by loss.
const BBR = "bbr"

// Opener opens connections. Its methods may be called from several goroutines.
type Opener struct {
	Address    netip.Addr // the node's
	Device     string     // the TUN that has it
	Congestion string     // the only one that will do; empty: the system's
}

// ErrNoDevice is returned where no TUN is attached to the node.
var ErrNoDevice = errors.New("no tun")
