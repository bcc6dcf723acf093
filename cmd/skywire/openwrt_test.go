//go:build linux

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// runInit runs the init script of OpenWrt under busybox, with a stand-in for what OpenWrt has around it.
func runInit(t *testing.T, busybox, uci, action string) (procd, yaml string) {
	t.Helper()
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "uci"), 0o755); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(uci)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "uci/skywire"), text, 0o644); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Abs("../../packaging/openwrt/files")
	if err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), busybox, "sh", "testdata/openwrt/shim.sh", files+"/skywire.init", action)
	c.Env = append(os.Environ(), "ROOT="+root, "UCI_DIR="+root+"/uci", "SHARE="+files)
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	made, _ := os.ReadFile(filepath.Join(root, "var/run/skywire/config.yaml"))
	return string(out), string(made)
}

// TestOpenWrtInit turns a file of UCI into config.yaml and instances of procd.
func TestOpenWrtInit(t *testing.T) {
	t.Parallel()
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("no busybox (apt-get install busybox-static)")
	}
	const uci = "testdata/openwrt/cases/box.uci"
	procd, yaml := runInit(t, busybox, uci, "start")
	for name, got := range map[string]string{"box.procd": procd, "box.yaml": yaml} {
		want, err := os.ReadFile("testdata/openwrt/cases/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Errorf("%s:\n%s\nwant:\n%s", name, got, want)
		}
	}
	if got, _ := runInit(t, busybox, uci, "triggers"); got != "trigger skywire\n" {
		t.Errorf("triggers: %q", got)
	}
	// As shipped: off, so nothing is started.
	if procd, yaml := runInit(t, busybox, "../../packaging/openwrt/files/skywire.config", "start"); procd != "" || yaml != "" {
		t.Errorf("the shipped file starts something: %s%s", procd, yaml)
	}
}
