package vpn

import (
	"fmt"
	"log/slog"

	"skywire/tun/netcfg"
)

// nodePriority is the rule that keeps a node with a user of its own out of the tunnel, before all others of ours.
const nodePriority = 32699

// Lock puts the kill switch in force as soon as an App with this Config could start, before any node answers: from the
// settings of the command, or else those kept from an earlier run. on is false where none is wished. A box that is locked
// stays so until Release, whatever ends.
func Lock(c Config, log *slog.Logger) (on bool, err error) {
	if c.State == "" {
		return false, nil
	}
	if c.Client != nil {
		if err := c.Client.Validate(); err != nil {
			return false, err
		}
	}
	k, kept, err := netcfg.LoadKillSwitch(c.State, c.Device)
	if err != nil {
		log.Error("kill switch settings make no sense: nothing but the tunnel gets out", "err", err)
	}
	if c.Client != nil && c.Client.Release {
		return false, Release(c.State)
	}
	switch {
	case c.Client != nil && c.Client.KillSwitch:
		k = c.killSwitch(k)
		if err := netcfg.SaveKillSwitch(c.State, k); err != nil {
			return false, err
		}
	case !kept:
		return false, nil
	}
	if err := netcfg.SetKillSwitch(k); err != nil {
		return true, fmt.Errorf("kill switch: %w", err)
	}
	if !kept {
		log.Info("kill switch on", "device", k.Device)
	}
	return true, nil
}

// killSwitch makes the settings of the command; the mark, which a run has chosen, is kept.
func (c *Config) killSwitch(last netcfg.KillSwitch) netcfg.KillSwitch {
	k := netcfg.KillSwitch{
		Device: c.Device, Mark: max(last.Mark, netcfg.DefaultMark), UIDs: c.Client.NodeUsers,
		LAN: c.Client.LAN, Exclude: c.Client.Exclude, Only: c.Client.OnlyBy.Users,
	}
	for _, g := range c.Client.Gateways {
		if g.Device != "" {
			k.Served = append(k.Served, g.Device)
		} else {
			k.Exclude = append(k.Exclude[:len(k.Exclude):len(k.Exclude)], g.Prefix)
		}
	}
	return k
}

// Release takes the kill switch off, now and for good.
func Release(state string) error {
	if err := netcfg.ReleaseKillSwitch(); err != nil {
		return fmt.Errorf("kill switch: %w", err)
	}
	return netcfg.ForgetKillSwitch(state)
}

// relock tells the kill switch which mark the mesh's own packets have.
func (a *App) relock(mark uint32) error {
	k, on, err := netcfg.LoadKillSwitch(a.c.State, a.c.Device)
	if err != nil || !on {
		return err
	}
	if k.Mark == mark {
		return nil
	}
	k.Mark = mark
	if err := netcfg.SaveKillSwitch(a.c.State, k); err != nil {
		return err
	}
	return netcfg.SetKillSwitch(k)
}

// mend puts a kill switch back that somebody has removed, `nft flush ruleset` for one, and that was not released.
func (a *App) mend() {
	k, on, err := netcfg.LoadKillSwitch(a.c.State, a.c.Device)
	if !on {
		return
	}
	if err == nil {
		err = netcfg.SetKillSwitch(k)
	}
	a.log.Warn("kill switch was removed by somebody and is put back", "err", err)
}
