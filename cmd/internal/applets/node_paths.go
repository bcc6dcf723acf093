package applets

import (
	"skywire/cmd/internal/applet"
	"skywire/mesh/key"
	"skywire/mesh/route"
)

// pathsConfig is "paths" in the section "node": which relays may carry what this node sends.
type pathsConfig struct {
	Avoid   []string `yaml:"avoid"`
	Prefer  []string `yaml:"prefer"`
	Trusted []string `yaml:"trusted"`
	MaxHops int      `yaml:"max_hops"`
}

func (c *pathsConfig) flags(f *applet.Flags) {
	f.ListVar(&c.Avoid, "avoid", "`KEY` of a node that must not relay for us, repeatable")
	f.ListVar(&c.Prefer, "prefer", "`KEY` of a relay to prefer, repeatable: paths over others count twice their cost")
	f.ListVar(&c.Trusted, "trust", "`KEY` of a relay; with this, repeatable, no other node may relay for us")
	f.IntVar(&c.MaxHops, "max-hops", 0, "`N` links at most on a path (default 15)")
}

// constraints reads the keys. Names are not taken: they are what nodes call themselves, and what is to be avoided or trusted must not
// change by that.
func (c *pathsConfig) constraints() (out route.Constraints, err error) {
	if c.MaxHops < 0 || c.MaxHops > route.MaxHops {
		return out, applet.Usagef("--max-hops %d: want 1 to %d, or 0 for %d", c.MaxHops, route.MaxHops, route.MaxHops)
	}
	out.MaxHops = c.MaxHops
	for _, l := range []struct {
		flag string
		from []string
		to   *[]key.Public
	}{{"--avoid", c.Avoid, &out.Avoid}, {"--prefer", c.Prefer, &out.Prefer}, {"--trust", c.Trusted, &out.Only}} {
		for _, s := range l.from {
			k, err := key.Parse(s)
			if err != nil {
				return out, applet.Usagef("%s %q: %v (names of nodes are their own claims, so a key is wanted: node peers, manager nodes)", l.flag, s, err)
			}
			*l.to = append(*l.to, k)
		}
	}
	return out, nil
}
