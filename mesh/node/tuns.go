package node

import (
	"context"
	"errors"
	"fmt"
	"os"

	"skywire/mesh/app"
	"skywire/mesh/forward"
)

// tunPart is a descriptor of an attached device and the loop that has it.
type tunPart struct {
	loop  int
	tun   forward.TUN
	write bool // a second descriptor of a queue that another loop reads
}

// AttachTUN implements api.Node. The kernel spreads flows over all queues that are open, so each gets a loop that reads
// it. A loop that is left without one writes to a queue of another's, by a descriptor of its own: a device keeps what it
// joins, and serves one goroutine.
func (n *Node) AttachTUN(_ context.Context, t app.TUN, queues []*os.File) error {
	parts, err := n.openTUN(t, queues)
	if err != nil {
		return fmt.Errorf("tun %s: %w", t.Device, err)
	}
	n.tunMu.Lock()
	defer n.tunMu.Unlock()
	n.letGo(n.tuns[t.Device])
	delete(n.tuns, t.Device)
	for i, p := range parts {
		if p.write {
			err = n.loops[p.loop].AttachWriter(p.tun)
		} else {
			err = n.loops[p.loop].Attach(p.tun)
		}
		if err != nil {
			n.letGo(parts[:i])
			closeParts(parts[i:])
			return fmt.Errorf("tun %s: %w", t.Device, err)
		}
	}
	n.tuns[t.Device] = parts
	n.log.Info("tun attached", "device", t.Device, "mtu", t.MTU, "queues", len(queues))
	return nil
}

// openTUN wraps the queues, and duplicates for the loops beyond them. It takes them over, also when it fails.
func (n *Node) openTUN(t app.TUN, queues []*os.File) (parts []tunPart, err error) {
	if n.cfg.OpenTUN == nil {
		err = fmt.Errorf("this build takes no TUN devices: %w", os.ErrInvalid)
	}
	given := len(queues)
	for i := given; i < len(n.loops) && err == nil; i++ {
		var d *os.File
		if d, err = app.Duplicate(queues[i%given]); err == nil {
			queues = append(queues, d)
		}
	}
	for i, f := range queues {
		if err != nil {
			_ = f.Close()
			continue
		}
		var d forward.TUN
		if d, err = n.cfg.OpenTUN(f, t.MTU); err == nil {
			parts = append(parts, tunPart{loop: i % len(n.loops), tun: d, write: i >= given})
		}
	}
	if err != nil {
		closeParts(parts)
		return nil, err
	}
	return parts, nil
}

// letGo takes parts out of their loops and closes them.
func (n *Node) letGo(parts []tunPart) (err error) {
	for _, p := range parts {
		err = errors.Join(err, n.loops[p.loop].Detach(p.tun))
	}
	closeParts(parts)
	return err
}

func closeParts(parts []tunPart) {
	for _, p := range parts {
		_ = p.tun.Close()
	}
}

// DetachTUN implements api.Node.
func (n *Node) DetachTUN(_ context.Context, device string) error {
	n.tunMu.Lock()
	defer n.tunMu.Unlock()
	parts := n.tuns[device]
	if parts == nil {
		return nil
	}
	delete(n.tuns, device)
	n.streams.TUNGone()
	err := n.letGo(parts)
	n.log.Info("tun detached", "device", device)
	return err
}

// tunBroke is called by the loop when a device was deleted under it. Not there but in closeBroken the descriptors are
// closed: the lock may be held by an Attach that waits for the loop.
func (n *Node) tunBroke(t forward.TUN, err error) {
	n.log.Warn("tun lost", "err", err)
	select {
	case n.broken <- t:
	default: // closed with the node
	}
}

// closeBroken gives up devices of which a queue broke.
func (n *Node) closeBroken(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case t := <-n.broken:
			if n.forget(t) {
				n.streams.TUNGone()
			}
		}
	}
}

// forget lets go of the device that t is a queue of; false: that was done already.
func (n *Node) forget(t forward.TUN) bool {
	n.tunMu.Lock()
	defer n.tunMu.Unlock()
	for device, parts := range n.tuns {
		for _, p := range parts {
			if p.tun == t {
				delete(n.tuns, device)
				_ = n.letGo(parts)
				return true
			}
		}
	}
	return false
}

// queuesByLoop counts the queues that each loop reads.
func (n *Node) queuesByLoop() []int {
	count := make([]int, len(n.loops))
	n.tunMu.Lock()
	defer n.tunMu.Unlock()
	for _, parts := range n.tuns {
		for _, p := range parts {
			if !p.write {
				count[p.loop]++
			}
		}
	}
	return count
}
