package main

import (
	"context"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// emulators are qemu's names for the platforms of the Makefile. Those of usual run in every make test, all by make test-arch.
var emulators = []struct {
	platform, qemu string
	usual          bool
	not            string // a package that the kernel of this machine can't serve
}{
	{"linux-mipsle-softfloat", "qemu-mipsel-static", true, ""},
	{"linux-mips-softfloat", "qemu-mips-static", true, "tun"}, // virtio headers and netlink have the host's order of bytes
	{"linux-arm-7", "qemu-arm-static", true, ""},
	{"linux-arm64", "qemu-aarch64-static", true, ""},
	{"linux-riscv64", "qemu-riscv64-static", true, ""},
	{"linux-arm-6", "qemu-arm-static", false, ""},
	{"linux-arm-5", "qemu-arm-static", false, ""},
	{"linux-386", "qemu-i386-static", false, ""},
	{"linux-loong64", "qemu-loongarch64-static", false, ""},
}

// modest is nice's word for what computes for minutes beside tests that wait for an answer.
const modest = "-n5"

// allTests as what is slow leaves a whole package to make test-arch.
const allTests = ".*"

// archPackages are those in which the processor matters: the order of bytes, int of 32 bits, alignment of what is atomic,
// arithmetic of crypto, layouts of the kernel. Of their tests are left out those that judge speed or time, or start a program of
// the same architecture, which the kernel here cannot, and, when nobody chose platforms, those that take an emulator long.
var archPackages = []struct{ name, skip, slow string }{
	{"mesh/key", "", ""},
	{"mesh/wire", "", ""},
	{"mesh/session", "", "TestReplaysStayBounded"},
	{"mesh/forward", "", "TestBacklog.*|TestStreamsBesideLoop"},
	{"mesh/route", "TestPathsAreQuick", "TestEveryFlippedBitIsRefused|TestStrangersCostABoundedNumberOfChecks"},
	{"mesh/store", "Test(KV)?KilledWriter", ""},
	{"mesh/stream", "", allTests},
	{"mesh/member", "", ""},
	{"signal", "TestExamples", "TestLongNotes|TestLockHeld|TestFolderEmptied"},
	{"socks", "", "TestPAC"},
	{"supervisor/config", "", ""},
	{"tun", "", "TestDifferential.*"},
	{"tun/dns", "", ""},
}

// TestE2EArch runs the tests of archPackages as built for other processors, with the Makefile's flags, and the program
// itself, under qemu-user. SKYWIRE_ARCH (platforms, or all) and SKYWIRE_ARCH_PACKAGES choose; make test-arch sets them.
// Real kernels of these processors are TestE2EVM's.
func TestE2EArch(t *testing.T) {
	t.Parallel()
	turn := make(chan struct{}, 2)
	chosen := strings.Fields(os.Getenv("SKYWIRE_ARCH"))
	for _, e := range emulators {
		if len(chosen) == 0 && !e.usual || len(chosen) > 0 && chosen[0] != "all" && !slices.Contains(chosen, e.platform) {
			continue
		}
		t.Run(e.platform, func(t *testing.T) {
			if _, err := exec.LookPath(e.qemu); err != nil {
				t.Skip(e.qemu, " is missing (apt-get install qemu-user-static)")
			}
			t.Parallel()
			turn <- struct{}{}
			defer func() { <-turn }()
			emulate(t, e.platform, e.qemu, e.not)
		})
	}
}

// emulate builds everything for a platform and runs it.
func emulate(t *testing.T, platform, qemu, not string) {
	t.Helper()
	skip := map[string]string{}
	var names []string
	for _, p := range archPackages {
		if p.name == not {
			continue
		}
		skip[p.name] = p.skip
		if os.Getenv("SKYWIRE_ARCH") == "" {
			if p.slow == allTests {
				continue
			}
			skip[p.name] = strings.Trim(p.skip+"|"+p.slow, "|")
		}
		names = append(names, p.name)
	}
	if list := strings.Fields(os.Getenv("SKYWIRE_ARCH_PACKAGES")); len(list) > 0 {
		names = list
	}
	start := time.Now()
	c := exec.CommandContext(t.Context(), "nice", modest, "make", "-s", "--no-print-directory", "-C", "../..", "cross-"+platform, "tests-"+platform,
		"PACKAGES=./"+strings.Join(names, " ./"))
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("build for %s: %v\n%s", platform, err, out)
	}
	t.Logf("built in %v", time.Since(start).Round(time.Millisecond))
	build, err := filepath.Abs("../../build")
	must(t, err)
	runs := func(t *testing.T, dir string, args ...string) string {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		start := time.Now()
		c := exec.CommandContext(ctx, "nice", append([]string{modest, qemu}, args...)...)
		c.Dir = dir
		out, err := c.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", strings.Join(args[1:], " "), err, out)
		}
		t.Logf("%.1f s", time.Since(start).Seconds())
		return string(out)
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			args := []string{filepath.Join(build, "arch", platform, path.Base(name)+".test"), "-test.short", "-test.timeout=4m"}
			if skip[name] != "" {
				args = append(args, "-test.skip", "^("+skip[name]+")$")
			}
			if out := runs(t, filepath.Join("../..", name), args...); !strings.HasSuffix(out, "PASS\n") {
				t.Errorf("ended with %q", out)
			}
		})
	}
	t.Run("skywire", func(t *testing.T) {
		binary, state := filepath.Join(build, "cross/skywire-"+platform), t.TempDir()
		goarch := strings.Split(platform, "-")[1]
		if out := runs(t, ".", binary, "--version"); !strings.Contains(out, "linux/"+goarch) {
			t.Errorf("--version says %q", out)
		}
		first := runs(t, ".", binary, "node", "id", "--state", state)
		if !regexp.MustCompile(`^[a-z2-7]{52}\n$`).MatchString(first) {
			t.Errorf("node id says %q", first)
		}
		if again := runs(t, ".", binary, "node", "id", "--state", state); again != first {
			t.Errorf("the key that was kept is %q, not %q", again, first)
		}
	})
}
