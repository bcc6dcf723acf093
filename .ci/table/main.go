// Command table makes the table of packaging/SIZE.md: what the program weighs for each processor, and what it takes of memory
// and time, measured now: here on this machine, and from build/arch.json what TestE2EVM saw in machines of other
// processors. It judges nothing.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// platforms are those of the builds, and what they are called in arch.json.
var platforms = []struct{ name, machine string }{
	{"linux-mipsle-softfloat", "mipsel"},
	{"linux-mips-softfloat", ""},
	{"linux-arm-5", ""},
	{"linux-arm-6", ""},
	{"linux-arm-7", "armhf"},
	{"linux-arm64", "arm64"},
	{"linux-amd64", "amd64"},
	{"linux-386", ""},
	{"linux-riscv64", "riscv64"},
	{"linux-loong64", ""},
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "table:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("want the folder of the builds and arch.json")
	}
	dir, err := filepath.Abs(args[0])
	if err != nil {
		return err
	}
	if err := sizes(dir); err != nil {
		return err
	}
	here, err := measureHere(filepath.Join(dir, "skywire-linux-amd64"))
	if err != nil {
		return err
	}
	return memories(here, args[1])
}

func sizes(dir string) error {
	fmt.Println("| Linux on | raw | xz -9e | squashfs-xz, 256k |\n|---|---|---|---|")
	for _, p := range platforms {
		path := filepath.Join(dir, "skywire-"+p.name)
		raw, err := os.Stat(path)
		if err != nil {
			return err
		}
		packed, err := exec.Command("xz", "-9e", "-T1", "-c", path).Output()
		if err != nil {
			return fmt.Errorf("xz: %w", err)
		}
		image := path + ".squashfs"
		out, err := exec.Command("mksquashfs", path, image, "-quiet", "-no-progress", "-noappend", "-comp", "xz", "-b", "256k", "-processors", "1").CombinedOutput()
		if err != nil {
			return fmt.Errorf("mksquashfs: %w %s", err, out)
		}
		squashed, err := os.Stat(image)
		if err != nil {
			return err
		}
		fmt.Printf("| %s | %s | %s | %s |\n", strings.TrimPrefix(p.name, "linux-"), mb(raw.Size()), mb(int64(len(packed))), mb(squashed.Size()))
		if err := os.Remove(image); err != nil {
			return err
		}
	}
	fmt.Println()
	return nil
}

func mb(n int64) string { return fmt.Sprintf("%.2f MB", float64(n)/1e6) }

// use is the memory of a program.
type use struct {
	RSS   float64 `json:"rss_kb"`
	PSS   float64 `json:"pss_kb"`
	Dirty float64 `json:"private_dirty_kb"`
}

// machine is what one machine has shown.
type machine struct {
	Platform string
	Facts    struct {
		Daemons  map[string]any
		AllInOne map[string]any             `json:"all-in-one"`
		Memory   map[string]json.RawMessage // a use under each name of programs
	}
}

var programs = []string{"node", "manager", "vpn", "socks", "messenger", "viscript", "all-in-one"}

func memories(here machine, path string) error {
	all := map[string]machine{}
	b, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(b, &all)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "table: without other machines:", err)
	}
	fmt.Println("Resident memory of a process in MB, in brackets its proportional share (what several map counts by parts):")
	fmt.Println()
	fmt.Println("| machine | " + strings.Join(programs, " | ") + " | node ready after | all ready after |")
	fmt.Println("|---" + strings.Repeat("|---", len(programs)+2) + "|")
	row("amd64, here, idle", here)
	for _, p := range platforms {
		if m, ok := all[p.machine]; ok {
			row(p.machine+", emulated, after transfers", m)
		}
	}
	fmt.Println()
	return nil
}

func row(name string, m machine) {
	cells := []string{name}
	for _, p := range programs {
		var u use
		if json.Unmarshal(m.Facts.Memory[p], &u) != nil || u.RSS == 0 {
			cells = append(cells, "–")
			continue
		}
		cells = append(cells, fmt.Sprintf("%.1f (%.1f)", u.RSS/1024, u.PSS/1024))
	}
	for _, fact := range []any{m.Facts.Daemons["node_ready_ms"], m.Facts.AllInOne["apps_ready_ms"]} {
		cell := "–"
		if v, ok := fact.(float64); ok {
			cell = fmt.Sprintf("%.2f s", v/1e3)
		}
		cells = append(cells, cell)
	}
	fmt.Println("| " + strings.Join(cells, " | ") + " |")
}
