package applets

import (
	"testing"

	"skywire/mesh/forward"
)

func TestNodeWays(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		in     nodeWays
		spread int
		copies forward.Copies
		ok     bool
	}{
		{"nothing", nodeWays{}, 0, forward.Copies{}, true},
		{"spread", nodeWays{Spread: "3"}, 3, forward.Copies{}, true},
		{"spread, by word", nodeWays{Spread: "true"}, 2, forward.Copies{}, true},
		{"too many", nodeWays{Spread: "9"}, 0, forward.Copies{}, false},
		{
			"voice",
			nodeWays{Duplicate: []string{"dscp=ef", "port=5060", "port=10000-10010"}},
			0,
			forward.Copies{Size: 256, DSCP: 1 << 46, Ports: []forward.PortRange{{First: 5060, Last: 5060}, {First: 10000, Last: 10010}}},
			true,
		},
		{"size", nodeWays{Duplicate: []string{"dscp=0", "size=512"}}, 0, forward.Copies{Size: 512, DSCP: 1}, true},
		{"size alone", nodeWays{Duplicate: []string{"size=512"}}, 0, forward.Copies{}, false},
		{"too long", nodeWays{Duplicate: []string{"dscp=0", "size=513"}}, 0, forward.Copies{}, false},
		{"no code point", nodeWays{Duplicate: []string{"dscp=64"}}, 0, forward.Copies{}, false},
		{"backwards", nodeWays{Duplicate: []string{"port=9-8"}}, 0, forward.Copies{}, false},
		{"no rule", nodeWays{Duplicate: []string{"voice"}}, 0, forward.Copies{}, false},
	} {
		got, err := c.in.config()
		if (err == nil) != c.ok {
			t.Errorf("%s: error %v", c.name, err)
			continue
		}
		if err == nil && (got.Spread != c.spread || got.Copies.Size != c.copies.Size || got.Copies.DSCP != c.copies.DSCP || len(got.Copies.Ports) != len(c.copies.Ports)) {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
}
