package vpn

import (
	"encoding/json"
	"fmt"
	"net/netip"
)

// Version of the agreement between client and server.
const Version = 1

// maxSubnets bounds what one answer offers, so that it fits a stream's reply of 4 KiB.
const maxSubnets = 60

// Request is what a client asks, in the header of the stream:
//
//	{"version":1,"exit":true}
type Request struct {
	Version int  `json:"version"`
	Exit    bool `json:"exit"`
}

// Answer is what a server grants, in the reply. It holds while the stream is open.
//
//	{"version":1,"ipv4":"100.64.7.9","gateway":"100.64.1.2","exit":true,"ipv6":true,"subnets":["192.168.9.0/24"],"mtu":1400}
type Answer struct {
	Version int            `json:"version"`
	IPv4    netip.Addr     `json:"ipv4"`    // leased to the client
	Gateway netip.Addr     `json:"gateway"` // the server's own, which answers pings
	Exit    bool           `json:"exit"`
	IPv6    bool           `json:"ipv6"` // the exit carries IPv6, too
	Subnets []netip.Prefix `json:"subnets,omitempty"`
	DNS     []netip.Addr   `json:"dns,omitempty"`
	MTU     int            `json:"mtu"`

	// For people: what the server holds the client to.
	UpRate    uint64  `json:"up_limit,omitempty"` // bits a second from the client; 0: no limit
	DownRate  uint64  `json:"down_limit,omitempty"`
	QuotaLeft *uint64 `json:"quota_left,omitempty"` // bytes; nil: no quota
}

// ParseRequest reads a client's request.
func ParseRequest(b []byte) (Request, error) {
	var r Request
	if err := json.Unmarshal(b, &r); err != nil {
		return Request{}, fmt.Errorf("%w: request: %w", ErrProtocol, err)
	}
	if r.Version != Version {
		return Request{}, fmt.Errorf("%w: version %d, we speak %d: update the older side", ErrProtocol, r.Version, Version)
	}
	return r, nil
}

// Append encodes r.
func (r Request) Append(b []byte) ([]byte, error) { return appendJSON(b, r) }

// ParseAnswer reads a server's answer and refuses addresses that no server may give.
func ParseAnswer(b []byte) (Answer, error) {
	var a Answer
	if err := json.Unmarshal(b, &a); err != nil {
		return Answer{}, fmt.Errorf("%w: answer: %w", ErrProtocol, err)
	}
	if a.Version != Version {
		return Answer{}, fmt.Errorf("%w: version %d, we speak %d: update the older side", ErrProtocol, a.Version, Version)
	}
	if !leasable(a.IPv4) || !leasable(a.Gateway) || a.IPv4 == a.Gateway {
		return Answer{}, fmt.Errorf("%w: leased address %s from %s", ErrProtocol, a.IPv4, a.Gateway)
	}
	if len(a.Subnets) > maxSubnets {
		return Answer{}, fmt.Errorf("%w: %d subnets, at most %d", ErrProtocol, len(a.Subnets), maxSubnets)
	}
	for i, p := range a.Subnets {
		if !p.IsValid() || p.Addr().Is4In6() {
			return Answer{}, fmt.Errorf("%w: subnet %d", ErrProtocol, i)
		}
		a.Subnets[i] = p.Masked()
	}
	return a, nil
}

// Append encodes a.
func (a Answer) Append(b []byte) ([]byte, error) { return appendJSON(b, a) }

func appendJSON(b []byte, v any) ([]byte, error) {
	j, err := json.Marshal(v)
	return append(b, j...), err
}

// leasable reports whether a may be an address inside the vpn: the shared range or a private one, so that no server can
// make a client believe that somebody else's public address is its own.
func leasable(a netip.Addr) bool {
	return a.Is4() && (DefaultPool().Contains(a) || a.IsPrivate())
}
