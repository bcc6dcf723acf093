package forward

import (
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"skywire/mesh/key"
	"skywire/mesh/session"
)

// Session is the end-to-end association with one peer as the data plane sees it: keys, the path in use, what the peer
// may send. It stays the same object across rekeys and paths.
type Session struct {
	Peer key.Public
	Addr netip.Addr // the peer's mesh address

	plane   *Plane
	spread  uint8 // the same at both ends
	receive atomic.Pointer[[]*receiveKey]
	send    atomic.Pointer[sendKey]
	active  atomic.Pointer[Path]
	ways    atomic.Pointer[Ways]
	copies  atomic.Uint64 // number of the last packet that travelled twice
	grants  atomic.Pointer[Grants]

	mu     sync.Mutex // guards the fields below
	pieces reassembly
	copied *session.Window // numbers of copies that came; nil: none did
}

type receiveKey struct {
	id     uint8
	aead   *session.AEAD
	opened atomic.Uint64
}

type sendKey struct {
	id     uint8
	aead   *session.AEAD
	sealed atomic.Uint64
}

// Grants is what a peer may do beyond speaking from its own mesh address to ours.
type Grants struct {
	Sources []netip.Prefix // inner sources accepted from the peer: its IPv4, subnets behind it, 0.0.0.0/0 of an exit
	Serve   []netip.Prefix // destinations the peer may reach through us
	Closed  bool           // no packet of the peer is delivered: it is a guest, with whom only control and streams are
}

// NewSession returns a session with peer, whose mesh address is addr, without keys and paths.
func (p *Plane) NewSession(peer key.Public, addr netip.Addr) *Session {
	s := &Session{Peer: peer, Addr: addr, plane: p, spread: p.self[0] ^ peer[0]}
	s.grants.Store(&Grants{})
	return s
}

// SetRecvKey makes a key receivable under id, or takes it away where aead is nil. Keys under other ids stay.
// Only control calls it.
func (s *Session) SetRecvKey(id uint8, aead *session.AEAD) {
	var keys []*receiveKey
	if old := s.receive.Load(); old != nil {
		keys = slices.DeleteFunc(slices.Clone(*old), func(k *receiveKey) bool { return k.id == id })
	}
	if aead != nil {
		keys = slices.Insert(keys, 0, &receiveKey{id: id, aead: aead})
	}
	s.receive.Store(&keys)
}

// SetSendKey says which key frames are sealed with from now on, and its id at the receiver; nil: none.
func (s *Session) SetSendKey(id uint8, aead *session.AEAD) {
	if aead == nil {
		s.send.Store(nil)
		return
	}
	s.send.Store(&sendKey{id: id, aead: aead})
}

// SetActive moves what we send to p; nil: nothing can be sent.
func (s *Session) SetActive(p *Path) { s.active.Store(p) }

// Active returns the path in use, or nil.
func (s *Session) Active() *Path { return s.active.Load() }

// SetGrants replaces what the peer may send and reach. g's slices must not change afterwards.
func (s *Session) SetGrants(g Grants) { s.grants.Store(&g) }

// Opened returns how many frames were opened with the key of that id: more than 0 proves that the peer has it.
func (s *Session) Opened(id uint8) uint64 {
	if k := s.receiveKey(id); k != nil {
		return k.opened.Load()
	}
	return 0
}

// Sealed returns how many frames were sealed with the present sending key, for rekeying by count.
func (s *Session) Sealed() uint64 {
	if k := s.send.Load(); k != nil {
		return k.sealed.Load()
	}
	return 0
}

func (s *Session) receiveKey(id uint8) *receiveKey {
	keys := s.receive.Load()
	if keys == nil {
		return nil
	}
	for _, k := range *keys {
		if k.id == id {
			return k
		}
	}
	return nil
}
