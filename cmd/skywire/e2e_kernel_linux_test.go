package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"skywire/cmd/internal/vm"
)

// insideVM is set for the copy of this program that runs in the machine.
const insideVM = "SKYWIRE_VM_INSIDE"

// TestE2EKernel boots Debian's kernel for amd64 over this machine's root, which it sees read-only, and runs itself in
// there: with netem and WireGuard of the kernel, which the kernel here may lack. The processor is emulated: figures count only
// beside each other.
func TestE2EKernel(t *testing.T) {
	if os.Getenv(insideVM) != "" {
		t.Run("netem", testNetem)
		t.Run("wireguard", testWireGuard)
		return
	}
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root: the machine sees this one's files as root")
	}
	for tool, pkg := range map[string]string{"tc": "iproute2", "iperf3": "iperf3", "wg": "wireguard-tools"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is missing (apt-get install %s)", tool, pkg)
		}
	}
	arches := vm.Arches()
	m := newMachine(t, arches[len(arches)-1])
	binary, err := builtBinary()
	must(t, err)
	self, err := os.Executable()
	must(t, err)
	here, err := os.Getwd()
	must(t, err)
	script := filepath.Join(t.TempDir(), "script")
	must(t, os.WriteFile(script, fmt.Appendf(nil, kernelScript, here, binary, self), 0o755))
	m.Files["/script"] = script
	m.Modules = append([]string{"virtio_pci", "9p", "9pnet_virtio", "overlay", "sch_netem", "dummy", "wireguard"}, vmModules...)
	m.Args, m.Share, m.Memory = []string{"share"}, "/", 1024
	var said strings.Builder
	m.Line = func(line string) {
		t.Log(line)
		said.WriteString(line + "\n")
	}
	ctx, cancel := context.WithTimeout(t.Context(), vmPatience)
	defer cancel()
	must(t, vm.Boot(ctx, m))
	for _, step := range []string{"netem", "wireguard"} {
		if !strings.Contains(said.String(), "--- PASS: TestE2EKernel/"+step) {
			t.Errorf("%s did not pass in the machine", step)
		}
	}
}

// kernelScript runs in the machine. Each line of its output is marked for the console.
const kernelScript = `ip link set lo up
cd %[1]q
export SKYWIRE_VM_INSIDE=1 SKYWIRE_BINARY=%[2]q TMPDIR=/run
%[3]q -test.run '^TestE2EKernel$' -test.v -test.timeout 8m 2>&1 | while IFS= read -r line; do printf '\n@vm %%s\n' "$line"; done >/dev/console
printf '\n@vm done\n' >/dev/console
sync
echo o >/proc/sysrq-trigger
sleep 20
`

// netem puts a queue on one end of a wire.
func (w *world) netem(box, dev, words string) {
	w.t.Helper()
	w.exec(box, "tc", append(strings.Fields("qdisc replace dev "+dev+" root netem"), strings.Fields(words)...)...)
}

// testNetem: the vpn over a wire that the kernel makes slow and lossy, as a mobile network is.
func testNetem(t *testing.T) {
	w := newWorld(t, "netem")
	w.chain("a", "b")
	w.reach("b", "a")
	w.vpnUp("a", "b")
	to := w.address("a")
	w.pings("b", to)
	quick := w.iperf("b", "a", to, "-t", "1")
	for box, dev := range map[string]string{"a": "next", "b": "prev"} {
		w.netem(box, dev, "delay 30ms 3ms loss 1%")
	}
	out := w.exec("b", "ping", "-c", "20", "-i", "0.1", "-W", "2", to)
	lost, avg := pingSummary(t, out)
	t.Logf("netem, 30 ms and 1 %% each way: ping %.1f ms, %.0f %% lost", avg, lost)
	if avg < 60 || avg > 200 {
		t.Errorf("%.1f ms over two times 30 ms", avg)
	}
	if lost > 20 { // 2 % are the wire's
		t.Errorf("%.0f %% lost", lost)
	}
	slow := w.iperf("b", "a", to, "-t", "3")
	t.Logf("netem: %.2f Mbit/s before, %.2f with it", quick/1e6, slow/1e6)
	if slow < 100e3 {
		t.Errorf("%.0f bit/s", slow)
	}
	w.netem("b", "prev", "delay 30ms loss 100%")
	if _, err := w.box["b"].Exec(t.Context(), "ping", "-c", "2", "-i", "0.2", "-W", "1", to); err == nil {
		t.Error("a ping over a wire that loses all was answered: netem does nothing")
	}
	w.netem("b", "prev", "delay 1ms")
	w.pings("b", to)
}

