//go:build !unix

package auto

import "net"

// inherit is not supported here: the program joins at the address.
func inherit(int) net.Conn { return nil }

const canTerminate = false

func terminateSelf() {}
