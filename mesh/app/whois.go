package app

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"time"

	"skywire/mesh/key"
)

// TagMark begins a word of Service.Allow that lets every member with a tag in: "@family".
const TagMark = "@"

// Identity is what the node knows of a key: the result of node.whois.
type Identity struct {
	Key     key.Public `json:"key"`
	Address netip.Addr `json:"address"`
	Name    string     `json:"name,omitempty"`
	IPv4    netip.Addr `json:"ipv4,omitzero"` // certified
	Tags    []string   `json:"tags"`          // certified
	Member  bool       `json:"member"`        // it may have sessions with this node
	Via     bool       `json:"via,omitempty"` // the address asked for is not its own: packets to it go there

	// Blocks are where the cluster's IPv4 addresses lie; only of the asked node itself.
	Blocks []netip.Prefix `json:"ipv4_blocks,omitempty"`
}

// Tagged reports whether words, of an allow list, name a tag that i has. Only a member's tags count.
func (i Identity) Tagged(words []string) bool {
	return i.Member && slices.ContainsFunc(words, func(w string) bool {
		tag, ok := strings.CutPrefix(w, TagMark)
		return ok && w != Guests && slices.Contains(i.Tags, tag)
	})
}

// Whois says who has a key, petname, name.mesh, mesh address or certified IPv4 address, and to whom packets for any other
// address go.
func (c *Client) Whois(ctx context.Context, name string) (i Identity, err error) {
	err = c.Call(ctx, "node.whois", map[string]string{"name": name}, &i)
	return i, err
}

// membersWait is how long one question of MembersChanged stays open.
const membersWait = 20 * time.Second

// MembersChanged waits for news about certificates and revocations after the event numbered after, and returns the number
// to ask after next; 0 asks from now on. It also returns, after half a minute at most, when there was nothing: changed is
// false then.
func (c *Client) MembersChanged(ctx context.Context, after uint64) (next uint64, changed bool, err error) {
	var r struct {
		Events []struct {
			Kind string `json:"kind"`
		} `json:"events"`
		Next   uint64 `json:"next"`
		Missed uint64 `json:"missed"`
	}
	ask := map[string]any{"after": after, "limit": 256, "wait_s": membersWait.Seconds()}
	if after == 0 {
		ask = map[string]any{"limit": 1}
	}
	if err = c.Call(ctx, "node.events", ask, &r); err != nil {
		return after, false, err
	}
	changed = r.Missed > 0
	for _, e := range r.Events {
		changed = changed || e.Kind == EventMember || e.Kind == EventCertificate
	}
	return max(r.Next, 1), changed && after != 0, nil
}

// Kinds of node.events that tell of members.
const (
	EventMember      = "member"      // our own standing, and neighbours
	EventCertificate = "certificate" // a certificate or a revocation, of any node
)