// pingSummary reads the last two lines of ping.
func pingSummary(t *testing.T, out string) (lost, avg float64) {
	t.Helper()
	var low float64
	for line := range strings.Lines(out) {
		if _, rest, ok := strings.Cut(line, "received, "); ok {
			if _, err := fmt.Sscanf(rest, "%f%%", &lost); err != nil {
				t.Fatalf("ping says %q", line)
			}
		}
		if _, rest, ok := strings.Cut(line, "mdev = "); ok {
			if _, err := fmt.Sscanf(rest, "%f/%f/", &low, &avg); err != nil {
				t.Fatalf("ping says %q", line)
			}
		}
	}
	if avg == 0 {
		t.Fatalf("ping says nothing: %s", out)
	}
	return lost, avg
}

// testWireGuard runs the same flow over the vpn and over WireGuard of the kernel, on the same wire in turns.
func testWireGuard(t *testing.T) {
	w := newWorld(t, "wg")
	w.chain("a", "b")
	w.reach("b", "a")
	w.vpnUp("a", "b")
	mesh := w.address("a")
	w.pings("b", mesh)
	keys := map[string][2]string{}
	for _, box := range []string{"a", "b"} {
		private := strings.TrimSpace(w.exec(box, "wg", "genkey"))
		public, err := w.box[box].Shell(t.Context(), "echo "+private+" | wg pubkey")
		must(t, err)
		keys[box] = [2]string{private, strings.TrimSpace(public)}
		must(t, os.WriteFile(filepath.Join(w.box[box].Dir, "wg.key"), []byte(private), 0o600))
	}
	for box, other := range map[string]string{"a": "b", "b": "a"} {
		at := map[string]string{"a": "10.1.0.1", "b": "10.1.0.2"}
		inner := map[string]string{"a": "10.99.0.1", "b": "10.99.0.2"}
		w.must(w.box[box].IP("link add wg0 type wireguard"))
		w.exec(box, "wg", "set", "wg0", "listen-port", "51820", "private-key", filepath.Join(w.box[box].Dir, "wg.key"),
			"peer", keys[other][1], "allowed-ips", inner[other]+"/32", "endpoint", at[other]+":51820")
		w.must(w.box[box].IP("addr add "+inner[box]+"/24 dev wg0"), w.box[box].IP("link set wg0 mtu 1400 up"))
	}
	w.pings("b", "10.99.0.1")
	var ours, theirs float64
	for range 2 {
		ours += w.iperf("b", "a", mesh, "-t", "1") / 2
		theirs += w.iperf("b", "a", "10.99.0.1", "-t", "1") / 2
	}
	plain := w.iperf("b", "a", "10.1.0.1", "-t", "1")
	b, err := json.Marshal(map[string]float64{"skywire_mbit": ours / 1e6, "wireguard_mbit": theirs / 1e6, "wire_mbit": plain / 1e6, "ratio": ours / theirs})
	must(t, err)
	t.Logf("%s", b)
	if ours <= 0 || theirs <= 0 {
		t.Error("nothing came over one of them")
	}
	if took, err := w.box["b"].Exec(t.Context(), "ping", "-c", "20", "-i", "0.05", "-W", "2", mesh); err == nil {
		_, avg := pingSummary(t, took)
		_, kernel := pingSummary(t, w.exec("b", "ping", "-c", "20", "-i", "0.05", "-W", "2", "10.99.0.1"))
		t.Logf("ping: %.2f ms over the mesh, %.2f over WireGuard", avg, kernel)
	} else {
		t.Error(err)
	}
}
