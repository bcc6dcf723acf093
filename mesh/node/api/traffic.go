package api

import (
	"os"
	"strconv"
	"strings"

	"skywire/mesh/stream"
	"skywire/signal"
)

// What the apps of this box have in the mesh: the streams and flows that their process opened or took, and their TUN devices.

// tally finds where to count a stream of a program: with the app that offers the service, else with the one app that the
// program is. Several apps in one process can't be told apart by what they open: that is counted nowhere.
func (r *registry) tally(cred signal.Cred, service string) *stream.Tally {
	r.mu.Lock()
	defer r.mu.Unlock()
	var found *entry
	for _, e := range r.apps {
		for _, s := range e.services {
			if s.Name == service {
				return e.tally
			}
		}
		if e.cred.PID == cred.PID && e.cred.UID == cred.UID {
			if found != nil {
				return nil
			}
			found = e
		}
	}
	if found == nil || service != "" {
		return nil
	}
	return found.tally
}

// attached notes whose a TUN device is.
func (r *registry) attached(conn *signal.Conn, device string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.devices == nil {
		r.devices = map[string]*signal.Conn{}
	}
	r.devices[device] = conn
}

// forgetDevicesLocked forgets those of a connection.
func (r *registry) forgetDevicesLocked(conn *signal.Conn) {
	for device, owner := range r.devices {
		if owner == conn {
			delete(r.devices, device)
		}
	}
}

// trafficLocked is what an app received from the mesh and sent into it.
func (r *registry) trafficLocked(e *entry, devices map[string][2]uint64) (rx, tx uint64) {
	tx, rx = e.tally.Carried()
	for device, owner := range r.devices {
		if owner == e.conn {
			rx, tx = rx+devices[device][0], tx+devices[device][1]
		}
	}
	return rx, tx
}

// deviceCounters are the kernel's counters of network devices, in bytes received and sent; of a TUN device received is what
// its program wrote, here the node. Where there is no such file they are 0.
func deviceCounters() map[string][2]uint64 {
	text, err := os.ReadFile("/proc/thread-self/net/dev")
	if err != nil {
		return nil
	}
	return parseDeviceCounters(string(text))
}

// parseDeviceCounters reads lines of "name: bytes packets … " with the sent bytes in the ninth column.
func parseDeviceCounters(text string) map[string][2]uint64 {
	all := map[string][2]uint64{}
	for line := range strings.SplitSeq(text, "\n") {
		name, rest, ok := strings.Cut(line, ":")
		f := strings.Fields(rest)
		if !ok || len(f) < 9 {
			continue
		}
		rx, err1 := strconv.ParseUint(f[0], 10, 64)
		tx, err2 := strconv.ParseUint(f[8], 10, 64)
		if err1 == nil && err2 == nil {
			all[strings.TrimSpace(name)] = [2]uint64{rx, tx}
		}
	}
	return all
}
