package applets

import (
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"skywire/cmd/internal/applet"
	"skywire/tun/netcfg"
	"skywire/tun/vpn"
)

// vpnSplitConfig is who goes by the tunnel: the part of vpn.client in config.yaml, and its flags.
type vpnSplitConfig struct {
	ExcludeUser   []string `yaml:"exclude_user"`
	OnlyUser      []string `yaml:"only_user"`
	ExcludeCgroup []string `yaml:"exclude_cgroup"`
	OnlyCgroup    []string `yaml:"only_cgroup"`
	ExcludeDomain []string `yaml:"exclude_domain"`
	OnlyDomain    []string `yaml:"only_domain"`
	Gateway       []string `yaml:"gateway"`
	NodeUser      string   `yaml:"node_user"`
}

const vpnSplitAbout = `

Who goes through the exit, beside --exclude CIDR: --exclude-user and --exclude-cgroup keep packets of a user or of a
cgroup (v2, a path such as system.slice/ntp.service) out, --exclude-domain those to a name and all below it; --only-user,
--only-cgroup and --only-domain say who alone goes through. Names count when programs ask the resolver that the vpn sets
up (--dns).

    vpn client --server NODE --exit --gateway br-lan

A router's LAN goes through the tunnel, too: clients of the device, or of a network given as CIDR, under this box's
addresses in the vpn, with a fitting MSS; the kill switch covers them. Nothing from the tunnel gets into the LAN unasked.

The mesh's own packets are known by the mark of the node's UDP sockets. Links over TCP or WSS, and names of peers, need a
node with a user to itself, and --node-user.`

func (c *vpnSplitConfig) flags(f *applet.Flags) {
	f.ListVar(&c.ExcludeUser, "exclude-user", "`USER` (name or number) whose packets stay out of the tunnel (repeatable)")
	f.ListVar(&c.OnlyUser, "only-user", "`USER` whose packets alone go through the exit (repeatable)")
	f.ListVar(&c.ExcludeCgroup, "exclude-cgroup", "`PATH` of a cgroup v2 that stays out of the tunnel (repeatable)")
	f.ListVar(&c.OnlyCgroup, "only-cgroup", "`PATH` of a cgroup v2 that alone goes through the exit (repeatable)")
	f.ListVar(&c.ExcludeDomain, "exclude-domain", "`NAME` that stays out of the tunnel with all below it (repeatable)")
	f.ListVar(&c.OnlyDomain, "only-domain", "`NAME` that alone goes through the exit (repeatable)")
	f.StringVar(&c.NodeUser, "node-user", "", "`USER` that the node, and nothing else, runs as: all its packets go past the tunnel")
	f.ListVar(&c.Gateway, "gateway", "`DEVICE|CIDR` whose clients go through the exit (repeatable)")
}

// settings turns the words into a client's settings.
func (c *vpnSplitConfig) settings(out *vpn.ClientConfig) (err error) {
	if out.ExcludeBy, err = vpnSplit(c.ExcludeUser, c.ExcludeCgroup, c.ExcludeDomain); err != nil {
		return err
	}
	if out.OnlyBy, err = vpnSplit(c.OnlyUser, c.OnlyCgroup, c.OnlyDomain); err != nil {
		return err
	}
	if c.NodeUser != "" {
		id, err := userID(c.NodeUser)
		if err != nil {
			return err
		}
		if id == 0 {
			return fmt.Errorf("--node-user %s: root runs more than the node", c.NodeUser)
		}
		out.NodeUsers = []uint32{id}
	}
	for _, w := range c.Gateway {
		g := netcfg.Gate{Device: w}
		if strings.ContainsAny(w, "/:") { // no device has a slash in its name
			p, err := netip.ParsePrefix(w)
			if err != nil {
				return fmt.Errorf("--gateway %q is neither a device nor a CIDR such as 192.168.1.0/24", w)
			}
			g = netcfg.Gate{Prefix: p.Masked()}
		}
		if len(g.Device) > 15 {
			return fmt.Errorf("--gateway %q: no device has so long a name", w)
		}
		out.Gateways = append(out.Gateways, g)
	}
	return nil
}

func vpnSplit(users, cgroups, domains []string) (s vpn.Split, err error) {
	for _, u := range users {
		id, err := userID(u)
		if err != nil {
			return s, err
		}
		s.Users = append(s.Users, id)
	}
	for _, d := range domains {
		d = strings.ToLower(strings.Trim(strings.TrimPrefix(d, "*"), "."))
		if d == "" {
			return s, fmt.Errorf("a domain is empty")
		}
		s.Domains = append(s.Domains, d)
	}
	s.Cgroups = cgroups
	return s, nil
}

// userID finds the number of a user in /etc/passwd.
func userID(word string) (uint32, error) {
	if n, err := strconv.ParseUint(word, 10, 32); err == nil {
		return uint32(n), nil
	}
	b, err := os.ReadFile("/etc/passwd")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if w := strings.Split(line, ":"); len(w) > 2 && w[0] == word {
			n, err := strconv.ParseUint(w[2], 10, 32)
			return uint32(n), err
		}
	}
	return 0, fmt.Errorf("user %q is not in /etc/passwd: give the number", word)
}
