package netcfg

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// sysctlRoot shows the settings of the calling thread's network namespace.
const sysctlRoot = "/proc/sys/net"

// Sysctl sets a network setting, such as "ipv4/ip_forward", and remembers its value. Several devices of one run
// directory share settings: the last one to go restores the value that the first one found.
func (n *Net) Sysctl(group, name, value string) error {
	old, err := readSysctl(name)
	if err != nil {
		return fmt.Errorf("read sysctl net/%s: %w", name, explain(err))
	}
	found := old
	for _, e := range n.siblings() {
		if e.Kind == kindSysctl && e.Sysctl == name {
			found = e.Old
			break
		}
	}
	if old == value && found == old {
		return nil
	}
	e := entry{Kind: kindSysctl, Group: group, Device: n.c.Device, Sysctl: name, Old: found, Set: value}
	if err := n.change(e, func() error { return writeSysctl(name, value) }); err != nil {
		return fmt.Errorf("set sysctl net/%s to %s: %w", name, value, err)
	}
	return nil
}

// Forwarding lets the box route. IPv6 forwarding makes the kernel ignore router advertisements, so interfaces that
// listen to them are told to go on.
func (n *Net) Forwarding(group string) error {
	if err := n.Sysctl(group, "ipv4/ip_forward", "1"); err != nil {
		return err
	}
	confs, err := filepath.Glob(sysctlRoot + "/ipv6/conf/*/accept_ra")
	if err != nil || len(confs) == 0 {
		return nil //nolint:nilerr // no IPv6 here
	}
	for _, c := range confs {
		name, _ := filepath.Rel(sysctlRoot, c)
		if v, err := readSysctl(name); err != nil || v != "1" || strings.HasPrefix(name, "ipv6/conf/"+n.c.Device+"/") {
			continue
		}
		if err := n.Sysctl(group, name, "2"); err != nil {
			return err
		}
	}
	return n.Sysctl(group, "ipv6/conf/all/forwarding", "1")
}

func (n *Net) restoreSysctl(e entry) error {
	for _, s := range n.siblings() {
		if s.Kind == kindSysctl && s.Sysctl == e.Sysctl {
			return nil // another device still needs it, and remembers the value
		}
	}
	now, err := readSysctl(e.Sysctl)
	if gone(err) || err == nil && now != e.Set {
		return nil // gone with its interface, or changed by somebody else since
	}
	if err != nil {
		return err
	}
	return writeSysctl(e.Sysctl, e.Old)
}

// siblings are the changes that other devices of this run directory and namespace hold.
func (n *Net) siblings() []entry {
	paths, _ := filepath.Glob(journalPath(n.c.Dir, "*"))
	slices.Sort(paths)
	var out []entry
	for _, p := range paths {
		if p == n.j.path {
			continue
		}
		b, err := os.ReadFile(p)
		if err != nil {
			continue
		}
		owner, live, _ := parseJournal(b)
		if owner.Boot == bootID() && owner.NetNS == namespace() {
			out = append(out, live...)
		}
	}
	return out
}

// enableIPv6 lets the device have IPv6 addresses on a box where new devices may not.
func enableIPv6(device string) error {
	if _, err := os.Stat(sysctlRoot + "/ipv6"); err != nil {
		return ErrNoIPv6
	}
	name := "ipv6/conf/" + device + "/disable_ipv6"
	v, err := readSysctl(name)
	if err != nil {
		return fmt.Errorf("read sysctl net/%s: %w", name, err)
	}
	if v == "0" {
		return nil
	}
	if err := writeSysctl(name, "0"); err != nil {
		return fmt.Errorf("allow IPv6 on %s: %w", device, explain(err))
	}
	return nil
}

func readSysctl(name string) (string, error) {
	b, err := os.ReadFile(filepath.Join(sysctlRoot, name))
	return strings.TrimSpace(string(b)), err
}

func writeSysctl(name, value string) error {
	return os.WriteFile(filepath.Join(sysctlRoot, name), []byte(value), 0)
}
