package applets

import (
	"strconv"
	"strings"

	"skywire/cmd/internal/applet"
	"skywire/mesh/forward"
	"skywire/mesh/node"
)

// nodeWays are the settings of using several paths at once.
type nodeWays struct {
	Spread    string   `yaml:"spread"`
	Duplicate []string `yaml:"duplicate"`
}

const nodeWaysAbout = `One path carries what this node sends to a peer, and a second one stands by. --spread N puts the flows to a peer on up to N
paths that share no relay, each flow on one. --duplicate sends small packets on two paths at once, and the far end takes what
comes first: dscp=ef, dscp=46 or port=5004-5010 say which (UDP, either end's port), size=256 how long they may be.`

func (c *nodeWays) flags(f *applet.Flags) {
	f.StringVar(&c.Spread, "spread", "", "`N` paths that the flows to a peer are spread over, 2 to "+strconv.Itoa(forward.MaxSpread)+", or true for 2 (default: one path)")
	f.ListVar(&c.Duplicate, "duplicate", "`RULE` for packets that travel twice, repeatable: dscp=N, port=N, port=N-M, size=BYTES (default 256)")
}

// config checks the settings.
func (c *nodeWays) config() (w node.WaysConfig, err error) {
	switch c.Spread {
	case "", "false", "0", "1":
	case "true":
		w.Spread = 2
	default:
		if w.Spread, err = strconv.Atoi(c.Spread); err != nil || w.Spread < 2 || w.Spread > forward.MaxSpread {
			return w, applet.Usagef("--spread %q: want 2 to %d, or true", c.Spread, forward.MaxSpread)
		}
	}
	for _, rule := range c.Duplicate {
		if err := duplicate(&w.Copies, rule); err != nil {
			return w, err
		}
	}
	switch {
	case w.Copies.DSCP == 0 && len(w.Copies.Ports) == 0 && len(c.Duplicate) > 0:
		return w, applet.Usagef("--duplicate: say which packets, by dscp=N or port=N")
	case w.Copies.Size == 0 && len(c.Duplicate) > 0:
		w.Copies.Size = 256
	}
	return w, nil
}

// duplicate adds a rule to those that say which packets travel twice.
func duplicate(c *forward.Copies, rule string) error {
	name, value, _ := strings.Cut(rule, "=")
	switch name {
	case "dscp":
		if value == "ef" || value == "EF" {
			value = "46"
		}
		if n, err := strconv.ParseUint(value, 10, 6); err == nil {
			c.DSCP |= 1 << n
			return nil
		}
	case "size":
		if n, err := strconv.Atoi(value); err == nil && n > 0 && n <= forward.MaxCopied {
			c.Size = n
			return nil
		}
	case "port":
		from, to, ranged := strings.Cut(value, "-")
		if !ranged {
			to = from
		}
		first, err1 := strconv.ParseUint(from, 10, 16)
		last, err2 := strconv.ParseUint(to, 10, 16)
		if err1 == nil && err2 == nil && first <= last && len(c.Ports) < maxDuplicatePorts {
			c.Ports = append(c.Ports, forward.PortRange{First: uint16(first), Last: uint16(last)})
			return nil
		}
	}
	return applet.Usagef("--duplicate %q: want dscp=0 to 63 or ef, port=N or N-M (at most %d of them), size=1 to %d", rule, maxDuplicatePorts, forward.MaxCopied)
}

// maxDuplicatePorts bounds what is looked at for each small packet.
const maxDuplicatePorts = 8
