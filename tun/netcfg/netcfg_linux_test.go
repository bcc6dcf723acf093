package netcfg_test

import (
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"skywire/tun"
	"skywire/tun/netcfg"
)

// inNamespace runs f on a thread in a network namespace of its own, which ends with it.
func inNamespace(t *testing.T, f func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root for a network namespace")
	}
	if err := tun.Available(); err != nil {
		t.Skip(err)
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		defer func() { done <- err }()
		if err == nil {
			f()
		}
	}()
	if err := <-done; err != nil {
		t.Skip("no network namespace:", err)
	}
}

func run(t *testing.T, line string) string {
	t.Helper()
	words := strings.Fields(line)
	out, err := exec.Command(words[0], words[1:]...).CombinedOutput()
	if err != nil {
		t.Errorf("%s: %v\n%s", line, err, out)
	}
	return string(out)
}

// state is all that this package can change.
func state(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	for _, line := range []string{
		"ip -o link", "ip -o addr", "ip -4 route show table all", "ip -6 route show table all", "ip -4 rule", "ip -6 rule",
		"nft list ruleset", "cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding /proc/sys/net/ipv6/conf/wan/accept_ra",
	} {
		b.WriteString("# " + line + "\n" + run(t, line))
	}
	return b.String()
}

func prepare(t *testing.T) {
	t.Helper()
	for _, line := range []string{
		"ip link set lo up", "ip link add wan type veth peer name peer", "ip addr add 192.0.2.2/24 dev wan", "ip link set wan up",
		"ip link set peer up", "ip route add default via 192.0.2.1", "ip -6 addr add 2001:db8::2/64 dev wan nodad",
		"nft add table ip filter", "nft add chain ip filter FORWARD { type filter hook forward priority 0 ; policy drop ; }",
		"nft add chain ip filter INPUT { type filter hook input priority 0 ; policy drop ; }",
		"nft add rule ip filter FORWARD tcp dport 25 drop",
	} {
		run(t, line)
	}
	settle(t)
}

// settle waits for link-local addresses, which would change the state under the test.
func settle(t *testing.T) {
	t.Helper()
	for range 200 {
		if !strings.Contains(run(t, "ip -o -6 addr show tentative"), "inet6") {
			return
		}
		<-time.After(50 * time.Millisecond)
	}
}

var (
	meshPrefix = netip.MustParsePrefix("fd12:3456:789a::/48")
	meshSelf   = netip.MustParsePrefix("fd12:3456:789a::1/128")
)

// everything makes one change of each kind.
func everything(t *testing.T, n *netcfg.Net, plain bool) *os.File {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Error(err)
		}
	}
	check(n.ClaimLink())
	f, _, err := tun.Create(tun.Config{Name: "sw0", Plain: plain})
	if err != nil {
		t.Error(err)
		return nil
	}
	check(n.SetLink(netcfg.Link{MTU: 1400, QueueLen: 200, GSOMaxSize: 61440}))
	check(n.Address("up", meshSelf))
	check(n.Route("up", netcfg.Route{Prefix: meshPrefix, Source: meshSelf.Addr()}))
	check(n.Address("client", netip.MustParsePrefix("100.64.1.2/32")))
	check(n.Route("client", netcfg.Route{Prefix: netip.MustParsePrefix("10.9.0.0/16")}))
	table, err := netcfg.FreeTable()
	check(err)
	check(n.Default("client", netcfg.Default{
		Table: table, V4: true, V6: true, Source4: netip.MustParseAddr("100.64.1.2"),
		Exclude: []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")},
	}))
	check(n.Sysctl("client", "ipv4/conf/all/src_valid_mark", "1"))
	check(n.Forwarding("server"))
	check(n.Firewall("server", netcfg.Firewall{Mark: uint32(table), Gateway: &netcfg.Gateway{
		Sources: []netip.Prefix{meshPrefix, netip.MustParsePrefix("100.64.0.0/10")},
		Local:   []netip.Prefix{meshSelf},
		Subnets: []netip.Prefix{netip.MustParsePrefix("192.168.9.0/24")},
		NAT:     true,
		Refused: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fc00::/7")},
	}}))
	return f
}

func TestEverythingIsUndone(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"close", "killed", "killed, device kept open", "killed, device gone"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			inNamespace(t, func() { undoCase(t, dir, how) })
		})
	}
}

