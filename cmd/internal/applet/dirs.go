package applet

import (
	"os"
	"path/filepath"
	"strconv"
)

// place is the kind of box an applet runs on; it decides the default folders.
type place struct {
	root    bool
	openwrt bool
	uid     int
	temp    string
}

func here() place {
	uid := os.Geteuid()
	_, err := os.Stat("/etc/openwrt_release")
	return place{root: uid == 0, openwrt: err == nil, uid: uid, temp: os.TempDir()}
}

// defaults are the folders of CLI.md for this place: root, OpenWrt, or an ordinary user.
func (p place) defaults(e *Env) (config, state, run string) {
	switch {
	case p.root && p.openwrt:
		// /etc is the only flash that survives; /var/run is the RAM disk (there is no /run).
		return "/etc/skywire/config.yaml", "/etc/skywire", "/var/run/skywire"
	case p.root:
		return "/etc/skywire/config.yaml", "/var/lib/skywire", "/run/skywire"
	}
	own := filepath.Join(p.temp, "skywire-"+strconv.Itoa(p.uid))
	home := e.Getenv("HOME")
	if home == "" {
		home = e.Getenv("USERPROFILE") // Windows
	}
	if home == "" {
		home = own
	}
	or := func(name, fallback string) string {
		if d := e.Getenv(name); filepath.IsAbs(d) {
			return filepath.Join(d, "skywire")
		}
		return fallback
	}
	config = filepath.Join(or("XDG_CONFIG_HOME", filepath.Join(home, ".config", "skywire")), "config.yaml")
	state = or("XDG_STATE_HOME", filepath.Join(home, ".local", "state", "skywire"))
	run = or("XDG_RUNTIME_DIR", own)
	return config, state, run
}
