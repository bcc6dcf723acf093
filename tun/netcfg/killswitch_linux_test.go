package netcfg_test

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"skywire/tun/netcfg"
)

// sends tries one datagram, with the mark and by the device where they are given.
func sends(to, device string, mark int) error {
	a := net.UDPAddr{IP: net.ParseIP(to), Port: 9}
	domain := unix.AF_INET
	var at unix.Sockaddr = &unix.SockaddrInet4{Port: a.Port}
	if v4 := a.IP.To4(); v4 != nil {
		at.(*unix.SockaddrInet4).Addr = [4]byte(v4)
	} else {
		domain = unix.AF_INET6
		at = &unix.SockaddrInet6{Port: a.Port, Addr: [16]byte(a.IP)}
	}
	fd, err := unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if mark != 0 {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, mark); err != nil {
			return err
		}
	}
	if device != "" {
		if err := unix.BindToDevice(fd, device); err != nil {
			return err
		}
	}
	return unix.Sendto(fd, []byte("x"), 0, at)
}

// TestKillSwitch holds what gets out of a locked box, with both fences and with either alone, and that release leaves
// nothing.
func TestKillSwitch(t *testing.T) {
	t.Parallel()
	inNamespace(t, func() {
		prepare(t)
		run(t, "ip -6 route add default via 2001:db8::1 dev wan")
		run(t, "ip neigh add 192.0.2.1 lladdr 02:00:00:00:00:01 dev wan")
		run(t, "ip neigh add 2001:db8::1 lladdr 02:00:00:00:00:01 dev wan")
		before := state(t)
		k := lock()
		k.Served = nil
		if err := netcfg.SetKillSwitch(k); err != nil {
			t.Error(err)
			return
		}
		compare(t, filepath.Join("testdata", "killswitch.nft"), run(t, "nft list table inet skywire-killswitch"))
		compare(t, filepath.Join("testdata", "killswitch.rules"), run(t, "ip -4 rule")+run(t, "ip -6 rule")+
			run(t, "ip -4 route show table 21334")+run(t, "ip -6 route show table 21334"))
		open := map[string]bool{"127.0.0.1": true, "::1": true, "203.0.113.5": true, "2001:db8:9::1": true}
		check := func(when string, routesAlone bool) {
			t.Helper()
			for _, to := range []string{"127.0.0.1", "::1", "203.0.113.5", "2001:db8:9::1", "198.51.100.1", "192.0.2.77", "2001:4860::8", "2001:db8::77"} {
				for _, device := range []string{"", "wan"} {
					if routesAlone && device != "" {
						continue // the kernel takes what has no route for on-link then: only the firewall stops it
					}
					local := strings.HasPrefix(to, "192.0.2.") || strings.HasPrefix(to, "2001:db8::")
					want := open[to] && (device == "" || to[0] == '2') || local && routesAlone
					if err := sends(to, device, 0); (err == nil) != want {
						t.Errorf("%s: to %s by %q: %v, want it to leave: %v", when, to, device, err, want)
					}
				}
			}
			for _, to := range []string{"198.51.100.1", "192.0.2.77", "2001:4860::8"} {
				if err := sends(to, "", netcfg.DefaultMark); err != nil {
					t.Errorf("%s: marked, to %s: %v", when, to, err)
				}
			}
		}
		for range 2 {
			check("both fences", false)
			if l, err := netcfg.KillSwitchState(); err != nil || !l.Table || !l.Routes || l.Blocked == 0 {
				t.Errorf("state %+v, %v", l, err)
			}
			if err := netcfg.SetKillSwitch(k); err != nil {
				t.Error(err)
			}
		}
		run(t, "nft flush ruleset")
		check("after nft flush ruleset", true)
		if l, err := netcfg.KillSwitchState(); err != nil || l.Table || !l.Routes {
			t.Errorf("state %+v, %v", l, err)
		}
		if err := netcfg.SetKillSwitch(k); err != nil {
			t.Error(err)
		}
		for _, line := range []string{"ip -4 rule del pref 32709", "ip -6 rule del pref 32709", "ip -4 rule del pref 32707", "ip -6 rule del pref 32707"} {
			run(t, line)
		}
		check("without the rules", false)
		k.LAN = true
		k.Exclude = nil
		if err := netcfg.SetKillSwitch(k); err != nil {
			t.Error(err)
		}
		if err := sends("203.0.113.5", "", 0); !errors.Is(err, os.ErrPermission) && !errors.Is(err, unix.ENETUNREACH) && !errors.Is(err, unix.EHOSTUNREACH) {
			t.Errorf("no longer excluded: %v", err)
		}
		for range 2 {
			if err := netcfg.ReleaseKillSwitch(); err != nil {
				t.Error(err)
			}
		}
		if after := state(t); !strings.Contains(after, "table ip filter") {
			before = strings.Replace(before, before[strings.Index(before, "# nft"):strings.Index(before, "# cat")], "# nft list ruleset\n", 1)
			if after != before {
				t.Errorf("after release:\n%s\nbefore:\n%s", after, before)
			}
		}
	})
}