func undoCase(t *testing.T, dir, how string) {
	prepare(t)
	before := state(t)
	c := netcfg.Config{Dir: dir, Device: "sw0"}
	n, err := netcfg.Open(c)
	if err != nil {
		t.Error(err)
		return
	}
	f := everything(t, n, false)
	during := state(t)
	for _, want := range []string{
		"sw0", "fd12:3456:789a::1/128", "100.64.1.2/32", "fd12:3456:789a::/48 dev sw0", "10.9.0.0/16 dev sw0",
		"default dev sw0 table 21335", "throw 203.0.113.0/24", "not from all fwmark 0x5357", "suppress_prefixlength 0",
		"skywire_sw0", "masquerade", "ct state established,related accept", "maxseg size set rt mtu",
		`iifname "sw0" accept comment "skywire sw0"`, "reject with icmpx admin-prohibited",
	} {
		if !strings.Contains(during, want) {
			t.Errorf("no %q in:\n%s", want, during)
		}
	}
	if how == "close" {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
		f.Close()
	} else {
		n.Abandon()
		if how != "killed, device kept open" {
			f.Close() // the kernel closes it with the process; the node may hold a copy
		} else {
			defer f.Close()
		}
		if how == "killed, device gone" && strings.Contains(run(t, "ip -o link"), "sw0") {
			t.Error("the device outlives its last descriptor")
		}
		n, err := netcfg.Open(c)
		if err != nil {
			t.Error(err)
			return
		}
		if after := state(t); after != before {
			t.Errorf("after recovery:\n%s\nwant:\n%s", after, before)
		}
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	}
	if after := state(t); after != before {
		t.Errorf("after %s:\n%s\nwant:\n%s", how, after, before)
	}
	if left, _ := filepath.Glob(dir + "/*"); len(left) > 0 {
		t.Errorf("left in the run directory: %v", left)
	}
}

func TestHeld(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	inNamespace(t, func() {
		n, err := netcfg.Open(netcfg.Config{Dir: dir, Device: "sw0"})
		if err != nil {
			t.Error(err)
			return
		}
		defer n.Close()
		_, err = netcfg.Open(netcfg.Config{Dir: dir, Device: "sw0"})
		var held *netcfg.HeldError
		if !errors.As(err, &held) || held.PID != os.Getpid() {
			t.Errorf("second owner: %v, want HeldError of pid %d", err, os.Getpid())
		}
	})
}

func TestForeignDevice(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	inNamespace(t, func() {
		run(t, "ip tuntap add sw0 mode tun")
		n, err := netcfg.Open(netcfg.Config{Dir: dir, Device: "sw0"})
		if err != nil {
			t.Error(err)
			return
		}
		if err := n.ClaimLink(); !errors.Is(err, netcfg.ErrLinkExists) {
			t.Errorf("ClaimLink: %v, want ErrLinkExists", err)
		}
		if err := n.Close(); err != nil {
			t.Error(err)
		}
		if !strings.Contains(run(t, "ip -o link"), "sw0") {
			t.Error("a device that is not ours was deleted")
		}
	})
}

// Two devices share the forwarding switch: the last to go restores it.
func TestSharedSysctl(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	inNamespace(t, func() {
		forward := func() string { return strings.TrimSpace(run(t, "cat /proc/sys/net/ipv4/ip_forward")) }
		open := func(device string) *netcfg.Net {
			n, err := netcfg.Open(netcfg.Config{Dir: dir, Device: device})
			if err != nil {
				t.Fatal(err)
			}
			if err := n.Forwarding("server"); err != nil {
				t.Error(err)
			}
			return n
		}
		a := open("a0")
		b := open("b0")
		if err := a.Close(); err != nil {
			t.Error(err)
		}
		if forward() != "1" {
			t.Error("forwarding ended while a device needs it")
		}
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		if forward() != "0" {
			t.Error("forwarding not restored")
		}
	})
}

// A firewall that is loaded anew loses our rules in it; they are put back, once, and go in the end.
func TestKeepOpen(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	inNamespace(t, func() {
		prepare(t)
		n, err := netcfg.Open(netcfg.Config{Dir: dir, Device: "sw0"})
		if err != nil {
			t.Error(err)
			return
		}
		f := everything(t, n, true)
		defer f.Close()
		run(t, "nft flush chain ip filter FORWARD")
		for range 2 {
			if err := n.KeepOpen("server"); err != nil {
				t.Error(err)
			}
		}
		out := run(t, "nft list chain ip filter FORWARD")
		if got := strings.Count(out, `comment "skywire sw0"`); got != 2 {
			t.Errorf("%d rules of ours, want 2:\n%s", got, out)
		}
		if err := n.Close(); err != nil {
			t.Error(err)
		}
		if out := run(t, "nft list chain ip filter FORWARD"); strings.Contains(out, "skywire") {
			t.Errorf("left: %s", out)
		}
	})
}

func TestGroups(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	inNamespace(t, func() {
		prepare(t)
		n, err := netcfg.Open(netcfg.Config{Dir: dir, Device: "sw0"})
		if err != nil {
			t.Error(err)
			return
		}
		defer n.Close()
		f := everything(t, n, true)
		defer f.Close()
		if err := n.Undo("client"); err != nil {
			t.Error(err)
		}
		s := state(t)
		for _, gone := range []string{"100.64.1.2/32", "10.9.0.0/16", "table 21335", "fwmark"} {
			if strings.Contains(s, gone) {
				t.Errorf("%q is still there:\n%s", gone, s)
			}
		}
		for _, stays := range []string{"fd12:3456:789a::1/128", "masquerade"} {
			if !strings.Contains(s, stays) {
				t.Errorf("%q went with another group", stays)
			}
		}
		err = n.Route("client", netcfg.Route{Prefix: netip.MustParsePrefix("192.0.2.0/24"), Source: netip.MustParseAddr("192.0.2.2")})
		if err != nil && !errors.Is(err, netcfg.ErrRouteExists) {
			t.Errorf("route that exists: %v", err)
		}
	})
}
