package netcfg

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
)

// KillSwitch says what may leave this box while it is locked: what goes by loopback, by the device, or carries the mark,
// DHCP, neighbour discovery and what is named here. Nothing else, of either family, own or forwarded.
type KillSwitch struct {
	Device  string         `json:"device"`
	Mark    uint32         `json:"mark"`              // of the mesh's own packets
	UIDs    []uint32       `json:"uids,omitempty"`    // users whose packets are the mesh's own, where it has a user to itself
	LAN     bool           `json:"lan,omitempty"`     // private and link-local destinations
	Served  []string       `json:"served,omitempty"`  // devices with clients of ours: a gateway's LAN
	Exclude []netip.Prefix `json:"exclude,omitempty"` // destinations
	Only    []uint32       `json:"only,omitempty"`    // lock these users alone; none: everybody
}

// Locked is what of a kill switch is in force.
type Locked struct {
	Table   bool   `json:"table"`  // the nftables table
	Routes  bool   `json:"routes"` // the unreachable routes of both families and their rules
	Blocked uint64 `json:"blocked_packets"`
}

// killSwitchFile keeps the settings over a reboot.
const killSwitchFile = "vpn-killswitch.json"

// SaveKillSwitch writes the settings so that they survive a power cut from here on.
func SaveKillSwitch(dir string, k KillSwitch) error {
	b, err := json.Marshal(k)
	if err != nil {
		return err
	}
	path := filepath.Join(dir, killSwitchFile)
	if old, err := os.ReadFile(path); err == nil && string(old) == string(b)+"\n" {
		return nil // flash wears
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("keep the kill switch: %w", err)
	}
	f, err := os.CreateTemp(dir, ".killswitch-")
	if err != nil {
		return fmt.Errorf("keep the kill switch: %w", err)
	}
	_, err = f.Write(append(b, '\n'))
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("keep the kill switch: %w", err), os.Remove(f.Name()))
	}
	return syncDir(dir)
}

// LoadKillSwitch reads the settings; on is false when there are none. A file that makes no sense locks everything: err
// says so, and the settings returned let only the named device's packets out.
func LoadKillSwitch(dir, device string) (k KillSwitch, on bool, err error) {
	b, err := os.ReadFile(filepath.Join(dir, killSwitchFile))
	if errors.Is(err, fs.ErrNotExist) {
		return KillSwitch{}, false, nil
	}
	if err == nil {
		k, err = ParseKillSwitch(b)
	}
	if err != nil {
		return KillSwitch{Device: device, Mark: DefaultMark}, true, fmt.Errorf("kill switch settings: %w", err)
	}
	return k, true, nil
}

// ParseKillSwitch reads what SaveKillSwitch has written.
func ParseKillSwitch(b []byte) (KillSwitch, error) {
	var k KillSwitch
	if err := json.Unmarshal(b, &k); err != nil {
		return KillSwitch{}, err
	}
	if k.Device == "" || k.Mark == 0 {
		return KillSwitch{}, errors.New("no device, or no mark")
	}
	for _, p := range k.Exclude {
		if !p.IsValid() {
			return KillSwitch{}, errors.New("an excluded prefix is none")
		}
	}
	return k, nil
}

// ForgetKillSwitch removes the settings.
func ForgetKillSwitch(dir string) error {
	err := os.Remove(filepath.Join(dir, killSwitchFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("forget the kill switch: %w", err)
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
