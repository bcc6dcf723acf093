package tun

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// inNamespace runs f on a thread in a network namespace of its own, which ends with it.
func inNamespace(t *testing.T, f func() error) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root for a network namespace")
	}
	if err := Available(); err != nil {
		t.Skip(err)
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Log("no network namespace:", err)
			done <- nil
			return
		}
		done <- f()
	}()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestCreate(t *testing.T) {
	t.Parallel()
	for _, plainForm := range []bool{false, true} {
		inNamespace(t, func() error {
			f, name, err := Create(Config{Name: "swtest0", Plain: plainForm})
			if err != nil {
				return err
			}
			flags, got, err := deviceFlags(int(f.Fd()))
			if err != nil {
				return err
			}
			if name != "swtest0" || got != name || (flags&unix.IFF_VNET_HDR == 0) != plainForm || flags&unix.IFF_PERSIST != 0 {
				return fmt.Errorf("plain %v: %s %s flags %#x", plainForm, name, got, flags)
			}
			if fl, err := unix.FcntlInt(f.Fd(), unix.F_GETFD, 0); err != nil || fl&unix.FD_CLOEXEC == 0 {
				return fmt.Errorf("plain %v: children inherit the device: %v", plainForm, err)
			}
			if _, _, err := Create(Config{Name: "swtest0", Plain: plainForm}); !errors.Is(err, ErrBusy) {
				return fmt.Errorf("second owner: %w, want ErrBusy", err)
			}
			d, err := FromFile(f, 1400)
			if err != nil {
				return err
			}
			if _, ok := d.(*plain); ok != plainForm {
				return fmt.Errorf("plain %v: got %T", plainForm, d)
			}
			if has := d.Features(); has.VnetHdr == plainForm || has.Checksum == plainForm || has.MultiQueue {
				return fmt.Errorf("plain %v: features %+v", plainForm, has)
			}
			if _, err := d.Receive(); !errors.Is(err, unix.EAGAIN) {
				return fmt.Errorf("empty device: %w, want EAGAIN", err)
			}
			if out, err := exec.Command("ip", "link", "set", "swtest0", "up").CombinedOutput(); err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
			if err := errors.Join(d.Send((&flow{}).packet([]byte("x")), true), d.Send(udpPacket(true, nil), false), d.Flush()); err != nil {
				return err
			}
			if out, err := exec.Command("ip", "link", "delete", "swtest0").CombinedOutput(); err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
			if _, err := d.Receive(); err == nil || errors.Is(err, unix.EAGAIN) {
				return fmt.Errorf("deleted device: %w", err)
			}
			return d.Close()
		})
	}
}

func TestFromFileRefuses(t *testing.T) {
	t.Parallel()
	inNamespace(t, func() error {
		null, err := os.Open("/dev/null")
		if err != nil {
			return err
		}
		if _, err := FromFile(null, 1400); !errors.Is(err, ErrNotTUN) {
			return fmt.Errorf("/dev/null: %w, want ErrNotTUN", err)
		}
		if _, err := null.Stat(); err == nil {
			return errors.New("a refused descriptor stays open")
		}
		f, err := attach("swtest1", unix.IFF_TAP|unix.IFF_NO_PI)
		if err != nil {
			return err
		}
		if _, err := FromFile(f, 1400); !errors.Is(err, ErrNotTUN) {
			return fmt.Errorf("TAP: %w, want ErrNotTUN", err)
		}
		return nil
	})
}

// A device whose offloads are on, used plain, must not give super-packets without a header.
func TestPlainTurnsOffloadsOff(t *testing.T) {
	t.Parallel()
	inNamespace(t, func() error {
		f, err := attach("swtest2", unix.IFF_TUN|unix.IFF_NO_PI)
		if err != nil {
			return err
		}
		if err := unix.IoctlSetInt(int(f.Fd()), unix.TUNSETOFFLOAD, offloads[2]); err != nil {
			return err
		}
		d, err := FromFile(f, 1400)
		if err != nil {
			return err
		}
		defer d.Close()
		out, err := exec.Command("ip", "-d", "link", "show", "swtest2").CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		out, err = exec.Command("sh", "-c", "ethtool -k swtest2 2>/dev/null | grep tcp-segmentation-offload || true").CombinedOutput()
		if err == nil && len(out) > 0 && string(out) != "tcp-segmentation-offload: off\n" {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
}
