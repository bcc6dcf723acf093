package node

import (
	"context"
	"errors"
	"net/netip"
	"syscall"
	"time"

	"skywire/mesh/forward"
	"skywire/mesh/key"
	"skywire/mesh/link"
	"skywire/mesh/wire"
)

// The node as mesh/stream's carrier: QUIC packets travel on the active path of the peer's session.

// SendQUIC implements stream.Carrier.
func (n *Node) SendQUIC(peer key.Public, train []byte, seg int) error {
	s := n.planeSession(peer)
	if s == nil {
		return forward.ErrNoPath
	}
	n.sendMu.Lock()
	err := n.sender.QUIC(link.Now(), s, train, seg)
	n.sendMu.Unlock()
	if errors.Is(err, forward.ErrTooBig) {
		return syscall.EMSGSIZE
	}
	return err
}

// MTU implements stream.Carrier.
func (n *Node) MTU(peer key.Public) int {
	s := n.planeSession(peer)
	if s == nil {
		return 0
	}
	p := s.Active()
	if p == nil {
		return 0
	}
	return p.MTU() - wire.HeaderLen
}

// Ready implements stream.Carrier.
func (n *Node) Ready(ctx context.Context, peer key.Public) error {
	if s := n.planeSession(peer); s != nil && s.Active() != nil {
		return nil
	}
	result := make(chan error, 1)
	if err := n.do(ctx, func(now time.Duration) {
		n.core.Want(now, peer, func(err error) { result <- err })
	}); err != nil {
		return err
	}
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-n.ended:
		return ErrClosed
	}
}

// Address implements stream.Carrier.
func (n *Node) Address(peer key.Public) netip.Addr { return n.network.Address(peer) }

// Peer implements stream.Carrier.
func (n *Node) Peer(a netip.Addr) (key.Public, bool) {
	s := n.core.SessionAt(a)
	if s == nil {
		return key.Public{}, false
	}
	return s.Peer, true
}

type peerAddress struct {
	peer key.Public
	addr netip.Addr
}

// planeSession returns the data plane's session with a peer, if there is one; any goroutine may call it. Bulk comes in
// trains to one peer, so the address of the last one is kept: hashing it for each train was 3 % of a sending node.
func (n *Node) planeSession(peer key.Public) *forward.Session {
	a := n.lastPeer.Load()
	if a == nil || a.peer != peer {
		a = &peerAddress{peer: peer, addr: n.network.Address(peer)}
		n.lastPeer.Store(a)
	}
	return n.core.SessionAt(a.addr)
}
