package applets

import (
	"fmt"
	"io"
	"strings"

	"skywire/cmd/internal/applet"
	"skywire/mesh/node/api"
)

// printMachine shows how the node uses the box.
func printMachine(w io.Writer, m api.Machine) {
	class := ""
	if m.Small {
		class = ", small buffers"
	}
	loops := "1 event loop"
	if n := len(m.Loops); n != 1 {
		loops = fmt.Sprint(n, " event loops")
	}
	fmt.Fprintf(w, "machine   %d CPUs, GOMAXPROCS %s, %s, %s memory%s\n",
		m.CPUs, orUnknown(m.Processors), loops, applet.Bytes(m.Memory), class)
	if len(m.Loops) < 2 {
		return
	}
	for i, l := range m.Loops {
		fmt.Fprintf(w, "loop      %d: ports %s, %d tun queues, took %s from sockets and %s from devices\n", i,
			strings.Trim(fmt.Sprint(l.Ports), "[]"), l.TUNQueues, applet.Bytes(l.SocketBytes), applet.Bytes(l.TUNBytes))
	}
}

func orUnknown(n int) string {
	if n == 0 {
		return "unknown"
	}
	return fmt.Sprint(n)
}

// printFeatures shows what kernel, devices and CPU give the data plane: a line for each owner with all that is on, then
// what is missing, with what that costs.
func printFeatures(w io.Writer, all []api.Feature) {
	for i, f := range all {
		if i > 0 && f.Of == all[i-1].Of {
			continue
		}
		kind, owner, _ := strings.Cut(f.Of, " ")
		var on []string
		for _, o := range all[i:] {
			if o.Of != f.Of {
				break
			}
			if text := strings.TrimSpace(o.Name + " " + o.Found); o.On {
				on = append(on, text)
			}
		}
		if owner != "" {
			owner += ": "
		}
		fmt.Fprintf(w, "%-9s %s%s\n", kind, owner, strings.Join(on, ", "))
	}
	for _, f := range all {
		if f.On {
			continue
		}
		found := ""
		if f.Found != "" {
			found = ": " + f.Found
		}
		fmt.Fprintf(w, "missing   %s %s%s\n          costs: %s\n", f.Of, f.Name, found, f.Costs)
		if f.Remedy != "" {
			fmt.Fprintf(w, "          remedy: %s\n", f.Remedy)
		}
	}
}
