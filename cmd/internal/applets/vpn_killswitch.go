package applets

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"skywire/cmd/internal/applet"
	"skywire/tun/netcfg"
	"skywire/tun/vpn"
)

// vpnLock puts the kill switch in force before anything else, and not under somebody who came in by what it would shut.
func vpnLock(f *applet.Flags, c vpn.Config) error {
	if c.Client != nil && c.Client.KillSwitch && !c.Client.LAN {
		if from, ok := sshClient(f.Env()); ok && !excluded(from, c.Client.Exclude) {
			return applet.WithCode(applet.BadUsage, fmt.Errorf("you are here by ssh from %s, which the kill switch would cut: "+
				"add --exclude %[1]s, or --lan if that is a private address", from))
		}
	}
	_, err := vpn.Lock(c, f.Logger())
	return err
}

// sshClient is where the ssh session of this process comes from. A mesh address is no matter: it comes by the device.
func sshClient(e *applet.Env) (netip.Addr, bool) {
	words := strings.Fields(e.Getenv("SSH_CONNECTION"))
	if len(words) == 0 {
		return netip.Addr{}, false
	}
	a, err := netip.ParseAddr(words[0])
	if err != nil || a.IsLoopback() {
		return netip.Addr{}, false
	}
	device, err := netcfg.RouteDevice(a)
	return a, err == nil && !strings.HasPrefix(device, vpn.DefaultDevice)
}

func excluded(a netip.Addr, list []netip.Prefix) bool {
	for _, p := range list {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

const vpnReleaseAbout = `Takes the kill switch off, now and for good: packets leave this box as they did before. A vpn client that runs goes on
without it.`

func vpnRelease(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "vpn release", "", vpnReleaseAbout)
	if _, err := f.Parse(0, 0); err != nil {
		return f.Exit(err)
	}
	return f.Duty(ctx, func(context.Context) error { return vpn.Release(f.State) })
}

const vpnKillSwitchAbout = `    vpn killswitch apply    locks this box again if it was locked before a reboot; nothing if it was not
    vpn killswitch show     says what of the kill switch is in force, and how many packets it has stopped

Run apply before the network comes up, without a node and without the vpn: the unit and the init script of the packages
do (After=local-fs.target, Before=network-pre.target; START=18 of OpenWrt). Damaged settings lock everything.

The status of show is 3 where a kill switch should be in force and is not.`

// vpnLocked is what vpn killswitch show prints.
type vpnLocked struct {
	Wanted   bool               `json:"wanted"`
	Settings *netcfg.KillSwitch `json:"settings,omitempty"`
	Error    string             `json:"error,omitempty"`
	netcfg.Locked
}

func vpnKillSwitch(ctx context.Context, e *applet.Env) int {
	f := applet.NewFlags(e, "vpn killswitch", "apply|show [--json]", vpnKillSwitchAbout)
	words, err := f.Parse(1, 1)
	if err == nil && words[0] != "apply" && words[0] != "show" {
		err = applet.Usagef("%q: want apply or show", words[0])
	}
	if err != nil {
		return f.Exit(err)
	}
	return f.Duty(ctx, func(context.Context) error {
		if words[0] == "apply" {
			_, err := vpn.Lock(vpn.Config{State: f.State, Run: f.Run, Device: vpn.DefaultDevice}, f.Logger())
			return err
		}
		return vpnShowLock(f)
	})
}

func vpnShowLock(f *applet.Flags) error {
	var l vpnLocked
	k, on, err := netcfg.LoadKillSwitch(f.State, vpn.DefaultDevice)
	if err != nil {
		l.Error = err.Error()
	}
	if l.Wanted = on; on {
		l.Settings = &k
	}
	if l.Locked, err = netcfg.KillSwitchState(); err != nil {
		return err
	}
	e := f.Env()
	if f.JSON {
		err = e.PrintJSON(l)
	} else {
		fmt.Fprintf(e.Stdout, "wanted: %s; firewall: %s; routes: %s; %d packets stopped\n",
			vpnYesNo(l.Wanted), vpnYesNo(l.Table), vpnYesNo(l.Routes), l.Blocked)
	}
	if err == nil && l.Wanted && !(l.Table && l.Routes) {
		err = applet.WithCode(applet.NotRunning, errors.New("the kill switch is not whole: vpn killswitch apply"))
	}
	return err
}
