package applets

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"skywire/cmd/internal/applet"
	"skywire/mesh/app"
	"skywire/tun"
	"skywire/tun/netcfg"
)

func doctorApplet() applet.Applet {
	return applet.Applet{
		Name: "doctor", Summary: "check this box, and say what each lack costs",
		Usage: "doctor [--repair] [--json]", Run: doctor,
	}
}

const doctorAbout = `Looks at this box and says, a line a check, what is there and what is missing, what the lack costs, and the remedy. It
changes nothing, but with --repair takes back what killed vpns have left in the box's network (routes, rules, devices,
firewall tables, resolver settings), and puts back a kill switch that is wanted.

The status is 1 only if something is missing without which a node cannot run at all (marked "needed").

Run it as the user who will run the node and the vpn: rights are part of the answer.`

// finding is the answer to one check.
type finding struct {
	Check  string `json:"check"`
	OK     bool   `json:"ok"`
	Needed bool   `json:"needed"` // a node cannot run without
	Found  string `json:"found"`
	Costs  string `json:"costs,omitempty"`
	Remedy string `json:"remedy,omitempty"`
}

type doctorReport struct {
	OK       bool      `json:"ok"` // nothing that is needed is missing
	Platform string    `json:"platform"`
	Kernel   string    `json:"kernel"`
	CPUs     int       `json:"cpus"`
	Findings []finding `json:"checks"`
}

func doctor(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "doctor", "[--repair] [--json]", doctorAbout)
	repair := f.Bool("repair", false, "take back what killed vpns have left")
	if _, err := f.Parse(0, 0); err != nil {
		return f.Exit(err)
	}
	return f.Duty(ctx, func(ctx context.Context) error {
		if *repair {
			if err := doctorRepair(f); err != nil {
				return err
			}
		}
		r := doctorReport{OK: true, Platform: runtime.GOOS + "/" + runtime.GOARCH, Kernel: kernelRelease(), CPUs: runtime.NumCPU()}
		all := []finding{}
		for _, check := range doctorChecks(ctx, f) {
			all = append(all, check())
		}
		for _, g := range append(all, doctorFeatures(ctx)...) {
			r.OK = r.OK && (g.OK || !g.Needed)
			if g.OK {
				g.Costs, g.Remedy = "", ""
			}
			r.Findings = append(r.Findings, g)
		}
		if err := doctorPrint(f, r); err != nil {
			return err
		}
		if !r.OK {
			return errors.New("something that a node needs is missing, see above")
		}
		return nil
	})
}

// doctorChecks are the checks in the order in which a person would ask.
func doctorChecks(ctx context.Context, f *applet.Flags) []func() finding {
	return []func() finding{
		func() finding { return checkState(f.State) },
		func() finding { return checkSpace(f.State) },
		checkClock,
		func() finding { return checkNode(ctx, f.Run) },
		checkTUN,
		checkAdmin,
		checkFirewall,
		checkIPv6,
		func() finding { return checkDNS(ctx) },
		checkDescriptors,
		func() finding { return checkLeftovers(f.Run) },
		func() finding { return checkKillSwitch(f.State) },
		func() finding { return checkOffload(openWrtFirewall) },
	}
}

func doctorPrint(f *applet.Flags, r doctorReport) error {
	e := f.Env()
	if f.JSON {
		return e.PrintJSON(r)
	}
	fmt.Fprintf(e.Stdout, "%s, kernel %s, %d CPUs\n", r.Platform, r.Kernel, r.CPUs)
	for _, g := range r.Findings {
		word := "ok"
		if !g.OK {
			word = "missing"
			if g.Needed {
				word = "needed"
			}
		}
		fmt.Fprintf(e.Stdout, "%-8s %-18s %s\n", word, g.Check, g.Found)
		if g.Costs != "" {
			fmt.Fprintf(e.Stdout, "%28scosts: %s\n", "", g.Costs)
		}
		if g.Remedy != "" {
			fmt.Fprintf(e.Stdout, "%28sremedy: %s\n", "", g.Remedy)
		}
	}
	return nil
}

