package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"skywire/cmd/internal/vm"
)

// vmModules are what a router's kernel has for a node, a vpn with an exit, and wires between namespaces.
var vmModules = []string{
	"tun", "veth", "nf_tables", "nft_chain_nat", "nft_ct", "nft_masq", "nft_objref", "nft_limit", "nft_quota", "nft_reject_inet", "nft_socket",
}

// vmPatience is for one machine by our clock; its own stands still while it has no processor.
const vmPatience = 15 * time.Minute

// TestE2EVM boots Debian's kernels for the processors that skywire is built for, with skywire viscript as process 1 and the
// guest's check as its app (cmd/internal/vm/guest): two nodes in namespaces, vpn with an exit, socks, data compared by sum
// over each. What it measured is left in build/arch.json. SKYWIRE_VM=arm64,mipsel chooses processors.
func TestE2EVM(t *testing.T) {
	t.Parallel()
	for _, a := range vm.Arches() {
		if !vmChosen(a.Name) {
			continue
		}
		t.Run(a.Name, func(t *testing.T) { // one after the other: a machine keeps a processor busy
			m := newMachine(t, a)
			m.Modules = vmModules
			facts := bootFacts(t, m)
			checkFacts(t, facts)
			keepFacts(t, a, facts)
		})
	}
}

// vmChosen reports whether a processor is to boot.
func vmChosen(name string) bool {
	list := os.Getenv("SKYWIRE_VM")
	return list == "" || strings.Contains(","+list+",", ","+name+",")
}

// newMachine fetches what a processor needs and builds its programs, or skips where the machine lacks a tool or packages.
func newMachine(t *testing.T, a vm.Arch) vm.Machine {
	t.Helper()
	for tool, pkg := range map[string]string{a.Qemu: "qemu-system-arm, -mips, -misc or -x86", "dpkg-deb": "dpkg", "apt-get": "apt", "make": "make", "xz": "xz-utils"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is missing (apt-get install %s)", tool, pkg)
		}
	}
	cache, err := vm.CacheDir()
	must(t, err)
	start := time.Now()
	system, err := vm.Fetch(t.Context(), cache, a)
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip("no kernel, is there a network? ", err)
	}
	fetched := time.Since(start)
	start = time.Now()
	out, err := exec.CommandContext(t.Context(), "make", "-s", "--no-print-directory", "-C", "../..", "cross-"+a.Platform, "guest-"+a.Platform).CombinedOutput()
	if err != nil {
		t.Fatalf("build for %s: %v\n%s", a.Platform, err, out)
	}
	t.Logf("kernel %s: %v to fetch, %v to build", system.Version, fetched.Round(time.Millisecond), time.Since(start).Round(time.Millisecond))
	return vm.Machine{System: system, Files: map[string]string{
		"/init": "../../build/vm/guest-" + a.Platform, "/bin/skywire": "../../build/cross/skywire-" + a.Platform,
	}}
}

// fact is one line of the guest: a step, what it measured, and why it failed if it did.
type fact map[string]any

// bootFacts runs a machine and returns what the guest said, by the names of the facts.
func bootFacts(t *testing.T, m vm.Machine) map[string]fact {
	t.Helper()
	facts := map[string]fact{}
	m.Line = func(line string) {
		if line == vm.Done {
			return
		}
		var f fact
		if err := json.Unmarshal([]byte(line), &f); err != nil {
			t.Errorf("the guest said %q: %v", line, err)
			return
		}
		name, _ := f["fact"].(string)
		if name == "log" {
			t.Logf("--- %v of the guest\n%v", f["file"], f["end"])
			return
		}
		t.Log(line)
		facts[name] = f
		if e, ok := f["error"]; ok {
			t.Errorf("%s: %v", name, e)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), vmPatience)
	defer cancel()
	start := time.Now()
	if err := vm.Boot(ctx, m); err != nil {
		if t.Failed() && errors.Is(err, vm.ErrNoResult) {
			t.Fatal("the machine ended after a step that failed")
		}
		t.Fatal(err)
	}
	t.Logf("the machine was up for %v", time.Since(start).Round(10*time.Millisecond))
	return facts
}

// checkFacts looks at what the guest cannot judge about itself: that no step is missing, and that no figure is absurd.
func checkFacts(t *testing.T, facts map[string]fact) {
	t.Helper()
	for _, step := range []string{"machine", "version", "daemons", "all-in-one", "link", "tun", "transfer", "exit", "socks", "refused", "memory", "supervisor"} {
		if facts[step] == nil {
			t.Errorf("the guest did not say %s", step)
		}
	}
	if got := facts["machine"]["init"]; got != "/bin/skywire" {
		t.Errorf("process 1 is %v", got)
	}
	for _, who := range []string{"viscript", "node", "manager", "vpn", "socks", "all-in-one"} {
		m, _ := facts["memory"][who].(map[string]any)
		pss, _ := m["pss_kb"].(float64)
		if pss < 1<<10 || pss > 64<<10 {
			t.Errorf("%s has %v kB", who, m["pss_kb"])
		}
	}
}

// factsMu guards build/arch.json between machines.
var factsMu sync.Mutex

// keepFacts adds a processor's figures to build/arch.json, from which the tables of packaging are made.
func keepFacts(t *testing.T, a vm.Arch, facts map[string]fact) {
	t.Helper()
	if t.Failed() {
		return
	}
	factsMu.Lock()
	defer factsMu.Unlock()
	const path = "../../build/arch.json"
	all := map[string]any{}
	if b, err := os.ReadFile(path); err == nil {
		must(t, json.Unmarshal(b, &all))
	}
	all[a.Name] = map[string]any{"platform": a.Platform, "facts": facts}
	b, err := json.MarshalIndent(all, "", "  ")
	must(t, err)
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(t, os.WriteFile(path, append(b, '\n'), 0o644))
}
