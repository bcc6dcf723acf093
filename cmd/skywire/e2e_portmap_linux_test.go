package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"testing"
)

// igdConfig is a home router's miniupnpd, which speaks PCP, NAT-PMP and UPnP. It keeps its mappings in chains of nftables.
const igdConfig = `ext_ifname=wan
listening_ip=lan
http_port=5000
enable_natpmp=%s
enable_upnp=%s
secure_mode=yes
system_uptime=yes
notify_interval=30
uuid=7c1f0b1e-0000-4000-8000-000000000001
min_lifetime=120
max_lifetime=86400
upnp_forward_chain=miniupnpd
upnp_nat_chain=prerouting_miniupnpd
upnp_nat_postrouting_chain=postrouting_miniupnpd
upnp_table_name=filter
upnp_nat_table_name=filter
allow 1024-65535 192.168.7.0/24 1024-65535
deny 0-65535 0.0.0.0/0 0-65535
`

// igdRules is the NAT of that router, with the chains that the daemon fills.
const igdRules = `table inet filter {
	chain miniupnpd { }
	chain prerouting_miniupnpd { }
	chain postrouting_miniupnpd { }
	chain prerouting { type nat hook prerouting priority -100; jump prerouting_miniupnpd; }
	chain postrouting { type nat hook postrouting priority 100; jump postrouting_miniupnpd; oifname "wan" masquerade fully-random; }
	chain forward { type filter hook forward priority 0; policy drop; ct state established,related accept; oifname "wan" accept; jump miniupnpd; }
	chain input { type filter hook input priority 0; policy accept; iifname "wan" ct state new drop; }
}`

// TestE2EPortMapping: behind a real router's daemon a node is reachable from outside by what the router mapped, whichever protocol
// it speaks, and nothing stays behind when the node ends.
func TestE2EPortMapping(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("miniupnpd"); err != nil {
		t.Skip("needs miniupnpd (apt-get install miniupnpd-nftables)")
	}
	for _, c := range []struct{ way, pmp, upnp string }{{"pcp", "yes", "no"}, {"upnp", "no", "yes"}} {
		t.Run(c.way, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "map"+c.way)
			w.plain("router")
			w.boxes("home", "far")
			w.must(
				w.lab.Wire(w.end("home", "eth0", "192.168.7.2/24"), w.end("router", "lan", "192.168.7.1/24")),
				w.lab.Wire(w.end("router", "wan", "81.2.69.1/24"), w.end("far", "eth0", "81.2.69.9/24")),
				w.box["home"].IP("route add default via 192.168.7.1"),
				w.box["router"].Forward(), w.box["router"].NFT(igdRules))
			conf := w.box["router"].Dir + "/igd.conf"
			w.exec("router", "sh", "-c", fmt.Sprintf("cat >%s <<'E'\n%sE", conf, fmt.Sprintf(igdConfig, c.pmp, c.upnp)))
			daemon, err := w.box["router"].Start("igd", "miniupnpd", "-d", "-f", conf, "-P", w.box["router"].Dir+"/igd.pid")
			w.must(err)
			defer daemon.Kill()
			w.wait("the router's daemon", func(ctx context.Context) error {
				_, err := w.box["router"].Shell(ctx, "ss -Hlun | grep -q ':5351 \\|:1900 '")
				return w.alive(daemon, err)
			})
			p := w.node("home", "--allow", w.key["far"])
			var at string
			w.wait("a mapped port", func(context.Context) error {
				for line := range strings.Lines(p.Output()) {
					if _, rest, ok := strings.Cut(line, `msg="port mapped"`); ok {
						_, rest, _ = strings.Cut(rest, "addr=")
						at, _, _ = strings.Cut(rest, " ")
						if !strings.Contains(rest, "type="+c.way) {
							t.Errorf("mapped otherwise: %s", line)
						}
						return nil
					}
				}
				return fmt.Errorf("none: %s\n%s", p.Tail(3), daemon.Tail(10))
			})
			t.Logf("mapped by %s: %s", c.way, at)
			// From outside, to an address that nobody has written to before.
			w.node("far", "--peer", w.key["home"]+"@udp://"+at, "--no-lan")
			w.reach("far", "home")
			w.checkMapEvent("home", at)
			w.must(w.run["home node"].Stop(patience))
			delete(w.run, "home node")
			w.wait("the mapping is removed", func(ctx context.Context) error {
				out, err := w.box["router"].Exec(ctx, "nft", "list", "chain", "inet", "filter", "prerouting_miniupnpd")
				if err == nil && strings.Contains(out, "dnat") {
					err = fmt.Errorf("%s", out)
				}
				return err
			})
			w.stopAll("node")
		})
	}
}

// checkMapEvent wants the mapping among a node's events.
func (w *world) checkMapEvent(box, at string) {
	w.t.Helper()
	out, err := w.box[box].Skywire(w.t.Context(), "node", "events", "--json")
	if err != nil {
		return // an older list of verbs
	}
	if !json.Valid([]byte(out)) && !strings.Contains(out, "{") || !strings.Contains(out, at) {
		w.t.Errorf("no event tells of %s: %s", at, out)
	}
}