func kernelRelease() string {
	b, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(b))
}

// existing is the deepest folder of path that is there.
func existing(path string) string {
	for {
		if i, err := os.Stat(path); err == nil && i.IsDir() {
			return path
		}
		up := filepath.Dir(path)
		if up == path {
			return path
		}
		path = up
	}
}

func checkState(dir string) finding {
	g := finding{
		Check: "state", Needed: true, Found: dir + " can be written",
		Costs:  "no key and no database can be kept, so the node does not start",
		Remedy: "mkdir -p " + dir + " and make this user its owner, or choose another with --state",
	}
	at := existing(dir)
	t, err := os.MkdirTemp(at, ".doctor-")
	if err != nil {
		g.Found = err.Error()
		return g
	}
	g.OK = os.Remove(t) == nil
	if at != dir {
		g.Found = dir + " can be made"
	}
	return g
}

// spaceWanted is what a node's databases and logs may come to within a year.
const spaceWanted = 4 << 20

func checkSpace(dir string) finding {
	g := finding{
		Check: "disk", Needed: true,
		Costs:  "databases cannot grow: bbolt refuses to write and the node keeps nothing over a restart",
		Remedy: "free some space, or choose another place with --state",
	}
	free, err := freeBytes(existing(dir))
	if err != nil {
		g.OK, g.Found = true, "not known here: "+err.Error()
		return g
	}
	g.OK, g.Found = free >= spaceWanted, applet.Bytes(free)+" free"
	return g
}

// checkClock compares with the time of the build: no clock that is right can be before it.
func checkClock() finding {
	now := time.Now()
	g := finding{
		Check: "clock", Found: now.UTC().Format(time.RFC3339),
		Costs:  "certificates and records of others look as if they came from the future, until signed statements give a floor",
		Remedy: "set the clock, or run an NTP client (OpenWrt: /etc/init.d/sysntpd enable)",
	}
	floor := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC) // of a build without a stamp
	if i, ok := debug.ReadBuildInfo(); ok {
		for _, s := range i.Settings {
			if t, err := time.Parse(time.RFC3339, s.Value); err == nil && s.Key == "vcs.time" {
				floor = t
			}
		}
	}
	if g.OK = !now.Before(floor); !g.OK {
		g.Found += ", before this program was built"
	}
	return g
}

