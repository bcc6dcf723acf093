package node

import (
	"errors"
	"net/netip"

	"skywire/mesh/link/udp"
)

// portTries is how many bases are tried where the system chooses the port and those above it are taken.
const portTries = 8

// listenPorts opens the socket of an address and those of the ports above it, one for each loop, as far as they are free.
//
// Not one port shared by SO_REUSEPORT: there the kernel's hash puts two lanes of one neighbour on one loop as often as
// not, and another program of the same user could take a share of the frames without anybody noticing.
func listenPorts(c udp.Config, loops int) ([]*udp.Socket, error) {
	for try := 1; ; try++ {
		first, err := udp.Listen(c)
		if err != nil {
			return nil, err
		}
		all := []*udp.Socket{first}
		for len(all) < loops {
			port := int(first.Addr().Port()) + len(all)
			if port > 65535 {
				break
			}
			above := c
			above.Addr = netip.AddrPortFrom(c.Addr.Addr(), uint16(port))
			s, err := udp.Listen(above)
			if err != nil {
				break // taken, or not ours to have: the loops share what there is
			}
			all = append(all, s)
		}
		if len(all) == loops || c.Addr.Port() != 0 || try == portTries {
			return all, nil
		}
		_ = closeSockets(all)
	}
}

func closeSockets(all []*udp.Socket) (err error) {
	for _, s := range all {
		err = errors.Join(err, s.Close())
	}
	return err
}
