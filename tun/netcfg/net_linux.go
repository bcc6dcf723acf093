package netcfg

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Net is the changed network of one device.
type Net struct {
	c       Config
	log     *slog.Logger
	j       *journal
	clients map[netip.Addr]*Client // of the gateway
	nat     bool                   // the gateway hides them
	gateway []netip.Prefix         // its own addresses
}

// Open locks the device for this process and takes back what an earlier run left behind.
func Open(c Config) (*Net, error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Device == "" || len(c.Device) >= unix.IFNAMSIZ || strings.ContainsAny(c.Device, "/ \t\n") {
		return nil, fmt.Errorf("device name %q: want 1 to %d characters without blank and slash", c.Device, unix.IFNAMSIZ-1)
	}
	j, last, err := openJournal(c.Dir, c.Device)
	if err != nil {
		return nil, err
	}
	n := &Net{c: c, log: c.Log, j: j}
	me := entry{Kind: kindOwner, Device: c.Device, PID: os.Getpid(), Boot: bootID(), NetNS: namespace()}
	if len(j.live) > 0 {
		if err := n.recover(last, me); err != nil {
			return nil, errors.Join(err, j.remove(true))
		}
	}
	if err := j.begin(me); err != nil {
		return nil, errors.Join(err, j.remove(true))
	}
	return n, nil
}

// recover takes back the changes of a run that was killed. After a reboot, or in another namespace, they are gone.
func (n *Net) recover(last, me entry) error {
	if last.Boot != me.Boot || last.NetNS != me.NetNS {
		n.log.Info("leftovers of an earlier run are gone with its boot or namespace", "device", n.c.Device)
		return nil
	}
	n.log.Warn("taking back what a killed run left", "device", n.c.Device, "pid", last.PID, "changes", len(n.j.live))
	return n.undo(func(entry) bool { return true })
}

// Close takes back every change and releases the device. What could not be taken back stays in the journal for the next
// Open.
func (n *Net) Close() error {
	if n.j == nil {
		return nil
	}
	err := n.undo(func(entry) bool { return true })
	err = errors.Join(err, n.j.remove(err != nil))
	n.j = nil
	return err
}

// Undo takes back the changes made under a group name.
func (n *Net) Undo(group string) error {
	return n.undo(func(e entry) bool { return e.Group == group })
}

func (n *Net) undo(which func(entry) bool) error {
	var errs []error
	for _, e := range slices.Backward(slices.Clone(n.j.live)) {
		if !which(e) {
			continue
		}
		if err := n.takeBack(e); err != nil {
			errs = append(errs, fmt.Errorf("take back %s: %w", e.Kind, explain(err)))
			continue
		}
		errs = append(errs, n.j.undone(e))
	}
	return errors.Join(errs...)
}

// change journals e and makes it; when it cannot be made, the journal forgets it.
func (n *Net) change(e entry, apply func() error) error {
	e, err := n.j.add(e)
	if err != nil {
		return err
	}
	if err := apply(); err != nil {
		return errors.Join(explain(err), n.j.undone(e))
	}
	return nil
}

func (n *Net) takeBack(e entry) error {
	switch e.Kind {
	case kindLink:
		return removeLink(e.Device)
	case kindAddress:
		return removeAddress(e.Device, e.Prefix)
	case kindRoute:
		return removeRoute(e.Device, *e.Route)
	case kindRule:
		return removeRule(*e.Rule)
	case kindSysctl:
		return n.restoreSysctl(e)
	case kindTable:
		return n.removeTable(e.Device)
	case kindHold:
		return unlockRoutes(holdTable, holdPriority)
	case kindForeign:
		return removeForeign(*e.Foreign)
	}
	return nil // of a later version: nothing we know how to take back
}

// gone reports whether err says that a thing does not exist.
func gone(err error) bool {
	return errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) ||
		errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, fs.ErrNotExist)
}

// explain adds the remedy to what the kernel says.
func explain(err error) error {
	if errors.Is(err, ErrNoRights) {
		return err
	}
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return fmt.Errorf("%w (%w)", ErrNoRights, err)
	}
	return err
}

func bootID() string {
	b, _ := os.ReadFile("/proc/sys/kernel/random/boot_id") // without it, leftovers of another boot are tried in vain
	return strings.TrimSpace(string(b))
}

// namespace is the inode of the calling thread's network namespace.
func namespace() uint64 {
	var st unix.Stat_t
	if unix.Stat("/proc/thread-self/ns/net", &st) != nil {
		return 0
	}
	return st.Ino
}
