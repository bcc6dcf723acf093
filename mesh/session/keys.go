package session

import (
	"golang.org/x/crypto/blake2s"

	"skywire/mesh/key"
	"skywire/mesh/wire"
)

// Keys is what one handshake gave: immutable, and to be dropped when the Ring drops it.
type Keys struct {
	Peer             key.Public
	Theirs           wire.Payload
	Cipher           Cipher
	Send, Recv       *AEAD
	HopSend, HopRecv HopKey // links only
	SendID, RecvID   uint8  // key byte of what we send, of what we receive
	Hash             [32]byte
	Bind             [32]byte // what the handshake was bound to: on a rekey the hash of the one before
	Initiator        bool
}

// derive is BLAKE2s under a transport key over a label and, if not 0, a number.
func derive(k [32]byte, label string, number byte, size int) []byte {
	in := []byte(label)
	if number != 0 {
		in = append(in, number)
	}
	return mac(k[:], size, in)
}

// mac is keyed BLAKE2s of 16 or 32 bytes over the parts.
func mac(k []byte, size int, parts ...[]byte) []byte {
	hash := blake2s.New256
	if size == 16 {
		hash = blake2s.New128
	}
	h, err := hash(k)
	if err != nil {
		panic("session: blake2s: " + err.Error())
	}
	for _, p := range parts {
		h.Write(p)
	}
	return h.Sum(nil)
}

// split turns the two transport keys into both directions' ciphers; toResponder is the first of Noise's Split.
func (k *Keys) split(purpose Purpose, toResponder, toInitiator [32]byte) error {
	send, recv := toResponder, toInitiator
	if !k.Initiator {
		send, recv = recv, send
	}
	var err error
	if k.Send, err = NewAEAD(k.Cipher, send); err != nil {
		return err
	}
	if k.Recv, err = NewAEAD(k.Cipher, recv); err != nil {
		return err
	}
	if purpose == Link {
		copy(k.HopSend[:], derive(send, "hop", 0, 16))
		copy(k.HopRecv[:], derive(recv, "hop", 0, 16))
	}
	return nil
}

// ProofLen is the length of an end part that proves a standing session: key 1, sealed 32+16.
const ProofLen = 1 + 32 + wire.AEADLen

// SealProof makes the end part of a SETUP or ACCEPT under a session that stands. Path is the new path's number,
// which must not have been in another setup of this session; bind is the core's Bind.
func (k *Keys) SealProof(path uint16, bind [32]byte) []byte {
	var n [12]byte
	PathNonce(&n, path, ProofLane, 0)
	out := make([]byte, 1, ProofLen)
	out[0] = k.SendID
	return k.Send.Seal(out, &n, bind[:], []byte(proofAAD))
}

// OpenProof reports whether end is the peer's proof for that path and setup. Its first byte is the key's
// RecvID: find k by it.
func (k *Keys) OpenProof(path uint16, bind [32]byte, end []byte) bool {
	if len(end) != ProofLen || end[0] != k.RecvID {
		return false
	}
	var n [12]byte
	PathNonce(&n, path, ProofLane, 0)
	got, err := k.Recv.Open(nil, &n, end[1:], []byte(proofAAD))
	return err == nil && [32]byte(got) == bind
}

const proofAAD = "skywire proof 1"