func checkNode(ctx context.Context, run string) finding {
	g := finding{
		Check: "node", Costs: "vpn, socks and manager have nothing to join",
		Remedy: "skywire node run (or say with --run where its sockets are)",
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	c, err := app.Dial(ctx, run)
	if err != nil {
		g.Found = err.Error()
		return g
	}
	defer c.Close()
	var s struct {
		Ready  bool     `json:"ready"`
		Links  int      `json:"links"`
		Listen []string `json:"listen"`
	}
	if err := c.Call(ctx, "node.status", nil, &s); err != nil {
		g.Found = err.Error()
		return g
	}
	g.OK = true
	g.Found = fmt.Sprintf("%s answers, %d links, listening on %s", c.Self().Key.Short(), s.Links, strings.Join(s.Listen, " "))
	return g
}

func checkTUN() finding {
	g := finding{
		Check: "tun", OK: true, Found: "the TUN device node opens",
		Costs:  "no vpn; node, socks and manager work",
		Remedy: "modprobe tun; in a container: --device /dev/net/tun; OpenWrt: apk add kmod-tun (opkg install kmod-tun)",
	}
	if err := tun.Available(); err != nil {
		g.OK, g.Found = false, err.Error()
	}
	return g
}

// capNetAdmin is the bit of CAP_NET_ADMIN, linux/capability.h.
const capNetAdmin = 12

func checkAdmin() finding {
	g := finding{
		Check: "net admin", Found: "CAP_NET_ADMIN",
		Costs:  "no vpn: devices, addresses, routes and firewall rules need it; node, socks and manager do not",
		Remedy: "run the vpn as root, or: setcap cap_net_admin+ep on a copy of the binary for the vpn alone",
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		g.Found = "not known here: " + err.Error()
		return g
	}
	if g.OK = hasCapability(string(status), capNetAdmin); !g.OK {
		g.Found = "no CAP_NET_ADMIN for user " + strconv.Itoa(os.Geteuid())
	}
	return g
}

// hasCapability reads the effective set from the text of /proc/PID/status.
func hasCapability(status string, bit int) bool {
	for _, line := range strings.Split(status, "\n") {
		if v, ok := strings.CutPrefix(line, "CapEff:"); ok {
			n, err := strconv.ParseUint(strings.TrimSpace(v), 16, 64)
			return err == nil && n>>bit&1 == 1
		}
	}
	return false
}

func checkFirewall() finding {
	g := finding{
		Check: "nftables", OK: true, Found: "the kernel answers",
		Costs:  "no exit, neither offered nor used",
		Remedy: "modprobe nf_tables nft_chain_nat nft_masq; OpenWrt: apk add kmod-nft-nat",
	}
	err := probeFirewall()
	switch {
	case errors.Is(err, os.ErrPermission):
		g.OK, g.Found, g.Remedy = false, "not known without CAP_NET_ADMIN", "run doctor as root to know"
	case err != nil:
		g.OK, g.Found = false, err.Error()
	}
	return g
}

func checkIPv6() finding {
	g := finding{
		Check: "ipv6", Costs: "no mesh addresses in the vpn, which are IPv6; links run over IPv4 alone",
		Remedy: "sysctl -w net.ipv6.conf.all.disable_ipv6=0; in a container: allow IPv6",
	}
	c, err := net.ListenPacket("udp6", "[::1]:0")
	if err != nil {
		g.Found = err.Error()
		return g
	}
	c.Close()
	g.OK, g.Found = true, "in the kernel; no global address, so links run over IPv4"
	all, err := net.InterfaceAddrs()
	if err != nil {
		return g
	}
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() == nil && n.IP.IsGlobalUnicast() && !n.IP.IsPrivate() {
			g.Found = "a global address"
		}
	}
	return g
}

// checkDNS asks the box's resolver for the servers of the root, which every resolver knows.
func checkDNS(ctx context.Context) finding {
	g := finding{
		Check: "dns", OK: true, Found: "the resolver answers",
		Costs:  "peers given by name are not found, and a socks server on this box resolves nothing for its clients",
		Remedy: "look at /etc/resolv.conf; peers given by address work without",
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	r := net.Resolver{PreferGo: true}
	_, err := r.LookupNS(ctx, ".")
	var dns *net.DNSError
	if errors.As(err, &dns) && dns.IsNotFound {
		g.Found = "the resolver answers, though it does not know the servers of the root" // a filter, or a network of its own
	} else if err != nil {
		g.OK, g.Found = false, err.Error()
	}
	g.Found += "; programs of this box ask " + netcfg.ResolverBackend()
	return g
}

// descriptorsWanted is a thousand connections of a proxy, two each in the node.
const descriptorsWanted = 4096

func checkDescriptors() finding {
	g := finding{
		Check: "descriptors", Costs: "a node carries about a third as many proxied connections at once",
		Remedy: "raise the hard limit: ulimit -Hn 16384, LimitNOFILE= of systemd, procd_set_param limits nofile of OpenWrt",
	}
	n, err := descriptorLimit()
	if err != nil {
		g.OK, g.Found = true, "not known here: "+err.Error()
		return g
	}
	g.OK, g.Found = n >= descriptorsWanted, fmt.Sprintf("%d for each process", n)
	return g
}
